"""The heap backend: keyed state in dicts, one for each state and key group.

Knows which states are registered, what was restored and which snapshots are under way.
How a table is frozen and put back is in `heap_tables`, how a snapshot works in
`heap_snapshot`, what user code calls in `heap_states`.
"""

import gc
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from raystream.clock import Clock, ProcessingTime
from raystream.errors import StateRestoreError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.keys import KeyGroupCache, key_groups
from raystream.state.chunk_codec import ChunkCodec
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, StateDescriptor
from raystream.state.heap_expiry import HeapSweep
from raystream.state.heap_snapshot import HeapSnapshot, HeapState
from raystream.state.heap_states import HeapListState, HeapMapState, HeapValueState
from raystream.state.heap_tables import TableList, live_entries, table_list
from raystream.state.kinds import StateKinds
from raystream.state.last_use import LastUse
from raystream.state.pairs import values_of
from raystream.state.snapshot_files import SnapshotForm, StoredFiles
from raystream.state.snapshot_format import StoredChunk
from raystream.state.stored import Stored
from raystream.state.ttl import unexpired

logger = logging.getLogger(__name__)


class HeapBackend(StateKinds):
    """A `KeyedStateBackend` that holds everything in memory.

    Args:
        groups: key groups that the subtask owns.
        max_parallelism: number of key groups of the operator.
        cursor: says which key is meant; its owner sets it before each record.
        clock: tells the processing time.
    """

    prefetch: None = None
    cache_use: None = None

    def __init__(
        self, groups: KeyGroupRange, max_parallelism: int, cursor: KeyCursor, *, clock: Clock
    ) -> None:
        super().__init__(ProcessingTime(clock), cursor)
        self._groups = groups
        self._max_parallelism = max_parallelism
        self._states: dict[str, HeapState] = {}
        self._unfinished: deque[HeapSnapshot] = deque()
        self._restored_chunks: dict[str, list[tuple[int, StoredChunk]]] = {}
        """By name of a state that is not registered yet; each chunk behind its max parallelism."""
        self._use = LastUse()

    # ---- restore ----

    def restore(self, snapshots: Iterable[Stored]) -> None:
        stored = []
        for snapshot in snapshots:
            self._use.check()
            stored.append(snapshot)
            if isinstance(snapshot, StoredFiles):
                raise StateRestoreError(
                    "snapshot consists of files of another state backend",
                    hint="restore it with state.backend.type as it was, or restore a canonical savepoint",
                    written_by=snapshot.index.backend,
                )
            for state in snapshot.states:
                self._registry.stored(state.info, entries=state.entries, size_bytes=state.size_bytes)
                self._restored_chunks.setdefault(state.info.name, [])
            for info, chunk in snapshot.chunks():
                self._use.check()
                self._restored_chunks[info.name].append((snapshot.max_parallelism, chunk))
        self._use.check()
        self._go_on_from(stored)

    def drop_unregistered(self) -> tuple[StateInfo, ...]:
        dropped = self._registry.drop_unregistered()
        for info in dropped:
            del self._restored_chunks[info.name]
        return dropped

    # ---- registration ----

    def _raw_value(
        self, descriptor: StateDescriptor, fresh_default: Callable[[], Any]
    ) -> HeapValueState[Any]:
        return HeapValueState(self._tables(descriptor), self._cursor_of(descriptor), fresh_default)

    def _raw_list(self, descriptor: ListStateDescriptor[Any]) -> HeapListState[Any]:
        return HeapListState(descriptor.name, self._tables(descriptor), self._cursor_of(descriptor))

    def _raw_map(self, descriptor: MapStateDescriptor[Any, Any]) -> HeapMapState[Any, Any]:
        return HeapMapState(self._tables(descriptor), self._cursor_of(descriptor))

    def _sweep(self, descriptor: StateDescriptor) -> Callable[[], None]:
        assert descriptor.ttl is not None
        expiry = self._expiry(descriptor)
        keys = descriptor.ttl.cleanup.entries_per_access
        return HeapSweep(self._tables(descriptor), self._groups, expiry, keys) if keys else _nothing

    def _tables(self, descriptor: StateDescriptor) -> TableList:
        """Return the tables of a state; register it when it is new."""
        name = descriptor.name
        if not self._registry.registered(descriptor):
            self._states[name] = HeapState(
                position=len(self._states),
                descriptor=descriptor,
                codec=ChunkCodec(descriptor),
                tables=self._restored_tables(descriptor),
            )
        return self._states[name].tables

    def _restored_tables(self, descriptor: StateDescriptor) -> TableList:
        """Register a state, and return new tables that hold what was restored for it."""
        stored = self._registry.register(descriptor)
        chunks = self._restored_chunks.pop(descriptor.name, [])
        tables = table_list(self._groups, self._max_parallelism)
        if stored is None:
            return tables
        try:
            decoder = ChunkDecoder(descriptor, stored, self._restored_ms(descriptor))
            with _no_collection():
                self._fill(tables, chunks, decoder, descriptor)
        except StateRestoreError as error:
            self._registry.refuse(descriptor.name, _in_one_line(error))
            return table_list(self._groups, self._max_parallelism)
        return tables

    def _fill(
        self,
        tables: TableList,
        chunks: list[tuple[int, StoredChunk]],
        decoder: ChunkDecoder,
        descriptor: StateDescriptor,
    ) -> None:
        cache = KeyGroupCache(self._max_parallelism)
        moved = 0
        for max_parallelism, stored in chunks:
            if max_parallelism == self._max_parallelism:
                if stored.group in self._groups:
                    tables[stored.group].update(zip(*decoder.decode(stored.chunk), strict=True))
                continue
            keys, contents = decoder.decode(stored.chunk)
            hashed = [key[0] for key in keys] if descriptor.namespaced else keys
            for key, content, group in zip(keys, contents, key_groups(hashed, cache)[1], strict=True):
                if group in self._groups:
                    tables[group][key] = content
                    moved += group != stored.group
        if moved:
            logger.info(
                "restored entries moved to other key groups",
                extra={"state": descriptor.name, "entries": moved},
            )

    # ---- all entries ----

    def entries(self, name: str) -> Iterator[tuple[int, Any, Any]]:
        state = self._states[name]
        kind, ttl = state.descriptor.kind, state.descriptor.ttl
        for group in self._groups:
            for key, content in live_entries(state.tables[group]):
                if ttl is None:
                    yield group, key, content
                    continue
                left = unexpired(content, self._expiry(state.descriptor).cutoff_ms())
                if left is not None:
                    yield group, key, values_of(kind, left)

    def held(self, name: str) -> int:
        """Return the number of keys that a registered state holds, with those that have expired."""
        tables = self._states[name].tables
        return sum(len(live_entries(tables[group])) for group in self._groups)

    # ---- snapshot ----

    def freeze(self, checkpoint_id: int, *, form: SnapshotForm = SnapshotForm.FULL) -> HeapSnapshot:
        return HeapSnapshot(
            checkpoint_id,
            tuple(self._states.values()),
            self._unfinished,
            groups=self._groups,
            max_parallelism=self._max_parallelism,
            taken=self._now(),
        )

    def checkpoint_completed(self, checkpoint_id: int) -> None:
        """Do nothing: every snapshot is full."""

    def close(self) -> None:
        """Have a restore end; there is nothing outside of memory."""
        self._use.close(_nothing)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Have no cyclic garbage looked for while nothing but state is made, of which nothing is garbage.

    With millions of records the collector went through all that was restored again and again.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _nothing() -> None:
    """There is nothing to clean up."""


def _in_one_line(error: StateRestoreError) -> str:
    return str(error).splitlines()[0]
