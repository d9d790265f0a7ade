"""Rows of a canonical savepoint (`raystream.state.canonical_rows`) as chunks, which every backend restores.

The rows of a key group stand together, and in it those of one entry, elements of a list by their position.
Nothing is unpickled.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pyarrow as pa

from raystream.errors import StateCorruptError
from raystream.keys import encode_canonical
from raystream.state import chunk_form as cf
from raystream.state.canonical_keys import chunk_keys, read_keys
from raystream.state.canonical_rows import (
    KEY,
    KEY_GROUP,
    MAP_KEY,
    NAMESPACE,
    TIME,
    WRITTEN,
    RowColumns,
)
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import StateKind
from raystream.state.snapshot_format import StoredChunk

CHUNK_ROWS_WANTED = 16_384
"""Rows above which a chunk ends with its entry."""

_encode = msgspec.msgpack.Encoder().encode


class RowChunks:
    """Makes chunks of the rows of one table of a state.

    Raises:
        StateCorruptError: the columns are not those of the state.
    """

    def __init__(self, columns: RowColumns, table: pa.Table) -> None:
        self._columns = columns
        self._single = columns.kind.single
        try:
            self._read(table)
        except (pa.ArrowException, msgspec.MsgspecError, LookupError, ValueError, TypeError) as error:
            raise StateCorruptError(
                "rows of a savepoint cannot be read", state=columns.info.name, cause=repr(error)[:200]
            ) from error

    def _read(self, table: pa.Table) -> None:
        columns = self._columns
        self._groups: list[int] = table.column(KEY_GROUP).to_pylist()
        if sorted(self._groups) != self._groups:
            raise ValueError("not sorted by key group")
        if columns.info.namespaced:
            pairs = zip(read_keys(KEY, table), read_keys(NAMESPACE, table), strict=True)
            self._form, self._keys = cf.KEYS_ENCODED, list(map(encode_canonical, pairs))
        else:
            self._form, self._keys = chunk_keys(KEY, table)
        self._map_keys: list[Any] = []
        self._values: list[Any]
        self._wide: list[bool] | None
        if columns.timers is not None:
            timers = zip(table.column(TIME).to_pylist(), read_keys(NAMESPACE, table), strict=True)
            self._map_keys = list(map(encode_canonical, timers))
            self._form |= cf.KEYS_ENCODED << cf.MAP_KEY_SHIFT
            self._values, self._wide = [None] * len(table), None
        else:
            self._values, self._wide = columns.values.read(table)
        if columns.kind is StateKind.MAP and columns.timers is None:
            form, self._map_keys = chunk_keys(MAP_KEY, table)
            self._form |= form << cf.MAP_KEY_SHIFT
        self._written: list[int] | None = None
        times = columns.layout(table.schema).times
        if times is not None:
            self._form |= cf.timed_form_of(times)
            self._written = table.column(WRITTEN).to_pylist()

    def __iter__(self) -> Iterator[StoredChunk]:
        """Yield the chunks in the order of the rows.

        Raises:
            StateCorruptError: an entry has values in both forms.
        """
        starts, groups = self._starts(), self._groups
        first = 0
        while first < len(starts) - 1:
            row = starts[first]
            # A key group ends where the next begins, or before, when it has many rows.
            stop = min(bisect_right(groups, groups[row], row), row + CHUNK_ROWS_WANTED)
            end = max(bisect_right(starts, stop) - 1, first + 1)
            yield from self._chunks(starts[first : end + 1])
            first = end

    def _starts(self) -> Sequence[int]:
        """Return the first row of each entry, and the number of rows."""
        count = len(self._keys)
        if self._single or not count:
            return range(count + 1)
        changes = [
            n
            for n, (key, before) in enumerate(zip(self._keys[1:], self._keys[:-1], strict=True), 1)
            if key != before
        ]
        return [0, *changes, count]

    def _chunks(self, starts: Sequence[int]) -> Iterator[StoredChunk]:
        """Yield the chunks of entries of one key group."""
        wide = self._wide
        if wide is None or self._columns.values.encoding == "pickle":
            yield self._chunk(starts, slice(None), wide=wide is not None)
            return
        flags = [wide[start] for start in starts[:-1]]
        for flag, (start, stop) in zip(flags, pairwise(starts), strict=True):
            if wide[start:stop].count(flag) != stop - start:
                raise StateCorruptError(
                    "entry of a savepoint has both pickled and other values", state=self._columns.info.name
                )
        for flag in sorted(set(flags)):
            yield self._chunk(starts, [n for n, of_entry in enumerate(flags) if of_entry is flag], wide=flag)

    def _chunk(self, starts: Sequence[int], chosen: slice | list[int], *, wide: bool) -> StoredChunk:
        """Return entries as a chunk.

        Args:
            starts: their first rows, and the end.
            chosen: which of them.
            wide: whether they are in the wide form.
        """
        group = self._groups[starts[0]]
        whole = slice(starts[0], starts[-1])
        times = self._written
        if self._single and isinstance(chosen, slice):
            keys, contents = self._keys[whole], self._values[whole]
            written: Any = None if times is None else times[whole]
        else:
            rows = list(pairwise(starts))
            rows = rows[chosen] if isinstance(chosen, slice) else [rows[n] for n in chosen]
            keys, contents = [self._keys[start] for start, _ in rows], self._contents(rows)
            written = None
            if times is not None:
                written = [times[start] if self._single else times[start:stop] for start, stop in rows]
        parts = (keys, contents) if written is None else (keys, contents, written)
        form = self._form | (cf.WIDE if wide else 0)
        return StoredChunk(group=group, chunk=Chunk(form, len(keys), _encode(parts)))

    def _contents(self, rows: list[tuple[int, int]]) -> list[Any]:
        values = self._values
        if self._single:
            return [values[start] for start, _ in rows]
        if self._columns.kind is StateKind.LIST:
            return [values[start:stop] for start, stop in rows]
        map_keys = self._map_keys
        return [dict(zip(map_keys[a:b], values[a:b], strict=True)) for a, b in rows]


def chunks_of(columns: RowColumns, table: pa.Table) -> Iterator[StoredChunk]:
    """Yield the rows of a table as chunks; raises `StateCorruptError` as `RowChunks`."""
    return iter(RowChunks(columns, table))
