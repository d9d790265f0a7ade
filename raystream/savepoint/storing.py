"""Stores the state of operators as the files of a canonical savepoint."""

import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from raystream.errors import StorageError
from raystream.handles import (
    FileHandle,
    Footer,
    InlineHandle,
    KeyedStateHandle,
    NamedFile,
    OperatorSnapshot,
    OperatorStateHandle,
    Redistribution,
    StateInfo,
)
from raystream.ids import OperatorUid
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.state.canonical_files import Part
from raystream.state.canonical_operators import OperatorPartHead, write_operator_part
from raystream.state.canonical_part import SubtaskHead
from raystream.state.canonical_snapshot import PartsWriter, encode_index
from raystream.state.operator_state import OperatorState
from raystream.state.snapshot_format import StoredChunk
from raystream.state.ttl import Moment
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import OpenFileSystem
from raystream.storage.layout import part_file
from raystream.storage.metadata import OperatorMetadata


@dataclass(frozen=True, slots=True)
class KeyedContents:
    """A keyed state.

    Attributes:
        chunks: yields what it has in a range of key groups, sorted by key group; may be called again.
    """

    info: StateInfo
    chunks: Callable[[KeyGroupRange], Iterable[StoredChunk]]


@dataclass(slots=True)
class ElementContents:
    """A list of elements of the subtasks of an operator.

    Attributes:
        info: None for what raystream itself keeps.
        of_subtasks: the elements of each subtask.
    """

    info: StateInfo | None
    mode: Redistribution
    parallelism: int
    of_subtasks: list[list[bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.of_subtasks = [[] for _ in range(self.parallelism)]

    def deal(self, elements: list[bytes]) -> None:
        """Give elements to the subtasks: to each its share, and of a broadcast map to each all."""
        count, parallelism = len(elements), self.parallelism
        for subtask in range(parallelism):
            share = elements[subtask * count // parallelism : (subtask + 1) * count // parallelism]
            self.of_subtasks[subtask] = elements if self.mode is Redistribution.BROADCAST else share


@dataclass(slots=True, kw_only=True)
class OperatorContents:
    """An operator and its states by name."""

    uid: OperatorUid
    uid_generated: bool = False
    name: str
    max_parallelism: int
    parallelism: int = 1
    keyed: dict[str, KeyedContents] = field(default_factory=dict)
    elements: dict[str, ElementContents] = field(default_factory=dict)
    taken: Moment = field(default_factory=Moment)

    @property
    def groups(self) -> KeyGroupRange:
        """All key groups."""
        return KeyGroupRange(0, self.max_parallelism)


class SavepointFiles:
    """The files of one savepoint.

    Args:
        directory: of the savepoint.
        open_fs: gives the store of a URL.
        created_ms: wall time at which it was begun.
    """

    def __init__(self, directory: str, open_fs: OpenFileSystem, *, created_ms: int) -> None:
        self.directory = directory
        self._files = SnapshotFiles(open_fs)
        self._created_ms = created_ms
        self._written: list[FileHandle] = []

    def store(self, operator: OperatorContents) -> OperatorMetadata:
        """Write the state of an operator, subtask by subtask.

        Raises:
            StateCorruptError: a chunk is not what its form says.
            StateError: a value is too large for Parquet, or the local disk failed.
            StorageError: the store refused.
        """
        subtasks = tuple(self._subtask(operator, subtask) for subtask in range(operator.parallelism))
        return OperatorMetadata(
            uid=operator.uid,
            uid_generated=operator.uid_generated,
            name=operator.name,
            max_parallelism=operator.max_parallelism,
            parallelism=operator.parallelism,
            states=_infos(operator),
            subtasks=subtasks,
        )

    def discard(self) -> None:
        """Remove what was written."""
        for handle in self._written:
            with suppress(StorageError):
                self._files.delete_handle(self.directory, handle)

    def _subtask(self, operator: OperatorContents, subtask: int) -> OperatorSnapshot:
        return OperatorSnapshot(
            uid=operator.uid,
            subtask=subtask,
            states=_infos(operator),
            keyed=(self._keyed(operator, subtask),) if operator.keyed else (),
            operator=tuple(
                self._elements(operator, subtask, name)
                for name, contents in operator.elements.items()
                if contents.of_subtasks[subtask]
            ),
        )

    def _keyed(self, operator: OperatorContents, subtask: int) -> KeyedStateHandle:
        groups = groups_of_subtask(subtask, operator.max_parallelism, operator.parallelism)
        head = SubtaskHead(
            uid=operator.uid,
            subtask=subtask,
            groups=groups,
            max_parallelism=operator.max_parallelism,
            taken=operator.taken,
        )
        states = list(operator.keyed.values())
        writer = PartsWriter(head, [state.info for state in states], _new_file)
        try:
            for position, state in enumerate(states):
                for stored in state.chunks(groups):
                    writer.add(position, stored.group, stored.chunk)
            parts = writer.finish()
            files = tuple(
                NamedFile(
                    local=written.local,
                    file=self._store(part_file(operator.uid, written.info.name, subtask), written.part),
                )
                for written in parts
            )
        finally:
            writer.discard()
        return KeyedStateHandle(
            groups=groups,
            entries=sum(written.part.entries for written in parts),
            data=InlineHandle(data=encode_index(writer.index(parts))),
            files=files,
        )

    def _elements(self, operator: OperatorContents, subtask: int, name: str) -> OperatorStateHandle:
        contents = operator.elements[name]
        state = OperatorState(
            name=name, mode=contents.mode, elements=contents.of_subtasks[subtask], info=contents.info
        )
        head = OperatorPartHead(
            uid=operator.uid,
            subtask=subtask,
            max_parallelism=operator.max_parallelism,
            taken_ms=self._created_ms,
        )
        part = write_operator_part(head, state, _new_file)
        path = f"_operator_{name}" if name in operator.keyed else name
        try:
            handle = self._store(part_file(operator.uid, path, subtask), part)
        finally:
            part.close()
        return OperatorStateHandle(name=name, mode=state.mode, element_count=len(state.elements), data=handle)

    def _store(self, path: str, part: Part) -> FileHandle:
        footer = Footer(size_bytes=part.footer_bytes, checksum=part.footer_checksum)
        handle = FileHandle(path=path, size_bytes=part.size_bytes, checksum=part.checksum, footer=footer)
        self._written.append(handle)  # Before it is there: a part of it may be left.
        self._files.write_file(self.directory, handle, part.pieces())
        return handle


def _infos(operator: OperatorContents) -> tuple[StateInfo, ...]:
    of_elements = (state.info for state in operator.elements.values())
    return (
        *(state.info for state in operator.keyed.values()),
        *(info for info in of_elements if info is not None),
    )


def _new_file() -> IO[bytes]:
    return tempfile.TemporaryFile()
