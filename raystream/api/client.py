"""A submitted job in the hands of the user: `JobClient`, and what `execute` returns.

Everything here goes through the `JobHandle` of a runner; no state of the job is kept, so
any number of clients, in any processes, may hold one job.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from raystream.api import ambient
from raystream.api.bindings import bound
from raystream.api.runner import (
    CancelRequest,
    CheckpointRequest,
    JobHandle,
    JobView,
    OutputListener,
    RescaleRequest,
    Runner,
    SavepointRequest,
    StopRequest,
)
from raystream.config.units import parse_duration_ms
from raystream.errors import ConfigError, JobFailedError, RaystreamError
from raystream.handles import SavepointFormat
from raystream.ids import JobId, JobStatus, OperatorUid
from raystream.storage.stores import to_url

TERMINAL = frozenset(status for status in JobStatus if status.terminal)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What became of a job."""

    job_id: JobId
    status: JobStatus
    duration_ms: int
    records_in: int
    """Records that the sources emitted."""
    records_out: int
    """Records that the sinks took."""
    restarts: int
    """Times that the job went on after a failure; a rescale, or a drain that was taken back, is none."""
    dead_letters: int = 0
    """Records on which user code raised, where the operator has `on_error="dead-letter"`; those that a
    restart has repeated are counted again, as in the other two."""


class JobClient:
    """A job that was submitted: asks how it stands, and has things done to it.

    Every request carries an id of its own, so that one that is sent twice, because the
    job master was restarted meanwhile, is carried out once.
    """

    def __init__(self, handle: JobHandle) -> None:
        self._handle = handle

    @classmethod
    def attach(cls, job_id: str, *, runner: str | None = None, address: str | None = None) -> "JobClient":
        """Return a client of a job that was submitted before.

        Args:
            job_id: the job's id, 32 hex digits.
            runner: "ray" or "local"; the configured one by default.
            address: of the Ray cluster; the default one if not given.

        Raises:
            JobNotFoundError: no job has this id.
            ClusterNotFoundError: no Ray cluster answers.
        """
        around = ambient.current()
        name = runner or around.load(None, {}).runner
        return cls(runner_named(name).attach(job_id, address=address or around.address))

    @property
    def job_id(self) -> JobId:
        """Id of the job, 32 hex digits."""
        return self._handle.job_id

    def status(self) -> JobStatus:
        """Return where the job stands now."""
        return self._handle.view().status

    def progress(self) -> JobResult:
        """Return how far the job is now: what `wait` returns at its end, with the counts so far."""
        return _result(self._handle.view())

    def wait(self, timeout: float | timedelta | str | None = None) -> JobResult:
        """Wait for the end of the job; meanwhile what its `print` sinks write is printed here.

        Args:
            timeout: seconds, a `timedelta` or text such as "30s"; None waits for ever.

        Raises:
            JobFailedError: the job failed; the message has the cause, and with it the operator
                and the traceback when it was user code.
            TimeoutError: the job still runs.
        """
        return self.wait_until(TERMINAL, _seconds(timeout), print_lines)

    def wait_until(
        self, statuses: frozenset[JobStatus], timeout_s: float | None, listener: OutputListener
    ) -> JobResult:
        """Like `wait`, also for another status and with another receiver of what sinks send."""
        view = self._handle.wait(timeout_s, until=statuses | TERMINAL, listener=listener)
        if view.status is JobStatus.FAILED:
            raise _failure(view)
        return _result(view)

    def savepoint(self, directory: str | None = None, format: str = "canonical") -> str:  # noqa: A002
        """Take a savepoint, while the job goes on, and return its path.

        Args:
            directory: where to; `execution.checkpointing.savepoint-dir` by default.
            format: "canonical", which every state backend restores, or "native", the files of the job's
                own backend: quicker to take, and restored by the same backend only.

        Raises:
            CheckpointError: it was aborted; the message says why.
            ConfigError: there is no such format.
            JobFailedError: the job has failed.
        """
        return self._request(SavepointRequest(_request_id(), _absolute(directory), _format_named(format)))

    def checkpoint(self, full: bool = False) -> str:
        """Take a checkpoint now, whatever the interval and the pause, and return its path.

        It is a checkpoint like any other: sinks commit with it, a failure recovers from it, and newer ones
        take its place.

        Args:
            full: refer to no file of an older checkpoint, although checkpoints are incremental.

        Raises:
            CheckpointError: it was aborted; the message says why.
            ConfigError: checkpointing is off.
            JobFailedError: the job has failed.
        """
        return self._request(CheckpointRequest(_request_id(), full))

    def stop(
        self,
        directory: str | None = None,
        drain: bool = False,
        *,
        format: str = "canonical",  # noqa: A002
    ) -> str:
        """End the job with a savepoint, and return its path.

        The job ends as soon as everything before the savepoint is committed: `wait` returns then.
        When another client is stopping the job already, that is the savepoint which is returned.  When the
        savepoint fails the job goes on; after a drain from its last checkpoint, as after a failure.

        Args:
            directory: where to; `execution.checkpointing.savepoint-dir` by default.
            drain: let the sources end where they are, as if that were all of their input, so that every
                event-time timer fires before the savepoint: for a job that shall not go on.
            format: of the savepoint, as for `savepoint`.

        Raises:
            CheckpointError: the savepoint was aborted and the job goes on; or another client stops it
                with a savepoint in another directory or of another format, or drains it and we do not.
            ConfigError: there is no such format.
            JobFailedError: the job has failed.
        """
        wanted = StopRequest(_request_id(), _absolute(directory), _format_named(format), drain)
        return self._request(wanted)

    def rescale(self, parallelism: int) -> int:
        """Let the job go on at another parallelism, and return the time in ms in which it processed nothing.

        Further slots are started and a checkpoint is taken while the job runs; then it restarts from that
        checkpoint, with nothing lost and nothing doubled.  Operators that were given their parallelism keep
        it.  When it cannot be done the job goes on as it was.

        Args:
            parallelism: of every operator that was not given its own.

        Raises:
            ConfigError: the job has ended, cannot have this parallelism, or is being given another one.
            CheckpointError: the checkpoint failed, or there is no room for the slots.
            JobFailedError: the job has failed.
        """
        return int(self._request(RescaleRequest(_request_id(), parallelism)))

    def cancel(self) -> None:
        """End the job without a savepoint; retained checkpoints stay, as configured."""
        self._handle.request(CancelRequest(_request_id()))

    def checkpoints(self) -> Sequence[Any]:
        """Return what is known of the job's checkpoints and savepoints, oldest first."""
        return self._handle.view().checkpoints

    def metrics(self) -> Any:
        """Return what was counted and measured of the job, about a second ago.

        Its `operators()` has a summary of each operator, `subtasks` the metrics of every subtask, those that
        user code makes with `ctx.metrics` too.  A job that restarts, or has ended, has none.
        """
        return self._handle.metrics()

    def _request(self, request: SavepointRequest | CheckpointRequest | StopRequest | RescaleRequest) -> str:
        """Have a request carried out; when the job has failed meanwhile, say what it failed with."""
        try:
            return self._handle.request(request)
        except RaystreamError as error:
            view = self._handle.view()
            if view.status is JobStatus.FAILED:
                raise _failure(view) from error
            raise

    def __repr__(self) -> str:
        return f"JobClient({self.job_id})"


