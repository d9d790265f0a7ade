"""Writes the rows of a state to one Parquet file."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raystream.errors import ConfigError
from raystream.handles import StateInfo
from raystream.state.canonical_rows import RowColumns

ROW_GROUP_ROWS_WANTED = 65_536
"""Rows above which a row group is written; all that is held in memory."""


def export_rows(batches: Callable[[], Iterable[pa.Table]], info: StateInfo, path: Path) -> int:
    """Write a state to a file and return the number of rows.

    Args:
        batches: yields the rows in tables, each time that it is called.
        info: the description of the state.
        path: of the file, which is replaced when the new one is complete.

    Raises:
        ConfigError: the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        rows = _write(batches, info, unfinished)
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


def _write(batches: Callable[[], Iterable[pa.Table]], info: StateInfo, path: Path) -> int:
    columns = RowColumns(info)
    layout = columns.empty_layout
    first = True
    for table in batches():
        own = columns.layout(table.schema)
        layout, first = own if first else layout.merged(own), False
    rows = 0
    with pq.ParquetWriter(path, columns.schema(layout), compression="zstd") as writer:
        for group in _row_groups(columns.widened(table, layout) for table in batches()):
            writer.write_table(group)
            rows += len(group)
    return rows


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the tables, several as one."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= ROW_GROUP_ROWS_WANTED:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
