"""What is known of a job that ran before its job master began: from the job log, in the machines' words.

The death of a job master is a failure of the attempt like any other: the restart strategy is asked about
it, and about every failure before it once more, in order, so that it knows what it knew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from raystream.errors import RaystreamError
from raystream.ids import Attempt, JobStatus
from raystream.protocol.job_failures import Failure
from raystream.protocol.job_phases import Aim


@dataclass(frozen=True, slots=True, kw_only=True)
class PastFailure:
    """A failure after which the job went on, under an earlier job master."""

    at_ms: float
    """Monotonic; about when it was."""
    progress: bool
    """A checkpoint had completed since the failure before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPast:
    """How far a job had got."""

    attempt: Attempt
    """The newest number that was given."""
    restarts: int = 0
    """Attempts that a failure has led to."""
    only_commits_left: bool = False
    """What ends the job is complete."""
    canceled: bool = False
    """A cancellation was accepted."""
    status: JobStatus | None = None
    """How the job has ended; None while it has not."""
    error: RaystreamError | None = None
    """What a FAILED job failed with."""
    failures: Sequence[PastFailure] = field(default=())
    """Oldest first."""
    progress: bool = False
    """A checkpoint has completed since the last of them."""

    @property
    def aim(self) -> Aim:
        """What follows."""
        match self.status:
            case None:
                return Aim.CANCEL if self.canceled else Aim.UNDECIDED
            case JobStatus.FINISHED:
                return Aim.FINISH
            case JobStatus.CANCELED:
                return Aim.CANCEL
            case _:
                return Aim.FAIL

    @property
    def failure(self) -> Failure | None:
        """What the machine has to judge, or has judged; None when nothing has failed."""
        if self.error is not None:
            return Failure(self.error, retryable=False)
        lost = RaystreamError("process of the job master was lost", attempt=self.attempt)
        return Failure(lost) if self.aim is Aim.UNDECIDED else None
