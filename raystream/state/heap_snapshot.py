"""A snapshot of the heap backend: encodes frozen tables in slices, then puts them back.

    frozen ──encode chunk by chunk──> encoded ──fold the overlay in──> put back     for each table
       └────────────────────── discarded, or failed ────────────────────┘

The tables are worked through by key group, and each is put back as soon as it is encoded,
so that the stream is slowed down for as short as possible.  Of several snapshots the oldest
works first: only then is the lowest table of a group what it froze (see
`raystream.state.heap_tables`).
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from raystream.errors import StateError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state.chunk_codec import ChunkCodec, EncodedContent
from raystream.state.descriptor import Descriptor, StateKind
from raystream.state.heap_tables import TableList, fold_lowest_overlay, freeze_table, lowest_table
from raystream.state.snapshot_format import SnapshotWriter

CHUNK_ENTRIES_MAX = 1024
"""Entries of a chunk, and items of all its lists or maps together."""

CHUNK_BYTES_WANTED = 64 * 1024
"""Encoded size above which the next chunk of the state gets fewer entries."""

_CHUNK_ENTRIES_FIRST = 64
_CHUNK_GROWTH_MAX = 4


@dataclass(slots=True, kw_only=True)
class HeapState:
    """A registered state: its declaration, its codec and its tables."""

    position: int
    """Order of registration, from 0."""
    descriptor: Descriptor
    codec: ChunkCodec
    tables: TableList
    entries_per_chunk: int = _CHUNK_ENTRIES_FIRST
    """Adapted to the size of what was encoded last."""


class HeapSnapshot:
    """A `KeyedSnapshot` of the heap backend."""

    def __init__(
        self,
        checkpoint_id: int,
        registered: tuple[HeapState, ...],
        unfinished: "deque[HeapSnapshot]",
        *,
        groups: KeyGroupRange,
        max_parallelism: int,
    ) -> None:
        """Freeze the tables and join `unfinished`, the snapshots of the backend, oldest first."""
        self.checkpoint_id = checkpoint_id
        self.states: tuple[StateInfo, ...] = tuple(state.codec.info for state in registered)
        self._writer = SnapshotWriter(self.states, groups, max_parallelism)
        self._frozen = [
            (state, group)
            for group in groups
            for state in registered
            if freeze_table(state.tables, group, state.codec.encode_early)
        ]
        self._steps = self._run()
        self._discarded = False
        self._finished = False
        self._error: StateError | None = None
        self._unfinished = unfinished
        unfinished.append(self)

    @property
    def entries(self) -> int:
        return self._writer.entries

    def advance(self, out_of_time: Callable[[], bool]) -> bool:
        while not self._finished:
            done = self._unfinished[0]._work(out_of_time)
            self._raise_error()
            if not done or (not self._finished and out_of_time()):
                return False
        self._raise_error()
        return True

    def blob(self) -> list[bytes]:
        assert self._finished
        assert not self._discarded
        return self._writer.finish()

    def discard(self) -> None:
        if not self._finished or self._error is not None:
            self._discarded = True

    def _raise_error(self) -> None:
        if self._error is not None and not self._discarded:
            raise self._error

    def _work(self, out_of_time: Callable[[], bool]) -> bool:
        """Do steps until it is time to stop; return True after the last."""
        for _ in self._steps:
            if out_of_time():
                return False
        self._finished = True
        finished = self._unfinished.popleft()
        assert finished is self
        return True

    def _run(self) -> Iterator[None]:
        for state, group in self._frozen:
            yield from self._encode(state, group)
            yield from fold_lowest_overlay(state.tables, group)
            yield
        self._frozen.clear()

    def _encode(self, state: HeapState, group: int) -> Iterator[None]:
        table = lowest_table(state.tables, group)
        # Values are replaced while the iterators live, keys are neither added nor removed.
        keys, contents = iter(table), iter(table.values())
        while not self._discarded and self._error is None:
            batch = _take(contents, state)
            if not batch:
                return
            try:
                chunks = state.codec.encode(list(islice(keys, len(batch))), batch)
            except StateError as error:
                self._error = error
                return
            for chunk in chunks:
                self._writer.add(state.position, group, chunk)
            _adapt(state, len(batch), sum(len(chunk.data) for chunk in chunks))
            yield


def _take(contents: Iterator[Any], state: HeapState) -> list[Any]:
    """Return the contents of the next chunk."""
    if state.descriptor.kind is StateKind.VALUE:
        return list(islice(contents, state.entries_per_chunk))
    batch, items = [], 0
    for content in islice(contents, state.entries_per_chunk):
        batch.append(content)
        items += 1 if type(content) is EncodedContent else len(content)
        if items >= CHUNK_ENTRIES_MAX:
            break
    return batch


def _adapt(state: HeapState, entries: int, size: int) -> None:
    fitting = CHUNK_BYTES_WANTED * entries // max(size, 1)
    state.entries_per_chunk = max(1, min(fitting, _CHUNK_GROWTH_MAX * entries, CHUNK_ENTRIES_MAX))
