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

MASTERS_IN_VAIN_MAX = 100
"""Job masters that may be lost in a row before they begin an attempt: each leaves an entry in the job log
that is never deleted, and a process that starts over and over helps nobody."""


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
    masters_in_vain: int = 0
    """Job masters in a row that were lost before they began an attempt, the last one not among them."""
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
        if self.aim is not Aim.UNDECIDED:
            return None
        if self.masters_in_vain >= MASTERS_IN_VAIN_MAX:
            return Failure(lost_in_vain(self.masters_in_vain), retryable=False)
        return Failure(RaystreamError("process of the job master was lost", attempt=self.attempt))


def lost_in_vain(masters: int) -> RaystreamError:
    """Return what a job fails with that no job master can go on with."""
    return RaystreamError(
        "job masters were lost one after the other before they could begin an attempt",
        hint="see the logs of their processes: what they do before is to read the checkpoints and to discover"
        " the splits of the sources",
        job_masters=masters,
    )
