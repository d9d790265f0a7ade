"""A snapshot of the RocksDB backend: write out what was dirty, take a view, encode it in a thread.

    frozen ──write layers step by step──> written ──view of RocksDB──> cut ──`blob`, in a thread──> encoded

Freezing takes time per dirty item, of which there are few.  Until a snapshot is cut, nothing newer gets
into RocksDB; of several snapshots the oldest is cut first.  After that the view keeps what the barrier
saw, and the backend goes on as if there were no snapshot.

The blob is the one that every backend writes (`raystream.state.snapshot_format`).  Values go into it as
they are stored, without being decoded.  It is put together in a file beside RocksDB, since it may be
larger than memory.
"""

import mmap
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from raystream.errors import StateError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state import chunk_form as cf
from raystream.state.chunk_form import Chunk, timed_form
from raystream.state.descriptor import StateKind
from raystream.state.rocksdb import StoreView
from raystream.state.rocksdb_items import (
    MAP_KEY_LENGTH,
    PREFIX_BYTES,
    WIDE,
    group_prefix,
    suffix_bytes,
    time_of,
)
from raystream.state.rocksdb_tables import CachedTable, Layer
from raystream.state.snapshot_format import SnapshotWriter
from raystream.state.ttl import Moment

CHUNK_ITEMS_MAX = 1024
CHUNK_BYTES_WANTED = 64 * 1024
"""Size of the items above which a chunk ends with its key."""

SPILL_BYTES = 8 << 20
"""Size up to which a blob is put together in memory."""

PIECE_BYTES = 4 << 20

EXPIRED_TOLD_MAX = 65_536
"""Keys that snapshots found expired and that are not removed yet; beyond, the oldest are forgotten."""

_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True, kw_only=True)
class SnapshotOrigin:
    """What the snapshots of one backend share."""

    tables: Sequence[CachedTable]
    groups: KeyGroupRange
    max_parallelism: int
    take_view: Callable[[], StoreView]
    directory: Path
    unfinished: "deque[RocksDbSnapshot]" = field(default_factory=deque)
    """Snapshots that are not cut yet, oldest first."""
    closed: bool = False
    """True when the directory is about to go."""
    spilled: int = 0
    expired: deque[tuple[str, bytes, list[bytes]]] = field(
        default_factory=lambda: deque(maxlen=EXPIRED_TOLD_MAX)
    )
    """State, encoded key and suffixes of what snapshots found expired, not yet removed."""


class RocksDbSnapshot:
    """A `KeyedSnapshot` of the RocksDB backend."""

    def __init__(
        self, checkpoint_id: int, states: tuple[StateInfo, ...], origin: SnapshotOrigin, taken: Moment
    ) -> None:
        """Freeze the tables and join the unfinished snapshots of the backend."""
        self.checkpoint_id = checkpoint_id
        self.states = states
        self._origin = origin
        self._tables = tuple(origin.tables)
        self._taken = taken
        self._layers: deque[tuple[CachedTable, Layer]] = deque()
        for table in self._tables:
            layer = table.freeze()
            if layer is not None:
                self._layers.append((table, layer))
        self._view: StoreView | None = None
        self._cut = False
        self._discarded = False
        self._error: StateError | None = None
        self.entries = 0
        origin.unfinished.append(self)

    def advance(self, out_of_time: Callable[[], bool]) -> bool:
        while not self._cut:
            done = self._origin.unfinished[0]._work(out_of_time)
            self._raise_error()
            if not done or (not self._cut and out_of_time()):
                return False
        self._raise_error()
        return True

    def blob(self) -> Sequence[bytes | memoryview]:
        assert self._view is not None
        assert not self._discarded
        writer = SnapshotWriter(
            self.states, self._origin.groups, self._origin.max_parallelism, taken=self._taken
        )
        spill = _Spill(self._origin)
        for group in self._origin.groups:
            for position, table in enumerate(self._tables):
                if self._origin.closed:
                    raise StateError("backend of the state was closed", checkpoint_id=self.checkpoint_id)
                for chunk in self._chunks(self._view, table, group):
                    writer.add(position, group, chunk)
                    spill.add(writer)
        self.entries = writer.entries
        return spill.finish(writer)

    def discard(self) -> None:
        if not self._cut or self._error is not None:
            self._discarded = True
            self._view = None

    def _raise_error(self) -> None:
        if self._error is not None and not self._discarded:
            raise self._error

    def _work(self, out_of_time: Callable[[], bool]) -> bool:
        """Write layers until it is time to stop; return True when the snapshot is cut."""
        while self._layers:
            table, layer = self._layers[0]
            refused = table.codec.refused
            # A read may have written the layer already.
            if layer not in table.frozen or table.write_step(layer):
                self._layers.popleft()
            if table.codec.refused > refused:
                self._error = self._error or table.codec.refusal
            if self._layers and out_of_time():
                return False
        self._cut = True
        if not self._discarded:
            self._view = self._origin.take_view()
        cut = self._origin.unfinished.popleft()
        assert cut is self
        return True

    def _chunks(self, view: StoreView, table: CachedTable, group: int) -> Iterator[Chunk]:
        cutoff_ms = self._taken.cutoff_ms(table.descriptor.ttl)
        draft = _Draft(table)
        for key, items in stored_contents(view, table, group):
            left = items
            if cutoff_ms is not None:
                left = [(suffix, item) for suffix, item in items if time_of(item) > cutoff_ms]
                if len(left) < len(items):
                    gone = [suffix for suffix, item in items if time_of(item) <= cutoff_ms]
                    self._origin.expired.append((table.descriptor.name, key, gone))
            if left:
                draft.add(key, left)
            if draft.full:
                yield from draft.take()
        yield from draft.take()


