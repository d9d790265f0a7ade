"""References to stored state: what an acknowledged snapshot consists of.

Handles are plain values: they travel from a slot to the job master, are written to
`_metadata` and come back at a restore.  They say where bytes are and to which key
groups or elements they belong, never what the bytes mean.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from raystream.ids import CheckpointId, OperatorUid, VertexId
from raystream.keygroup import KeyGroupRange


class SavepointFormat(Enum):
    """What the files of a savepoint are."""

    CANONICAL = "canonical"
    """Open and of no backend: any backend restores it, and other tools read it."""
    NATIVE = "native"
    """The backend's own: quick to take, and restored by the same backend only."""


FOOTER_BYTES_MAX = 64 * 1024
"""Longest footer of a blob: what a reader of parts of it fetches first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """The end of a file, with its own checksum so that it can be read and trusted alone."""

    size_bytes: int
    checksum: str
    """xxh3-64 of these last bytes, 16 hex digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHandle:
    """Bytes in a file of the snapshot."""

    path: str
    """Relative to the directory that holds `_metadata`, so that a savepoint can be moved."""
    size_bytes: int
    checksum: str
    """xxh3-64 of the whole file, 16 hex digits."""
    footer: Footer | None = None
    """Of a file that says at its end what is where, as blobs of keyed state and Parquet files do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineHandle:
    """Bytes that are small enough to live in `_metadata` itself."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        """Length of the bytes."""
        return len(self.data)


Handle = FileHandle | InlineHandle


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFile:
    """A file in the directory of the only snapshot that needs it, beside its blobs."""

    local: str
    """What its writer calls it: a state backend, or the writer of a savepoint."""
    file: FileHandle


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFile:
    """A file that never changes and that several checkpoints of one job may need."""

    name: str
    """In the job's shared directory; never given twice."""
    local: str
    """What the state backend calls it."""
    created_by: CheckpointId
    """The checkpoint that it was written for."""
    size_bytes: int
    checksum: str
    """xxh3-64 of the whole file, 16 hex digits."""


class Redistribution(Enum):
    """How operator state is dealt out when the parallelism changes (`SEMANTICS` of operator state)."""

    SPLIT = "split"
    UNION = "union"
    BROADCAST = "broadcast"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateInfo:
    """Description of one registered state, stored in every snapshot and checked at restore."""

    name: str
    kind: str
    """`value`, `list`, `map`, `reducing` or `aggregating` for keyed state; `operator-list`, `operator-union`,
    `operator-broadcast` or `operator-raw` for operator state."""
    serializer: str
    """Id of the value serializer, `msgpack-1` or `pickle-1`."""
    schema: str
    """Human-readable value type, such as `int` or `dict[str, int]`; empty when pickled."""
    map_key_schema: str = ""
    namespaced: bool = False
    """True when an entry belongs to a key and a namespace, such as a window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedStateHandle:
    """The keyed state of one operator subtask: a self-describing blob, and perhaps files that it names."""

    groups: KeyGroupRange
    entries: int | None
    """Number of (state, key) entries, for people; None when nobody has counted them."""
    data: Handle
    shared: tuple[SharedFile, ...] = ()
    """Files that other checkpoints may need too."""
    files: tuple[NamedFile, ...] = ()
    """Files that only this snapshot has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorStateHandle:
    """One named list of opaque elements, the operator state of one subtask."""

    name: str
    mode: Redistribution
    element_count: int
    data: Handle


class ChannelStage(Enum):
    """Where records in flight were; of one channel, those of an earlier stage come first at a restore."""

    TAKEN = "taken"
    """In the receiver, taken from its channel: the rest of a batch, or of what it had restored."""
    INPUT = "input"
    """In a channel of the receiver, ahead of the barrier."""
    OUTPUT = "output"
    """In the sender, overtaken by the barrier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSlice:
    """The batches of one channel inside a blob of records in flight."""

    sender: int
    """Subtask; of what was taken the receiving one."""
    receiver: int
    offset: int
    size_bytes: int
    batches: int
    """At least 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStateHandle:
    """Records in flight: what a barrier has overtaken on its way to one input of an operator."""

    target: OperatorUid
    """The operator that is to get them, whoever stored them."""
    input: int
    """The input of that operator, 0-based."""
    stage: ChannelStage
    keyed: bool
    """The records have keys, and follow their key groups at another parallelism."""
    records: int
    slices: tuple[ChannelSlice, ...]
    data: Handle


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSnapshot:
    """The snapshot of one operator subtask."""

    uid: OperatorUid
    subtask: int
    states: tuple[StateInfo, ...] = ()
    keyed: tuple[KeyedStateHandle, ...] = ()
    operator: tuple[OperatorStateHandle, ...] = ()
    channels: tuple[ChannelStateHandle, ...] = ()
    """Records in flight that this subtask has stored, of its input and of its outputs."""

    @property
    def size_bytes(self) -> int:
        """Stored size of all handles, whoever else needs a part of it."""
        return size_of([self])


def shared_files_in(operators: Iterable[OperatorSnapshot]) -> tuple[SharedFile, ...]:
    """Return all shared files that some snapshots need, each once: subtasks may refer to the same one."""
    files = {file.name: file for operator in operators for handle in operator.keyed for file in handle.shared}
    return tuple(files.values())


def blobs_in(operators: Iterable[OperatorSnapshot]) -> tuple[Handle, ...]:
    """Return the blobs of some snapshots, in stored order."""
    blobs: list[Handle] = []
    for operator in operators:
        blobs += [handle.data for handle in operator.keyed]
        blobs += [handle.data for handle in operator.operator]
        blobs += [handle.data for handle in operator.channels]
    return tuple(blobs)


def files_in(operators: Sequence[OperatorSnapshot]) -> tuple[FileHandle, ...]:
    """Return every file that some snapshots have in their own directory, whatever it is for."""
    named = (file.file for operator in operators for handle in operator.keyed for file in handle.files)
    return (*(blob for blob in blobs_in(operators) if isinstance(blob, FileHandle)), *named)


def size_of(operators: Sequence[OperatorSnapshot]) -> int:
    """Return the stored size of some snapshots."""
    inline = sum(blob.size_bytes for blob in blobs_in(operators) if isinstance(blob, InlineHandle))
    own = inline + sum(file.size_bytes for file in files_in(operators))
    return own + sum(file.size_bytes for file in shared_files_in(operators))


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtaskSnapshot:
    """What one subtask (a chain of operators) acknowledges."""

    vertex: VertexId
    subtask: int
    operators: tuple[OperatorSnapshot, ...]
    sync_ms: float = 0.0
    """Time the slot's loop was held by the synchronous part."""
    async_ms: float = 0.0
    """From the end of the synchronous part to the acknowledgement."""
    alignment_ms: float = 0.0
    start_delay_ms: float = 0.0
    ended: bool = False
    """All its input was processed, and the end passed on, before the barrier."""
    writing_from: CheckpointId | None = None
    """Oldest checkpoint for which the slot was still writing then, also one that was given up; None: none."""

    @property
    def size_bytes(self) -> int:
        """Stored size of all operators' handles."""
        return size_of(self.operators)

    @property
    def in_flight_bytes(self) -> int:
        """Stored size of the records in flight alone."""
        return sum(handle.data.size_bytes for one in self.operators for handle in one.channels)

    @property
    def shared_files(self) -> tuple[SharedFile, ...]:
        """All shared files that it needs, once for each operator that refers to it."""
        return tuple(
            file for operator in self.operators for handle in operator.keyed for file in handle.shared
        )
