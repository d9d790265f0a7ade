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
from typing import overload

from raystream.errors import CheckpointError, StorageError
from raystream.graph.physical import Vertex
from raystream.handles import (
    FileHandle,
    Handle,
    KeyedStateHandle,
    OperatorSnapshot,
    OperatorStateHandle,
)
from raystream.ids import Attempt, CheckpointId, OperatorUid
from raystream.keygroup import groups_of_subtask
from raystream.records.elements import Barrier
from raystream.state.backend import KeyedSnapshot
from raystream.state.operator_state import OperatorState, encode_elements
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import Buffer
from raystream.storage.layout import data_file


@dataclass(frozen=True, slots=True)
class OperatorPart:
    """What one operator contributes to a snapshot, before it is stored."""

    uid: OperatorUid
    states: list[OperatorState]
    keyed: KeyedSnapshot | None
    sync: Callable[[], None]
    """Makes durable what the states refer to; blocks."""

    @property
    def blob_count(self) -> int:
        """How many blobs it is stored as."""
        return len(self.states) + (self.keyed is not None)


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
        self._written: list[Handle] = []
        self.dropped = False

    def drop(self) -> None:
        """Have nothing more written, and free what is encoded."""
        self.dropped = True
        self._parts = ()

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
            self._target.under_way.ended(self._target.barrier.checkpoint_id)
        return stored

    def discard(self) -> None:
        """Delete what was written; blocks."""
        barrier = self._target.barrier
        for handle in self._written:
            if isinstance(handle, FileHandle):
                with suppress(StorageError):  # Left to the next sweep.
                    self._target.files.delete_handle(barrier.directory, handle)
        self._written.clear()

    def _store_part(self, part: OperatorPart) -> OperatorSnapshot:
        part.sync()
        target = self._target
        keyed: tuple[KeyedStateHandle, ...] = ()
        if part.keyed is not None:
            vertex = target.vertex
            groups = groups_of_subtask(target.subtask, vertex.max_parallelism, vertex.parallelism)
            data = self._store(part.uid, "keyed", part.keyed.blob())
            keyed = (KeyedStateHandle(groups=groups, entries=part.keyed.entries, data=data),)
        operator = tuple(
            OperatorStateHandle(
                name=state.name,
                mode=state.mode,
                element_count=len(state.elements),
                data=self._store(part.uid, _file_kind(state), [encode_elements(state.elements)]),
            )
            for state in part.states
        )
        return OperatorSnapshot(
            uid=part.uid,
            subtask=target.subtask,
            states=(
                *(() if part.keyed is None else part.keyed.states),
                *(state.info for state in part.states if state.info is not None),
            ),
            keyed=keyed,
            operator=operator,
        )

    def _store(self, uid: OperatorUid, kind: str, data: Sequence[Buffer]) -> Handle:
        self._look()
        target = self._target
        name = data_file(
            target.barrier.checkpoint_id,
            target.attempt,
            (target.vertex.id, target.subtask),
            uid,
            kind=kind,
            token=next(self._tokens),
        )
        handle = target.files.write_blob(
            target.barrier.directory, name, _Watched(data, self), inline_bytes_max=target.inline_bytes_max
        )
        self._written.append(handle)
        return handle

    def _look(self) -> None:
        if self.dropped:
            raise UploadDroppedError(
                "checkpoint was aborted during its upload", checkpoint_id=self._target.barrier.checkpoint_id
            )


def _file_kind(state: OperatorState) -> str:
    # A user's name may have any length and characters; which file is which stands in `_metadata`.
    return state.name.strip("_") if state.info is None else "operator"


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
