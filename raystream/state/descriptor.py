"""Descriptors: how a program declares the keyed states of an operator.

A descriptor is a plain value.  It says name, kind and types; which serializer follows from
that is in `info()`, which is also what a snapshot stores about the state and what a
restore compares.
"""

import copy
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from raystream.errors import StateError
from raystream.handles import StateInfo
from raystream.state.immutable import immutable
from raystream.state.serializer import Serializer, serializer_for
from raystream.state.value_types import ValueTypeMismatch

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

RESERVED_PREFIX = "_"
"""State names that start with it belong to raystream."""


class StateKind(StrEnum):
    """Kinds of keyed state, as in `StateInfo.kind`."""

    VALUE = "value"
    LIST = "list"
    MAP = "map"


@dataclass(frozen=True, slots=True)
class ValueStateDescriptor(Generic[T]):
    """Declares one value per key.

    Args:
        name: unique among the states of the operator; does not start with `_`.
        value_type: type or annotation of the values; with it they are stored in a typed codec
            that can evolve, without it they are pickled.
        default: what `value()` returns while nothing is set; each call gets a fresh copy.

    Raises:
        StateError: the name is empty or reserved, or the default is not of the declared type.

    Example:
        >>> ValueStateDescriptor("hits", int, default=0).info().schema
        'int'
    """

    name: str
    value_type: Any = None
    default: T | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.default is None:
            return
        try:
            self.serializer().fits([self.default])
        except ValueTypeMismatch as error:
            raise StateError(
                "default does not have the declared type of the state",
                state=self.name,
                declared=error.declared,
                found=error.found,
            ) from error

    @property
    def kind(self) -> StateKind:
        """Kind of the state."""
        return StateKind.VALUE

    @property
    def declared(self) -> tuple[Any, ...]:
        """Declared types; two descriptors of one state must agree on them."""
        return (self.value_type,)

    def serializer(self) -> Serializer:
        """Return the serializer of its values."""
        return serializer_for(self.value_type)

    def info(self) -> StateInfo:
        """Return what a snapshot stores about this state."""
        return _info(self.name, self.kind, self.serializer())

    def fresh_default(self) -> T | None:
        """Return the default, copied when it could be changed in place."""
        return self.default if immutable(self.default) else copy.deepcopy(self.default)


@dataclass(frozen=True, slots=True)
class ListStateDescriptor(Generic[T]):
    """Declares a list of elements per key.

    Args:
        name: unique among the states of the operator; does not start with `_`.
        element_type: type or annotation of the elements; without it they are pickled.

    Raises:
        StateError: the name is empty or reserved.
    """

    name: str
    element_type: Any = None

    def __post_init__(self) -> None:
        _check_name(self.name)

    @property
    def kind(self) -> StateKind:
        """Kind of the state."""
        return StateKind.LIST

    @property
    def declared(self) -> tuple[Any, ...]:
        """Declared types; two descriptors of one state must agree on them."""
        return (self.element_type,)

    def serializer(self) -> Serializer:
        """Return the serializer of its elements."""
        return serializer_for(self.element_type)

    def info(self) -> StateInfo:
        """Return what a snapshot stores about this state."""
        return _info(self.name, self.kind, self.serializer())


@dataclass(frozen=True, slots=True)
class MapStateDescriptor(Generic[K, V]):
    """Declares a map per key.

    Args:
        name: unique among the states of the operator; does not start with `_`.
        key_type: type or annotation of the map's keys, which follow the rules of the keys of a stream
            (`raystream.keys`); keys declared `str`, `int` or `bytes` are checked when they are stored in
            a snapshot.
        value_type: type or annotation of the map's values, which may also be None; without it they
            are pickled.

    Raises:
        StateError: the name is empty or reserved.
    """

    name: str
    key_type: Any = None
    value_type: Any = None

    def __post_init__(self) -> None:
        _check_name(self.name)

    @property
    def kind(self) -> StateKind:
        """Kind of the state."""
        return StateKind.MAP

    @property
    def declared(self) -> tuple[Any, ...]:
        """Declared types; two descriptors of one state must agree on them."""
        return (self.key_type, self.value_type)

    def serializer(self) -> Serializer:
        """Return the serializer of its values."""
        return serializer_for(self.value_type, nullable=True)

    def info(self) -> StateInfo:
        """Return what a snapshot stores about this state."""
        return _info(self.name, self.kind, self.serializer(), serializer_for(self.key_type).schema)


Descriptor = ValueStateDescriptor[Any] | ListStateDescriptor[Any] | MapStateDescriptor[Any, Any]


def _info(name: str, kind: StateKind, serializer: Serializer, map_key_schema: str = "") -> StateInfo:
    return StateInfo(
        name=name,
        kind=kind.value,
        serializer=serializer.id,
        schema=serializer.schema,
        map_key_schema=map_key_schema,
    )


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name:
        raise StateError("state has no name", hint="give the descriptor a non-empty string", name=name)
    if name.startswith(RESERVED_PREFIX):
        raise StateError(
            "state has a reserved name",
            hint=f"names that start with {RESERVED_PREFIX!r} belong to raystream; choose another",
            state=name,
        )
