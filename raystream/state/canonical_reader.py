"""Reads the parts of a canonical savepoint; every byte is verified before anything is made of it.

The footer is fetched and verified first, then the row groups that have wanted key groups, each by its own
checksum before Parquet decodes it.  Nothing is unpickled.
"""

import io
from collections.abc import Container, Iterator

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from raystream.errors import StateCorruptError
from raystream.keygroup import KeyGroupRange
from raystream.state.canonical_chunks import chunks_of
from raystream.state.canonical_files import METADATA_KEY
from raystream.state.canonical_index import PartPlace
from raystream.state.canonical_part import RowGroup, decode_footer
from raystream.state.canonical_rows import RowColumns
from raystream.state.snapshot_format import StoredChunk

_MAGIC = b"PAR1"

Groups = KeyGroupRange | Container[int]
"""Key groups that are wanted."""


class PartReader:
    """A part of which the footer was read and verified.

    Attributes:
        footer: what the part says of itself.

    Raises:
        StateCorruptError: a byte of the footer is not what it was when the part was written.
        StateRestoreError: a newer version wrote the part.
    """

    def __init__(self, place: PartPlace) -> None:
        self._place = place
        offset = place.size_bytes - place.footer_bytes
        if offset < 0:
            raise self._damaged("part of a savepoint is cut off")
        tail = place.read(offset, place.footer_bytes, place.footer_checksum)
        try:
            self._metadata = pq.read_metadata(io.BytesIO(_MAGIC + tail))
            self.footer = decode_footer(self._metadata.metadata[METADATA_KEY], place.path)
        except (pa.ArrowException, msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise self._damaged("footer of a savepoint's part cannot be read") from error
        self._check(offset)

    @property
    def path(self) -> str:
        """Where the part is."""
        return self._place.path

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._metadata.schema.to_arrow_schema()

    def table(self, number: int) -> pa.Table:
        """Return the rows of a row group; blocks.

        Raises:
            StateCorruptError: a byte is not what it was when the part was written.
        """
        row_group = self.footer.row_groups[number]
        data = self._place.read(row_group.offset, row_group.length, row_group.checksum)
        sparse = pa.PythonFile(_Sparse(data, row_group.offset, self._place.size_bytes), mode="r")
        try:
            file = pq.ParquetFile(sparse, metadata=self._metadata, pre_buffer=False)
            table = file.read_row_group(number, use_threads=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged("row group of a savepoint's part cannot be read") from error
        if len(table) != row_group.rows:
            raise self._damaged("row group of a savepoint's part has another number of rows")
        return table

    def tables(self, groups: Groups | None = None) -> Iterator[pa.Table]:
        """Yield the rows of some key groups; each row group is read once; blocks; raises as `table`.

        Args:
            groups: None stands for all.
        """
        for number, row_group in enumerate(self.footer.row_groups):
            runs = _runs(row_group, groups)
            if runs:
                table = self.table(number)
                yield from (table.slice(start, stop - start) for start, stop in runs)

    def chunks(self, groups: Groups | None = None) -> Iterator[StoredChunk]:
        """Yield the rows of some key groups as chunks, of keyed state; as `tables`."""
        columns = RowColumns(self.footer.state.info)
        for table in self.tables(groups):
            yield from chunks_of(columns, table)

    def _check(self, end: int) -> None:
        """Check that the row groups are one after the other, as Parquet has them too, and sorted."""
        offset, last = 0, -1
        for row_group in self.footer.row_groups:
            groups = [last, *(group for group, _, _ in row_group.key_groups)]
            if row_group.offset != offset or row_group.length < 0 or groups != sorted(groups):
                raise self._damaged("footer of a savepoint's part contradicts itself")
            offset, last = offset + row_group.length, groups[-1]
        count = len(self.footer.row_groups)
        if self._metadata.num_row_groups != count or (count and offset != end):
            raise self._damaged("footer of a savepoint's part contradicts itself")

    def _damaged(self, what: str) -> StateCorruptError:
        return StateCorruptError(what, path=self._place.path)


def _runs(row_group: RowGroup, groups: Groups | None) -> list[tuple[int, int]]:
    """Return from which row to which the rows of some key groups are; neighbours as one."""
    runs: list[tuple[int, int]] = []
    stop = 0
    for group, rows, _ in row_group.key_groups:
        start, stop = stop, stop + rows
        if groups is None or group in groups:
            if runs and runs[-1][1] == start:
                start = runs.pop()[0]
            runs.append((start, stop))
    return runs


class _Sparse:
    """A file of which one piece is there; Parquet reads no more than that."""

    closed = False

    def __init__(self, data: bytes, offset: int, size_bytes: int) -> None:
        self._data = memoryview(data)
        self._offset = offset
        self._size_bytes = size_bytes
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def read(self, length: int) -> memoryview:
        """Return bytes of the piece."""
        start = self._at - self._offset
        if start < 0 or start + length > len(self._data):
            raise OSError("read beyond what is verified")
        self._at += length
        return self._data[start : start + length]

    def size(self) -> int:
        """Return the length of the whole file."""
        return self._size_bytes

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
