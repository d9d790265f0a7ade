"""The RocksDB backend: keyed state that may be larger than memory, hot keys at the speed of dicts.

Knows which states are registered, what was restored, how much the cache holds and which snapshots are under
way.  The cache is in `rocksdb_tables` and `rocksdb_collections`, what lies in RocksDB in `rocksdb_items`,
snapshots in `rocksdb_snapshot`.  `tend`, which comes before every batch, keeps the bounds.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raystream.clock import Clock, ProcessingTime
from raystream.errors import StateRestoreError
from raystream.keygroup import KeyGroupRange
from raystream.keys import KeyGroupCache, decode_key, key_groups
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, StateDescriptor, StateKind
from raystream.state.kinds import StateKinds
from raystream.state.pairs import values_of
from raystream.state.rocksdb import RocksDbMemory, RocksDbStore, StoreView
from raystream.state.rocksdb_collections import ListTable, MapTable, map_key_of
from raystream.state.rocksdb_directory import StoreDirectory
from raystream.state.rocksdb_expiry import RocksDbSweep
from raystream.state.rocksdb_items import StoredKeys
from raystream.state.rocksdb_snapshot import RocksDbSnapshot, SnapshotOrigin, stored_contents
from raystream.state.rocksdb_states import (
    RocksDbListState,
    RocksDbMapState,
    RocksDbValueState,
    Tables,
    tables_of,
)
from raystream.state.rocksdb_tables import CachedTable, SingleTable
from raystream.state.snapshot_format import StoredChunk
from raystream.state.ttl import Expiry, unexpired

logger = logging.getLogger(__name__)

DIRTY_BYTES_MAX = 4 << 20
"""Dirty items above this size are written out before the next batch."""

EXPIRED_MAX = 512
"""Keys that a snapshot found expired which are looked at before a batch."""

_PREFETCH_MISSES = 8
"""Contents of a state read one by one, within a batch, after which it is read ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RocksDbSettings:
    """What the backends of one slot have in common.

    Attributes:
        parent: directory in which each backend makes one of its own.
        memory: shared by their stores.
        cache_bytes: bound of the decoded contents of each backend.
    """

    parent: Path
    memory: RocksDbMemory
    cache_bytes: int


