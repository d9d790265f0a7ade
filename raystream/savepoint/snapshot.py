"""An opened snapshot: a savepoint of either format or a checkpoint of either backend, seen alike.

Knows which operators and states there are from `_metadata` and the indexes of blobs; reads the rest when it
is asked for.  Nothing is unpickled, and no class of the program is needed.  What is copied to the local disk
(files of RocksDB) is in a temporary directory, which `close` removes.
"""

import tempfile
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from raystream.errors import StateCorruptError, StateError, StateRestoreError
from raystream.handles import (
    FileHandle,
    KeyedStateHandle,
    NamedFile,
    OperatorStateHandle,
    SharedFile,
    StateInfo,
)
from raystream.ids import OperatorUid
from raystream.keygroup import KeyGroupRange
from raystream.savepoint.parts import BlobPart, CanonicalPart, FilesPart, KeyedPart, PartState, named
from raystream.state.canonical_index import PartPlace
from raystream.state.canonical_snapshot import StoredParts
from raystream.state.snapshot_format import StoredChunk, StoredSnapshot
from raystream.state.stored import open_stored, stored_elements
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import OpenFileSystem
from raystream.storage.layout import metadata_path, resolve
from raystream.storage.metadata import OperatorMetadata
from raystream.storage.snapshots import load_snapshot
from raystream.storage.stores import open_file_system

Progress = Callable[[str, int, int], None]
"""Told what is being done (`copying` or `reading`), how many bytes are done, and of how many."""


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Elements:
    """One list of operator state in one subtask.

    Attributes:
        info: what the program declared; None for state that raystream itself keeps.
        elements: as they are stored.
    """

    handle: OperatorStateHandle
    info: StateInfo | None
    subtask: int
    elements: list[bytes]