class Collector:
    """Takes what a job's sinks send: collected records into a list, printed lines to the output."""

    def __init__(self, limit: int | None) -> None:
        self.values: list[Any] = []
        self._limit = limit
        self._receiver = bound("collect-receiver")()

    def __call__(self, uid: OperatorUid, payload: list[str] | bytes) -> None:
        """Take one message.

        Raises:
            EnoughCollectedError: the limit is reached.
        """
        if isinstance(payload, bytes):
            self.values.extend(self._receiver.receive(payload))
            if self._limit is not None and len(self.values) >= self._limit:
                raise EnoughCollectedError
        else:
            print_lines(uid, payload)

    def drop_values(self, uid: OperatorUid, payload: list[str] | bytes) -> None:
        """Like a call, but forget the records: for the time between the limit and the job's end."""
        if not isinstance(payload, bytes):
            print_lines(uid, payload)


class EnoughCollectedError(Exception):
    """As many values have come as were asked for; unwinds the wait for the job's end."""


def print_lines(uid: OperatorUid, payload: list[str] | bytes) -> None:  # noqa: ARG001
    """Print lines that a `print` sink sent; collected values of nobody are dropped."""
    if not isinstance(payload, bytes):
        print("\n".join(payload), flush=True)  # noqa: T201 - it is what the user asked for


def runner_named(name: str) -> Runner:
    """Return the runner that is bound to a name."""
    make: Callable[[], Runner] = bound(name)
    return make()


def _result(view: JobView) -> JobResult:
    return JobResult(
        job_id=view.job_id,
        status=view.status,
        duration_ms=view.duration_ms,
        records_in=view.records_in,
        records_out=view.records_out,
        restarts=view.restarts,
        dead_letters=view.dead_letters,
    )


def _failure(view: JobView) -> JobFailedError:
    cause = view.error
    if isinstance(cause, RaystreamError):
        context = {**cause.context, "job_id": view.job_id}
        failure = JobFailedError(cause.message, hint=cause.hint, **context)
    else:
        failure = JobFailedError("job failed", job_id=view.job_id, cause=repr(cause))
    failure.__cause__ = cause
    return failure


def _seconds(timeout: float | timedelta | str | None) -> float | None:
    match timeout:
        case timedelta():
            return timeout.total_seconds()
        case str():
            return parse_duration_ms(timeout) / 1000.0
        case _:
            return timeout


def _absolute(directory: str | None) -> str | None:
    """Return the directory as the job master, which has another working directory, understands it."""
    return None if directory is None else to_url(directory)


def _format_named(name: str) -> SavepointFormat:
    try:
        return SavepointFormat(name)
    except ValueError as error:
        names = [known.value for known in SavepointFormat]
        raise ConfigError("savepoint format does not exist", format=name, formats=names) from error


def _request_id() -> str:
    return uuid.uuid4().hex
