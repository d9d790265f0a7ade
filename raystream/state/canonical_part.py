"""One file of a canonical savepoint: the rows of one state of one subtask as Parquet, with own checksums.

    row groups    one after the other, sorted by key group; the first one begins with Parquet's magic number
    footer        Parquet's: its metadata, among it ours as JSON (`PartFooter`), its length, its magic number

Parquet has no checksum that covers everything, so each row group has one in our metadata, and the footer has
one in the `_metadata` of the savepoint.  A row group ends with a key group, unless that one is very large,
and always with an entry, so a reader fetches no more than the key groups it wants.

Which columns there are is known only when the last row has come.  The writer begins with the fewest, and
writes what it has anew when a row needs more; that is rare, and happens at most once for each column.
"""

from dataclasses import dataclass, field
from heapq import nlargest

import msgspec
import pyarrow as pa

from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state.blob_header import check_version
from raystream.state.canonical_files import NewFile, Part, PartFile
from raystream.state.canonical_keys import key_text
from raystream.state.canonical_rows import ChunkRows, Layout, Rows, domain_text
from raystream.state.chunk_form import Chunk
from raystream.state.snapshot_format import StoredInfo
from raystream.state.ttl import Moment

FORMAT_VERSION = 1

ROW_GROUP_ROWS_WANTED = 16_384
ROW_GROUP_BYTES_WANTED = 4 << 20
"""Size in memory; a row group that has so many rows or bytes ends with its key group."""

ROW_GROUP_EXCESS_MAX = 4
"""As many times larger a row group becomes while one key group goes on; then it ends with a chunk."""

LARGEST_KEYS_MAX = 10


class LargestKey(msgspec.Struct, frozen=True, order=True):
    """One of the keys with the largest content."""

    size_bytes: int
    """Of key and content, encoded as a chunk has them."""
    text: str


class RowGroup(msgspec.Struct, frozen=True):
    """One row group."""

    offset: int
    length: int
    checksum: str
    """xxh3-64, 16 hex digits."""
    rows: int
    entries: int
    key_groups: list[tuple[int, int, int]]
    """Key group, rows and entries of each that is in it, in order."""


class PartState(StoredInfo, frozen=True, kw_only=True):
    """The state of a part."""

    redistribution: str | None = None
    """How operator state is dealt out when the parallelism changes; None for keyed state."""


class PartFooter(msgspec.Struct, frozen=True, kw_only=True):
    """What a part says of itself, as JSON in the footer."""

    format_version: int
    uid: str
    subtask: int
    state: PartState
    ttl: str | None
    """`event` or `processing` when `written_ms` is there, of which time it is."""
    max_parallelism: int
    key_groups: tuple[int, int] | None
    """Those of the subtask, from the first to before the second; None for operator state."""
    taken_ms: int
    event_ms: int | None
    """Event time at the barrier; None for operator state."""
    entries: int
    """Number of keys, for operator state of elements."""
    rows: int
    largest_keys: list[LargestKey]
    row_groups: list[RowGroup]


class _Version(msgspec.Struct):
    format_version: int


_decode_version = msgspec.json.Decoder(_Version).decode
_decode_footer = msgspec.json.Decoder(PartFooter).decode


