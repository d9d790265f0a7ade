"""What the job's coordinator and its slots say to each other.

Commands go from the coordinator to one slot, in order, on one path; reports come back,
in order for each slot.  Both are plain picklable values, so the same messages serve
Ray actors, slots in this process and the simulation.  A receiver drops whatever does
not carry its current attempt.
"""

from dataclasses import dataclass, field
from typing import Any

from raystream.errors import RaystreamError
from raystream.handles import (
    Handle,
    KeyedStateHandle,
    OperatorStateHandle,
    SavepointFormat,
    StateInfo,
    SubtaskSnapshot,
)
from raystream.ids import Attempt, CheckpointId, JobId, OperatorUid, SlotId, VertexId
from raystream.keygroup import KeyGroupRange
from raystream.metrics.reports import SubtaskMetrics
from raystream.records.elements import SnapshotKind
from raystream.runtime.restored_states import RestoredState

# ---- what a restore gives to one subtask ------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorStateSlice:
    """A run of elements `[start, stop)` of one stored operator-state handle."""

    handle: OperatorStateHandle
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRun:
    """Batches `[start, stop)` of one slice of records in flight."""

    data: Handle
    offset: int
    """Of the slice, in the blob."""
    size_bytes: int
    start: int
    stop: int
    input: int
    """The operator's input that they are for."""
    groups: KeyGroupRange | None = None
    """Only records of these key groups; None for all."""
    max_parallelism: int | None = None
    """Number of key groups, where keys are dealt out anew; None where it is what it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRestore:
    """What one operator subtask reads back."""

    directory: str
    """Absolute URL of the snapshot's directory; relative file handles hang below it."""
    own: bool = False
    """It is a checkpoint of this job, so that the next one may refer to its shared files."""
    states: tuple[StateInfo, ...] = ()
    keyed: tuple[KeyedStateHandle, ...] = ()
    """Old handles that overlap the new key-group range; the reader takes only its own groups."""
    operator: tuple[OperatorStateSlice, ...] = ()
    channels: tuple[ChannelRun, ...] = ()
    """Records in flight, in the order in which they are processed."""


SubtaskRestore = dict[OperatorUid, OperatorRestore]

# ---- coordinator -> slot ----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """Build the subtasks of this slot; answered by `SlotDeployed`."""

    job_id: JobId
    attempt: Attempt
    slot: SlotId
    program: bytes
    """`runtime.program.Program` as packed by `runtime.program.pack`: plan, configuration, job code."""
    secret: bytes
    """Key of the HMAC handshake on the data connections of this attempt, 32 bytes."""
    restore: dict[tuple[VertexId, int], SubtaskRestore] = field(default_factory=dict)
    ended: frozenset[VertexId] = frozenset()
    """Vertices that had ended in the restored snapshot: they keep their state, and run nothing."""
    probe: str = ""
    """URL of an object that the slot must be able to read before it says `SlotDeployed`; empty: none."""
    probe_served: bool = False
    """All slots have read it in an earlier attempt: when it is gone, so is a mount that may come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """All slots are deployed: open data connections, restore state; answered by `SlotReady`."""

    attempt: Attempt
    addresses: dict[SlotId, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """All slots are ready: process records."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignSplits:
    """Splits for one source subtask; with `no_more` none will follow."""

    attempt: Attempt
    uid: OperatorUid
    subtask: int
    splits: tuple[bytes, ...]
    no_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerCheckpoint:
    """Source subtasks of this slot emit a barrier now (fields as in `Barrier`)."""

    attempt: Attempt
    checkpoint_id: CheckpointId
    kind: SnapshotKind
    savepoint_format: SavepointFormat | None = None
    created_ms: int
    directory: str
    stop: bool = False
    drain: bool = False
    """Sources end before the barrier, as if all their input were read."""
    full: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCompleted:
    """The checkpoint is durable: sinks commit.  With `final` every subtask answers `CommitsDone`."""

    attempt: Attempt
    checkpoint_id: CheckpointId
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointAborted:
    """The checkpoint will never complete: unblock, drop its snapshot; a `stop` barrier is taken back."""

    attempt: Attempt
    checkpoint_id: CheckpointId


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitAtEnd:
    """Checkpointing is off and all input has ended: pre-commit, commit, answer `CommitsDone`."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAttempt:
    """Drop the attempt's subtasks and connections; answered by `SlotStopped`."""

    attempt: Attempt


Command = (
    Deploy | Connect | Start | AssignSplits | TriggerCheckpoint | CheckpointCompleted
    | CheckpointAborted | CommitAtEnd | StopAttempt
)  # fmt: skip

# ---- slot -> coordinator ----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotDeployed:
    """The subtasks exist and the slot listens for its peers at `address`."""

    attempt: Attempt
    slot: SlotId
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReady:
    """State is restored, restored committables are committed, connections stand."""

    attempt: Attempt
    slot: SlotId
    states: tuple[RestoredState, ...] = ()
    """What became of each state of the slot's operators; one that does not fit must not be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotStopped:
    """Nothing of the attempt runs in this slot any more."""

    attempt: Attempt
    slot: SlotId


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFailed:
    """Something in the slot failed; the attempt cannot go on.

    `consequence` is True when the error is probably the echo of another slot's death (a broken
    connection), so that the coordinator prefers another cause.  `retryable` is False when a
    restart cannot help (a state mismatch, a wrong path).  `damage` is True when what the attempt restores
    cannot be read, so that only another snapshot can help.
    """

    attempt: Attempt
    slot: SlotId
    error: RaystreamError
    consequence: bool = False
    retryable: bool = True
    damage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitsRequested:
    """A source subtask is about to run dry; each request is answered by one `AssignSplits`."""

    attempt: Attempt
    uid: OperatorUid
    subtask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotAcked:
    """One subtask's part of a checkpoint is durable."""

    attempt: Attempt
    checkpoint_id: CheckpointId
    snapshot: SubtaskSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotDeclined:
    """One subtask could not take part; aborts this checkpoint only."""

    attempt: Attempt
    checkpoint_id: CheckpointId
    vertex: VertexId
    subtask: int
    error: RaystreamError


@dataclass(frozen=True, slots=True, kw_only=True)
class InputEnded:
    """One subtask has processed all its input; it stays for the final checkpoint."""

    attempt: Attempt
    vertex: VertexId
    subtask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitsDone:
    """Everything the subtask had pre-committed is committed, for good."""

    attempt: Attempt
    vertex: VertexId
    subtask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a slot has done since the start of the attempt; about once a second."""

    attempt: Attempt
    slot: SlotId
    records_in: int
    records_out: int
    dead_letters: int = 0
    job_name: str = ""
    subtasks: tuple[SubtaskMetrics, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOutput:
    """Something for the client that waits for the job: `print` lines or collected values."""

    attempt: Attempt
    slot: SlotId
    uid: OperatorUid
    payload: Any
    """list[str] of printed lines, or the pickled list of collected values as bytes."""


Report = (
    SlotDeployed | SlotReady | SlotStopped | SlotFailed | SplitsRequested | SnapshotAcked
    | SnapshotDeclined | InputEnded | CommitsDone | Progress | ClientOutput
)  # fmt: skip
