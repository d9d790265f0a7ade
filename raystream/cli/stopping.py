"""Waits for the end of a job whose stop savepoint is complete: until all before it is committed."""

from typing import cast

from raystream.api.client import TERMINAL
from raystream.api.runner import JobHandle
from raystream.cli.attend import POLL_S, say
from raystream.cli.progress import Progress
from raystream.clock import Clock
from raystream.errors import JobFailedError, RaystreamError
from raystream.ids import JobStatus
from raystream.runtime.coordinator_view import JobView

_ADVICE = "the savepoint is complete: a job that starts from it commits what is left"


def await_end(job: JobHandle, savepoint: str, clock: Clock) -> None:
    """Wait for the end of a job that stops, and say what holds it up; its output is left to other clients.

    Args:
        job: it was told to stop.
        savepoint: path of the savepoint that it stops with.
        clock: tells how long something holds it up.

    Raises:
        JobFailedError: the job ended otherwise, perhaps before it had committed everything; it goes on from
            before the savepoint, which it could not read; or nobody can tell.
    """
    say(f"job {job.job_id} ends once everything before the savepoint is committed")
    progress = Progress(clock.monotonic_ms())
    progress.events(_look(job), clock.monotonic_ms())  # What was before is no news.
    while not (view := _wait(job)).status.terminal:
        for text in progress.events(view, clock.monotonic_ms()):
            say(text)
        if any(one.path == savepoint and one.status == "damaged" for one in view.checkpoints):
            raise JobFailedError(
                "savepoint could not be read, and the job goes on from a checkpoint before it",
                hint="stop the job again",
                job_id=job.job_id,
                path=savepoint,
            )
    if view.status is not JobStatus.FINISHED:
        cause = {} if view.error is None else {"cause": view.error.message}
        raise JobFailedError(
            f"job is {view.status.value}, perhaps before it had committed everything",
            hint=_ADVICE,
            job_id=job.job_id,
            **cause,
        )
    say(f"job {job.job_id} is {view.status.value}")


def _wait(job: JobHandle) -> JobView:
    """Return how the job stands at its end, or after a while."""
    try:
        return cast(JobView, job.wait(POLL_S, until=TERMINAL, listener=None))
    except TimeoutError:
        return _look(job)
    except RaystreamError as error:
        raise _unseen(job, error) from error


def _look(job: JobHandle) -> JobView:
    try:
        return cast(JobView, job.view())
    except RaystreamError as error:
        raise _unseen(job, error) from error


def _unseen(job: JobHandle, error: RaystreamError) -> JobFailedError:
    return JobFailedError("end of the job was not seen", hint=_ADVICE, job_id=job.job_id, cause=error.message)
