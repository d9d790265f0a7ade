"""The stored keyed state of one subtask, whichever backend or form of savepoint it is in.

    blob of chunks (heap, full snapshot)      read where it is, a range at a time
    files of RocksDB                          copied to a temporary directory when somebody asks for a chunk
    Parquet files (canonical savepoint)       read where they are, row groups that are wanted
"""

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raystream.errors import StateCorruptError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state.rocksdb_reading import StoredTables
from raystream.state.snapshot_files import StoredFiles
from raystream.state.snapshot_format import StoredChunk, StoredSnapshot


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
        self.states = tuple(
            PartState(info=state.info, entries=state.entries, size_bytes=state.size_bytes)
            for state in stored.states
        )

    def chunks(
        self, *, states: Container[str] | None = None, groups: Container[int] | None = None
    ) -> Iterator[tuple[StateInfo, StoredChunk]]:
        with named(self._place):
            yield from self._stored.chunks(states=states, groups=groups)

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

    def close(self) -> None:
        if self._tables is not None:
            self._tables.close()
