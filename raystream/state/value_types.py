"""Declared value types: which have a typed codec, their schema, and a check of values by column.

msgspec encodes whatever it is given: a `str` in a state declared `int` is written without
a word and fails when the snapshot is restored, which is too late.  So each chunk of values
is checked before it is encoded.  A check looks at a whole column at once, level by level
(`set(map(type, column))`, then the column of all items, of each field, ...), so that it runs
at the speed of C and costs about as much as the encoding itself, whatever the type.

A type has a typed codec when msgspec restores *equal* values of the *same* types:
None, bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID; list,
set, frozenset, tuple and dict of such; dataclasses and `msgspec.Struct` of such; enums of
str or int; unions that msgspec can tell apart.  `describe` returns None for everything
else (`Any`, bare `list`, tagged or array-like structs, private fields, ...): it is pickled.

Some values of a good type are not carried by msgpack as they are (a time zone other than UTC);
then `fits` returns False, and `raystream.state.serializer` takes the wide form for them.
Items of `float` may be ints up to 2**53, which come back as floats; everything else must have
the declared type exactly, since a subclass would come back as its base.
"""

import dataclasses
import datetime as dt
import decimal
import enum
import json
import types
import typing
import uuid
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Protocol

import msgspec

_FLOAT_INT_MAX = 2**53
"""Every int up to here is a float."""

_NONE = type(None)

_SEQUENCES: tuple[type, ...] = (list, set, frozenset)

_FOREIGN_BASES = (dict, list, set, frozenset, tuple, str, bytes, int, float, BaseException)
"""A dataclass that is also one of these has content that is in no field."""


class ValueTypeMismatch(Exception):  # noqa: N818 - never leaves this layer; StateError says it to the user
    """A value does not have its declared type."""

    def __init__(self, declared: str, found: str) -> None:
        super().__init__(declared, found)
        self.declared = declared
        self.found = found


class ValueType(Protocol):
    """A declared type that has a typed codec."""

    @property
    def schema(self) -> str:
        """The type as text, in the grammar of `raystream.state.schema`."""

    @property
    def accepts(self) -> frozenset[type]:
        """Exact types of the values that belong to this arm of a union."""

    def fits(self, values: Collection[Any]) -> bool:
        """Return whether plain msgpack carries all values as they are.

        Raises:
            ValueTypeMismatch: a value is not of this type.
        """


def describe(declared: Any) -> ValueType | None:
    """Return the type's description, or None when its values are pickled."""
    if declared is None:
        return None
    described = _Describer().describe(declared)
    if described is None:
        return None
    try:
        msgspec.msgpack.Decoder(declared)
    except Exception:
        return None
    return described


def _names(found: set[type]) -> str:
    return ", ".join(sorted(t.__name__ for t in found))


def _exactly(values: Collection[Any], wanted: type, schema: str) -> None:
    found = set(map(type, values))
    found.discard(wanted)
    if found:
        raise ValueTypeMismatch(schema, _names(found))


# ---- scalars ----------------------------------------------------------------


class _Scalar:
    def __init__(self, python_type: type, carried: Callable[[Any], bool] | None = None) -> None:
        self._type = python_type
        self._carried = carried
        self.schema = "None" if python_type is _NONE else python_type.__name__
        self.accepts = frozenset({python_type})

    def fits(self, values: Collection[Any]) -> bool:
        _exactly(values, self._type, self.schema)
        return self._carried is None or all(map(self._carried, values))


class _Float:
    schema = "float"
    accepts = frozenset({float, int})

    def fits(self, values: Collection[Any]) -> bool:
        found = set(map(type, values))
        if found - self.accepts:
            raise ValueTypeMismatch(self.schema, _names(found - self.accepts))
        if int in found and any(abs(v) > _FLOAT_INT_MAX for v in values if type(v) is int):
            raise ValueTypeMismatch(self.schema, "int that no float equals")
        return True


def _datetime_carried(value: dt.datetime) -> bool:
    return value.fold == 0 and (value.tzinfo is None or value.tzinfo is dt.UTC)


def _time_carried(value: dt.time) -> bool:
    return value.fold == 0 and value.tzinfo is None


