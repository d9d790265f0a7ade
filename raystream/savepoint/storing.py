"""Stores the state of operators as the files of a canonical savepoint."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from raystream.errors import StorageError
from raystream.handles import FileHandle, KeyedStateHandle, OperatorSnapshot, Redistribution, StateInfo
from raystream.ids import OperatorUid
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.savepoint.subtask_parts import SubtaskParts
from raystream.state.canonical_files import Part
from raystream.state.operator_state import OperatorState
from raystream.state.snapshot_format import StoredChunk
from raystream.state.ttl import Moment
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import OpenFileSystem
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

    def state(self, name: str, subtask: int) -> OperatorState:
        """Return what a subtask has."""
        return OperatorState(name=name, mode=self.mode, elements=self.of_subtasks[subtask], info=self.info)

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
    parallelism: int
    keyed: dict[str, KeyedContents] = field(default_factory=dict)
    elements: dict[str, ElementContents] = field(default_factory=dict)
    taken: list[Moment]
    """Time of the state of each subtask, on which a restore goes on."""

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
        groups = groups_of_subtask(subtask, operator.max_parallelism, operator.parallelism)
        parts = SubtaskParts(
            uid=operator.uid,
            subtask=subtask,
            max_parallelism=operator.max_parallelism,
            parallelism=operator.parallelism,
            created_ms=self._created_ms,
            store=self._store,
            look=_go_on,
        )
        keyed: tuple[KeyedStateHandle, ...] = ()
        if operator.keyed:
            states = operator.keyed.values()
            chunks = (
                (position, stored.group, stored.chunk)
                for position, state in enumerate(states)
                for stored in state.chunks(groups)
            )
            keyed = (parts.keyed([state.info for state in states], chunks, taken=operator.taken[subtask]),)
        return OperatorSnapshot(
            uid=operator.uid,
            subtask=subtask,
            states=_infos(operator),
            keyed=keyed,
            operator=tuple(
                parts.operator(of.state(name, subtask), operator.keyed)
                for name, of in operator.elements.items()
                if of.of_subtasks[subtask]
            ),
        )

    def _store(self, handle: FileHandle, part: Part) -> None:
        self._written.append(handle)  # Before it is there: a part of it may be left.
        self._files.write_file(self.directory, handle, part.pieces())


def _infos(operator: OperatorContents) -> tuple[StateInfo, ...]:
    of_elements = (state.info for state in operator.elements.values())
    return (
        *(state.info for state in operator.keyed.values()),
        *(info for info in of_elements if info is not None),
    )


def _go_on() -> None:
    """Nothing stops the writing."""
