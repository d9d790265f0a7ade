"""The end of a job: it is written to the log, what it leaves is cleaned up, who waits is told.

    begin --> LogEnd --> (logged) --> CleanUp --> (cleaned up) --> terminal status
                ^  |
                +--+ not logged: tried again, a number of times

A job whose end can not be written to the log has FAILED and keeps its checkpoints, whatever it
was about to become: they are what another start can go on from.  One that nobody has logged
anything of has nothing to write; for one of which the log says how it ended, the rest is done again.
"""

from raystream.errors import ConfigError, RaystreamError
from raystream.ids import JobStatus
from raystream.protocol.job_commands import CleanUp, Command, LogEnd, ResolveCancel

LOG_TRIES_MAX = 5
"""Tries to write the terminal log entry."""

LOG_RETRY_MS = 1_000
"""Time between two of them."""


class JobEnd:
    """Decides how the end of a job becomes known."""

    def __init__(self) -> None:
        self._status: JobStatus | None = None
        self._error: RaystreamError | None = None
        self._tries = 0
        self._in_log = False
        self._retry_ms: float | None = None
        self._cancellations: list[str] = []

    @property
    def status(self) -> JobStatus | None:
        """The terminal status, from the moment at which the end begins; it may still become FAILED."""
        return self._status

    @property
    def error(self) -> RaystreamError | None:
        """What a FAILED job failed with."""
        return self._error

    @property
    def next_deadline_ms(self) -> float | None:
        """When `time_passed` has something to do."""
        return self._retry_ms

    def recovered(self, status: JobStatus | None) -> None:
        """Another job master wrote the terminal entry, before the end begins here; None when none did."""
        self._in_log = status is not None

    def begin(self, status: JobStatus, error: RaystreamError | None, *, logged: bool) -> list[Command]:
        """No attempt runs, none will; `logged` says whether the job may be in the log."""
        self._status, self._error = status, error
        if self._in_log:
            return self.end_logged()
        return self._log() if logged else [CleanUp(status, archive=False)]

    def end_logged(self) -> list[Command]:
        """The terminal entry exists."""
        assert self._status is not None, "the end was logged before it began"
        return [CleanUp(self._status, archive=True)]

    def end_not_logged(self, now_ms: float, error: RaystreamError) -> list[Command]:
        """The terminal entry could not be written."""
        if self._tries < LOG_TRIES_MAX:
            self._retry_ms = now_ms + LOG_RETRY_MS
            return []
        self._status, self._error = JobStatus.FAILED, self._error or error
        return [CleanUp(JobStatus.FAILED, archive=True)]

    def time_passed(self, now_ms: float) -> list[Command]:
        """Try again when it is time."""
        return self._log() if self._retry_ms is not None and now_ms >= self._retry_ms else []

    def cancel_requested(self, request_id: str) -> None:
        """A client waits for the end."""
        self._cancellations.append(request_id)

    def answers(self) -> list[Command]:
        """Return the answers to all clients that wait for the end."""
        waiting, self._cancellations = self._cancellations, []
        assert self._status is not None, "the job has not ended"
        return [ResolveCancel(request_id, refusal(self._status)) for request_id in waiting]

    def _log(self) -> list[Command]:
        assert self._status is not None, "the end is logged before it began"
        self._tries += 1
        self._retry_ms = None
        return [LogEnd(self._status, self._error)]


def refusal(status: JobStatus) -> RaystreamError | None:
    """Return what a client is told that wants a job of this terminal status cancelled; None if it is."""
    if status is JobStatus.CANCELED:
        return None
    return ConfigError(
        f"job is already {status.value}; there is nothing to cancel",
        hint="`raystream list` shows the jobs that can be",
    )
