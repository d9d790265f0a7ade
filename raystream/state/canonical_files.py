"""Parquet files of canonical savepoints while they are written: local, with checksums as they grow."""

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from raystream.errors import StateError

METADATA_KEY = b"raystream"
"""Of the metadata in the footer of Parquet that is ours."""

COMPRESSION = "zstd"

PIECE_BYTES = 4 << 20
"""Piece in which a part is uploaded."""

NewFile = Callable[[], IO[bytes]]
"""Makes an empty local file, for reading and writing, that goes when it is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part that is written to a local file.

    Attributes:
        file: holds it.
        checksum: xxh3-64 of the whole, 16 hex digits.
        footer_bytes: length of what comes after the last row group.
        footer_checksum: xxh3-64 of that, 16 hex digits.
        entries: number of keys, for operator state of elements.
    """

    file: IO[bytes]
    size_bytes: int
    checksum: str
    footer_bytes: int
    footer_checksum: str
    entries: int
    rows: int

    def pieces(self) -> list[memoryview]:
        """Return its bytes, which are mapped into memory so that they are not read at once."""
        whole = memoryview(mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ))
        return [whole[at : at + PIECE_BYTES] for at in range(0, len(whole), PIECE_BYTES)]

    def close(self) -> None:
        """Remove the local file; pieces that somebody has stay."""
        self.file.close()


@contextmanager
def _disk_failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(
            "part of a savepoint could not be written to the local disk",
            hint="look at the disk of the directory for temporary files: is it full, or has it failed?",
            cause=str(error)[:200],
        ) from error


class _Sink:
    """What Parquet writes to: a local file, and checksums."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size_bytes = 0
        self._whole = xxhash.xxh3_64()
        self._section = xxhash.xxh3_64()
        self._section_begin = 0

    def write(self, data: Any) -> int:
        """Append bytes."""
        written = self.file.write(data)
        self._whole.update(data)
        self._section.update(data)
        self.size_bytes += written
        return written

    def tell(self) -> int:
        """Return the number of bytes."""
        return self.size_bytes

    def flush(self) -> None:
        """Leave that to the end."""

    def close(self) -> None:
        """Leave the file open."""

    def section(self) -> tuple[int, int, str]:
        """Return offset, length and checksum of what was written since the last call."""
        begin, self._section_begin = self._section_begin, self.size_bytes
        section, self._section = self._section, xxhash.xxh3_64()
        return begin, self.size_bytes - begin, section.hexdigest()

    def checksum(self) -> str:
        """Return the checksum of the whole file."""
        return self._whole.hexdigest()


class PartFile:
    """A part that is being written; blocks.

    Args:
        new_file: makes the local file.
        schema: the columns.
        state: its name, for errors.

    Raises:
        StateError: the local disk failed.
    """

    def __init__(self, new_file: NewFile, schema: pa.Schema, state: str) -> None:
        self._state = state
        with _disk_failures():
            self._sink = _Sink(new_file())
            # A dictionary per row group costs more time than it saves space where keys mostly differ.
            self._parquet = pq.ParquetWriter(
                self._sink,
                schema,
                compression=COMPRESSION,
                use_dictionary=False,
                write_statistics=["key_group"],
            )

    def write(self, table: pa.Table) -> tuple[int, int, str]:
        """Append rows as a row group; return its offset, length and checksum.

        Raises:
            StateError: a value is too large for Parquet, or the local disk failed.
        """
        try:
            with _disk_failures():
                self._parquet.write_table(table, row_group_size=max(1, len(table)))
        except pa.ArrowException as error:
            raise StateError(
                "state cannot be written as Parquet",
                hint="take a native savepoint",
                state=self._state,
                cause=str(error)[:200],
            ) from error
        return self._sink.section()

    def read_back(self) -> Iterator[pa.Table]:
        """Yield each row group again, and remove the file; nothing can be appended any more.

        Raises:
            StateError: the local disk failed.
        """
        with self._sink.file as file, _disk_failures():
            self._parquet.close()
            file.flush()
            parquet = pq.ParquetFile(file)
            for n in range(parquet.num_row_groups):
                yield parquet.read_row_group(n, use_threads=False)

    def finish(self, metadata: bytes, *, entries: int, rows: int) -> Part:
        """Return the part, with metadata of ours in its footer.

        Raises:
            StateError: the local disk failed.
        """
        self._parquet.add_key_value_metadata({METADATA_KEY: metadata})
        with _disk_failures():
            self._parquet.close()
            self._sink.file.flush()
        _, footer_bytes, footer_checksum = self._sink.section()
        return Part(
            file=self._sink.file,
            size_bytes=self._sink.size_bytes,
            checksum=self._sink.checksum(),
            footer_bytes=footer_bytes,
            footer_checksum=footer_checksum,
            entries=entries,
            rows=rows,
        )

    def discard(self) -> None:
        """Remove the file."""
        self._sink.file.close()
