"""Stored values of a type that the program no longer declares: read as plain data, then migrated.

The class that a value had may be gone, so it is read by its schema (`raystream.state.schema`) alone:

    stored              what `migrate` gets
    record              dict of its fields
    enum member         its value
    set of records      list of dicts
    everything else     itself; inside a record that contains itself, what msgpack has for it
    pickled             itself; its class must still be importable

What `migrate` returns must have the declared type; a None in a map is kept and not migrated.
"""

import functools
import operator
import pickle
import types
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from raystream.errors import StateRestoreError
from raystream.handles import StateInfo
from raystream.state.descriptor import StateDescriptor, StateKind
from raystream.state.schema import Arm, Union, parse, values_readable
from raystream.state.serializer import KEPT_TYPES, MSGPACK_ID, PICKLE_ID
from raystream.state.value_types import SCALAR_NAMES, ValueTypeMismatch

_CONTAINERS: dict[str, Any] = {"list": list, "set": set, "frozenset": frozenset, "dict": dict}


class StoredSerializer:
    """Reads values by what the snapshot says about them.

    Attributes:
        plain_type: type that `msgspec` decodes plain values by, None when they are pickled.
    """

    def __init__(self, stored: StateInfo, *, nullable: bool) -> None:
        self.plain_type: Any = None
        if stored.serializer == MSGPACK_ID:
            plain = _plain_type(parse(stored.schema))
            self.plain_type = plain | None if nullable else plain

    def load(self, data: bytes) -> Any:
        """Return the value of a wide form."""
        value = pickle.loads(data)
        if self.plain_type is None:
            return value
        return msgspec.convert(value, self.plain_type, builtin_types=KEPT_TYPES)


class Migration:
    """Makes values of the declared type of one state.

    Attributes:
        stored_serializer: reads what `migrate` is called with.
    """

    def __init__(
        self, descriptor: StateDescriptor, stored: StateInfo, function: Callable[[Any], Any]
    ) -> None:
        self.stored_serializer = StoredSerializer(stored, nullable=descriptor.kind is StateKind.MAP)
        self._serializer = descriptor.serializer()
        self._function = function
        self._name = descriptor.name
        self._keeps_none = descriptor.kind is StateKind.MAP

    def migrate(self, value: Any) -> Any:
        """Return the new value.

        Raises:
            StateRestoreError: the function raised, or its result does not have the declared type.
        """
        if value is None and self._keeps_none:
            return None
        try:
            migrated = self._function(value)
            if migrated is None:
                raise ValueTypeMismatch(self._serializer.schema or "a value", "None")
            self._serializer.fits([migrated])
        except ValueTypeMismatch as error:
            raise StateRestoreError(
                "migrate function returned a value that does not have the declared type",
                state=self._name,
                declared=error.declared,
                found=error.found,
            ) from error
        except Exception as error:
            raise StateRestoreError(
                "migrate function raised",
                state=self._name,
                value=repr(value)[:200],
                cause=repr(error)[:200],
            ) from error
        return migrated


def migration(descriptor: StateDescriptor, stored: StateInfo) -> Migration | None:
    """Return how stored values become declared ones; None when they are read as such at once.

    Raises:
        StateRestoreError: the stored values were written by a serializer that this version does not have.
    """
    if descriptor.migrate is None or values_readable(stored, descriptor.info()):
        return None
    if stored.serializer not in (MSGPACK_ID, PICKLE_ID):
        raise StateRestoreError(
            "stored values cannot be migrated, since this version does not read them",
            state=stored.name,
            serializer=stored.serializer,
        )
    return Migration(descriptor, stored, descriptor.migrate)


def _plain_type(union: Union) -> Any:
    return functools.reduce(operator.or_, map(_plain_arm, union))


def _plain_arm(arm: Arm) -> Any:
    """Return the type of one alternative, without classes of the program."""
    if arm.fields is not None:
        make_typed_dict: Any = typing.TypedDict
        return make_typed_dict(arm.name, {field.name: _plain_type(field.type) for field in arm.fields})
    if arm.literals:
        return typing.Literal[arm.literals]
    if arm.name == "...":
        return Ellipsis
    if arm.name == "tuple":
        return types.GenericAlias(tuple, tuple(map(_plain_type, arm.arguments)))
    if arm.name in _CONTAINERS:
        container = list if any(map(_holds_record, arm.arguments[:1])) else _CONTAINERS[arm.name]
        return types.GenericAlias(container, tuple(map(_plain_type, arm.arguments)))
    return SCALAR_NAMES.get(arm.name, Any)  # Not a scalar: a record inside itself.


def _holds_record(union: Union) -> bool:
    """Return whether values have records in them, which become dicts and cannot be in a set."""
    return any(arm.fields is not None or any(map(_holds_record, arm.arguments)) for arm in union)
