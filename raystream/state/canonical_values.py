"""Values as columns of a canonical savepoint, by the text of their schema alone.

No class of the program is needed and nothing is unpickled: what plain msgpack has is read as builtins.

    schema                              Arrow
    int, float, bool, str, bytes        int64, float64, bool, string, binary
    datetime, date, time, timedelta     timestamp[us, UTC], date32, time64[us], duration[us]
    Decimal, UUID, Color("red")         string; an enum of ints int64
    list, set, frozenset, tuple[X, ...] list
    tuple[A, B]                         struct of "0", "1"
    dict[K, V]                          map, when K is a scalar
    Visit{path: str}                    struct
    T | None                            T, with nulls
    other unions, recursive records     binary, plain msgpack
    pickled                             binary, one pickle each

A value that its type does not carry (an int beyond int64, a naive datetime) is null in the column, and its
msgpack stands in `value_msgpack`; one in the wide form stands in `value_pickle`.  A null without either is
None.
"""

import datetime as dt
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, starmap
from types import GenericAlias
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from raystream.handles import StateInfo
from raystream.state.schema import Arm, Union, parse
from raystream.state.serializer import PICKLE_ID

VALUE, VALUE_MSGPACK, VALUE_PICKLE = "value", "value_msgpack", "value_pickle"
"""Names of the columns."""

ENCODING_FIELD = b"raystream.encoding"
"""Metadata of a field of binary: `msgpack` or `pickle`, where that is what it holds."""

NIL = b"\xc0"
"""None in msgpack."""

NOT_CARRIED = (pa.ArrowException, msgspec.ValidationError, OverflowError, UnicodeEncodeError)
"""What a value raises that the Arrow type of its column does not carry."""


@dataclass(frozen=True, slots=True)
class ValueForm:
    """How values of one type stand in a column.

    Attributes:
        arrow: type of the column.
        read_as: what `msgspec` reads the plain form by; takes nothing that `arrow` does not carry as it is.
        listed: returns a column as values that msgpack writes.
    """

    arrow: pa.DataType
    read_as: Any
    listed: Callable[[pa.Array], list[Any]] = pa.Array.to_pylist


def _moments(array: pa.Array) -> list[Any]:
    # With its zone Arrow would look for a database of time zones, which is not on every machine.
    moments = array.cast(pa.timestamp("us")).to_pylist()
    return [None if moment is None else moment.replace(tzinfo=dt.UTC) for moment in moments]


_SCALARS = {
    "bool": ValueForm(pa.bool_(), bool),
    "int": ValueForm(pa.int64(), int),
    "float": ValueForm(pa.float64(), float),
    "str": ValueForm(pa.string(), str),
    "bytes": ValueForm(pa.binary(), bytes),
    "datetime": ValueForm(pa.timestamp("us", "UTC"), Annotated[dt.datetime, msgspec.Meta(tz=True)], _moments),
    "date": ValueForm(pa.date32(), dt.date),
    "time": ValueForm(pa.time64("us"), Annotated[dt.time, msgspec.Meta(tz=False)]),
    "timedelta": ValueForm(pa.duration("us"), dt.timedelta),
    "Decimal": ValueForm(pa.string(), str),
    "UUID": ValueForm(pa.string(), str),
}
_SEQUENCES = ("list", "set", "frozenset")
_NONE: Union = (Arm("None"),)


