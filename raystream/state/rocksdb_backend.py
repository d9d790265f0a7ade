"""The RocksDB backend: keyed state that may be larger than memory, hot keys at the speed of dicts.

Knows which states are registered, what was restored, how much the cache holds and which snapshots are under
way.  The cache is in `rocksdb_tables` and `rocksdb_collections`, what lies in RocksDB in `rocksdb_items`,
snapshots in `rocksdb_snapshot`.  `tend`, which comes before every batch, keeps the bounds.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raystream.clock import Clock, ProcessingTime
from raystream.errors import StateRestoreError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.keys import decode_key
from raystream.state.backend import CacheUse
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.chunk_form import timed_form
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, StateDescriptor, StateKind
from raystream.state.kinds import StateKinds
from raystream.state.last_use import LastUse
from raystream.state.pairs import values_of
from raystream.state.rocksdb import RocksDbMemory, RocksDbStore, StoreView
from raystream.state.rocksdb_collections import MapTable, map_key_of
from raystream.state.rocksdb_directory import StoreDirectory
from raystream.state.rocksdb_expiry import RocksDbSweep
from raystream.state.rocksdb_full import FullSnapshot, stored_contents
from raystream.state.rocksdb_incremental import AnewSnapshot, IncrementalSnapshot, NativeSnapshot
from raystream.state.rocksdb_items import StoredKeys, state_prefix
from raystream.state.rocksdb_lists import ListTable
from raystream.state.rocksdb_restore import RestoredTable, StoreRestore
from raystream.state.rocksdb_rewrite import StateRewrite
from raystream.state.rocksdb_snapshot import RocksDbSnapshot, SnapshotOrigin
from raystream.state.rocksdb_states import (
    RocksDbListState,
    RocksDbMapState,
    RocksDbValueState,
    Tables,
    tables_of,
)
from raystream.state.rocksdb_tables import CachedTable, SingleTable
from raystream.state.snapshot_files import SnapshotForm, StoredFiles
from raystream.state.stored import Stored
from raystream.state.ttl import Expiry, RestoredExpiry, unexpired

logger = logging.getLogger(__name__)

DIRTY_BYTES_MAX = 32 << 20
"""Bound of what changed and is not written; the next batch waits until what is above it is written."""

_DIRTY_SHARE = 2
"""The bound is one part in so many of the cache, if that is less."""

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
        self._dirty_bytes = min(DIRTY_BYTES_MAX, settings.cache_bytes // _DIRTY_SHARE)
        self._cache_bytes = settings.cache_bytes
        self._settings = settings
        self._slot_clock = clock
        self._directory = StoreDirectory(settings.parent)
        self._open_store: RocksDbStore | None = None
        self._use = LastUse()
        self._restored: dict[str, RestoredTable] = {}
        self._tables: dict[str, tuple[CachedTable, Tables]] = {}
        self._all: list[CachedTable] = []
        self._ahead: list[SingleTable] = []
        self._numbers = self._accesses = 0
        self.sweeps: dict[str, RocksDbSweep] = {}
        """The clean-up of each state with a time to live."""
        self._origin = SnapshotOrigin(
            clock=clock,
            tables=self._all,
            groups=groups,
            max_parallelism=max_parallelism,
            store=lambda: self._store,
            directory=self._directory,
        )

    @property
    def _store(self) -> RocksDbStore:
        """The store, opened empty unless a restore has opened it."""
        if self._open_store is None:
            self._open_store = RocksDbStore(self._directory.path / "db", self._settings.memory)
        return self._open_store

    def close(self) -> None:
        """Let go of the local files, at once or when a restore has ended; may be called again."""
        self._origin.closed = True
        self._use.close(self._let_go)

    def _let_go(self) -> None:
        self._origin.writable()  # Not while files are being made.
        if self._open_store is not None:
            self._open_store.close()
        self._directory.remove()

    # ---- before a batch ----

    def prefetch(self, keys: Sequence[Any]) -> None:
        """Get ready for a batch: keep the bounds, then read what the batch will ask for.

        Args:
            keys: canonical keys of the records.
        """
        self._accesses += len(keys) * len(self._all)
        self.tend()
        self._remove_expired()
        for sweep in self.sweeps.values():
            sweep.batch(len(keys))
        for table in self._ahead:
            table.prefetch(keys)

    @property
    def cache_use(self) -> CacheUse:
        return CacheUse(self._accesses, 0 if self._open_store is None else self._open_store.reads)

    def tend(self) -> None:
        """Write dirty items out and drop contents, as far as the bounds demand it."""
        tables = self._all
        for table in tables:
            table.weigh()
        dirty_bytes = self._write_back()
        # The present generation and the old one have the room that changes leave.
        if sum([table.size_bytes for table in tables]) > (self._cache_bytes - dirty_bytes) // 2:
            for table in tables:
                table.rotate()
        for table in tables:
            if table.misses > _PREFETCH_MISSES and isinstance(table, SingleTable):
                self._read_ahead(table)
            table.misses = 0

    def _write_back(self) -> int:
        """Write what changed longest ago, until what is not written is within its bound; return its size."""
        tables = self._all
        cooling = any(table.cooling for table in tables)
        if not cooling and sum([table.active_bytes for table in tables]) > self._dirty_bytes // 2:
            self._cool()
        while (dirty_bytes := sum([table.dirty_bytes for table in tables])) > self._dirty_bytes:
            if dirty_bytes < self._cache_bytes and not self._origin.writable(0):
                break  # While files of a snapshot are made, what changed may take all of the cache.
            self._origin.hold()
            if self._origin.unfinished:
                self._origin.unfinished[0].work(_at_once)
            elif not any(table.write_back_step() for table in tables):
                self._cool()
        return dirty_bytes

    def _cool(self) -> None:
        for table in self._all:
            table.cool()

    def _remove_expired(self) -> None:
        """Remove some of what snapshots found expired.

        What is not cached is a miss, and many misses call for `tend`, so this is no part of that.
        """
        expired = self._origin.expired
        for _ in range(min(EXPIRED_MAX, len(expired))):
            name, key, suffixes = expired.popleft()
            self.sweeps[name].remove(decode_key(key), suffixes)

    def _read_ahead(self, table: SingleTable) -> None:
        """Have a state read ahead, unless it is already or its keys are not those of the records."""
        ahead = any(table is other for other in self._ahead)  # Tables are dicts: `==` compares contents.
        if not ahead and not table.descriptor.namespaced:
            self._ahead.append(table)

    def write_out(self) -> None:
        """Write everything that is not written."""
        while self._origin.unfinished:
            self._origin.writable()
            self._origin.unfinished[0].work(_never)
        self._origin.writable()
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
        return RocksDbListState(descriptor.name, self._registered(descriptor)[1], self._cursor_of(descriptor))

    def _raw_map(self, descriptor: MapStateDescriptor[Any, Any]) -> RocksDbMapState[Any, Any]:
        return RocksDbMapState(self._registered(descriptor)[1], self._cursor_of(descriptor))

    def _sweep(self, descriptor: StateDescriptor) -> Callable[[], None]:
        assert descriptor.ttl is not None
        keys = descriptor.ttl.cleanup.entries_per_access
        sweep = RocksDbSweep(self._registered(descriptor)[0], self._expiry(descriptor), keys)
        self.sweeps[descriptor.name] = sweep
        return sweep if keys else _no_sweep

    def _registered(self, descriptor: StateDescriptor) -> tuple[CachedTable, Tables]:
        """Return the table of a state; register it when it is new."""
        name = descriptor.name
        if not self._registry.registered(descriptor):
            if name in self._restored:
                self._origin.writable()  # What was restored may be rewritten.
            table = self._restored_table(descriptor)
            self._all.append(table)
            self._tables[name] = table, tables_of(table, self._groups, self._max_parallelism)
        return self._tables[name]

    def _restored_table(self, descriptor: StateDescriptor) -> CachedTable:
        """Register a state, and return a table in front of what was restored for it."""
        stored = self._registry.register(descriptor)
        restored = self._restored.pop(descriptor.name, None)
        if restored is None:
            return self._new_table(descriptor)
        as_stored = stored == descriptor.info() and restored.timed <= {timed_form(descriptor.ttl)}
        expiry = None if descriptor.ttl is None else super()._expiry(descriptor)
        if as_stored and restored.can_tell_expired(expiry):
            table = self._new_table(descriptor, restored)
            table.expired_ms = restored.expired_ms(expiry)
            return table
        table = self._new_table(descriptor)
        if stored is not None:
            try:
                decoder = ChunkDecoder(descriptor, stored)
                restored_ms, clock = self._restored_ms(descriptor), self._slot_clock
                StateRewrite(self._store, table, decoder, restored_ms=restored_ms, clock=clock).run(
                    restored, self._groups
                )
            except StateRestoreError as error:
                self._registry.refuse(descriptor.name, str(error).splitlines()[0])
        self._remove(restored)
        return table

    def _expiry(self, descriptor: StateDescriptor) -> Expiry:
        expired_ms = self._registered(descriptor)[0].expired_ms
        if descriptor.ttl is None or expired_ms is None:
            return super()._expiry(descriptor)
        return RestoredExpiry(descriptor.ttl, self._clock(descriptor.ttl), expired_ms)

    def _new_table(self, descriptor: StateDescriptor, restored: RestoredTable | None = None) -> CachedTable:
        """Return a table: in front of a restored one, or empty, with a number that no table had before."""
        number = self._numbers if restored is None else restored.number
        self._numbers = max(self._numbers, number + 1)
        keys = StoredKeys(number, self._max_parallelism, namespaced=descriptor.namespaced)
        kinds: dict[StateKind, type[CachedTable]] = {StateKind.LIST: ListTable, StateKind.MAP: MapTable}
        table_type = kinds.get(descriptor.kind, SingleTable)
        table = table_type(number, descriptor, self._store, self.tend, keys)
        table.positions = 0 if restored is None else restored.positions
        return table

    def _remove(self, restored: RestoredTable) -> None:
        self._store.delete_range(state_prefix(restored.number), state_prefix(restored.number + 1))

    # ---- restore ----

    def restore(self, snapshots: Iterable[Stored]) -> None:
        with self._use.working(self._let_go):
            stored = []
            for snapshot in snapshots:
                self._use.check()
                stored.append(snapshot)
            if stored:
                self._take_over(stored)

    def _take_over(self, stored: Sequence[Stored]) -> None:
        self._go_on_from(stored)
        for snapshot in stored:
            if isinstance(snapshot, StoredFiles):
                for table in snapshot.index.tables:
                    self._registry.stored(table.info, entries=None)
            else:
                for state in snapshot.states:
                    self._registry.stored(state.info, entries=state.entries, size_bytes=state.size_bytes)
        directory, memory, check = self._directory.path, self._settings.memory, self._use.check
        restore = StoreRestore(directory, memory, self._groups, self._max_parallelism, check=check)
        try:
            restore.run(stored)
        finally:
            self._open_store = restore.store  # To be closed with the backend, whatever has happened.
        self._restored, self._numbers = restore.tables, restore.numbers
        self._origin.known.restored(restore.known)

    def drop_unregistered(self) -> tuple[StateInfo, ...]:
        dropped = self._registry.drop_unregistered()
        for info in dropped:
            self._remove(self._restored.pop(info.name))
        return dropped

    # ---- all entries ----

    def entries(self, name: str) -> Iterator[tuple[int, Any, Any]]:
        self.write_out()
        return self._entries(self._tables[name][0], self._origin.take_view())

    def _entries(self, table: CachedTable, view: StoreView) -> Iterator[tuple[int, Any, Any]]:
        kind = table.descriptor.kind
        expiry = None if table.descriptor.ttl is None else self._expiry(table.descriptor)
        for group in self._groups:
            for key, items in stored_contents(view, table.number, kind, group):
                values = table.codec.decode([item for _, item in items])
                content: Any = values
                if kind.single:
                    content = values[0]
                elif kind is StateKind.MAP:
                    content = {
                        map_key_of(suffix, 0): value for (suffix, _), value in zip(items, values, strict=True)
                    }
                if expiry is not None:
                    content = unexpired(content, expiry.cutoff_ms())
                    if content is None:
                        continue
                    content = values_of(kind, content)
                yield group, decode_key(key), content

    def held(self, name: str) -> int:
        """Return how many keys a registered state holds anything for, expired or not; reads all of it."""
        self.write_out()
        table, view = self._tables[name][0], self._origin.take_view()
        kind = table.descriptor.kind
        return sum(1 for group in self._groups for _ in stored_contents(view, table.number, kind, group))

    # ---- snapshot ----

    def freeze(self, checkpoint_id: int, *, form: SnapshotForm = SnapshotForm.FULL) -> RocksDbSnapshot:
        return _SNAPSHOTS[form](checkpoint_id, self._registry.infos, self._origin, self._now())

    def checkpoint_completed(self, checkpoint_id: int) -> None:
        self._origin.known.completed(checkpoint_id)


_SNAPSHOTS: dict[SnapshotForm, type[RocksDbSnapshot]] = {
    SnapshotForm.FULL: FullSnapshot,
    SnapshotForm.NATIVE: NativeSnapshot,
    SnapshotForm.INCREMENTAL: IncrementalSnapshot,
    SnapshotForm.ANEW: AnewSnapshot,
}


def _never() -> bool:
    return False


def _at_once() -> bool:
    return True


def _no_sweep() -> None:
    """Clean nothing up."""