class SnapshotReader:
    """A snapshot that is open for reading; a context manager.

    Args:
        path: the directory or the `_metadata` in it, as path or URL.
        open_fs: gives the store of a URL.
        progress: told how far a long copy is.

    Raises:
        StateRestoreError: nothing is there, or it is not a snapshot that can be read.
        StateCorruptError: the snapshot is damaged; the error names the file.
        StorageError: the store did not answer.
    """

    def __init__(
        self, path: str, *, open_fs: OpenFileSystem = open_file_system, progress: Progress = silent
    ) -> None:
        self.directory, self.metadata = load_snapshot(path, open_fs=open_fs)
        self._files = SnapshotFiles(open_fs)
        self._progress = progress
        self._parts: dict[OperatorUid, tuple[KeyedPart, ...]] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._copying = _Steps("copying", progress)
        self._reading = _Steps("reading", progress)
        self._copies = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of local copies; nothing can be read any more."""
        for parts in self._parts.values():
            for part in parts:
                part.close()
        self._parts = {}
        self._closed = True
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def operator(self, uid: str) -> OperatorMetadata:
        """Return an operator.

        Raises:
            StateRestoreError: the snapshot has none of this uid; the error says which it has.
        """
        found = self.metadata.operator(OperatorUid(uid))
        if found is None:
            there = ", ".join(repr(str(operator.uid)) for operator in self.metadata.operators)
            raise StateRestoreError(
                "snapshot has no operator of this uid",
                hint=f"it has {there}" if there else "it has no operators",
                uid=uid,
                snapshot=self.directory,
            )
        return found

    # ---- keyed state -------------------------------------------------------------

    def parts(self, operator: OperatorMetadata) -> tuple[KeyedPart, ...]:
        """Return the keyed state of an operator's subtasks, in the order of their key groups.

        Raises:
            StateCorruptError: the index of one is damaged; the error names the file.
            StateRestoreError: a newer version wrote one.
            StorageError: the store did not answer.
        """
        if self._closed:
            raise StateError(
                "snapshot is closed", hint="read it inside of the `with` block", path=self.directory
            )
        known = self._parts.get(operator.uid)
        if known is None:
            handles = [handle for subtask in operator.subtasks for handle in subtask.keyed]
            handles.sort(key=lambda handle: handle.groups.start)
            known = self._parts[operator.uid] = tuple(self._part(operator, handle) for handle in handles)
        return known

    def keyed_states(self, operator: OperatorMetadata) -> dict[str, PartState]:
        """Return the keyed states of an operator by name, with the sums over its subtasks."""
        found: dict[str, PartState] = {}
        for part in self.parts(operator):
            for state in part.states:
                before = found.setdefault(state.info.name, replace(state, entries=0, size_bytes=0))
                found[state.info.name] = replace(
                    state,
                    entries=_sum(before.entries, state.entries),
                    size_bytes=_sum(before.size_bytes, state.size_bytes),
                )
        return found

    def chunks(
        self,
        operator: OperatorMetadata,
        *,
        states: Container[str] | None = None,
        groups: Container[int] | None = None,
    ) -> Iterator[tuple[StateInfo, StoredChunk]]:
        """Yield the chunks of keyed states in some key groups, sorted by key group; None stands for all.

        Raises:
            StateCorruptError: a file is missing or damaged; the error names it.
            StorageError: the store did not answer.
            StateError: the local disk failed.
        """
        parts = self.parts(operator)
        told = states is None and groups is None  # What takes longer than a moment.
        if told:
            self._reading.total += operator.size_bytes
        for part in parts:
            if groups is not None and not any(group in groups for group in part.groups):
                continue
            for info, stored in part.chunks(states=states, groups=groups):
                yield info, stored
                if told:
                    self._reading.moved(len(stored.chunk.data))

    def _part(self, operator: OperatorMetadata, handle: KeyedStateHandle) -> KeyedPart:
        place = self._place(handle)
        every = KeyGroupRange(0, operator.max_parallelism)
        with named(place):
            blob = self._files.open_handle(self.directory, handle.data)
            files = {one.local: partial(self._copied, one) for one in _files(handle)}
            parts = {one.local: self._part_place(one.file) for one in handle.files if one.file.footer}
            stored = open_stored(blob, files, every, operator.max_parallelism, known={}, parts=parts)
        if isinstance(stored, StoredParts):
            return CanonicalPart(stored, handle.groups)
        if isinstance(stored, StoredSnapshot):
            return BlobPart(stored, handle.groups, place)
        self._copying.total += sum(map(_size, _files(handle)))
        return FilesPart(stored, self._local(), _no_check)

    def _part_place(self, file: FileHandle) -> PartPlace:
        reader = self._files.open_handle(self.directory, file)
        return PartPlace.of(file, resolve(self.directory, file.path), reader.read_range)

    def _place(self, handle: KeyedStateHandle | OperatorStateHandle) -> str:
        if isinstance(handle.data, FileHandle):
            return resolve(self.directory, handle.data.path)
        return metadata_path(self.directory)

    def _copied(self, file: SharedFile | NamedFile) -> Iterator[bytes]:
        pieces = (
            self._files.read_shared(self.directory, file)
            if isinstance(file, SharedFile)
            else self._files.read_file(self.directory, file.file)
        )
        for piece in pieces:
            self._copying.moved(len(piece))
            yield piece

    def _local(self) -> Path:
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="raystream-state-")
        self._copies += 1
        return Path(self._temporary.name) / str(self._copies)

    # ---- operator state ----------------------------------------------------------

    def elements(self, operator: OperatorMetadata, name: str | None = None) -> Iterator[Elements]:
        """Yield the lists of operator state, of one name or of all, in the order of subtasks.

        Raises:
            StateCorruptError: a file is missing or damaged; the error names it.
            StorageError: the store did not answer.
        """
        infos = {info.name: info for info in operator.states if info.kind.startswith(OPERATOR_KINDS)}
        for subtask in operator.subtasks:
            for handle in subtask.operator:
                if name is None or handle.name == name:
                    with named(self._place(handle)):
                        blob = self._files.read_handle(self.directory, handle.data)
                        elements = stored_elements(blob, self._place(handle))
                    if len(elements) != handle.element_count:
                        raise StateCorruptError(
                            "number of elements is not as recorded", path=self._place(handle)
                        )
                    yield Elements(handle, infos.get(handle.name), subtask.subtask, elements)


OPERATOR_KINDS = "operator-"
"""What the kinds of operator state begin with, as opposed to those of keyed state."""


def _files(handle: KeyedStateHandle) -> tuple[SharedFile | NamedFile, ...]:
    return *handle.shared, *handle.files


def _size(file: SharedFile | NamedFile) -> int:
    return file.size_bytes if isinstance(file, SharedFile) else file.file.size_bytes


def _no_check() -> None:
    """Nothing ends a copy."""


class _Steps:
    """How far something is."""

    def __init__(self, what: str, progress: Progress) -> None:
        self._what = what
        self._progress = progress
        self.total = self.done = 0

    def moved(self, size_bytes: int) -> None:
        self.done += size_bytes
        self._progress(self._what, self.done, max(self.done, self.total))


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


__all__ = ["Elements", "Progress", "SnapshotReader", "silent"]
