"""Control elements: what stands between batches, never inside one."""

from dataclasses import dataclass
from enum import Enum

from raystream.handles import SavepointFormat
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
    savepoint_format: SavepointFormat | None = None
    """Of a savepoint; None for a checkpoint."""
    created_ms: int
    """Wall time at which the job master created it, for the start delay."""
    directory: str
    """Where the snapshot's files go: the absolute URL of the directory that will hold `_metadata`;
    empty with `jobmanager` storage, where everything is inline."""
    stop: bool = False
    """The job stops at this barrier: sources emit nothing after it unless it is aborted."""
    full: bool = False
    """The snapshot refers to no file of an older one."""
    routing_epoch: int = 0
    """Version of the table key group -> subtask that holds behind this barrier."""


@dataclass(frozen=True, slots=True)
class CancelBarrier:
    """Takes back a barrier that some subtasks may still be aligning for."""

    checkpoint_id: CheckpointId


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """No records follow on this channel; barriers still may (for the final checkpoint)."""


WATERMARK_MIN_MS = -(1 << 63)
"""The watermark before the first one."""
WATERMARK_MAX_MS = (1 << 63) - 1
"""The watermark behind the last record of an input that has ended."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """Event time on this channel has reached `timestamp_ms`: records up to it that follow are late."""

    timestamp_ms: int
    """ms since the epoch."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nobody shall wait for watermarks of this channel until it is active again."""


@dataclass(frozen=True, slots=True)
class Active:
    """The channel was idle and is not any more; stands before the first record that follows."""


EventTime = Watermark | Idle | Active
"""What moves event time, from the sources down."""

Control = Barrier | CancelBarrier | EndOfInput | EventTime