_SCALARS: dict[type, ValueType] = {
    float: _Float(),
    dt.datetime: _Scalar(dt.datetime, _datetime_carried),
    dt.time: _Scalar(dt.time, _time_carried),
    **{
        scalar: _Scalar(scalar)
        for scalar in (
            _NONE,
            bool,
            int,
            str,
            bytes,
            dt.date,
            dt.timedelta,
            decimal.Decimal,
            uuid.UUID,
        )
    },
}

SCALAR_NAMES: dict[str, Any] = {"None" if scalar is _NONE else scalar.__name__: scalar for scalar in _SCALARS}
"""The scalar types by their name in a schema."""


class _Enum:
    def __init__(self, cls: type[enum.Enum]) -> None:
        self._type = cls
        members = ", ".join(json.dumps(member.value) for member in cls)
        self.schema = f"{cls.__name__}({members})"
        self.accepts = frozenset({cls})

    def fits(self, values: Collection[Any]) -> bool:
        _exactly(values, self._type, self.schema)
        return True


# ---- containers -------------------------------------------------------------


class _Items:
    """list, set, frozenset, and tuple of any length."""

    def __init__(self, python_type: type, item: ValueType) -> None:
        self._type = python_type
        self._item = item
        tail = ", ..." if python_type is tuple else ""
        self.schema = f"{python_type.__name__}[{item.schema}{tail}]"
        self.accepts = frozenset({python_type})

    def fits(self, values: Collection[Any]) -> bool:
        _exactly(values, self._type, self.schema)
        return self._item.fits(list(chain.from_iterable(values)))


class _Tuple:
    """tuple of fixed length."""

    def __init__(self, items: Sequence[ValueType]) -> None:
        self._items = items
        self.schema = f"tuple[{', '.join(item.schema for item in items)}]"
        self.accepts = frozenset({tuple})

    def fits(self, values: Collection[Any]) -> bool:
        _exactly(values, tuple, self.schema)
        lengths = set(map(len, values)) - {len(self._items)}
        if lengths:
            raise ValueTypeMismatch(self.schema, f"tuple of {min(lengths)}")
        columns = (list(map(itemgetter(i), values)) for i in range(len(self._items)))
        # A list, not a generator: the types of all columns are checked, also when one does not fit.
        fitting = [item.fits(column) for item, column in zip(self._items, columns, strict=True)]
        return all(fitting)


class _Mapping:
    def __init__(self, key: ValueType, value: ValueType) -> None:
        self._key = key
        self._value = value
        self.schema = f"dict[{key.schema}, {value.schema}]"
        self.accepts = frozenset({dict})

    def fits(self, values: Collection[Any]) -> bool:
        _exactly(values, dict, self.schema)
        keys = self._key.fits(list(chain.from_iterable(values)))
        return self._value.fits(list(chain.from_iterable(map(dict.values, values)))) and keys


class _Record:
    """A dataclass or Struct; fields are set after construction, since a type may contain itself."""

    def __init__(self, cls: type) -> None:
        self._type = cls
        self._columns: list[tuple[Callable[[Any], Any], ValueType]] = []
        self.schema = cls.__name__  # How it appears inside itself.
        self.accepts = frozenset({cls})

    def set_fields(self, fields: "list[tuple[_FieldSpec, ValueType]]") -> None:
        texts = []
        for spec, described in fields:
            self._columns.append((attrgetter(spec.name), described))
            name = spec.stored_name if spec.stored_name.isidentifier() else json.dumps(spec.stored_name)
            texts.append(f"{name}{'?' if spec.optional else ''}: {described.schema}")
        self.schema = f"{self._type.__name__}{{{', '.join(texts)}}}"

    def fits(self, values: Collection[Any]) -> bool:
        _exactly(values, self._type, self.schema)
        if not values:
            return True  # Ends the descent into a type that contains itself.
        fitting = [item.fits(list(map(column, values))) for column, item in self._columns]
        return all(fitting)


