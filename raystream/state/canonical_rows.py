"""Chunks of keyed state as rows of a table, and rows as chunks again.

    value, reducing, aggregating    one row for each key
    list                            one row for each element, at its position
    map                             one row for each entry
    timers                          one row for each timer

Columns in this order; those in brackets are only where the state, or one of its values, needs them:

    key_group  key [key_text] [namespace [namespace_text]] [map_key [map_key_text]] [position]
        value [value_msgpack] [value_pickle] [written_ms]
    key_group  key [key_text]  time_ms  domain  namespace [namespace_text]          of timers

`ChunkRows` makes a table of one chunk, `joined` one of several; `raystream.state.canonical_chunks` goes the
other way.  What is in the columns of keys and of values is known to `canonical_keys` and `canonical_values`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from operator import add
from typing import Any

import msgspec
import pyarrow as pa

from raystream.clock import TimeDomain
from raystream.errors import StateCorruptError
from raystream.handles import StateInfo
from raystream.state import chunk_form as cf
from raystream.state.canonical_keys import Columns, KeyKind, key_columns, key_fields, kind_of, widened
from raystream.state.canonical_values import NOT_CARRIED, VALUE_MSGPACK, VALUE_PICKLE, ValueColumns
from raystream.state.chunk_form import Chunk, chunk_type, map_form
from raystream.state.descriptor import EVENT_TIMERS, PROCESSING_TIMERS, StateKind
from raystream.state.key_batches import decode_keys

KEY_GROUP, KEY, NAMESPACE, MAP_KEY, POSITION = "key_group", "key", "namespace", "map_key", "position"
TIME, DOMAIN, WRITTEN = "time_ms", "domain", "written_ms"
"""Names of the columns."""

DOMAIN_FIELD = b"raystream.domain"
"""Metadata of `written_ms`: of which time it is."""

TIMERS = {EVENT_TIMERS: TimeDomain.EVENT_TIME, PROCESSING_TIMERS: TimeDomain.PROCESSING_TIME}
"""States whose rows are timers, and the time that these go by."""

_DOMAIN_TEXTS = {TimeDomain.EVENT_TIME: "event", TimeDomain.PROCESSING_TIME: "processing"}

domain_text = _DOMAIN_TEXTS.__getitem__
"""Returns a domain of time as savepoints call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which columns the rows of a state have: the narrowest that carry them."""

    key: KeyKind
    namespace: KeyKind | None = None
    map_key: KeyKind | None = None
    msgpack: bool = False
    pickle: bool = False
    times: TimeDomain | None = None
    """Of which time `written_ms` is; None when there is no such column."""

    def merged(self, other: "Layout") -> "Layout":
        """Return the layout for the rows of both.

        Raises:
            StateCorruptError: one has times of writing that the other does not have.
        """
        if self == other:
            return self
        if self.times is not other.times:
            raise StateCorruptError("chunks of one state differ in their times of writing")
        return Layout(
            key=self.key.merged(other.key),
            namespace=_merged(self.namespace, other.namespace),
            map_key=_merged(self.map_key, other.map_key),
            msgpack=self.msgpack or other.msgpack,
            pickle=self.pickle or other.pickle,
            times=self.times,
        )


def _merged(one: KeyKind | None, other: KeyKind | None) -> KeyKind | None:
    return one if one is None or other is None else one.merged(other)


class RowColumns:
    """Which columns a state has in each layout.

    Attributes:
        info: the description of the state.
        kind: of the state.
        values: the columns of its values.
        timers: the time that its rows, which are timers, go by; None when they are none.
    """

    def __init__(self, info: StateInfo) -> None:
        self.info = info
        try:
            self.kind = StateKind(info.kind)
        except ValueError as error:
            raise StateCorruptError("kind of a state is not defined", state=info.name) from error
        self.values = ValueColumns(info)
        self.timers = TIMERS.get(info.name)

    @property
    def empty_layout(self) -> Layout:
        """The layout of no rows."""
        timers = self.timers is not None
        return Layout(
            key=KeyKind.STR,
            namespace=KeyKind.STR if self.info.namespaced or timers else None,
            map_key=KeyKind.STR if self.kind is StateKind.MAP and not timers else None,
        )

    def empty(self) -> pa.Table:
        """Return a table without rows."""
        return self.schema(self.empty_layout).empty_table()

    def schema(self, layout: Layout) -> pa.Schema:
        """Return the columns of a layout."""
        fields = [pa.field(KEY_GROUP, pa.int32()), *key_fields(KEY, layout.key)]
        namespace = [] if layout.namespace is None else key_fields(NAMESPACE, layout.namespace)
        if self.timers is not None:
            return pa.schema([*fields, pa.field(TIME, pa.int64()), pa.field(DOMAIN, pa.string()), *namespace])
        fields += namespace
        if layout.map_key is not None:
            fields += key_fields(MAP_KEY, layout.map_key)
        if self.kind is StateKind.LIST:
            fields.append(pa.field(POSITION, pa.int64()))
        fields += self.values.fields(msgpack=layout.msgpack, pickle=layout.pickle)
        if layout.times is not None:
            domain = {DOMAIN_FIELD: domain_text(layout.times)}
            fields.append(pa.field(WRITTEN, pa.int64(), metadata=domain))
        return pa.schema(fields)

    def layout(self, schema: pa.Schema) -> Layout:
        """Return the layout that columns have."""
        names = set(schema.names)
        times = None
        if WRITTEN in names:
            by_event = (schema.field(WRITTEN).metadata or {}).get(DOMAIN_FIELD) == b"event"
            times = TimeDomain.EVENT_TIME if by_event else TimeDomain.PROCESSING_TIME
        return Layout(
            key=kind_of(schema.field(KEY)),
            namespace=kind_of(schema.field(NAMESPACE)) if NAMESPACE in names else None,
            map_key=kind_of(schema.field(MAP_KEY)) if MAP_KEY in names else None,
            msgpack=VALUE_MSGPACK in names,
            pickle=VALUE_PICKLE in names and self.values.encoding != "pickle",
            times=times,
        )

    def widened(self, table: pa.Table, layout: Layout) -> pa.Table:
        """Return the rows in a layout that carries them."""
        if self.layout(table.schema) == layout:
            return table
        schema = self.schema(layout)
        of_keys = {
            field.name: column
            for name in (KEY, NAMESPACE, MAP_KEY)
            if name in table.column_names
            for field, column in _widened(name, table, getattr(layout, name))
        }
        columns = [
            of_keys[field.name]
            if field.name in of_keys
            else table.column(field.name)
            if field.name in table.column_names
            else pa.nulls(len(table), field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(columns, schema=schema)


def _widened(name: str, table: pa.Table, kind: KeyKind) -> Iterable[tuple[pa.Field, pa.ChunkedArray]]:
    return zip(key_fields(name, kind), widened(name, table, kind), strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of one chunk.

    Attributes:
        keys: canonical key of each entry, the pair of key and namespace when the state is namespaced.
        sizes: bytes of each entry in the chunk, its key included.
    """

    table: pa.Table
    layout: Layout
    keys: Sequence[Any]
    sizes: Sequence[int]


