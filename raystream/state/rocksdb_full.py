"""A full snapshot of the RocksDB backend: everything that a view shows, in the form that every backend reads.

Values go into the blob (`raystream.state.snapshot_format`) as they are stored, without being decoded.  It is
put together in a file beside RocksDB, since it may be larger than memory.
"""

import mmap
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from raystream.errors import StateError
from raystream.handles import SharedFile
from raystream.state import chunk_form as cf
from raystream.state.chunk_form import Chunk, timed_form
from raystream.state.descriptor import StateKind
from raystream.state.rocksdb import RocksDbStore, StoreView, disk_failure
from raystream.state.rocksdb_items import (
    MAP_KEY_LENGTH,
    PREFIX_BYTES,
    WIDE,
    group_prefix,
    suffix_bytes,
    time_of,
)
from raystream.state.rocksdb_snapshot import RocksDbSnapshot, SnapshotOrigin
from raystream.state.rocksdb_tables import CachedTable
from raystream.state.snapshot_files import LocalFile
from raystream.state.snapshot_format import SnapshotWriter
from raystream.state.ttl import latest_cutoff_ms

CHUNK_ITEMS_MAX = 1024
CHUNK_BYTES_WANTED = 64 * 1024
"""Size of the items above which a chunk ends with its key."""

SPILL_BYTES = 8 << 20
"""Size up to which a blob is put together in memory."""

PIECE_BYTES = 4 << 20

_encode = msgspec.msgpack.Encoder().encode


class FullSnapshot(RocksDbSnapshot):
    """A `KeyedSnapshot` that depends on no other one."""

    _view: StoreView | None = None
    _entries = 0

    @property
    def entries(self) -> int | None:
        return self._entries

    def files(self) -> Sequence[LocalFile]:
        return ()

    def blob(self) -> Sequence[bytes | memoryview]:
        writer = SnapshotWriter(
            self.states, self._origin.groups, self._origin.max_parallelism, taken=self.taken
        )
        spill = _Spill(self._origin)
        for position, group, chunk in self.chunks():
            writer.add(position, group, chunk)
            spill.add(writer)
        return spill.finish(writer)

    def chunks(self) -> Iterator[tuple[int, int, Chunk]]:
        view = self._view
        if view is None:
            raise StateError("snapshot was discarded", checkpoint_id=self.checkpoint_id)
        for group in self._origin.groups:
            for position, table in enumerate(self._tables):
                if self._origin.closed:
                    raise StateError("backend of the state was closed", checkpoint_id=self.checkpoint_id)
                for chunk in self._chunks(view, table, group):
                    self._entries += chunk.entries
                    yield position, group, chunk

    def stored(self, files: dict[str, SharedFile]) -> None:
        """Nothing can be referred to."""

    def _take(self) -> None:
        self._view = self._origin.take_view()

    def _let_go(self) -> None:
        self._view = None

    def _chunks(self, view: StoreView, table: CachedTable, group: int) -> Iterator[Chunk]:
        cutoff_ms = latest_cutoff_ms(self.taken.cutoff_ms(table.descriptor.ttl), table.expired_ms)
        descriptor = table.descriptor
        draft = ChunkDraft(descriptor.kind, timed_form(descriptor.ttl), table.codec)
        for key, items in stored_contents(view, table.number, table.descriptor.kind, group):
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
    view: StoreView | RocksDbStore, number: int, kind: StateKind, group: int
) -> Iterator[tuple[bytes, list[tuple[bytes, bytes]]]]:
    """Yield the encoded key of each content of a state in a key group, and its items by suffix."""
    prefix = group_prefix(number, group)
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


class DraftedItems(Protocol):
    """What a draft needs to know of the items of a state."""

    def for_chunk(self, item: bytes) -> tuple[int, Any]:
        """Return the form of a value in a chunk, `WIDE` or 0, and what is to be encoded there."""

    def widened(self, item: bytes) -> bytes:
        """Return the wide form of a value that is not wide, without time."""


class ChunkDraft:
    """Contents that will be chunks, one for each form.

    Args:
        kind: of the state.
        timed: which times its items carry, as in `raystream.state.chunk_form`.
        codec: of the items.
    """

    def __init__(self, kind: StateKind, timed: int, codec: DraftedItems) -> None:
        self._kind = kind
        self._single = kind.single
        self._timed = timed
        self._codec = codec
        self._columns: dict[int, tuple[list[bytes], list[Any], list[Any]]] = {}
        self._items = 0
        self._bytes = 0

    @property
    def full(self) -> bool:
        """True when the chunks should be taken."""
        return self._items >= CHUNK_ITEMS_MAX or self._bytes >= CHUNK_BYTES_WANTED

    def add(self, key: bytes, items: list[tuple[bytes, bytes]]) -> None:
        """Add the content of one key; its items get one form."""
        if self._single:
            self._add_one(key, items[0][1])
            return
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
            contents.append(content)
        if self._timed:
            times.append([time_of(item) for _, item in items])
        self._items += len(items)
        self._bytes += sum(len(item) for _, item in items)

    def _add_one(self, key: bytes, item: bytes) -> None:
        form, value = self._codec.for_chunk(item)
        columns = self._columns.get(form)
        if columns is None:
            columns = self._columns[form] = ([], [], [])
        columns[0].append(key)
        columns[1].append(value)
        if self._timed:
            columns[2].append(time_of(item))
        self._items += 1
        self._bytes += len(item)

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
        self._path = origin.new_path("blob")
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
            raise disk_failure(
                "snapshot could not be written to the local disk", self._path, error
            ) from error
