"""Columns of tables that somebody else made, as columns of a state: cast without loss, and checked."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Any

import msgspec
import pyarrow as pa

from raystream.clock import TimeDomain
from raystream.errors import StateError
from raystream.handles import StateInfo
from raystream.state.canonical_keys import Columns
from raystream.state.canonical_values import (
    ENCODING_FIELD,
    VALUE,
    VALUE_MSGPACK,
    VALUE_PICKLE,
    ValueColumns,
)
from raystream.state.migration import StoredSerializer
from raystream.state.serializer import MSGPACK_ID

_PICKLE_PROTOCOL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The state that a table is for.

    Attributes:
        uid: of the operator.
        times: of which time the times of writing are; None without a time to live.
        written_ms: time of writing of rows that do not say it.
    """

    uid: str
    info: StateInfo
    max_parallelism: int
    times: TimeDomain | None = None
    written_ms: int = 0

    def refused(self, what: str, *, hint: str = "", **where: Any) -> StateError:
        """Return the error about a table that is not fit for the state."""
        return StateError(what, hint=hint, operator=self.uid, state=self.info.name, **where)


def value_columns(target: Target, table: pa.Table, *, nullable: bool) -> Columns:
    """Return the columns of the values as savepoints have them.

    Raises:
        StateError: a value does not have the type of the state.
    """
    values = ValueColumns(target.info)
    column, own = table.column(VALUE), table.schema.field(VALUE)
    others = {
        name: cast(target, name, table.column(name), pa.binary())
        for name in (VALUE_MSGPACK, VALUE_PICKLE)
        if name in table.column_names
    }
    encoding = (own.metadata or {}).get(ENCODING_FIELD, b"").decode()
    if values.encoding and encoding != values.encoding:
        encode: Callable[[Any], bytes] = _pickled if values.encoding == "pickle" else msgspec.msgpack.encode
        plain = column.to_pylist(maps_as_pydicts="lossy")
        column = pa.array([None if value is None else encode(value) for value in plain], pa.binary())
    elif pa.types.is_timestamp(values.type) and pa.types.is_timestamp(column.type) and not column.type.tz:
        # Datetimes without a zone are no instants, which is what the column holds.
        naive = [None if one is None else msgspec.msgpack.encode(one) for one in column.to_pylist()]
        others = {VALUE_MSGPACK: pa.array(naive, pa.binary()), **others}
        column = pa.nulls(len(column), values.type)
    array = cast(target, VALUE, column, values.type)
    _check_nulls(target, [array, *others.values()], nullable=nullable)
    fields = values.fields(msgpack=VALUE_MSGPACK in others, pickle=VALUE_PICKLE in others)
    columns = list(zip(fields, [array, *(others[field.name] for field in fields[1:])], strict=True))
    if target.info.serializer == MSGPACK_ID:
        _check_types(target, values, columns, nullable=nullable)
    return columns


def _check_types(target: Target, values: ValueColumns, columns: Columns, *, nullable: bool) -> None:
    """Check values as a restore will read them: what is inside records, members of enums, msgpack."""
    schema = pa.schema([field for field, _ in columns])
    plain, wide = values.read(pa.Table.from_arrays([array for _, array in columns], schema=schema))
    if wide is not None:
        plain = [None if is_wide else value for value, is_wide in zip(plain, wide, strict=True)]
    read_as: Any = StoredSerializer(target.info, nullable=nullable or wide is not None).plain_type
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(plain), type=GenericAlias(list, (read_as,)))
    except msgspec.MsgspecError:
        for row, value in enumerate(plain):
            try:
                msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=read_as)
            except msgspec.MsgspecError as error:
                raise target.refused(
                    "value does not have the type of the state",
                    hint=f"the type is {target.info.schema}",
                    column=VALUE,
                    row=row,
                    cause=str(error)[:200],
                ) from error
        raise


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, _PICKLE_PROTOCOL)


def _check_nulls(target: Target, columns: Sequence[pa.Array], *, nullable: bool) -> None:
    if nullable:
        return
    for row, given in enumerate(zip(*(column.is_valid().to_pylist() for column in columns), strict=True)):
        if not any(given):
            raise target.refused(
                "row has no value",
                hint="leave the row out: what is not there has no value",
                column=VALUE,
                row=row,
            )


def no_null(target: Target, name: str, column: pa.Array) -> None:
    """Check that every row has a value.

    Raises:
        StateError: one has none.
    """
    if column.null_count:
        raise target.refused("row has no value", column=name, row=column.is_null().to_pylist().index(True))


def cast(target: Target, name: str, column: pa.ChunkedArray | pa.Array, type_: pa.DataType) -> pa.Array:
    """Return a column as another type, if nothing is lost and nothing has to be parsed.

    Raises:
        StateError: that cannot be done; the error names the column and the first row.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if array.type == type_:
        return array
    if not _castable(array.type, type_):
        raise target.refused(
            "column has a type that the state does not take",
            hint=f"give it as {type_}",
            column=name,
            found=str(array.type),
        )
    try:
        return array.cast(type_)
    except pa.ArrowException as error:
        row = _first_refused(array, type_)
        raise target.refused(
            "value does not fit the type of the state",
            hint=f"give it as {type_}",
            column=name,
            row=row,
            cause=str(error)[:200],
        ) from error


def _first_refused(array: pa.Array, type_: pa.DataType) -> int:
    """Return the first row that cannot be cast."""
    low, high = 0, len(array)  # All below `low` can, some below `high` cannot.
    while high - low > 1:
        middle = (low + high) // 2
        try:
            array[low:middle].cast(type_)
            low = middle
        except pa.ArrowException:
            high = middle
    return low


def _castable(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether a cast changes how values are written and not what they are."""
    if pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        return _castable(found.value_type, wanted)
    for same in _FAMILIES:
        if same(wanted):
            return same(found) or (pa.types.is_floating(wanted) and pa.types.is_integer(found))
    if pa.types.is_timestamp(wanted):
        return pa.types.is_timestamp(found) and found.tz is not None
    if pa.types.is_struct(wanted):
        names = {field.name for field in wanted}
        return (
            pa.types.is_struct(found)
            and names == {field.name for field in found}
            and all(_castable(found.field(name).type, wanted.field(name).type) for name in names)
        )
    if pa.types.is_map(wanted):
        return (
            pa.types.is_map(found)
            and _castable(found.key_type, wanted.key_type)
            and _castable(found.item_type, wanted.item_type)
        )
    return _listed(wanted) and _listed(found) and _castable(found.value_type, wanted.value_type)


def _one_of(*kinds: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    return lambda type_: any(kind(type_) for kind in kinds)


_listed = _one_of(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)

_FAMILIES = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    _one_of(pa.types.is_string, pa.types.is_large_string),
    _one_of(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_duration,
)
"""What tells types that differ in how values are written alone."""
