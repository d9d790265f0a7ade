"""Writes the rows of a state to one Parquet file."""

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raystream.errors import ConfigError
from raystream.state.canonical_rows import Layout, RowColumns

ROW_GROUP_ROWS_WANTED = 65_536
ROW_GROUP_BYTES_WANTED = 16 << 20
"""Rows and bytes above which a row group is written; all that is held in memory."""


def export_rows(schema: pa.Schema, tables: Iterable[pa.Table], path: Path) -> int:
    """Write tables to a file and return the number of rows.

    Args:
        schema: of all tables.
        tables: with the rows.
        path: of the file, which is replaced when the new one is complete.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = path.resolve()  # A link stays one.
    # Drawn, so that of two exports to one file one is there in the end and not a mixture.
    unfinished = path.with_name(f".{secrets.token_hex(8)}.unfinished")
    rows = 0
    try:
        if path.exists() and not path.is_file():
            raise OSError("what has this name is no file")
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            for group in _row_groups(tables):
                writer.write_table(group)
                rows += len(group)
        unfinished.replace(path)
    except OSError as error:
        raise ConfigError(
            "file cannot be written",
            hint="name a file in a directory that is there, on a disk that has room",
            path=str(path),
            cause=error.strerror or str(error)[:200],
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return rows


def in_one_layout(
    columns: RowColumns, batches: Callable[[], Iterable[pa.Table]]
) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Return the columns that carry all rows of a keyed state, and the rows with these columns.

    Args:
        columns: of the state.
        batches: yields the rows; called twice, since only the last row tells which columns there are.
    """
    layout: Layout | None = None
    for table in batches():
        own = columns.layout(table.schema)
        layout = own if layout is None else layout.merged(own)
    if layout is None:
        return columns.empty().schema, iter(())
    carries = layout
    return columns.schema(carries), (columns.widened(table, carries) for table in batches())


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the tables, several as one."""
    held: list[pa.Table] = []
    rows = size_bytes = 0
    for table in tables:
        held.append(table)
        rows += len(table)
        size_bytes += table.nbytes
        if rows >= ROW_GROUP_ROWS_WANTED or size_bytes >= ROW_GROUP_BYTES_WANTED:
            yield pa.concat_tables(held)
            held = []
            rows = size_bytes = 0
    if held:
        yield pa.concat_tables(held)
