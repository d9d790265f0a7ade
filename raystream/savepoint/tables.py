"""Tables that somebody else made, as rows of a state: checked, with key groups, in the order of savepoints.

    column          is needed       holds
    key             keyed state     keys of any type that a stream may have; structs and lists are tuples
    namespace       namespaced      likewise, or null
    map_key         maps            likewise
    value           always          what the type of the state says (`raystream.state.canonical_values`)
    time_ms         timers          int
    position        may be there    order of the elements of a list; without it the order of the rows counts
    written_ms      may be there    time of writing, of a state with a time to live; by default now, in event
                                    time at the watermark of the base
    key_group, key_text, namespace_text, map_key_text, domain, subtask     may be there, and are not read

A table that `State.to_arrow` returned is one of these, changed or not.  Values are cast where nothing is
lost, never parsed.  What is wrong is told with operator, state, column and row (from 0).
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from raystream.clock import TimeDomain
from raystream.errors import KeyTypeError, StateCorruptError
from raystream.keys import KeyGroupCache, canonical_key, key_groups
from raystream.savepoint.casting import Target, cast, no_null, value_columns
from raystream.savepoint.rows import SUBTASK
from raystream.state.canonical_keys import KIND_FIELD, TEXT_SUFFIX, Columns, key_columns, read_keys
from raystream.state.canonical_rows import (
    DOMAIN,
    DOMAIN_FIELD,
    KEY,
    KEY_GROUP,
    MAP_KEY,
    NAMESPACE,
    POSITION,
    TIME,
    WRITTEN,
    RowColumns,
    domain_text,
)
from raystream.state.canonical_values import VALUE, VALUE_MSGPACK, VALUE_PICKLE
from raystream.state.descriptor import StateKind

_NOT_READ = {KEY_GROUP, KEY + TEXT_SUFFIX, NAMESPACE + TEXT_SUFFIX, MAP_KEY + TEXT_SUFFIX, DOMAIN, SUBTASK}


def keyed_rows(target: Target, given: Any) -> pa.Table:
    """Return rows as a canonical savepoint has them, sorted by key group.

    Args:
        target: the state.
        given: an Arrow table, or what has `__arrow_c_stream__`, such as a data frame.

    Raises:
        StateError: the columns, a key or a value do not fit; or a key is there twice.
    """
    return _Keyed(target, as_table(target, given)).rows()


def as_table(target: Target, given: Any) -> pa.Table:
    """Return an Arrow table of what somebody gave.

    Raises:
        StateError: it cannot be one.
    """
    if isinstance(given, pa.Table):
        return given
    try:
        if isinstance(given, Mapping):
            return _of_columns(target, given)
        return pa.table(given)
    except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise target.refused(
            "rows are no table",
            hint="give a pyarrow.Table, a dict of columns, or a data frame that has `__arrow_c_stream__`",
            given=type(given).__name__,
            cause=str(error)[:200],
        ) from error


def _of_columns(target: Target, columns: Mapping[str, Any]) -> pa.Table:
    """Return columns as a table; those of keys may hold keys of any type, which Arrow has no type for."""
    made: list[tuple[pa.Field, Any]] = []
    for name, column in columns.items():
        if name in (KEY, NAMESPACE, MAP_KEY) and isinstance(column, list | tuple):
            keys: list[Any] = []
            try:
                keys.extend(None if key is None else canonical_key(key) for key in column)
            except KeyTypeError as error:
                row = len(keys)
                raise target.refused(error.message, hint=error.hint, column=name, row=row) from error
            made += key_columns(name, keys)[1]
        else:
            array = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
            made.append((pa.field(name, array.type), array))
    return pa.Table.from_arrays([array for _, array in made], schema=pa.schema([field for field, _ in made]))


def check_columns(target: Target, table: pa.Table, *, needed: Sequence[str], allowed: Sequence[str]) -> None:
    """Check the names of the columns.

    Raises:
        StateError: one is there twice, or missing, or not known; the error names the nearest known one.
    """
    for position, name in enumerate(table.column_names):
        if name in table.column_names[:position]:
            raise target.refused("table has a column twice", column=name)
    missing = [name for name in needed if name not in table.column_names]
    known = [*needed, *allowed]
    for name in table.column_names:
        if name not in known and name not in _NOT_READ:
            near = difflib.get_close_matches(name, missing or known, n=1)
            raise target.refused(
                "table has a column that the state does not have",
                hint=f"is it {near[0]!r}?" if near else f"columns are {', '.join(known)}",
                column=name,
            )
    if missing:
        raise target.refused(
            "table lacks a column of the state", hint=f"columns are {', '.join(known)}", column=missing[0]
        )


class _Keyed:
    """Rows of keyed state in the making."""

    def __init__(self, target: Target, table: pa.Table) -> None:
        self._target = target
        self._columns = RowColumns(target.info)
        self._table = table.combine_chunks()
        self._timers = self._columns.timers is not None
        self._kind = self._columns.kind

    def rows(self) -> pa.Table:
        target, info = self._target, self._target.info
        namespaced = info.namespaced or self._timers
        needed = [KEY, *([MAP_KEY] if self._kind is StateKind.MAP and not self._timers else [])]
        needed += [TIME] if self._timers else [VALUE]
        needed += [NAMESPACE] if info.namespaced else []
        allowed = [NAMESPACE] if namespaced else []
        if not self._timers:
            allowed += [VALUE_MSGPACK, VALUE_PICKLE]
            allowed += [POSITION] if self._kind is StateKind.LIST else []
            allowed += [WRITTEN] if target.times is not None else []
        check_columns(target, self._table, needed=needed, allowed=allowed)
        keys, groups = key_groups(keys_of(target, self._table, KEY), KeyGroupCache(target.max_parallelism))
        namespaces = (
            keys_of(target, self._table, NAMESPACE, nullable=True)
            if NAMESPACE in self._table.column_names
            else None
        )
        order = self._order(keys, groups, namespaces)
        parts = [(pa.field(KEY_GROUP, pa.int32()), pa.array(groups, pa.int32())), *key_columns(KEY, keys)[1]]
        parts += self._after_keys(namespaces if namespaces is not None else [None] * len(keys), namespaced)
        made = pa.Table.from_arrays([array for _, array in parts], schema=pa.schema([f for f, _ in parts]))
        return made.take(pa.array(order, pa.int64()))

    def _after_keys(self, namespaces: list[Any], namespaced: bool) -> Columns:
        target, table = self._target, self._table
        parts: Columns = []
        if self._timers:
            assert self._columns.timers is not None
            times = cast(target, TIME, table.column(TIME), pa.int64())
            no_null(target, TIME, times)
            domains = pa.array([domain_text(self._columns.timers)] * len(table), pa.string())
            parts += [(pa.field(TIME, pa.int64()), times), (pa.field(DOMAIN, pa.string()), domains)]
        if namespaced:
            parts += key_columns(NAMESPACE, namespaces)[1]
        if self._timers:
            return parts
        if self._kind is StateKind.MAP:
            parts += key_columns(MAP_KEY, keys_of(target, table, MAP_KEY))[1]
        if self._kind is StateKind.LIST:
            parts.append((pa.field(POSITION, pa.int64()), pa.array(range(len(table)), pa.int64())))
        parts += value_columns(target, table, nullable=self._kind is StateKind.MAP)
        if target.times is not None:
            parts.append(self._written(target.times))
        return parts

    def _written(self, domain: TimeDomain) -> tuple[pa.Field, pa.Array]:
        field = pa.field(WRITTEN, pa.int64(), metadata={DOMAIN_FIELD: domain_text(domain)})
        count = len(self._table)
        if WRITTEN not in self._table.column_names:
            return field, pa.array([self._target.written_ms] * count, pa.int64())
        times = cast(self._target, WRITTEN, self._table.column(WRITTEN), pa.int64())
        return field, times.fill_null(self._target.written_ms)

    def _order(self, keys: list[Any], groups: list[int], namespaces: list[Any] | None) -> list[int]:
        """Return the rows in order of savepoints: by key group, entries together, elements by position."""
        entries: dict[Any, int] = {}
        named = keys if namespaces is None else list(zip(keys, namespaces, strict=True))
        of_rows = [entries.setdefault(key, len(entries)) for key in named]
        within: list[Any] = list(range(len(keys)))
        target, table = self._target, self._table
        if self._timers:
            check_distinct(
                self._target, (KEY, TIME), zip(of_rows, self._table.column(TIME).to_pylist(), strict=True)
            )
        elif self._kind.single:
            check_distinct(target, (KEY,), of_rows)
        elif self._kind is StateKind.MAP:
            check_distinct(
                self._target,
                (KEY, MAP_KEY),
                zip(of_rows, keys_of(self._target, self._table, MAP_KEY), strict=True),
            )
        elif POSITION in table.column_names:
            within = cast(target, POSITION, table.column(POSITION), pa.int64()).to_pylist()
            check_distinct(target, (KEY, POSITION), zip(of_rows, within, strict=True))
        if None in within:
            raise target.refused("row has no position", column=POSITION, row=within.index(None))
        return sorted(range(len(keys)), key=lambda row: (groups[row], of_rows[row], within[row]))


def keys_of(target: Target, table: pa.Table, name: str, *, nullable: bool = False) -> list[Any]:
    """Return the canonical keys in a column.

    Raises:
        StateError: one of them cannot be a key.
    """
    canonical: list[Any] = []
    try:
        if KIND_FIELD in (table.schema.field(name).metadata or {}):
            keys = read_keys(name, table)
        else:
            keys = [_as_key(key) for key in table.column(name).to_pylist()]
        canonical.extend(None if nullable and key is None else canonical_key(key) for key in keys)
    except StateCorruptError as error:
        raise target.refused("column does not hold keys", column=name, cause=error.message) from error
    except KeyTypeError as error:
        row = len(canonical)
        raise target.refused(error.message, hint=error.hint, column=name, row=row) from error
    return canonical


def check_distinct(target: Target, columns: Sequence[str], names: Iterable[Any]) -> None:
    """Check that no row has what another one has.

    Args:
        target: the state.
        columns: that tell rows apart.
        names: what they hold, by row.

    Raises:
        StateError: a row has.
    """
    found: dict[Any, int] = {}
    for row, name in enumerate(names):
        before = found.setdefault(name, row)
        if before != row:
            raise target.refused(
                "table has an entry twice",
                hint=f"give one row for each {' and '.join(columns)}",
                column=columns[-1],
                row=row,
                first_row=before,
            )


def _as_key(value: Any) -> Any:
    """Return what an Arrow value is as a key: structs and lists are tuples."""
    if isinstance(value, dict):
        return tuple(map(_as_key, value.values()))
    return tuple(map(_as_key, value)) if isinstance(value, list) else value
