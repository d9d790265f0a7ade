"""What the job machine tells its shell to do."""

from collections.abc import Mapping
from dataclasses import dataclass

from raystream.errors import RaystreamError
from raystream.ids import Attempt, JobStatus, SlotId
from raystream.protocol.checkpoint_requests import Request
from raystream.protocol.subtasks import JobShape


@dataclass(frozen=True, slots=True)
class ReshapeJob:
    """The next attempts have this shape; the processes that these slots have had are not needed any more."""

    shape: JobShape
    dismissed: tuple[SlotId, ...]


@dataclass(frozen=True, slots=True)
class PrepareAttempt:
    """Read what the attempt restores, rebuild and run the enumerators' first discovery, check the storage.

    Answered by `attempt_prepared` or `attempt_failed`.
    """

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class LogAttempt:
    """Append the attempt's entry; what older ones left is swept while it goes on.

    Answered by `attempt_logged` or `attempt_failed`.
    """

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class AcquireSlots:
    """Ask for processes; each slot is answered by `slot_acquired` or `slot_lost`."""

    slots: tuple[SlotId, ...]


@dataclass(frozen=True, slots=True)
class DeploySlots:
    """Send each slot its subtasks; answered by `slot_deployed`."""

    attempt: Attempt
    slots: tuple[SlotId, ...]


@dataclass(frozen=True, slots=True)
class ConnectSlots:
    """Tell all slots the addresses of all slots; answered by `slot_ready`."""

    attempt: Attempt
    addresses: Mapping[SlotId, str]


@dataclass(frozen=True, slots=True)
class StartSlots:
    """All slots process records from now on."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class StopSlots:
    """Drop the attempt; answered by `slot_stopped`."""

    attempt: Attempt
    slots: tuple[SlotId, ...]


@dataclass(frozen=True, slots=True)
class KillSlot:
    """Kill the process of a slot that does not stop; answered by `slot_lost`, and repeated until then."""

    slot: SlotId


@dataclass(frozen=True, slots=True)
class BeginCheckpoints:
    """The attempt runs: the checkpoint machine may start."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class EndCheckpoints:
    """The attempt is over: nothing pending may complete; answered by `checkpoints_settled`."""


@dataclass(frozen=True, slots=True)
class TakeFinalCheckpoint:
    """All subtasks have processed all their input."""


@dataclass(frozen=True, slots=True)
class CommitSlots:
    """All input has ended and checkpointing is off: slots commit; answered by `commits_done`."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class LogStop:
    """Append that a stop was accepted; no answer is waited for."""

    request_id: str


@dataclass(frozen=True, slots=True)
class LogCancel:
    """Append that a cancellation was accepted; no answer is waited for."""

    request_id: str


@dataclass(frozen=True, slots=True)
class TakeStopSavepoint:
    """Take a savepoint with which the job ends."""

    request: Request


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Append the terminal entry; answered by `end_logged` or `end_not_logged`."""

    status: JobStatus
    error: RaystreamError | None


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Give the slots back, wait for the end of their processes, then delete what the job need not leave.

    Answered by `cleaned_up`.
    """

    status: JobStatus
    archive: bool
    """Leave a file that says how the job ended; a job that never started leaves nothing."""


@dataclass(frozen=True, slots=True)
class ResolveCancel:
    """Answer a client that asked for cancellation."""

    request_id: str
    error: RaystreamError | None


@dataclass(frozen=True, slots=True)
class AbandonJob:
    """Somebody else owns the job: kill its slots and touch nothing else."""

    slots: tuple[SlotId, ...]


Command = (
    ReshapeJob | PrepareAttempt | LogAttempt | AcquireSlots | DeploySlots | ConnectSlots | StartSlots
    | StopSlots | KillSlot | BeginCheckpoints | EndCheckpoints | TakeFinalCheckpoint | CommitSlots | LogStop
    | LogCancel | TakeStopSavepoint | LogEnd | CleanUp | ResolveCancel | AbandonJob
)  # fmt: skip