class _Union:
    def __init__(self, arms: Sequence[ValueType]) -> None:
        self._arms = arms
        self.schema = " | ".join(arm.schema for arm in arms)
        self.accepts = frozenset[type]().union(*(arm.accepts for arm in arms))

    def fits(self, values: Collection[Any]) -> bool:
        found = set(map(type, values))
        if found - self.accepts:
            raise ValueTypeMismatch(self.schema, _names(found - self.accepts))
        fitting, taken = True, set[type]()
        for arm in self._arms:
            mine = arm.accepts - taken
            taken |= arm.accepts
            if found & mine:
                fitting &= arm.fits([value for value in values if type(value) in mine])
        return fitting


# ---- from annotations -------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _FieldSpec:
    name: str
    stored_name: str
    optional: bool
    type: Any


class _Describer:
    """Builds one description; knows the records above it, for types that contain themselves."""

    def __init__(self) -> None:
        self._records: dict[type, _Record] = {}

    def describe(self, declared: Any) -> ValueType | None:
        origin, arguments = typing.get_origin(declared), typing.get_args(declared)
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments)
        if origin is not None:
            return self._container(origin, arguments)
        if not isinstance(declared, type):
            return None
        if declared in _SCALARS:
            return _SCALARS[declared]
        if issubclass(declared, enum.Enum):
            return _describe_enum(declared)
        return self._record(declared)

    def _all(self, declared: Sequence[Any]) -> list[ValueType] | None:
        described = [self.describe(item) for item in declared]
        return None if None in described else typing.cast("list[ValueType]", described)

    def _union(self, arguments: Sequence[Any]) -> ValueType | None:
        # Exact arms first: an int in `float | int` is an int.
        arms = self._all(sorted(arguments, key=lambda arm: arm is float))
        return None if arms is None else _Union(arms)

    def _container(self, origin: Any, arguments: Sequence[Any]) -> ValueType | None:
        variadic = origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis
        items = self._all(arguments[:1] if variadic else arguments)
        if not items:
            return None
        if origin is dict and not any(map(_contains_record, arguments[:1])):
            return _Mapping(items[0], items[1])
        if origin in _SEQUENCES or variadic:
            return _Items(origin, items[0])
        return _Tuple(items) if origin is tuple else None

    def _record(self, cls: type) -> ValueType | None:
        if cls in self._records:
            return self._records[cls]
        specs = _field_specs(cls)
        if specs is None:
            return None
        record = self._records[cls] = _Record(cls)
        fields = self._all([spec.type for spec in specs])
        if fields is None:
            return None
        record.set_fields(list(zip(specs, fields, strict=True)))
        return record


def _contains_record(declared: Any) -> bool:
    """Return whether a type has a record in it; the wide form has none in dict keys."""
    if dataclasses.is_dataclass(declared) or hasattr(declared, "__struct_config__"):
        return True
    return any(map(_contains_record, typing.get_args(declared)))


def _describe_enum(cls: type[enum.Enum]) -> ValueType | None:
    kinds = {type(member.value) for member in cls}
    plain = kinds in ({str}, {int}) and not issubclass(cls, enum.Flag)
    return _Enum(cls) if plain else None


def _field_specs(cls: type) -> list[_FieldSpec] | None:
    """Return the fields of a record class, or None when fields are not all there is to it."""
    try:
        if issubclass(cls, msgspec.Struct):
            return _struct_specs(cls)
        if dataclasses.is_dataclass(cls) and not issubclass(cls, _FOREIGN_BASES):
            return _dataclass_specs(cls)
    except (NameError, TypeError):
        pass  # An annotation cannot be resolved, as in a class that is local to a function.
    return None


def _struct_specs(cls: type[msgspec.Struct]) -> list[_FieldSpec] | None:
    config = cls.__struct_config__
    if config.tag is not None or config.array_like or config.forbid_unknown_fields or config.omit_defaults:
        return None  # These do not evolve field by field.
    return [
        _FieldSpec(field.name, field.encode_name, not field.required, field.type)
        for field in msgspec.structs.fields(cls)
    ]


def _dataclass_specs(cls: type) -> list[_FieldSpec] | None:
    hints = typing.get_type_hints(cls, include_extras=True)
    specs = []
    for field in dataclasses.fields(cls):
        if not field.init:
            return None
        default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        specs.append(_FieldSpec(field.name, field.name, default, hints[field.name]))
    return specs
