"""Waits beside the jobs of a script: shows how far they are, passes signals on to them.

`raystream run` gives a script an `Attendant` instead of its runner.  The attendant passes
each job on to the runner that the configuration names, and every wait for the job's end
becomes a series of short waits with a look at the job in between.

    Ctrl-C      KeyboardInterrupt: whoever waits cancels the job and waits for its end
    again       KeyboardInterrupt out of that wait; a third one kills the process
    SIGTERM     of a job in this process or on an embedded cluster: like Ctrl-C
                of a job on another cluster: ends the wait, the job goes on
    while a job is submitted, all of them end what has begun of it
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self, cast

from raystream.api.client import TERMINAL, JobClient, print_lines, runner_named
from raystream.api.runner import (
    CancelRequest,
    ClientRequest,
    JobHandle,
    OutputListener,
    SavepointRequest,
    StopRequest,
    Submission,
)
from raystream.api.runner import JobView as RunnerView
from raystream.cli.progress import Progress, completed, summary
from raystream.cli.terminal import StatusLine, status_line
from raystream.clock import Clock
from raystream.config.units import format_duration
from raystream.errors import ConfigError, JobFailedError
from raystream.ids import JobId, JobStatus, OperatorUid
from raystream.runtime.coordinator_view import JobView
from raystream.storage.stores import to_url

POLL_S = 0.5
"""Time between two looks at a job."""

JOB_IDS_VARIABLE = "RAYSTREAM_JOB_IDS"
"""Environment variable of the client of a Ray job: the file to which each job is appended before it is
started, a line with its id, and behind it the time in ms that it has to begin to run, if that is limited."""


class Detached(BaseException):
    """Leaves a script whose job goes on without it."""


class Attendant:
    """The runner of a script under `raystream run`.

    Args:
        clock: for rates and deadlines.
        resume_command: returns the command that was typed, with `-s PATH` for another path.
        start_timeout_ms: time after its submission in which a job must run, else it is given up.
    """

    def __init__(
        self, clock: Clock, resume_command: Callable[[str], str], start_timeout_ms: int | None = None
    ) -> None:
        self.clock = clock
        self.resume_command = resume_command
        self.start_timeout_ms = start_timeout_ms
        self._jobs: list[AttendedJob] = []
        self._submitting = False
        self.terminated = False
        """What interrupted the script was SIGTERM."""
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def submit(self, submission: Submission) -> JobHandle:
        """Start a job and return a handle that shows progress while it waits; errors as of any runner."""
        name = submission.config.runner
        if submission.detached and name == "local":
            raise ConfigError(
                "a detached job needs processes that outlive this one, and the local runner has none",
                hint="use --runner ray, or leave --detached out",
            )
        if JOB_IDS_VARIABLE in os.environ:
            _check_directories(submission)
        own = ", on a Ray cluster of its own" if _starts_cluster(submission) else ""
        say(f"starting {submission.name!r}: {name} runner, parallelism {submission.config.parallelism}{own}")
        self._take_signals()
        _note(submission.job_id, self.start_timeout_ms)
        self._submitting = True
        try:
            job = AttendedJob(runner_named(name).submit(submission), submission, self)
            self._jobs.append(job)
        except KeyboardInterrupt:
            say(f"{submission.name!r} was interrupted before it had started; nothing of it goes on")
            raise
        finally:
            self._submitting = False
        return job

    def attach(self, job_id: str, *, address: str | None = None) -> JobHandle:
        """Return a handle on a job that this script did not start; nothing is shown of it."""
        return runner_named("ray").attach(job_id, address=address)

    def wait_for_rest(self) -> None:
        """Wait for the jobs that the script started and did not wait for.

        Raises:
            JobFailedError: one of them failed.
        """
        for job in self._unsettled():
            until = frozenset({JobStatus.RUNNING}) if job.detached else TERMINAL
            JobClient(job).wait_until(until, None, print_lines)

    def cancel_rest(self) -> None:
        """Cancel the jobs that the script left running when it was interrupted."""
        for job in self._unsettled():
            if not job.cancelling:  # Else the wait for its end is what was interrupted.
                client = JobClient(job)
                client.cancel()
                client.wait_until(TERMINAL, None, print_lines)

    def _unsettled(self) -> list["AttendedJob"]:
        return [job for job in self._jobs if not job.settled]

    def _take_signals(self) -> None:
        """Handle SIGTERM from now on, also if the script has changed that since the last job."""
        if threading.current_thread() is not threading.main_thread():
            return  # A script may submit from any thread, but only this one can change handlers.
        before = signal.signal(signal.SIGTERM, self._terminated)
        self._handlers.setdefault(signal.SIGTERM, before)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        if self._submitting or any(job.ends_with_client for job in self._unsettled()):
            self.terminated = True  # Ray would turn an exception of our own into a plain KeyboardInterrupt.
            raise KeyboardInterrupt
        raise Detached


class AttendedJob:
    """A handle that shows how far its job is while somebody waits for it."""

    def __init__(self, handle: JobHandle, submission: Submission, attendant: Attendant) -> None:
        self._handle = handle
        self._submission = submission
        self._attendant = attendant
        self._submitted_ms = attendant.clock.monotonic_ms()
        self._progress = Progress(self._submitted_ms)
        self._has_run = False
        self.settled = False
        """Nobody has to wait for the job any more."""
        self._told_start = submission.config.recovery.path is None
        self.cancelling = False
        """Its cancellation was asked for."""

    @property
    def job_id(self) -> JobId:
        return self._handle.job_id

    @property
    def detached(self) -> bool:
        """True when only the start of the job is waited for."""
        return self._submission.detached

    @property
    def ends_with_client(self) -> bool:
        """True when the job runs in this process or on a cluster that this process started."""
        return not getattr(self._handle, "outlives_client", False)

    def view(self) -> RunnerView:
        return self._handle.view()

    def metrics(self) -> Any:
        return self._handle.metrics()

    def request(self, request: ClientRequest) -> str:
        if isinstance(request, (SavepointRequest, StopRequest)) and JOB_IDS_VARIABLE in os.environ:
            _check_directory("directory", request.directory)
        if isinstance(request, CancelRequest):
            self.cancelling = True
            say(f"cancelling job {self.job_id}; Ctrl-C leaves without waiting for it")
        return self._handle.request(request)

    def wait(
        self, timeout_s: float | None, *, until: frozenset[JobStatus], listener: OutputListener | None
    ) -> RunnerView:
        """Wait as any handle does, and show the job's progress on standard error."""
        clock = self._attendant.clock
        deadline_ms = None if timeout_s is None else clock.monotonic_ms() + timeout_s * 1000
        heard = _nothing_heard if self.detached else listener
        with status_line() as line:
            while True:
                left_s = POLL_S if deadline_ms is None else (deadline_ms - clock.monotonic_ms()) / 1000
                try:
                    view = self._handle.wait(max(0.0, min(POLL_S, left_s)), until=until, listener=heard)
                    break
                except TimeoutError:
                    if left_s <= POLL_S and deadline_ms is not None:
                        raise
                shown = cast(JobView, self._handle.view())
                self._show(shown, line)
                self._give_up_late(shown)
        self._waited(cast(JobView, view))
        return view

    def _show(self, view: JobView, line: StatusLine | None) -> None:
        self._tell_start(view)
        now_ms = self._attendant.clock.monotonic_ms()
        lines = self._progress.events(view, now_ms)
        if line is None:
            lines += self._progress.lines(view, now_ms)
        for text in lines:
            say(text)
        if line is not None:
            line.show(self._progress.status(view, now_ms))

    def _give_up_late(self, view: JobView) -> None:
        """Cancel a job that has not begun to run in the time that it has for that.

        Raises:
            JobFailedError: it has not.
        """
        self._has_run = self._has_run or view.status is JobStatus.RUNNING
        limit_ms = self._attendant.start_timeout_ms
        waited_ms = self._attendant.clock.monotonic_ms() - self._submitted_ms
        if self._has_run or limit_ms is None or waited_ms < limit_ms or view.status.terminal:
            return
        self._has_run = True  # It is given up once.
        give_up(self, view, limit_ms)

    def _tell_start(self, view: JobView) -> None:
        """Say once what `-s` has come to: `latest` is also content with nothing."""
        if self._told_start:
            return
        self._told_start = True
        where = self._submission.config.checkpointing.directory
        say(
            f"{view.name!r} starts anew: no snapshot of it is in {where}"
            if view.started_from is None
            else f"{view.name!r} goes on from {view.started_from}"
        )

    def _waited(self, view: JobView) -> None:
        self._tell_start(view)
        self.settled = self.settled or self.detached or view.status.terminal
        if self.detached and view.status not in (JobStatus.FAILED, JobStatus.CANCELED):
            print(self.job_id, flush=True)
        if not view.status.terminal:
            return
        say(summary(view, view.duration_ms))
        if view.gave_up:
            say(f"it was not started again: {view.gave_up}")
        if view.status is JobStatus.CANCELED:
            for text in self._how_to_resume(view):
                say(text)

    def _how_to_resume(self, view: JobView) -> Iterator[str]:
        checkpointing = self._submission.config.checkpointing
        checkpoints = completed(view.checkpoints)
        if checkpointing.storage == "jobmanager":
            yield "no checkpoint is left: they were in memory; set execution.checkpointing.dir to keep them"
        elif checkpointing.retention == "delete-on-cancellation":
            yield "no checkpoint is left: they are deleted on cancellation, as configured"
        elif not checkpoints:
            yield "no checkpoint is left: none was complete since the job started"
        else:
            last = checkpoints[-1]
            yield f"checkpoint {last.checkpoint_id} is kept: {last.path}"
            yield f"resume with: {self._attendant.resume_command(last.path)}"


