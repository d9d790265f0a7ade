"""Serializers of single values: typed msgpack where a type is declared, pickle otherwise.

A serializer has up to two forms.  The *plain* form is msgpack as `msgspec` writes it; many
values are encoded and decoded in one C call, so the caller puts them into a list and
reads it back by `plain_type`.  The *wide* form is opaque bytes per value, for what plain
msgpack does not carry: ints beyond 64 bits, lone surrogates in strings, time zones other
than UTC (as pickled built-ins, from which the typed value is built, so that it evolves
as the plain form does), and everything without a typed codec (pickle protocol 5).  One
value is one pickle: values never share objects, however chunks are cut.

Which types have a typed codec, and which schemas can be read as which, is decided in
`raystream.state.value_types` and `raystream.state.schema`.  This module knows neither
keys nor the format of snapshots.

*When a wrong type is found.*  Nothing is checked when a value is stored, since that is the
hot path.  Every value is checked when it is encoded: in a slice of the next snapshot, or
when it is handed to user code while a snapshot is in progress.  So a value of the wrong
type fails the first checkpoint that would hold it, and is never part of a complete one.
"""

import datetime as dt
import decimal
import pickle
import types
import uuid
from collections.abc import Collection
from typing import Any, Protocol

import msgspec

from raystream.state.value_types import ValueType, ValueTypeMismatch, describe

MSGPACK_ID = "msgpack-1"
PICKLE_ID = "pickle-1"

_PICKLE_PROTOCOL = 5

KEPT_TYPES = (bytes, dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID)
"""What stays itself in the wide form, beside what JSON has."""


class Serializer(Protocol):
    """How the values of one state are stored."""

    @property
    def id(self) -> str:
        """Name and version of the encoding, as in `StateInfo.serializer`."""

    @property
    def schema(self) -> str:
        """The declared type as text; empty when pickled."""

    @property
    def plain_type(self) -> Any:
        """Type that `msgspec` decodes plain values by, or None when there is only the wide form."""

    def fits(self, values: Collection[Any]) -> bool:
        """Return whether the plain form carries all these values.

        Raises:
            ValueTypeMismatch: a value does not have the declared type.
        """

    def dump(self, value: Any) -> bytes:
        """Return the wide form of one value that has the declared type."""

    def load(self, data: bytes) -> Any:
        """Return the value of a wide form."""


def serializer_for(declared: Any, *, nullable: bool = False) -> Serializer:
    """Return the serializer of a declared type; None or `Any` stands for no type.

    Args:
        declared: a type or annotation.
        nullable: values may also be None, which the schema does not show; map values are.
    """
    described = describe(declared)
    if described is None:
        return PickleSerializer(declared if isinstance(declared, type) else object, nullable=nullable)
    return MsgpackSerializer(declared, described, nullable=nullable)


class MsgpackSerializer:
    """Values of a type that has a typed codec."""

    id = MSGPACK_ID

    def __init__(self, declared: Any, described: ValueType, *, nullable: bool) -> None:
        self.schema = described.schema
        self.plain_type = declared | None if nullable else declared
        self._described = described
        self._nullable = nullable

    def fits(self, values: Collection[Any]) -> bool:
        if self._nullable and types.NoneType in set(map(type, values)):
            values = [value for value in values if value is not None]
        return self._described.fits(values)

    def dump(self, value: Any) -> bytes:
        return _pickle(msgspec.to_builtins(value, builtin_types=KEPT_TYPES))

    def load(self, data: bytes) -> Any:
        return msgspec.convert(pickle.loads(data), self.plain_type, builtin_types=KEPT_TYPES)


class PickleSerializer:
    """Values of any type, or of a class without a typed codec.

    Classes are stored by module and name, which are stable for the job's own script too.
    """

    id = PICKLE_ID
    schema = ""
    plain_type = None

    def __init__(self, declared: type, *, nullable: bool) -> None:
        self._declared = declared
        self._nullable = nullable

    def fits(self, values: Collection[Any]) -> bool:
        if self._declared is not object:
            for found in set(map(type, values)):
                if not (issubclass(found, self._declared) or (self._nullable and found is types.NoneType)):
                    raise ValueTypeMismatch(self._declared.__name__, found.__name__)
        return False

    def dump(self, value: Any) -> bytes:
        return _pickle(value)

    def load(self, data: bytes) -> Any:
        return pickle.loads(data)


def _pickle(value: Any) -> bytes:
    return pickle.dumps(value, _PICKLE_PROTOCOL)
