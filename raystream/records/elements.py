"""Control elements: what stands between batches, never inside one."""

from dataclasses import dataclass
from enum import Enum

from raystream.ids import CheckpointId


class SnapshotKind(Enum):
    """What a barrier asks for."""

    CHECKPOINT = "checkpoint"
    SAVEPOINT = "savepoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Barrier:
    """Separates the records before a checkpoint from those after it."""

    checkpoint_id: CheckpointId
    kind: SnapshotKind
    created_ms: int
    """Wall time at which the job master created it, for the start delay."""
    directory: str
    """Where the snapshot's files go: the absolute URL of the directory that will hold `_metadata`;
    empty with `jobmanager` storage, where everything is inline."""
    stop: bool = False
    """The job stops at this barrier: sources emit nothing after it unless it is aborted."""
    routing_epoch: int = 0
    """Version of the table key group -> subtask that holds behind this barrier."""


@dataclass(frozen=True, slots=True)
class CancelBarrier:
    """Takes back a barrier that some subtasks may still be aligning for."""

    checkpoint_id: CheckpointId


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """No records follow on this channel; barriers still may (for the final checkpoint)."""


Control = Barrier | CancelBarrier | EndOfInput