class ValueColumns:
    """The columns of the values of one state.

    Attributes:
        encoding: what the column `value` holds: `msgpack`, `pickle`, or values when it is empty.
        read_as: type by which `msgspec` reads values in the plain form; None when there are none.
    """

    def __init__(self, info: StateInfo) -> None:
        self.encoding = ""
        self.read_as: Any = None
        self._listed: Callable[[pa.Array], list[Any]] = pa.Array.to_pylist
        form = None
        if info.serializer == PICKLE_ID:
            self.encoding = "pickle"
        else:
            form = value_form(parse(info.schema))
            if form is None:
                self.encoding, self.read_as = "msgpack", msgspec.Raw
            else:
                self.read_as = typing.Optional[form.read_as]  # noqa: UP045 - it may be None
                self._listed = form.listed
                self._one = msgspec.msgpack.Decoder(self.read_as)
        self.type = pa.binary() if form is None else form.arrow

    def fields(self, *, msgpack: bool, pickle: bool) -> list[pa.Field]:
        """Return the fields, with the columns for what the first does not carry where they are needed."""
        encoded = {ENCODING_FIELD: self.encoding} if self.encoding else None
        fields = [pa.field(VALUE, self.type, metadata=encoded)]
        if msgpack:
            fields.append(pa.field(VALUE_MSGPACK, pa.binary(), metadata={ENCODING_FIELD: "msgpack"}))
        if pickle:
            fields.append(pa.field(VALUE_PICKLE, pa.binary(), metadata={ENCODING_FIELD: "pickle"}))
        return fields

    def typed(self, values: Sequence[Any]) -> pa.Array:
        """Return the column of values that were read by `read_as`.

        Raises:
            one of `NOT_CARRIED`: there is a value that the column does not carry.
        """
        if self.read_as is msgspec.Raw:
            return pa.array([None if bytes(raw) == NIL else bytes(raw) for raw in values], pa.binary())
        return pa.array(values, self.type)

    def one_by_one(self, raws: Sequence[msgspec.Raw]) -> tuple[pa.Array, pa.Array]:
        """Return the column and `value_msgpack` of values in msgpack."""
        carried: list[Any] = []
        others: list[bytes | None] = []
        for raw in raws:
            try:
                value = self._one.decode(raw)
                pa.array([value], self.type)
            except NOT_CARRIED:
                carried.append(None)
                others.append(bytes(raw))
            else:
                carried.append(value)
                others.append(None)
        return pa.array(carried, self.type), pa.array(others, pa.binary())

    def wide(self, pickles: Sequence[bytes]) -> tuple[pa.Array, pa.Array | None]:
        """Return the column, and `value_pickle` when it is another one, of values in the wide form."""
        if self.encoding == "pickle":
            return pa.array(pickles, pa.binary()), None
        return pa.nulls(len(pickles), self.type), pa.array(pickles, pa.binary())

    def read(self, table: pa.Table) -> tuple[list[Any], list[bool] | None]:
        """Return the values as a chunk holds them: in the plain form, and bytes of the wide one.

        Returns:
            The values, and whether each is wide; None when none is.
        """
        if self.encoding == "pickle":
            return table.column(VALUE).to_pylist(), [True] * len(table)
        values = [value for chunk in table.column(VALUE).chunks for value in self._listed(chunk)]
        if self.encoding == "msgpack":
            values = [None if value is None else msgspec.Raw(value) for value in values]
        if VALUE_MSGPACK in table.column_names:
            others = table.column(VALUE_MSGPACK).to_pylist()
            values = [
                value if other is None else msgspec.Raw(other)
                for value, other in zip(values, others, strict=True)
            ]
        if VALUE_PICKLE not in table.column_names or table.column(VALUE_PICKLE).null_count == len(table):
            return values, None
        pickles = table.column(VALUE_PICKLE).to_pylist()
        values = [
            value if pickled is None else pickled for value, pickled in zip(values, pickles, strict=True)
        ]
        return values, [pickled is not None for pickled in pickles]


def value_form(union: Union) -> ValueForm | None:
    """Return how values of a schema stand in a column; None when they do so as msgpack."""
    if union == _NONE:
        return ValueForm(pa.null(), None)
    return _nullable(union)


def _nullable(union: Union) -> ValueForm | None:
    arms = [arm for arm in union if arm != Arm("None")]
    if len(arms) != 1:
        return None
    form = _arm(arms[0])
    if form is None or len(arms) == len(union):
        return form
    return ValueForm(
        form.arrow,
        typing.Optional[form.read_as],  # noqa: UP045 - not every such type has the operator
        form.listed,
    )