def say(text: str) -> None:
    """Tell the user something that is not a result."""
    print(text, file=sys.stderr, flush=True)


def _starts_cluster(submission: Submission) -> bool:
    if submission.config.runner != "ray":
        return False
    from raystream.cluster.connection import starts_cluster  # Ray takes a while, and help needs none.

    return starts_cluster(submission.address, detached=submission.detached)


def _check_directories(submission: Submission) -> None:
    """Refuse to keep checkpoints where they would go with the Ray job that this process is the client of.

    Raises:
        ConfigError: a directory is one that Ray has made for the Ray job.
    """
    checkpointing = submission.config.checkpointing
    _check_directory("execution.checkpointing.dir", checkpointing.directory)
    _check_directory("execution.checkpointing.savepoint-dir", checkpointing.savepoint_directory)


def _check_directory(key: str, url: str | None) -> None:
    # What goes along with Ray jobs is unpacked side by side.
    gone = to_url(".." if Path.cwd().name.startswith("_ray_pkg_") else ".")
    if url is not None and f"{url}/".startswith(f"{gone}/"):
        raise ConfigError(
            "directory is among those of Ray jobs, which Ray removes from the cluster some time",
            hint="give an absolute path that every node sees, or the URL of a store",
            key=key,
            path=url,
        )


def _note(job_id: JobId, start_timeout_ms: int | None) -> None:
    """Tell whoever watches over this process which job it is about to start."""
    if path := os.environ.get(JOB_IDS_VARIABLE):
        with Path(path).open("a", encoding="ascii") as file:
            file.write(f"{job_id}\n" if start_timeout_ms is None else f"{job_id} {start_timeout_ms}\n")


def give_up(job: JobHandle, view: RunnerView, limit_ms: int) -> NoReturn:
    """Cancel a job that has not begun to run in the time that it has for that, and wait for its end.

    Raises:
        JobFailedError: always.
    """
    client = JobClient(job)
    client.cancel()
    client.wait_until(TERMINAL, None, print_lines)
    raise JobFailedError(
        "job did not run in time and was cancelled",
        hint="make room on the cluster, lower the parallelism or slot.cpus, or raise --timeout",
        job_id=job.job_id,
        timeout=format_duration(limit_ms),
        waiting_for=cast(JobView, view).waiting_for,
    )


def _nothing_heard(uid: OperatorUid, payload: list[str] | bytes) -> None:
    """Take nothing: under `--detached` standard output belongs to the job ids."""