def stored_contents(
    view: StoreView, table: CachedTable, group: int
) -> Iterator[tuple[bytes, list[tuple[bytes, bytes]]]]:
    """Yield the encoded key of each content of a state in a key group, and its items by suffix."""
    prefix = group_prefix(table.number, group)
    kind = table.descriptor.kind
    if kind.single:
        for stored, item in view.scan(prefix):
            yield stored[PREFIX_BYTES:], [(b"", item)]
        return
    body: bytes = b""
    items: list[tuple[bytes, bytes]] = []
    for stored, item in view.scan(prefix):
        # No encoded key begins with another one.
        if not items or not stored.startswith(body):
            if items:
                yield body[PREFIX_BYTES:], items
            body, items = stored[: -suffix_bytes(kind, stored)], []
        items.append((stored[len(body) :], item))
    if items:
        yield body[PREFIX_BYTES:], items


class _Draft:
    """Contents that will be chunks, one for each form."""

    def __init__(self, table: CachedTable) -> None:
        self._kind = table.descriptor.kind
        self._timed = timed_form(table.descriptor.ttl)
        self._codec = table.codec
        self._columns: dict[int, tuple[list[bytes], list[Any], list[Any]]] = {}
        self._items = 0
        self._bytes = 0

    @property
    def full(self) -> bool:
        return self._items >= CHUNK_ITEMS_MAX or self._bytes >= CHUNK_BYTES_WANTED

    def add(self, key: bytes, items: list[tuple[bytes, bytes]]) -> None:
        """Add the content of one key; its items get one form."""
        values = [self._codec.for_chunk(item) for _, item in items]
        form = values[0][0]
        content = [value for _, value in values]
        if any(other != form for other, _ in values):
            form = WIDE
            content = [
                value if own == WIDE else self._codec.widened(item)
                for (own, value), (_, item) in zip(values, items, strict=True)
            ]
        keys, contents, times = self._columns.setdefault(form, ([], [], []))
        keys.append(key)
        if self._kind is StateKind.MAP:
            map_keys = [suffix[: -MAP_KEY_LENGTH.size] for suffix, _ in items]
            contents.append(dict(zip(map_keys, content, strict=True)))
        else:
            contents.append(content[0] if self._kind.single else content)
        if self._timed:
            written = [time_of(item) for _, item in items]
            times.append(written[0] if self._kind.single else written)
        self._items += len(items)
        self._bytes += sum(len(item) for _, item in items)

    def take(self) -> Iterator[Chunk]:
        """Yield the chunks, and begin anew."""
        for form, (keys, contents, times) in self._columns.items():
            full = form | cf.KEYS_ENCODED
            if self._kind is StateKind.MAP:
                full |= cf.KEYS_ENCODED << cf.MAP_KEY_SHIFT
            if self._timed:
                yield Chunk(full | self._timed, len(keys), _encode((keys, contents, times)))
            else:
                yield Chunk(full, len(keys), _encode((keys, contents)))
        self._columns.clear()
        self._items = self._bytes = 0


class _Spill:
    """Takes the pieces of a blob out of memory into a file, when they are too many."""

    def __init__(self, origin: SnapshotOrigin) -> None:
        origin.spilled += 1
        self._path = origin.directory / f"blob-{origin.spilled}"
        self._bytes = 0
        self._file: Any = None

    def add(self, writer: SnapshotWriter) -> None:
        """Look whether there is too much in memory."""
        if writer.pending_bytes >= SPILL_BYTES:
            self._write(writer.take())

    def finish(self, writer: SnapshotWriter) -> Sequence[bytes | memoryview]:
        """Return the pieces of the blob."""
        if self._file is None:
            return writer.finish()
        self._write(writer.finish())
        with self._file:
            whole = memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
        return [whole[at : at + PIECE_BYTES] for at in range(0, len(whole), PIECE_BYTES)]

    def _write(self, pieces: Sequence[bytes]) -> None:
        try:
            if self._file is None:
                self._file = self._path.open("w+b")
                self._path.unlink()  # The file lives as long as somebody uses it.
            self._file.writelines(pieces)
            self._file.flush()
        except OSError as error:
            raise StateError(
                "snapshot could not be written to the local disk",
                hint="look at the disk of state.backend.rocksdb.localdir: is it full, or has it failed?",
                path=str(self._path),
                cause=str(error),
            ) from error