class ChunkRows:
    """Makes tables of the chunks of one state.

    Raises:
        StateCorruptError: what describes the state does not follow the format.
    """

    def __init__(self, info: StateInfo) -> None:
        self.columns = RowColumns(info)
        self._decoders: dict[tuple[int, Any], msgspec.msgpack.Decoder[Any]] = {}

    def rows(self, group: int, chunk: Chunk) -> Rows:
        """Return the rows of a chunk, in its order.

        Raises:
            StateCorruptError: the bytes are not what the form says.
        """
        try:
            return self._rows(group, chunk)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, TypeError) as error:
            raise StateCorruptError(
                "chunk of state cannot be read", state=self.columns.info.name, cause=str(error)[:200]
            ) from error

    def _rows(self, group: int, chunk: Chunk) -> Rows:
        columns = self.columns
        form = chunk.form
        values: Columns | None = None
        try:
            keys, contents, *times = self._decoded(chunk, columns.values.read_as)
            flat = self._flat(contents)
            values, msgpack, pickle = self._values(flat, wide=bool(form & cf.WIDE))
        except NOT_CARRIED:
            keys, contents, *times = self._decoded(chunk, msgspec.Raw)
            flat = self._flat(contents)
            values, msgpack, pickle = self._mixed(flat), True, False
        if not len(keys) == len(contents) == chunk.entries:
            raise StateCorruptError(
                "number of entries in a chunk is not as recorded", state=columns.info.name
            )
        if form & cf.KEY_MASK == cf.KEYS_ENCODED:
            keys = decode_keys(keys)
        layout, before = self._places(group, keys, contents, map_form(form))
        layout = replace(layout, msgpack=msgpack, pickle=pickle)
        parts = before if columns.timers is not None else [*before, *values]
        if form & cf.TIMED:
            layout = replace(layout, times=_domain(form))
            written = times[0] if columns.kind.single else list(chain.from_iterable(times[0]))
            parts.append((pa.field(WRITTEN, pa.int64()), pa.array(written, pa.int64())))
        table = pa.Table.from_arrays([array for _, array in parts], schema=columns.schema(layout))
        return Rows(table=table, layout=layout, keys=keys, sizes=self._sizes(chunk))

    def _decoded(self, chunk: Chunk, plain: Any) -> Any:
        decoder = self._decoders.get((chunk.form, plain is msgspec.Raw))
        if decoder is None:
            read_as = chunk_type(chunk.form, self.columns.kind, plain)
            if read_as is None:
                raise StateCorruptError(
                    "form of a chunk is not defined", state=self.columns.info.name, form=chunk.form
                )
            decoder = msgspec.msgpack.Decoder(read_as)
            self._decoders[chunk.form, plain is msgspec.Raw] = decoder
        return decoder.decode(chunk.data)

    def _sizes(self, chunk: Chunk) -> list[int]:
        keys, contents = map(_raws, _raws(chunk.data)[:2])
        return list(map(add, map(len, map(bytes, keys)), map(len, map(bytes, contents))))

    def _flat(self, contents: list[Any]) -> list[Any]:
        """Return all values, elements or map values in a row."""
        if self.columns.kind.single:
            return contents
        if self.columns.kind is StateKind.MAP:
            return list(chain.from_iterable(map(dict.values, contents)))
        return list(chain.from_iterable(contents))

    def _values(self, flat: list[Any], *, wide: bool) -> tuple[Columns, bool, bool]:
        values = self.columns.values
        if not wide:
            return _with_fields(values.fields(msgpack=False, pickle=False), values.typed(flat)), False, False
        column, pickles = values.wide(flat)
        fields = values.fields(msgpack=False, pickle=pickles is not None)
        return _with_fields(fields, column, pickles), False, pickles is not None

    def _mixed(self, raws: list[msgspec.Raw]) -> Columns:
        values = self.columns.values
        return _with_fields(values.fields(msgpack=True, pickle=False), *values.one_by_one(raws))

    def _places(
        self, group: int, keys: list[Any], contents: list[Any], map_keys_form: int
    ) -> tuple[Layout, Columns]:
        """Return the columns before the values."""
        columns = self.columns
        counts = None if columns.kind.single else list(map(len, contents))
        rows = len(keys) if counts is None else sum(counts)
        parts: Columns = [_constant(KEY_GROUP, pa.scalar(group, pa.int32()), rows)]
        plain = [key[0] for key in keys] if columns.info.namespaced else keys
        kind, of_keys = key_columns(KEY, plain)
        layout = Layout(key=kind)
        parts += _repeated(of_keys, counts)
        if columns.info.namespaced:
            layout, namespaces = _namespaced(layout, [key[1] for key in keys])
            parts += _repeated(namespaces, counts)
        if columns.kind is StateKind.LIST and counts is not None:
            positions = list(chain.from_iterable(map(range, counts)))
            parts.append((pa.field(POSITION, pa.int64()), pa.array(positions, pa.int64())))
        if columns.kind is StateKind.MAP:
            map_keys = list(chain.from_iterable(contents))
            if map_keys_form == cf.KEYS_ENCODED:
                map_keys = decode_keys(map_keys)
            layout, more = self._map_keys(layout, map_keys)
            parts += more
        return layout, parts

    def _map_keys(self, layout: Layout, map_keys: list[Any]) -> tuple[Layout, Columns]:
        timers = self.columns.timers
        if timers is None:
            kind, parts = key_columns(MAP_KEY, map_keys)
            return replace(layout, map_key=kind), parts
        layout, namespaces = _namespaced(layout, [namespace for _, namespace in map_keys])
        times = pa.array([time_ms for time_ms, _ in map_keys], pa.int64())
        domain = _constant(DOMAIN, pa.scalar(domain_text(timers)), len(map_keys))
        return layout, [(pa.field(TIME, pa.int64()), times), domain, *namespaces]


