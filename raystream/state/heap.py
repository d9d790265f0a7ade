"""The heap backend: keyed state in dicts, one for each state and key group.

Knows which states are registered, what was restored and which snapshots are under way.
How a table is frozen and put back is in `heap_tables`, how a snapshot works in
`heap_snapshot`, what user code calls in `heap_states`.
"""

import logging
from collections import deque
from collections.abc import Iterable
from typing import TypeVar

from raystream.errors import StateError, StateRestoreError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.keys import KeyGroupCache, key_groups
from raystream.state.chunk_codec import ChunkCodec
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import (
    Descriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.heap_snapshot import HeapSnapshot, HeapState
from raystream.state.heap_states import HeapListState, HeapMapState, HeapValueState
from raystream.state.heap_tables import TableList, table_list
from raystream.state.schema import check_compatible
from raystream.state.snapshot_format import LoadedSnapshot, StoredChunk

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

logger = logging.getLogger(__name__)


class HeapBackend:
    """A `KeyedStateBackend` that holds everything in memory.

    Args:
        groups: key groups that the subtask owns.
        max_parallelism: number of key groups of the operator.
        cursor: says which key is meant; its owner sets it before each record.
    """

    def __init__(self, groups: KeyGroupRange, max_parallelism: int, cursor: KeyCursor) -> None:
        self._groups = groups
        self._max_parallelism = max_parallelism
        self._cursor = cursor
        self._states: dict[str, HeapState] = {}
        self._restored: dict[str, StateInfo] = {}
        self._restored_chunks: dict[str, list[tuple[int, StoredChunk]]] = {}
        self._unfinished: deque[HeapSnapshot] = deque()

    # ---- restore ----

    def restore(self, snapshots: Iterable[LoadedSnapshot]) -> None:
        assert not self._states, "states are registered after the restore"
        for snapshot in snapshots:
            for info in snapshot.states:
                if self._restored.setdefault(info.name, info) != info:
                    raise StateRestoreError(
                        "subtasks stored one state differently",
                        state=info.name,
                        one=self._restored[info.name],
                        other=info,
                    )
                self._restored_chunks.setdefault(info.name, []).extend(
                    (snapshot.max_parallelism, chunk) for chunk in snapshot.chunks[info.name]
                )

    def unregistered_states(self) -> tuple[StateInfo, ...]:
        return tuple(self._restored.values())

    def drop_unregistered(self) -> tuple[StateInfo, ...]:
        dropped = self.unregistered_states()
        self._restored.clear()
        self._restored_chunks.clear()
        return dropped

    # ---- registration ----

    def value_state(self, descriptor: ValueStateDescriptor[T]) -> HeapValueState[T]:
        return HeapValueState(descriptor, self._tables(descriptor), self._cursor)

    def list_state(self, descriptor: ListStateDescriptor[T]) -> HeapListState[T]:
        return HeapListState(descriptor.name, self._tables(descriptor), self._cursor)

    def map_state(self, descriptor: MapStateDescriptor[K, V]) -> HeapMapState[K, V]:
        return HeapMapState(self._tables(descriptor), self._cursor)

    def _tables(self, descriptor: Descriptor) -> TableList:
        """Return the tables of a state; register it when it is new."""
        name = descriptor.name
        state = self._states.get(name)
        if state is None:
            codec = ChunkCodec(descriptor)
            tables = self._restored_tables(codec)
            state = HeapState(position=len(self._states), descriptor=descriptor, codec=codec, tables=tables)
            self._states[name] = state
            self._restored.pop(name, None)
            self._restored_chunks.pop(name, None)
        registered = state.descriptor
        if registered.kind is not descriptor.kind or registered.declared != descriptor.declared:
            raise StateError(
                "state is registered twice with different kinds or types",
                hint="give the two states different names",
                state=name,
                registered=f"{registered.kind.value} {registered.declared}",
                again=f"{descriptor.kind.value} {descriptor.declared}",
            )
        return state.tables

    def _restored_tables(self, codec: ChunkCodec) -> TableList:
        """Return new tables that hold what was restored for a state."""
        tables = table_list(self._groups, self._max_parallelism)
        name = codec.info.name
        if name not in self._restored:
            return tables
        check_compatible(self._restored[name], codec.info)
        cache = KeyGroupCache(self._max_parallelism)
        moved = 0
        for max_parallelism, stored in self._restored_chunks[name]:
            if max_parallelism == self._max_parallelism:
                if stored.group in self._groups:
                    tables[stored.group].update(zip(*codec.decode(stored.chunk), strict=True))
                continue
            keys, contents = codec.decode(stored.chunk)
            for key, content, group in zip(keys, contents, key_groups(keys, cache)[1], strict=True):
                if group in self._groups:
                    tables[group][key] = content
                    moved += group != stored.group
        if moved:
            logger.info("restored entries moved to other key groups", extra={"state": name, "entries": moved})
        return tables

    # ---- snapshot ----

    def freeze(self, checkpoint_id: int) -> HeapSnapshot:
        return HeapSnapshot(
            checkpoint_id,
            tuple(self._states.values()),
            self._unfinished,
            groups=self._groups,
            max_parallelism=self._max_parallelism,
        )
