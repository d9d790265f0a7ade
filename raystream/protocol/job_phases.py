"""The phases of a job, the legal steps between them, and what users see of them."""

from enum import Enum

from raystream.ids import JobStatus


class Phase(Enum):
    """Where the job machine stands."""

    CREATED = "created"
    PREPARING = "preparing"
    """What the attempt restores and reads is being found out."""
    LOGGING = "logging"
    """The log entry of the attempt is being written."""
    ACQUIRING = "acquiring"
    DEPLOYING = "deploying"
    CONNECTING = "connecting"
    """Slots connect to each other, restore state and commit what was pre-committed."""
    RUNNING = "running"
    COMMITTING = "committing"
    """What ends the job is complete; only the commits are missing."""
    STOPPING = "stopping"
    """The attempt is over, but something of it may still be there; or the next one is not due."""
    CLOSING = "closing"
    """The end of the job is being logged, then what it leaves is cleaned up."""
    ENDED = "ended"
    ABANDONED = "abandoned"
    """Another process owns the job."""

    @property
    def slotless(self) -> bool:
        """True when there is an attempt that needs no slots yet."""
        return self in (Phase.PREPARING, Phase.LOGGING)

    @property
    def attempted(self) -> bool:
        """True when there is an attempt that does not stop."""
        return self.slotless or self in (
            Phase.ACQUIRING,
            Phase.DEPLOYING,
            Phase.CONNECTING,
            Phase.RUNNING,
            Phase.COMMITTING,
        )


class Aim(Enum):
    """What an attempt that stops is followed by."""

    NONE = "none"
    """It does not stop."""
    UNDECIDED = "undecided"
    """It has failed; the primary cause is waited for."""
    RESTART = "restart"
    FAIL = "fail"
    CANCEL = "cancel"
    FINISH = "finish"


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.CREATED: frozenset({Phase.PREPARING, Phase.STOPPING}),
    Phase.PREPARING: frozenset({Phase.LOGGING, Phase.STOPPING}),
    Phase.LOGGING: frozenset({Phase.ACQUIRING, Phase.STOPPING}),
    Phase.ACQUIRING: frozenset({Phase.DEPLOYING, Phase.STOPPING}),
    Phase.DEPLOYING: frozenset({Phase.CONNECTING, Phase.STOPPING}),
    Phase.CONNECTING: frozenset({Phase.RUNNING, Phase.STOPPING}),
    Phase.RUNNING: frozenset({Phase.COMMITTING, Phase.STOPPING}),
    Phase.COMMITTING: frozenset({Phase.STOPPING}),
    Phase.STOPPING: frozenset({Phase.PREPARING, Phase.CLOSING}),
    Phase.CLOSING: frozenset({Phase.ENDED}),
    Phase.ENDED: frozenset(),
    Phase.ABANDONED: frozenset(),
}
"""Every legal step, but that a conflict in the job log leads from everywhere to ABANDONED."""

STATUS: dict[Phase, JobStatus] = {
    Phase.RUNNING: JobStatus.RUNNING,
    Phase.COMMITTING: JobStatus.RUNNING,
    Phase.ABANDONED: JobStatus.FAILED,
}
"""What users see of the phases in which it depends on nothing else; of an abandoned job, that the
process they ask can do no more for it."""

STOPPING_STATUS: dict[Aim, JobStatus] = {
    Aim.UNDECIDED: JobStatus.FAILING,
    Aim.RESTART: JobStatus.RESTARTING,
    Aim.FAIL: JobStatus.FAILING,
    Aim.CANCEL: JobStatus.CANCELLING,
    Aim.FINISH: JobStatus.RUNNING,
}
"""What users see of STOPPING and CLOSING."""


def status_of(phase: Phase, aim: Aim, *, restarted: bool, ended_as: JobStatus | None) -> JobStatus:
    """Return where a job stands, as users see it.

    Args:
        phase: of the machine.
        aim: of an attempt that stops.
        restarted: an attempt has failed before.
        ended_as: how the job has ended.
    """
    if phase is Phase.ENDED:
        assert ended_as is not None, "an ended job has a terminal status"
        return ended_as
    if phase in (Phase.STOPPING, Phase.CLOSING):
        return STOPPING_STATUS[aim]
    return STATUS.get(phase, JobStatus.RESTARTING if restarted else JobStatus.CREATED)


TERMINAL_STATUS: dict[Aim, JobStatus] = {
    Aim.FAIL: JobStatus.FAILED,
    Aim.CANCEL: JobStatus.CANCELED,
    Aim.FINISH: JobStatus.FINISHED,
}
"""What the job ends as."""
