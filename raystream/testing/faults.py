"""What goes wrong in a simulated run, as data.

A run has a tuple of faults.  `raystream.testing.drawn_faults.Faults` draws it from the seed; a tuple
written by hand does as well.  Nothing here does anything: `raystream.testing.simulation_faults` makes
faults happen.
"""

from dataclasses import dataclass
from enum import Enum


class CheckpointPhase(Enum):
    """A part of a checkpoint's life."""

    BEFORE_TRIGGER = "before-trigger"
    """The trigger is on its way to a slot."""
    ALIGNMENT = "alignment"
    """A barrier has arrived in a slot; other channels may still be without one."""
    ACKNOWLEDGED = "acknowledged"
    """A subtask has acknowledged, `_metadata` is not written."""
    METADATA_WRITTEN = "metadata-written"
    """`_metadata` is written, the log entry is not."""
    LOGGED = "logged"
    """The log entry is written, a slot does not know it."""
    COMMITTING = "committing"
    """A sink publishes what belongs to the checkpoint."""

    def __repr__(self) -> str:
        return str(self)


class Damage(Enum):
    """What happens to a frame."""

    LOST = "lost"
    REPEATED = "repeated"
    BIT_FLIPPED = "bit-flipped"

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotCrash:
    """The process of a slot dies in a phase of a checkpoint."""

    checkpoint_id: int
    phase: CheckpointPhase
    slot: int | None = None
    """Which one; None for the one in which it happens (slot 0 where no slot takes part)."""
    moment: int = 0
    """A phase has a moment for every subtask, message or file; the crash comes at this one, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotKill:
    """The process of a slot dies at a time, whatever it is doing."""

    at_ms: float
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPause:
    """A slot does nothing for a while."""

    at_ms: float
    slot: int
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFailure:
    """Some calls of the store in a row fail, from the n-th on, counted from 0."""

    call: int
    count: int = 1
    where: str = ""
    """Only calls whose URL contains this are counted, and fail."""
    effective: bool = False
    """The call does what it should, and only its answer is an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDamage:
    """A file of a checkpoint is lost, or a bit of it flips, as soon as the checkpoint is complete.

    It happens only while an older checkpoint is whole.  `Faults` never draws it: what follows depends on
    how many checkpoints are retained and on the sinks.
    """

    checkpoint_id: int
    where: str = ""
    """Only files whose URL contains this count; those of the checkpoint's directory, then shared ones that
    were written for it."""
    lost: bool = False
    """The file is not there any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkDelay:
    """The n-th piece of blocking work, such as an upload or a log entry, takes long."""

    work: int
    delay_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDelay:
    """A connection holds the n-th frame, and with it all behind it, for a while."""

    frame: int
    delay_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDamage:
    """The n-th frame does not arrive as it was sent."""

    frame: int
    damage: Damage


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionBreak:
    """A connection breaks with the n-th frame, while the slots at both ends live on."""

    frame: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartCrash:
    """The process of a slot dies while an attempt starts: from the first `Deploy` to the last `SlotReady`."""

    attempt: int
    """Counted from 1; from the second one on it is a crash during a restart."""
    moment: int
    """At the n-th message of this start, from 0: two commands and two answers for every slot."""
    slot: int | None = None
    """Which one; None for the one that the message is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPresumedDead:
    """A slot does nothing for so long that it is given up and replaced; then it wakes up and works on."""

    at_ms: float
    slot: int
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterCrash:
    """The job master dies in a phase of a checkpoint, and another one goes on with the job."""

    checkpoint_id: int
    phase: CheckpointPhase
    moment: int = 0
    """As for `SlotCrash`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterKill:
    """The job master dies at a time."""

    at_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterPause:
    """The job master does nothing for a while, and nobody minds."""

    at_ms: float
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterPresumedDead:
    """The job master does nothing for so long that another one is started; then it wakes up and goes on."""

    at_ms: float
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashAtCall:
    """Whoever makes the n-th call of the store dies, before it has an effect or before its answer."""

    call: int
    """Counted from 0."""
    effective: bool = False
    """The call has had its effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowSlot:
    """Every step of a slot's loop takes long for a while."""

    at_ms: float
    slot: int
    duration_ms: float
    step_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowConnections:
    """Every frame takes longer for a while."""

    at_ms: float
    duration_ms: float
    delay_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJump:
    """The clock on the wall of a machine is set, forwards or backwards."""

    at_ms: float
    by_ms: float
    slot: int | None = None
    """Whose machine; None for that of the job master."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Savepoint:
    """A client wants a savepoint; the job goes on."""

    at_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAndResume:
    """A client stops the job with a savepoint, and starts it again from there."""

    at_ms: float
    parallelism: int
    """Of the new start."""
    drain: bool = False
    """The sources end first; never drawn, since a job that was drained has another output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAndResume:
    """A client cancels the job, and starts it again from the newest retained checkpoint, if there is one."""

    at_ms: float
    parallelism: int
    """Of the new start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """A client lets the running job go on at another parallelism."""

    at_ms: float
    parallelism: int


TimedFault = (
    SlotKill | SlotPause | SlotPresumedDead | SlowSlot | MasterKill | MasterPause | MasterPresumedDead
    | SlowConnections | ClockJump | Savepoint | StopAndResume | CancelAndResume | Rescale
)  # fmt: skip
"""What comes at a time."""

Fault = (
    SlotCrash | RestartCrash | MasterCrash | CrashAtCall | StorageFailure | CheckpointDamage | WorkDelay
    | FrameDelay | FrameDamage | ConnectionBreak | TimedFault
)  # fmt: skip
"""What happens to a run; what a client does counts, since it comes as untimely as a crash."""
