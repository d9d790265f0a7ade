"""A snapshot of the heap backend: encodes frozen tables in slices, then puts them back.

    frozen ──encode chunk by chunk──> encoded ──fold the overlay in──> put back     for each table
       └────────────────────── discarded, or failed ────────────────────┘

The tables are worked through by key group, and each is put back as soon as it is encoded,
so that the stream is slowed down for as short as possible.  Of several snapshots the oldest
works first: only then is the lowest table of a group what it froze (see
`raystream.state.heap_tables`).

What had expired when the tables were frozen is not encoded, and leaves the table too: newer
snapshots and readers do not see it either.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from raystream.errors import StateError
from raystream.handles import SharedFile, StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state.chunk_codec import ChunkCodec, EncodedContent
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import StateDescriptor
from raystream.state.heap_tables import (
    FOLD_ENTRIES_MAX,
    Table,
    TableList,
    fold_lowest_overlay,
    freeze_table,
    lowest_table,
)
from raystream.state.snapshot_files import LocalFile
from raystream.state.snapshot_format import SnapshotWriter
from raystream.state.ttl import Moment, unexpired

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
    descriptor: StateDescriptor
    codec: ChunkCodec
    tables: TableList
    entries_per_chunk: int = _CHUNK_ENTRIES_FIRST
    """Adapted to the size of what was encoded last."""


@dataclass(slots=True)
class _Frozen:
    """The table of one state and key group, at the barrier."""

    state: HeapState
    group: int
    cutoff_ms: int | None
    """Newest time of writing that had expired; None without a time to live."""


class HeapSnapshot:
    """A `KeyedSnapshot` of the heap backend."""

    local_directory = None

    def __init__(
        self,
        checkpoint_id: int,
        registered: tuple[HeapState, ...],
        unfinished: "deque[HeapSnapshot]",
        *,
        groups: KeyGroupRange,
        max_parallelism: int,
        taken: Moment,
    ) -> None:
        """Freeze the tables and join `unfinished`, the snapshots of the backend, oldest first."""
        self.checkpoint_id = checkpoint_id
        self.states: tuple[StateInfo, ...] = tuple(state.codec.info for state in registered)
        self.taken = taken
        self._writer = SnapshotWriter(self.states, groups, max_parallelism, taken=taken)
        cutoffs = [taken.cutoff_ms(state.descriptor.ttl) for state in registered]
        early = [_early(state.codec, cutoff_ms) for state, cutoff_ms in zip(registered, cutoffs, strict=True)]
        self._frozen = [
            _Frozen(state, group, cutoff_ms)
            for group in groups
            for state, cutoff_ms, encode in zip(registered, cutoffs, early, strict=True)
            if freeze_table(state.tables, group, encode)
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

    def wait(self) -> None:
        """There is never anything to wait for."""

    def files(self) -> Sequence[LocalFile]:
        return ()

    def blob(self) -> Sequence[bytes]:
        assert self._finished
        return self._writer.finish()

    def chunks(self) -> Iterator[tuple[int, int, Chunk]]:
        assert self._finished
        return self._writer.chunks()

    def stored(self, files: dict[str, SharedFile]) -> None:
        """Do nothing: no snapshot refers to another one."""

    def discard(self) -> None:
        self._discarded = True
        self._writer.take()

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
        for frozen in self._frozen:
            expired: list[Any] = []
            yield from self._encode(frozen, expired)
            table = lowest_table(frozen.state.tables, frozen.group)
            for n, key in enumerate(expired, 1):
                table.pop(key, None)
                if n % FOLD_ENTRIES_MAX == 0:
                    yield
            yield from fold_lowest_overlay(frozen.state.tables, frozen.group)
            yield
        self._frozen.clear()

    def _encode(self, frozen: _Frozen, expired: list[Any]) -> Iterator[None]:
        """Encode a table; `expired` gets the keys of which nothing is left."""
        state = frozen.state
        table = lowest_table(state.tables, frozen.group)
        # Values are replaced while the iterators live, keys are neither added nor removed.
        keys, contents = iter(table), iter(table.values())
        while not self._discarded and self._error is None:
            batch = _take(contents, state)
            if not batch:
                return
            of_batch = list(islice(keys, len(batch)))
            if frozen.cutoff_ms is not None:
                of_batch, batch = _alive(table, (of_batch, batch), frozen.cutoff_ms, expired)
            try:
                chunks = state.codec.encode(of_batch, batch) if batch else []
            except StateError as error:
                self._error = error
                return
            for chunk in chunks:
                self._writer.add(state.position, frozen.group, chunk)
            if batch:
                _adapt(state, len(batch), sum(len(chunk.data) for chunk in chunks))
            yield


def _early(codec: ChunkCodec, cutoff_ms: int | None) -> Callable[[Any], EncodedContent]:
    """Return what encodes a frozen content before its turn."""
    if cutoff_ms is None:
        return codec.encode_early
    # A content of which nothing is left is encoded whole; its turn tells by its times.
    return lambda content: codec.encode_early(unexpired(content, cutoff_ms) or content)


def _alive(
    table: Table, entries: tuple[list[Any], list[Any]], cutoff_ms: int, expired: list[Any]
) -> tuple[list[Any], list[Any]]:
    """Return keys and contents without what has expired, which leaves the table's contents too."""
    alive: tuple[list[Any], list[Any]] = ([], [])
    for key, content in zip(*entries, strict=True):
        left = content
        if type(content) is not EncodedContent:
            left = unexpired(content, cutoff_ms)
        elif content.newest_ms <= cutoff_ms:
            left = None
        if left is None:
            expired.append(key)
            continue
        if left is not content:
            table[key] = left
        alive[0].append(key)
        alive[1].append(left)
    return alive


def _take(contents: Iterator[Any], state: HeapState) -> list[Any]:
    """Return the contents of the next chunk."""
    if state.descriptor.kind.single:
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