def _arm(arm: Arm) -> ValueForm | None:
    if arm.fields is not None:
        return _record(arm)
    if arm.literals:
        kind = "str" if isinstance(arm.literals[0], str) else "int"
        return _SCALARS[kind]
    if not arm.arguments:
        return _SCALARS.get(arm.name)  # Another name is a record inside itself.
    if arm.name in _SEQUENCES or (arm.name == "tuple" and arm.arguments[-1] == (Arm("..."),)):
        return _sequence(arm.arguments[0])
    if arm.name == "tuple":
        return _tuple(arm)
    return _mapping(arm) if arm.name == "dict" else None


def _sequence(item: Union) -> ValueForm | None:
    form = _nullable(item)
    if form is None:
        return None

    def listed(array: pa.Array) -> list[Any]:
        values = form.listed(array.flatten())
        return [None if run is None else values[run] for run in _runs(array)]

    return ValueForm(pa.list_(form.arrow), GenericAlias(list, (form.read_as,)), listed)


def _tuple(arm: Arm) -> ValueForm | None:
    forms = _all(arm.arguments)
    if forms is None:
        return None
    return ValueForm(
        pa.struct([(str(n), form.arrow) for n, form in enumerate(forms)]),
        GenericAlias(tuple, tuple(form.read_as for form in forms)),
        lambda array: _with_nulls(array, list(_rows(array, forms))),
    )


def _mapping(arm: Arm) -> ValueForm | None:
    forms = _all(arm.arguments)
    if forms is None or pa.types.is_nested(forms[0].arrow) or Arm("None") in arm.arguments[0]:
        return None
    key, value = forms
    pairs = pa.list_(pa.struct([("key", key.arrow), ("value", value.arrow)]))  # Of which a map is a view.

    def listed(array: pa.Array) -> list[Any]:
        array = array.cast(pairs)
        entries = list(_rows(array.flatten(), [key, value]))
        return [None if run is None else dict(entries[run]) for run in _runs(array)]

    return ValueForm(
        pa.map_(key.arrow, value.arrow), GenericAlias(dict, (key.read_as, value.read_as)), listed
    )


def _record(arm: Arm) -> ValueForm | None:
    fields = arm.fields or ()
    names = [field.name for field in fields]
    forms = _all([field.type for field in fields])
    if not forms:
        return None

    # A dict for each would have the garbage collector look at all of the state again and again.
    plain = [f"field_{n}" for n in range(len(names))]
    struct = msgspec.defstruct("Stored", plain, rename=dict(zip(plain, names, strict=True)), gc=False)

    def listed(array: pa.Array) -> list[Any]:
        return _with_nulls(array, list(starmap(struct, _rows(array, forms))))

    make_typed_dict: Any = typing.TypedDict
    by_name = dict(zip(names, forms, strict=True))
    return ValueForm(
        pa.struct([(name, form.arrow) for name, form in by_name.items()]),
        make_typed_dict(arm.name, {name: form.read_as for name, form in by_name.items()}),
        listed,
    )


def _all(unions: Sequence[Union]) -> list[ValueForm] | None:
    forms = [form for form in map(_nullable, unions) if form is not None]
    return forms if len(forms) == len(unions) else None


def _rows(array: pa.Array, forms: Sequence[ValueForm]) -> Iterator[tuple[Any, ...]]:
    """Yield the fields of each struct."""
    columns = (form.listed(column) for form, column in zip(forms, array.flatten(), strict=True))
    return zip(*columns, strict=True)


def _runs(array: pa.Array) -> list[slice | None]:
    """Return where the items of each list are among all of them; None for null."""
    counts = pc.list_value_length(array).to_pylist()
    stops = accumulate(count or 0 for count in counts)
    return [
        None if count is None else slice(stop - count, stop)
        for count, stop in zip(counts, stops, strict=True)
    ]


def _with_nulls(array: pa.Array, values: list[Any]) -> list[Any]:
    if not array.null_count:
        return values
    there = array.is_valid().to_pylist()
    return [value if valid else None for value, valid in zip(values, there, strict=True)]