def _constant(name: str, value: pa.Scalar, rows: int) -> tuple[pa.Field, pa.Array]:
    return pa.field(name, value.type), pa.repeat(value, rows)


def _domain(form: int) -> TimeDomain:
    return TimeDomain.EVENT_TIME if form & cf.BY_EVENT_TIME else TimeDomain.PROCESSING_TIME


def _namespaced(layout: Layout, namespaces: list[Any]) -> tuple[Layout, Columns]:
    kind, parts = key_columns(NAMESPACE, namespaces)
    return replace(layout, namespace=kind), parts


def _repeated(columns: Columns, counts: list[int] | None) -> Columns:
    """Return columns of entries as columns of rows."""
    if counts is None:
        return columns
    indices = pa.array(list(chain.from_iterable(map(repeat, range(len(counts)), counts))), pa.int64())
    return [(field, array.take(indices)) for field, array in columns]


def _with_fields(fields: list[pa.Field], *arrays: pa.Array | None) -> Columns:
    return list(zip(fields, [array for array in arrays if array is not None], strict=True))


_raws = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
"""Takes msgpack apart: a chunk into its columns, a column into its items."""


def joined(columns: RowColumns, tables: Iterable[pa.Table]) -> pa.Table | None:
    """Return tables of one state as one, in the layout that carries them all; None of none."""
    tables = list(tables)
    if not tables:
        return None
    layouts = [columns.layout(table.schema) for table in tables]
    layout = layouts[0]
    for other in layouts[1:]:
        layout = layout.merged(other)
    return pa.concat_tables(columns.widened(table, layout) for table in tables)
