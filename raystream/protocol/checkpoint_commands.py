"""What the checkpoint machine tells its shell to do, and the vocabulary of how checkpoints end."""

from dataclasses import dataclass
from enum import Enum

from raystream.errors import RaystreamError
from raystream.handles import SavepointFormat, SubtaskSnapshot
from raystream.ids import CheckpointId
from raystream.protocol.checkpoint_requests import Purpose, Request
from raystream.protocol.subtasks import Subtask


class CheckpointFailureReason(Enum):
    """Why a checkpoint did not complete; the only reasons there are."""

    DECLINED = "declined"
    """A subtask could not take part, or could not store its snapshot."""
    TRIGGER_FAILED = "trigger-failed"
    """An enumerator could not be snapshotted, or there is no directory to write to."""
    FINALIZE_FAILED = "finalize-failed"
    """`_metadata` or the log entry could not be written."""
    PARTLY_ENDED = "partly-ended"
    """Only some subtasks of an operator have ended, and it has state of which each has the whole list."""
    EXPIRED = "expired"
    """It was not complete in time."""
    SUBSUMED = "subsumed"
    """A newer one completed first."""
    ATTEMPT_ENDED = "attempt-ended"
    """The attempt failed, was cancelled or ended."""

    @property
    def counts(self) -> bool:
        """True when the job tolerates only a number of these in a row."""
        return self in (
            CheckpointFailureReason.DECLINED,
            CheckpointFailureReason.TRIGGER_FAILED,
            CheckpointFailureReason.FINALIZE_FAILED,
        )

    @property
    def routine(self) -> bool:
        """True when nothing is wrong with the checkpoint itself."""
        return self in (CheckpointFailureReason.SUBSUMED, CheckpointFailureReason.ATTEMPT_ENDED)


class AckOutcome(Enum):
    """What an acknowledgement turns out to be."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    """The subtask has acknowledged already; what it stored is part of the checkpoint."""
    STRANGER = "stranger"
    """The subtask does not take part."""
    TOO_LATE = "too-late"
    """The checkpoint was aborted or has expired."""
    SETTLED = "settled"
    """The checkpoint is complete, or a newer one is; or it ended so long ago that nobody knows how."""
    FOREIGN = "foreign"
    """It comes from another attempt."""

    @property
    def discards(self) -> bool:
        """True when nobody refers to what the subtask stored, so that it is deleted."""
        return self in (AckOutcome.STRANGER, AckOutcome.TOO_LATE)


@dataclass(frozen=True, slots=True)
class StartCheckpoint:
    """Snapshot the enumerators and trigger the sources, in one step; failure is `trigger_failed`."""

    checkpoint_id: CheckpointId
    purpose: Purpose
    base: str
    """Directory that the client wants the savepoint in; empty for the configured one."""
    format: SavepointFormat = SavepointFormat.CANONICAL
    """Of the savepoint."""
    drain: bool = False
    """The sources end before it."""
    full: bool = False
    """It refers to no file of an older one."""

    @classmethod
    def of(cls, checkpoint_id: CheckpointId, request: Request) -> "StartCheckpoint":
        """Return the command that carries out a request."""
        extra = {"drain": request.drain, "full": request.full}
        return cls(checkpoint_id, request.purpose, request.base, request.format, **extra)


@dataclass(frozen=True, slots=True)
class WriteMetadata:
    """Write `_metadata`; answered by `metadata_written` or `metadata_failed`."""

    checkpoint_id: CheckpointId
    snapshots: tuple[SubtaskSnapshot, ...]
    """Of all subtasks, by vertex and subtask."""


@dataclass(frozen=True, slots=True)
class LogCompletion:
    """Append the entry that makes it complete; answered by `completion_logged` or `completion_not_logged`."""

    checkpoint_id: CheckpointId
    purpose: Purpose
    request_ids: tuple[str, ...] = ()
    """Of the clients that it answers."""


@dataclass(frozen=True, slots=True)
class LogNewestId:
    """Append an entry that names the newest id; answered by `newest_id_logged`."""

    checkpoint_id: CheckpointId


@dataclass(frozen=True, slots=True)
class RecordCompletion:
    """Show it as complete; the job machine learns of it."""

    checkpoint_id: CheckpointId
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class RecordFailure:
    """Show it as failed."""

    checkpoint_id: CheckpointId
    reason: CheckpointFailureReason
    error: RaystreamError
    acknowledged: tuple[SubtaskSnapshot, ...] = ()
    """Of the subtasks that had stored their part."""
    missing: tuple[Subtask, ...] = ()
    """The others."""


@dataclass(frozen=True, slots=True)
class RecordDamage:
    """Show it as damaged; its files stay as evidence until it is deleted like any other."""

    checkpoint_id: CheckpointId
    error: RaystreamError
    older: CheckpointId | None
    """What the next attempt restores instead; None when there is no next one."""


@dataclass(frozen=True, slots=True)
class NotifyCompleted:
    """Tell all slots, so that sinks commit; with `final` every subtask answers when it has committed."""

    checkpoint_id: CheckpointId
    final: bool


@dataclass(frozen=True, slots=True)
class NotifyAborted:
    """Tell all slots, so that subtasks unblock."""

    checkpoint_id: CheckpointId


@dataclass(frozen=True, slots=True)
class CommitAtEnd:
    """Checkpointing is off and all input has ended: the job machine has the slots commit."""


@dataclass(frozen=True, slots=True)
class DiscardSnapshot:
    """Delete what one subtask stored for a checkpoint that will never refer to it."""

    checkpoint_id: CheckpointId
    snapshot: SubtaskSnapshot


@dataclass(frozen=True, slots=True)
class DeleteCheckpoint:
    """Delete everything in the checkpoint's directory."""

    checkpoint_id: CheckpointId


@dataclass(frozen=True, slots=True)
class PruneLog:
    """Remove the log entries of all checkpoints but these."""

    keep: tuple[CheckpointId, ...]


@dataclass(frozen=True, slots=True)
class FailAttempt:
    """Too many checkpoints have failed, or what the attempt restores cannot be read."""

    error: RaystreamError
    retryable: bool = True
    passed_over: bool = False
    """The next attempt restores an older checkpoint instead."""
    taken_back: bool = False
    """Nothing is wrong: the sources have ended for a savepoint that will not be, and must go on."""


@dataclass(frozen=True, slots=True)
class ResolveSavepoint:
    """Answer a client: with the savepoint, or with the error that prevented it."""

    request_id: str
    checkpoint_id: CheckpointId | None
    error: RaystreamError | None


@dataclass(frozen=True, slots=True)
class ConfirmSettled:
    """Nothing of the ended attempt can complete any more; the next one may choose what it restores."""


@dataclass(frozen=True, slots=True)
class ConfirmDeleted:
    """The job has ended and nothing more will be deleted: say so when all deletions are over."""


Command = (
    StartCheckpoint | WriteMetadata | LogCompletion | LogNewestId | RecordCompletion | RecordFailure
    | RecordDamage | NotifyCompleted | NotifyAborted | CommitAtEnd | DiscardSnapshot | DeleteCheckpoint
    | PruneLog | FailAttempt | ResolveSavepoint | ConfirmSettled | ConfirmDeleted
)  # fmt: skip
