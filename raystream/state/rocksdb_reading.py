"""Reads the keyed state of one subtask out of files of RocksDB, without the program that wrote it.

What comes out are chunks, as of every other snapshot.  Values are moved as they are stored: pickled ones
are never loaded, and of typed ones only those are decoded that stand beside wide ones in one list or map,
by the schema that is stored with them.
"""

import pickle
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import msgspec

from raystream.errors import StateCorruptError, StateRestoreError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state.chunk_form import timed_form
from raystream.state.descriptor import StateKind
from raystream.state.migration import StoredSerializer
from raystream.state.rocksdb import RocksDbMemory, RocksDbStore, disk_failure
from raystream.state.rocksdb_full import ChunkDraft, stored_contents
from raystream.state.rocksdb_incremental import BACKEND
from raystream.state.rocksdb_items import MISTYPED, WIDE, time_of, value_of
from raystream.state.serializer import KEPT_TYPES
from raystream.state.snapshot_files import StoredFiles, TableInfo
from raystream.state.snapshot_format import StoredChunk

READING_BYTES = 64 << 20
"""Memory for blocks of files that are being read."""

_PICKLE_PROTOCOL = 5


class StoredTables:
    """The states of one subtask in a local copy of its files; to be closed.

    Args:
        stored: the files.
        directory: to be made, for the copy.
        check: called before every piece of a file; an error that it raises ends this.

    Raises:
        StateCorruptError: a file is missing or is not what was written.
        StateRestoreError: the files are of another backend.
        StateError: the local disk failed; names the path.
        StorageError: the store did not answer.
    """

    def __init__(self, stored: StoredFiles, directory: Path, check: Callable[[], None]) -> None:
        index = self._index = stored.index
        if index.backend != BACKEND:
            raise StateRestoreError("snapshot is of another backend", backend=index.backend)
        try:
            stored.fetch_into(directory, check)
        except OSError as error:
            raise disk_failure("files of state could not be copied", directory, error) from error
        memory = RocksDbMemory(READING_BYTES, threads=False)
        self._store = RocksDbStore(directory, memory, existing=True)

    @property
    def groups(self) -> KeyGroupRange:
        """The key groups of the subtask."""
        return self._index.groups

    def chunks(
        self, *, states: Container[str] | None = None, groups: Container[int] | None = None
    ) -> Iterator[tuple[StateInfo, StoredChunk]]:
        """Yield the chunks of some states, sorted by key group; what had expired is left out.

        Args:
            states: their names; None stands for all.
            groups: key groups; None stands for all.

        Raises:
            StateError: the local files cannot be read.
        """
        tables = [table for table in self._index.tables if states is None or table.name in states]
        for group in self._index.groups:
            if groups is None or group in groups:
                for table in tables:
                    yield from self._of_table(table, group)

    def close(self) -> None:
        """Close the files."""
        self._store.close()

    def _of_table(self, table: TableInfo, group: int) -> Iterator[tuple[StateInfo, StoredChunk]]:
        kind, cutoff_ms = StateKind(table.kind), self._index.cutoff_ms(table)
        draft = ChunkDraft(kind, timed_form(table.ttl), _StoredItems(table))
        for key, items in stored_contents(self._store, table.number, kind, group):
            if cutoff_ms is not None:
                items = [item for item in items if time_of(item[1]) > cutoff_ms]  # noqa: PLW2901
            if items:
                draft.add(key, items)
            if draft.full:
                for chunk in draft.take():
                    yield table.info, StoredChunk(group=group, chunk=chunk)
        for chunk in draft.take():
            yield table.info, StoredChunk(group=group, chunk=chunk)


class _StoredItems:
    """What is known of the items of a state from its description alone."""

    def __init__(self, table: TableInfo) -> None:
        self._name = table.name
        self._plain_type = StoredSerializer(table.info, nullable=table.kind == StateKind.MAP.value).plain_type

    def for_chunk(self, item: bytes) -> tuple[int, Any]:
        if item[0] & MISTYPED:
            raise StateCorruptError("stored value does not have the declared type", state=self._name)
        wide, _, value = value_of(item)
        return (WIDE, value) if wide else (0, msgspec.Raw(value))

    def widened(self, item: bytes) -> bytes:
        try:
            value = msgspec.msgpack.decode(value_of(item)[2], type=self._plain_type)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise StateCorruptError(
                "stored value cannot be read", state=self._name, cause=str(error)[:200]
            ) from error
        return pickle.dumps(msgspec.to_builtins(value, builtin_types=KEPT_TYPES), _PICKLE_PROTOCOL)