class RocksDbBackend(StateKinds):
    """A `KeyedStateBackend` on the local disk, with a cache in front.

    Args:
        groups: key groups that the subtask owns.
        max_parallelism: number of key groups of the operator.
        cursor: says which key is meant; its owner sets it before each record.
        settings: directory and memory.
        clock: tells the processing time.

    Raises:
        StateError: the local directory cannot be made; names the path.
    """

    def __init__(
        self,
        groups: KeyGroupRange,
        max_parallelism: int,
        cursor: KeyCursor,
        *,
        settings: RocksDbSettings,
        clock: Clock,
    ) -> None:
        super().__init__(ProcessingTime(clock), cursor)
        self._groups = groups
        self._max_parallelism = max_parallelism
        self._generation_bytes = settings.cache_bytes // 2
        self._dirty_bytes = min(DIRTY_BYTES_MAX, self._generation_bytes)
        self._directory = StoreDirectory(settings.parent)
        self._store = RocksDbStore(self._directory.path / "db", settings.memory)
        self._key_groups = KeyGroupCache(max_parallelism)
        self._tables: dict[str, tuple[CachedTable, Tables]] = {}
        self._all: list[CachedTable] = []
        self._ahead: list[SingleTable] = []
        self._numbers = 0
        self.sweeps: dict[str, RocksDbSweep] = {}
        """The clean-up of each state with a time to live."""
        self._origin = SnapshotOrigin(
            tables=self._all,
            groups=groups,
            max_parallelism=max_parallelism,
            take_view=self._view,
            directory=self._directory.path,
        )

    def close(self) -> None:
        """Let go of the local files; may be called again."""
        if not self._origin.closed:
            self._origin.closed = True
            self._store.close()
            self._directory.remove()

    # ---- before a batch ----

    def prefetch(self, keys: Sequence[Any]) -> None:
        """Get ready for a batch: keep the bounds, then read what the batch will ask for.

        Args:
            keys: canonical keys of the records.
        """
        self.tend()
        for table in self._ahead:
            table.prefetch(keys)

    def tend(self) -> None:
        """Write dirty items out and drop contents, as far as the bounds demand it."""
        tables = self._all
        if sum([table.dirty_bytes for table in tables]) > self._dirty_bytes:
            self.write_out()
        if sum([table.size_bytes for table in tables]) > self._generation_bytes:
            self.write_out()
            for table in tables:
                table.rotate()
        expired = self._origin.expired
        for _ in range(EXPIRED_MAX):
            if not expired:
                break
            name, key, suffixes = expired.popleft()
            self.sweeps[name].remove(decode_key(key), suffixes)  # May come back here, when it misses often.
        for table in tables:
            if table.misses > _PREFETCH_MISSES and isinstance(table, SingleTable):
                self._read_ahead(table)
            table.misses = 0

    def _read_ahead(self, table: SingleTable) -> None:
        """Have a state read ahead, unless it is already or its keys are not those of the records."""
        ahead = any(table is other for other in self._ahead)  # Tables are dicts: `==` compares contents.
        if not ahead and not table.descriptor.namespaced:
            self._ahead.append(table)

    def write_out(self) -> None:
        """Write everything that is dirty, after what is frozen."""
        while self._origin.unfinished:
            self._origin.unfinished[0]._work(_never)
        for table in self._all:
            layer = table.freeze()
            while layer is not None and not table.write_step(layer):
                pass

    # ---- registration ----

    def _raw_value(
        self, descriptor: StateDescriptor, fresh_default: Callable[[], Any]
    ) -> RocksDbValueState[Any]:
        return RocksDbValueState(self._registered(descriptor)[1], self._cursor_of(descriptor), fresh_default)

    def _raw_list(self, descriptor: ListStateDescriptor[Any]) -> RocksDbListState[Any]:
        return RocksDbListState(
            descriptor.name, self._registered(descriptor)[1], self._cursor_of(descriptor)
        )

    def _raw_map(self, descriptor: MapStateDescriptor[Any, Any]) -> RocksDbMapState[Any, Any]:
        return RocksDbMapState(self._registered(descriptor)[1], self._cursor_of(descriptor))

    def _sweep(self, descriptor: StateDescriptor) -> Callable[[], None]:
        assert descriptor.ttl is not None
        keys = descriptor.ttl.cleanup.entries_per_access
        sweep = RocksDbSweep(self._registered(descriptor)[0], Expiry(descriptor.ttl, self._time), keys)
        self.sweeps[descriptor.name] = sweep
        return sweep if keys else _no_sweep

    def _registered(self, descriptor: StateDescriptor) -> tuple[CachedTable, Tables]:
        """Return the table of a state; register it when it is new."""
        name = descriptor.name
        if not self._registry.registered(descriptor):
            table = self._restored_table(descriptor)
            self._all.append(table)
            self._tables[name] = table, tables_of(table, self._groups, self._max_parallelism)
        return self._tables[name]

    def _restored_table(self, descriptor: StateDescriptor) -> CachedTable:
        """Register a state, and return a table in front of what was restored for it."""
        stored = self._registry.register(descriptor)
        chunks = self._restored_chunks.pop(descriptor.name, [])
        table = self._new_table(descriptor)
        if stored is None:
            return table
        try:
            self._fill(table, chunks, ChunkDecoder(descriptor, stored, self._time.now_ms()))
        except StateRestoreError as error:
            self._registry.refuse(descriptor.name, str(error).splitlines()[0])
            return self._new_table(descriptor)
        return table

    def _new_table(self, descriptor: StateDescriptor) -> CachedTable:
        """Return an empty table, with a number that no table had before."""
        number = self._numbers
        self._numbers += 1
        keys = StoredKeys(number, self._key_groups, namespaced=descriptor.namespaced)
        kinds = {StateKind.LIST: ListTable, StateKind.MAP: MapTable}
        return kinds.get(descriptor.kind, SingleTable)(
            number, descriptor, self._store, self.tend, keys
        )

    def _fill(
        self, table: CachedTable, chunks: list[tuple[int, StoredChunk]], decoder: ChunkDecoder
    ) -> None:
        moved = 0
        while chunks:  # Each is let go when it is written.
            max_parallelism, stored = chunks.pop()
            if max_parallelism == self._max_parallelism and stored.group not in self._groups:
                continue
            keys, contents = decoder.decode(stored.chunk)
            if max_parallelism != self._max_parallelism:
                hashed = [key[0] for key in keys] if table.descriptor.namespaced else keys
                groups = key_groups(hashed, self._key_groups)[1]
                owned = [n for n, group in enumerate(groups) if group in self._groups]
                moved += sum(groups[n] != stored.group for n in owned)
                keys, contents = [keys[n] for n in owned], [contents[n] for n in owned]
            self._store.write(table.changes_of(keys, contents))
        if moved:
            logger.info("restored entries moved to other key groups", extra={"entries": moved})

    # ---- all entries ----

    def entries(self, name: str) -> Iterator[tuple[int, Any, Any]]:
        self.write_out()
        return self._entries(self._tables[name][0], self._view())

    def _entries(self, table: CachedTable, view: StoreView) -> Iterator[tuple[int, Any, Any]]:
        kind, ttl = table.descriptor.kind, table.descriptor.ttl
        for group in self._groups:
            for key, items in stored_contents(view, table, group):
                values = table.codec.decode([item for _, item in items])
                content: Any = values
                if kind.single:
                    content = values[0]
                elif kind is StateKind.MAP:
                    content = {
                        map_key_of(suffix, 0): value
                        for (suffix, _), value in zip(items, values, strict=True)
                    }
                if ttl is not None:
                    content = unexpired(content, Expiry(ttl, self._time).cutoff_ms())
                    if content is None:
                        continue
                    content = values_of(kind, content)
                yield group, decode_key(key), content

    def held(self, name: str) -> int:
        """Return how many keys a registered state holds anything for, expired or not; reads all of it."""
        self.write_out()
        table, view = self._tables[name][0], self._view()
        return sum(1 for group in self._groups for _ in stored_contents(view, table, group))

    # ---- snapshot ----

    def _view(self) -> StoreView:
        return self._store.view([table.prefix for table in self._all])

    def freeze(self, checkpoint_id: int) -> RocksDbSnapshot:
        return RocksDbSnapshot(checkpoint_id, self._registry.infos, self._origin, self._time.now_ms())


def _never() -> bool:
    return False


def _no_sweep() -> None:
    """Clean nothing up."""
