"""The encoded snapshot of one subtask on its way to storage, until it is stored or dropped.

`run` blocks and belongs into a thread; `drop` comes from the loop at any time, also before `run` has
begun.  The mark that it leaves is looked at before every blob and every piece of one.  What was
written by then is deleted by whoever finds the mark: no checkpoint will ever refer to it.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, overload

from raystream.errors import CheckpointError, StorageError
from raystream.graph.physical import Vertex
from raystream.handles import (
    ChannelSlice,
    ChannelStateHandle,
    FileHandle,
    Handle,
    KeyedStateHandle,
    NamedFile,
    OperatorSnapshot,
    OperatorStateHandle,
    SavepointFormat,
    SharedFile,
)
from raystream.ids import Attempt, CheckpointId, OperatorUid
from raystream.keygroup import groups_of_subtask
from raystream.records.elements import Barrier, SnapshotKind
from raystream.runtime.in_flight import CapturedInput
from raystream.state.backend import KeyedSnapshot
from raystream.state.channel_state import encode_slice
from raystream.state.operator_state import OperatorState, encode_elements
from raystream.state.snapshot_files import LocalFile
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import Buffer
from raystream.storage.layout import data_file

if TYPE_CHECKING:
    from raystream.savepoint.subtask_parts import SubtaskParts
    from raystream.state.canonical_files import Part

T = TypeVar("T")
_Named = tuple[LocalFile, str]  # A file of a backend, and the name that it gets.

PIECE_BYTES = 4 << 20
"""Piece in which a file beside the blobs is written."""


@dataclass(frozen=True, slots=True)
class OperatorPart:
    """What one operator contributes to a snapshot, before it is stored."""

    uid: OperatorUid
    states: list[OperatorState]
    keyed: KeyedSnapshot | None
    sync: Callable[[], None]
    """Makes durable what the states refer to; blocks."""
    channels: tuple[CapturedInput, ...] = ()
    """Records in flight that it stores."""

    @property
    def blob_count(self) -> int:
        """How many blobs it is stored as."""
        return len(self.states) + (self.keyed is not None) + len(self.channels)

    def discard(self) -> None:
        """Free what is encoded; may be called again."""
        if self.keyed is not None:
            self.keyed.discard()


class UploadDroppedError(CheckpointError):
    """The checkpoint was aborted while its snapshot was being written."""


class UploadsUnderWay:
    """For which checkpoints a slot still writes something, of any attempt; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshots: Counter[CheckpointId] = Counter()

    def begun(self, checkpoint_id: CheckpointId) -> None:
        """A snapshot will be written."""
        with self._lock:
            self._snapshots[checkpoint_id] += 1

    def ended(self, checkpoint_id: CheckpointId) -> None:
        """Nothing more of that snapshot will be written."""
        with self._lock:
            self._snapshots -= Counter([checkpoint_id])  # Keeps only what is above zero.

    @property
    def oldest(self) -> CheckpointId | None:
        """The oldest of these checkpoints; None when there is none."""
        with self._lock:
            return min(self._snapshots, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadTarget:
    """Whose snapshot it is, and where it goes."""

    files: SnapshotFiles
    under_way: UploadsUnderWay
    inline_bytes_max: int
    attempt: Attempt
    barrier: Barrier
    vertex: Vertex
    subtask: int


class Upload:
    """Stores the parts of one snapshot.

    Args:
        tokens: one for each blob, part of its name.
    """

    def __init__(self, target: UploadTarget, parts: Sequence[OperatorPart], tokens: Sequence[str]) -> None:
        self._target = target
        self._parts = tuple(parts)
        self._tokens = iter(tokens)
        self._written: list[FileHandle] = []
        self._shared: list[SharedFile] = []
        self.dropped = False

    def drop(self) -> None:
        """Have nothing more written, and free what is encoded."""
        self.dropped = True
        self._free()

    def run(self) -> tuple[OperatorSnapshot, ...]:
        """Write every blob and return what was stored, in the order of the operators.

        Raises:
            UploadDroppedError: the snapshot was dropped meanwhile.
            CheckpointError: a blob is too large for its storage.
            StorageError: the store refused.
            RaystreamError: an operator could not sync.
        """
        try:
            stored = tuple(map(self._store_part, self._parts))
            self._look()
        except BaseException:
            self.discard()
            raise
        finally:
            self._free()
            self._target.under_way.ended(self._target.barrier.checkpoint_id)
        return stored

    def _free(self) -> None:
        parts, self._parts = self._parts, ()
        for part in parts:
            part.discard()

    def discard(self) -> None:
        """Delete what was written; blocks.

        That includes shared files: only what a complete checkpoint has is referred to.
        """
        files, directory = self._target.files, self._target.barrier.directory
        for handle in self._written:
            with suppress(StorageError):  # Left to the next sweep.
                files.delete_handle(directory, handle)
        for file in self._shared:
            with suppress(StorageError):
                files.delete_shared(directory, file)
        self._written.clear()
        self._shared.clear()

    def _store_part(self, part: OperatorPart) -> OperatorSnapshot:
        part.sync()
        keyed_states = () if part.keyed is None else part.keyed.states
        keyed: tuple[KeyedStateHandle, ...] = ()
        if self._target.barrier.savepoint_format is SavepointFormat.CANONICAL:
            canonical = self._canonical(part.uid)
            names = {state.name for state in keyed_states}
            if part.keyed is not None:
                snapshot = part.keyed
                chunks, place = snapshot.chunks(), snapshot.local_directory
                keyed = (canonical.keyed(snapshot.states, chunks, taken=snapshot.taken, directory=place),)
            operator = tuple(canonical.operator(state, names) for state in part.states if state.elements)
        else:
            if part.keyed is not None:
                keyed = (self._store_keyed(part.uid, part.keyed),)
            operator = tuple(self._store_operator(part.uid, state) for state in part.states)
        return OperatorSnapshot(
            uid=part.uid,
            subtask=self._target.subtask,
            states=(
                *keyed_states,
                *(state.info for state in part.states if state.info is not None),
            ),
            keyed=keyed,
            operator=operator,
            channels=tuple(self._store_channels(part.uid, captured) for captured in part.channels),
        )

    def _canonical(self, uid: OperatorUid) -> "SubtaskParts":
        # Here, since Parquet takes long to import and most jobs take no such savepoint.
        from raystream.savepoint.subtask_parts import SubtaskParts

        target = self._target
        return SubtaskParts(
            uid=uid,
            subtask=target.subtask,
            max_parallelism=target.vertex.max_parallelism,
            parallelism=target.vertex.parallelism,
            created_ms=target.barrier.created_ms,
            store=self._store_file,
            look=self._look,
        )

    def _store_file(self, handle: FileHandle, part: "Part") -> None:
        self._write_file(handle, part.pieces())

    def _write_file(self, handle: FileHandle, pieces: Sequence[Buffer]) -> None:
        self._look()
        self._written.append(handle)  # Before it is there: a part of it may be left.
        self._target.files.write_file(self._target.barrier.directory, handle, _Watched(pieces, self))

    def _store_operator(self, uid: OperatorUid, state: OperatorState) -> OperatorStateHandle:
        blob = encode_elements(state.elements)
        return OperatorStateHandle(
            name=state.name,
            mode=state.mode,
            element_count=len(state.elements),
            data=self._store(uid, _file_kind(state), [blob], next(self._tokens)),
        )

    def _store_channels(self, uid: OperatorUid, captured: CapturedInput) -> ChannelStateHandle:
        slices: list[ChannelSlice] = []
        pieces: list[bytes] = []
        offset = records = 0
        for channel in captured.channels:
            self._look()
            batches = channel.batches()
            piece = encode_slice(batches)
            slices.append(
                ChannelSlice(
                    sender=channel.route.sender,
                    receiver=channel.route.receiver,
                    offset=offset,
                    size_bytes=len(piece),
                    batches=len(batches),
                )
            )
            pieces.append(piece)
            offset += len(piece)
            records += sum(map(len, batches))
        return ChannelStateHandle(
            target=captured.target,
            input=captured.input,
            stage=captured.stage,
            keyed=captured.keyed,
            records=records,
            slices=tuple(slices),
            data=self._store(uid, "in-flight", pieces, next(self._tokens)),
        )

    def _store_keyed(self, uid: OperatorUid, keyed: KeyedSnapshot) -> KeyedStateHandle:
        vertex, subtask = self._target.vertex, self._target.subtask
        token = next(self._tokens)
        named: tuple[NamedFile, ...] = ()
        shared: dict[str, SharedFile] = {}
        files = [(file, self._name(uid, f"file-{n}", token)) for n, file in enumerate(keyed.files())]
        if self._target.barrier.kind is SnapshotKind.SAVEPOINT:  # It refers to nothing outside.
            named = tuple(self._each(lambda one: self._store_named(*one), files))
        else:
            stored = self._each(lambda one: one[0].shared or self._store_shared(*one), files)
            shared = {file.local: one for (file, _), one in zip(files, stored, strict=True)}
            for file, _ in files:
                self._target.files.copy_shared(self._target.barrier.directory, shared[file.local], file.path)
        data = self._store(uid, "keyed", keyed.blob(), token)
        keyed.stored(shared)
        return KeyedStateHandle(
            groups=groups_of_subtask(subtask, vertex.max_parallelism, vertex.parallelism),
            entries=keyed.entries,
            data=data,
            shared=tuple(shared.values()),
            files=named,
        )

    def _each(self, store: Callable[[_Named], T], files: Sequence[_Named]) -> list[T]:
        return self._target.files.each(self._target.barrier.directory, store, files)

    def _store_named(self, file: LocalFile, path: str) -> NamedFile:
        self._look()
        content, checksum = file.content()
        handle = FileHandle(path=path, size_bytes=len(content), checksum=checksum)
        self._write_file(handle, _in_pieces(content))
        return NamedFile(local=file.local, file=handle)

    def _store_shared(self, file: LocalFile, name: str) -> SharedFile:
        self._look()
        target = self._target
        content, checksum = file.content()
        shared = SharedFile(
            name=name,
            local=file.local,
            created_by=target.barrier.checkpoint_id,
            size_bytes=len(content),
            checksum=checksum,
        )
        self._shared.append(shared)  # Before it is there: a part of it may be left.
        self._look()
        if not target.files.link_shared(target.barrier.directory, shared, file.path):
            target.files.write_shared(target.barrier.directory, shared, _Watched(_in_pieces(content), self))
        return shared

    def _store(self, uid: OperatorUid, kind: str, data: Sequence[Buffer], token: str) -> Handle:
        self._look()
        target = self._target
        handle = target.files.write_blob(
            target.barrier.directory,
            self._name(uid, kind, token),
            _Watched(data, self),
            inline_bytes_max=target.inline_bytes_max,
        )
        if isinstance(handle, FileHandle):
            self._written.append(handle)
        return handle

    def _name(self, uid: OperatorUid, kind: str, token: str) -> str:
        target = self._target
        subtask = target.vertex.id, target.subtask
        return data_file(target.barrier.checkpoint_id, target.attempt, subtask, uid, kind=kind, token=token)

    def _look(self) -> None:
        if self.dropped:
            raise UploadDroppedError(
                "checkpoint was aborted during its upload", checkpoint_id=self._target.barrier.checkpoint_id
            )


def _file_kind(state: OperatorState) -> str:
    # A user's name may have any length and characters; which file is which stands in `_metadata`.
    return state.name.strip("_") if state.info is None else "operator"


def _in_pieces(content: memoryview) -> list[memoryview]:
    return [content[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES)]


class _Watched(Sequence[Buffer]):
    """The pieces of a blob; going through them ends when the upload is dropped."""

    def __init__(self, pieces: Sequence[Buffer], upload: Upload) -> None:
        self._pieces = pieces
        self._upload = upload

    def __iter__(self) -> Iterator[Buffer]:
        for piece in self._pieces:
            self._upload._look()
            yield piece

    def __len__(self) -> int:
        return len(self._pieces)

    @overload
    def __getitem__(self, index: int) -> Buffer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Buffer]: ...
    def __getitem__(self, index: int | slice) -> Buffer | Sequence[Buffer]:
        return self._pieces[index]
