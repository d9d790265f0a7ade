"""The stored keyed state of one subtask, whichever backend or form of savepoint it is in.

blob of chunks (heap, full snapshot)      read where it is, a range at a time
files of RocksDB                          copied to a temporary directory when somebody asks for a chunk
Parquet files (canonical savepoint)       read where they are, row groups that are wanted
"""

import heapq
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raystream.errors import StateCorruptError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.records.elements import WATERMARK_MIN_MS
from raystream.state.canonical_reader import PartReader
from raystream.state.canonical_snapshot import StoredParts
from raystream.state.rocksdb_reading import StoredTables
from raystream.state.snapshot_files import StoredFiles
from raystream.state.snapshot_format import StoredChunk, StoredSnapshot
from raystream.state.stored import Entries
from raystream.state.ttl import Moment


@dataclass(frozen=True, slots=True, order=True)
class LargeKey:
    """An entry among the largest of its state."""

    size_bytes: int
    """Of its key and its values as they are stored."""
    text: str
    """The key, as Python shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartState:
    """One state in the snapshot of one subtask.

    Attributes:
        entries: number of keys (with their namespaces); None where only reading all of it would tell.
        size_bytes: stored size; None likewise.
    """

    info: StateInfo
    entries: int | None
    size_bytes: int | None


class KeyedPart(Protocol):
    """The keyed state of one subtask."""

    @property
    def groups(self) -> KeyGroupRange:
        """Key groups that it holds."""

    @property
    def states(self) -> tuple[PartState, ...]:
        """All states, also those without entries."""

    @property
    def files(self) -> StoredFiles | None:
        """The files of a backend that it consists of, if it does."""

    def chunks(
        self, *, states: Container[str] | None = None, groups: Container[int] | None = None
    ) -> Iterator[tuple[StateInfo, StoredChunk]]:
        """Yield the chunks of some states in some key groups, sorted by key group; None stands for all."""

    @property
    def taken(self) -> Moment:
        """When the snapshot was taken."""

    def largest(self) -> dict[str, list[LargeKey]] | None:
        """Return the largest keys of each state by name; None where only reading all would tell."""

    def close(self) -> None:
        """Let go of local copies."""


@contextmanager
def named(place: str) -> Iterator[None]:
    """Have the error about damage say in which file it is."""
    try:
        yield
    except StateCorruptError as error:
        if "path" in error.context:
            raise
        raise type(error)(error.message, hint=error.hint, path=place, **error.context) from error


def _states(stored: Entries) -> tuple[PartState, ...]:
    return tuple(
        PartState(info=state.info, entries=state.entries, size_bytes=state.size_bytes)
        for state in stored.states
    )


def _taken(stored: Entries) -> Moment:
    event_ms = WATERMARK_MIN_MS if stored.watermark_ms is None else stored.watermark_ms
    return Moment(processing_ms=stored.taken_ms, event_ms=event_ms)


class BlobPart:
    """A blob that holds chunks.

    Args:
        stored: the blob, with all its chunks wanted.
        groups: key groups that it holds.
        place: where it is stored, for errors.
    """

    files = None

    def __init__(self, stored: StoredSnapshot, groups: KeyGroupRange, place: str) -> None:
        self._stored = stored
        self._place = place
        self.groups = groups
        self.states = _states(stored)

    def chunks(
        self, *, states: Container[str] | None = None, groups: Container[int] | None = None
    ) -> Iterator[tuple[StateInfo, StoredChunk]]:
        with named(self._place):
            yield from self._stored.chunks(states=states, groups=groups)

    @property
    def taken(self) -> Moment:
        return _taken(self._stored)

    def largest(self) -> None:
        pass

    def close(self) -> None:
        pass


class FilesPart:
    """Files of RocksDB.

    Args:
        files: the stored ones.
        directory: to be made, for a local copy.
        check: called before each piece of a file.
    """

    def __init__(self, files: StoredFiles, directory: Path, check: Callable[[], None]) -> None:
        self.files = files
        self.groups = files.index.groups
        self.states = tuple(
            PartState(info=table.info, entries=None, size_bytes=None) for table in files.index.tables
        )
        self._directory = directory
        self._check = check
        self._tables: StoredTables | None = None

    def chunks(
        self, *, states: Container[str] | None = None, groups: Container[int] | None = None
    ) -> Iterator[tuple[StateInfo, StoredChunk]]:
        if self._tables is None:
            self._tables = StoredTables(self.files, self._directory, self._check)
        yield from self._tables.chunks(states=states, groups=groups)

    @property
    def taken(self) -> Moment:
        return self.files.index.taken

    def largest(self) -> None:
        pass

    def close(self) -> None:
        if self._tables is not None:
            self._tables.close()


class CanonicalPart:
    """Parquet files, of which the footers were read."""

    files = None

    def __init__(self, stored: StoredParts, groups: KeyGroupRange) -> None:
        self._stored = stored
        self.groups = groups
        self.states = _states(stored)

    @property
    def taken(self) -> Moment:
        return _taken(self._stored)

    def chunks(
        self, *, states: Container[str] | None = None, groups: Container[int] | None = None
    ) -> Iterator[tuple[StateInfo, StoredChunk]]:
        """Yield the chunks, of which one row group of each state is held."""
        wanted = [
            self._of_state(self.states[position].info, reader, groups)
            for position, reader in self._stored.parts.items()
            if states is None or self.states[position].info.name in states
        ]
        yield from heapq.merge(*wanted, key=lambda one: one[1].group)

    def _of_state(
        self, info: StateInfo, reader: PartReader, groups: Container[int] | None
    ) -> Iterator[tuple[StateInfo, StoredChunk]]:
        for stored in reader.chunks(groups):
            yield info, stored

    def largest(self) -> dict[str, list[LargeKey]]:
        return {
            self.states[position].info.name: [
                LargeKey(large.size_bytes, large.text) for large in reader.footer.largest_keys
            ]
            for position, reader in self._stored.parts.items()
        }

    def close(self) -> None:
        pass