def decode_footer(said: bytes, path: str) -> PartFooter:
    """Return what a part says of itself.

    Args:
        said: the metadata in its footer.
        path: of the part, for errors.

    Raises:
        StateRestoreError: a newer version wrote the part.
        msgspec.MsgspecError: it does not follow the format.
    """
    version = _decode_version(said).format_version
    check_version(version, FORMAT_VERSION, "savepoint", path=path)
    return _decode_footer(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtaskHead:
    """Whose state is in a part, and of when."""

    uid: str
    subtask: int
    groups: KeyGroupRange
    max_parallelism: int
    taken: Moment


@dataclass(slots=True)
class _Pending:
    """Rows that will be a row group."""

    tables: list[pa.Table] = field(default_factory=list)
    layout: Layout | None = None
    key_groups: list[tuple[int, int, int]] = field(default_factory=list)
    rows: int = 0
    size_bytes: int = 0

    def add(self, group: int, rows: Rows) -> None:
        self.tables.append(rows.table)
        self.layout = rows.layout if self.layout is None else self.layout.merged(rows.layout)
        count = len(rows.table), len(rows.keys)
        if self.key_groups and self.key_groups[-1][0] == group:
            _, before, entries = self.key_groups.pop()
            count = count[0] + before, count[1] + entries
        self.key_groups.append((group, *count))
        self.rows += len(rows.table)
        self.size_bytes += rows.table.nbytes

    def full(self, next_group: int) -> bool:
        """Return whether the rows are enough, now that those of some key group come."""
        if not self.tables:
            return False
        times = ROW_GROUP_EXCESS_MAX if self.key_groups[-1][0] == next_group else 1
        return self.rows >= times * ROW_GROUP_ROWS_WANTED or self.size_bytes >= times * ROW_GROUP_BYTES_WANTED


class PartWriter:
    """Writes the chunks of one state of one subtask; they come sorted by key group.

    It holds at most the rows of one row group, and writes to local files.

    Args:
        head: whose state it is.
        info: describes the state.
        new_file: makes a local file.
    """

    def __init__(self, head: SubtaskHead, info: StateInfo, new_file: NewFile) -> None:
        self._head = head
        self._info = info
        self._new_file = new_file
        self._chunk_rows = ChunkRows(info)
        self._columns = self._chunk_rows.columns
        self._pending = _Pending()
        self._layout: Layout | None = None
        self._file: PartFile | None = None
        self._row_groups: list[RowGroup] = []
        self._largest: list[LargestKey] = []

    def add(self, group: int, chunk: Chunk) -> None:
        """Add a chunk; blocks.

        Raises:
            StateCorruptError: the chunk is not what its form says.
            StateError: a value is too large for Parquet, or the local disk failed.
        """
        if self._pending.full(group):
            self._write()
        rows = self._chunk_rows.rows(group, chunk)
        self._pending.add(group, rows)
        least = self._largest[-1].size_bytes if len(self._largest) == LARGEST_KEYS_MAX else 0
        if max(rows.sizes, default=0) > least:
            found = nlargest(LARGEST_KEYS_MAX, zip(rows.sizes, range(len(rows.keys)), strict=True))
            more = [LargestKey(size, key_text(rows.keys[n])) for size, n in found]
            self._largest = nlargest(LARGEST_KEYS_MAX, [*self._largest, *more])

    def finish(self) -> Part | None:
        """Return the file; None when there is no row; blocks.  The writer is done."""
        if self._pending.tables:
            self._write()
        if self._file is None:
            return None
        footer = self._footer()
        return self._file.finish(msgspec.json.encode(footer), entries=footer.entries, rows=footer.rows)

    def discard(self) -> None:
        """Remove the local file; may be called again."""
        if self._file is not None:
            self._file.discard()

    def _footer(self) -> PartFooter:
        head, layout = self._head, self._layout
        assert layout is not None
        return PartFooter(
            format_version=FORMAT_VERSION,
            uid=head.uid,
            subtask=head.subtask,
            state=PartState.of(self._info),
            ttl=None if layout.times is None else domain_text(layout.times),
            max_parallelism=head.max_parallelism,
            key_groups=(head.groups.start, head.groups.stop),
            taken_ms=head.taken.processing_ms,
            event_ms=head.taken.event_ms,
            entries=sum(row_group.entries for row_group in self._row_groups),
            rows=sum(row_group.rows for row_group in self._row_groups),
            largest_keys=self._largest,
            row_groups=self._row_groups,
        )

    def _write(self) -> None:
        """Write the pending rows as a row group."""
        pending, self._pending = self._pending, _Pending()
        assert pending.layout is not None
        layout = pending.layout if self._layout is None else self._layout.merged(pending.layout)
        if self._file is None or layout != self._layout:
            self._begin(layout)
        table = pa.concat_tables(self._columns.widened(table, layout) for table in pending.tables)
        self._write_group(table, pending.key_groups)

    def _begin(self, layout: Layout) -> None:
        """Begin a file of a layout, with what the file of a narrower one has."""
        before, row_groups = self._file, self._row_groups
        self._layout, self._row_groups = layout, []
        self._file = PartFile(self._new_file, self._columns.schema(layout), self._info.name)
        if before is not None:
            for table, row_group in zip(before.read_back(), row_groups, strict=True):
                self._write_group(self._columns.widened(table, layout), row_group.key_groups)

    def _write_group(self, table: pa.Table, key_groups: list[tuple[int, int, int]]) -> None:
        assert self._file is not None
        rows, entries = sum(rows for _, rows, _ in key_groups), sum(entries for *_, entries in key_groups)
        self._row_groups.append(RowGroup(*self._file.write(table), rows, entries, key_groups))
