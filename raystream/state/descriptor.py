"""Descriptors: how a program declares the keyed states of an operator.

A descriptor is a plain value.  It says name, kind and types; which serializer follows from
that is in `info()`, which is also what a snapshot stores about the state and what a
restore compares.

A value, an element of a list or the value of a map entry takes at most 2 GiB when it is encoded; a larger one
fails the attempt with an error that names the state.  Keys may be of any length, but are stored with each
entry.

(It has no slots: `ValueStateDescriptor[int](...)` makes Python set an attribute
on it, and a frozen class with slots refuses that with an error that Python does not expect.)
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from raystream.errors import StateError
from raystream.handles import StateInfo
from raystream.state.immutable import immutable
from raystream.state.serializer import Serializer, serializer_for
from raystream.state.ttl import StateTtl
from raystream.state.value_types import ValueTypeMismatch

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

RESERVED_PREFIX = "_"
"""State names that start with it belong to raystream."""

EVENT_TIMERS = "_timers_event"
"""Name of the state that holds the timers of event time."""

PROCESSING_TIMERS = "_timers_processing"
"""Name of the state that holds the timers of processing time."""


class StateKind(StrEnum):
    """Kinds of keyed state, as in `StateInfo.kind`."""

    VALUE = "value"
    LIST = "list"
    MAP = "map"
    REDUCING = "reducing"
    AGGREGATING = "aggregating"

    @property
    def single(self) -> bool:
        """True when the content of a key is one value."""
        return self not in (StateKind.LIST, StateKind.MAP)


class Reduce(Protocol[T]):
    """An object that reduces two values to one, such as a `ReduceFunction`."""

    def reduce(self, first: T, second: T) -> T:
        """Return the combination of what was reduced so far with the next value."""


class Aggregate(Protocol[T_contra, A, R_co]):
    """An object that folds values into an accumulator, such as an `AggregateFunction`."""

    def create_accumulator(self) -> A:
        """Return an accumulator of no values."""

    def add(self, value: T_contra, accumulator: A) -> A:
        """Return the accumulator with one more value; it may be the given one, changed."""

    def get_result(self, accumulator: A) -> R_co:
        """Return what the accumulator stands for."""

    def merge(self, first: A, second: A) -> A:
        """Return the accumulator of the values of both."""


@dataclass(frozen=True)
class StateDescriptor(ABC):
    """What all descriptors share; a program uses one of the kinds below.

    Args:
        name: unique among the states of the operator; does not start with `_`.
        ttl: how long values live; None: until they are removed.
        migrate: makes a value of the declared type out of one that was stored with another type that
            does not evolve into it by itself.  It gets what was pickled as it was, and typed values as
            plain data: records as dicts, enum members as their values.
        namespaced: an entry belongs to a key and a namespace (`KeyCursor.namespace`).
        internal: the state is raystream's own; its name starts with `_`.
    """

    kind: ClassVar[StateKind]

    name: str
    ttl: StateTtl | None = field(default=None, kw_only=True)
    migrate: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    namespaced: bool = field(default=False, kw_only=True)
    internal: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise StateError(
                "state has no name", hint="give the descriptor a non-empty string", name=self.name
            )
        try:
            self.name.encode()
        except UnicodeEncodeError as error:  # No snapshot could name it.
            raise StateError("name of a state is not UTF-8 text", state=ascii(self.name)) from error
        if self.name.startswith(RESERVED_PREFIX) and not self.internal:
            raise StateError(
                "state has a reserved name",
                hint=f"names that start with {RESERVED_PREFIX!r} belong to raystream; choose another",
                state=self.name,
            )
        assert not self.internal or self.name.startswith(RESERVED_PREFIX)

    @property
    @abstractmethod
    def declared(self) -> tuple[Any, ...]:
        """Declared types; two descriptors of one state must agree on them."""

    def serializer(self) -> Serializer:
        """Return the serializer of its values, elements or accumulators."""
        return serializer_for(self.declared[-1])

    def info(self) -> StateInfo:
        """Return what a snapshot stores about this state."""
        serializer = self.serializer()
        return StateInfo(
            name=self.name,
            kind=self.kind.value,
            serializer=serializer.id,
            schema=serializer.schema,
            map_key_schema=self._map_key_schema(),
            namespaced=self.namespaced,
        )

    def _map_key_schema(self) -> str:
        return ""


@dataclass(frozen=True)
class ValueStateDescriptor(StateDescriptor, Generic[T]):
    """Declares one value per key.

    Args:
        name: unique among the states of the operator; does not start with `_`.
        value_type: type or annotation of the values; with it they are stored in a typed codec
            that can evolve, without it they are pickled.
        default: what `value()` returns while nothing is set; each call gets a fresh copy.
        ttl: how long a value lives after it was written.
        migrate: makes a value of this type out of a stored one that has another.

    Raises:
        StateError: the name is empty or reserved, or the default is not of the declared type.

    Example:
        >>> ValueStateDescriptor("hits", int, default=0).info().schema
        'int'
    """

    kind: ClassVar[StateKind] = StateKind.VALUE

    value_type: Any = None
    default: T | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        StateDescriptor.__post_init__(self)
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
    def declared(self) -> tuple[Any, ...]:
        return (self.value_type,)

    def fresh_default(self) -> T | None:
        """Return the default, copied when it could be changed in place."""
        return self.default if immutable(self.default) else copy.deepcopy(self.default)


@dataclass(frozen=True)
class ListStateDescriptor(StateDescriptor, Generic[T]):
    """Declares a list of elements per key.

    Args:
        name: unique among the states of the operator; does not start with `_`.
        element_type: type or annotation of the elements; without it they are pickled.
        ttl: how long an element lives after it was added.
        migrate: makes an element of this type out of a stored one that has another.

    Raises:
        StateError: the name is empty or reserved.
    """

    kind: ClassVar[StateKind] = StateKind.LIST

    element_type: Any = None

    @property
    def declared(self) -> tuple[Any, ...]:
        return (self.element_type,)


@dataclass(frozen=True)
class MapStateDescriptor(StateDescriptor, Generic[K, V]):
    """Declares a map per key.

    Args:
        name: unique among the states of the operator; does not start with `_`.
        key_type: type or annotation of the map's keys, which follow the rules of the keys of a stream
            (`raystream.keys`); keys declared `str`, `int` or `bytes` are checked when they are stored in
            a snapshot.
        value_type: type or annotation of the map's values, which may also be None; without it they
            are pickled.
        ttl: how long an entry lives after it was written.
        migrate: makes a map value of this type out of a stored one that has another; not called for None.

    Raises:
        StateError: the name is empty or reserved.
    """

    kind: ClassVar[StateKind] = StateKind.MAP

    key_type: Any = None
    value_type: Any = None

    @property
    def declared(self) -> tuple[Any, ...]:
        return (self.key_type, self.value_type)

    def serializer(self) -> Serializer:
        return serializer_for(self.value_type, nullable=True)

    def _map_key_schema(self) -> str:
        return serializer_for(self.key_type).schema


@dataclass(frozen=True)
class ReducingStateDescriptor(StateDescriptor, Generic[T]):
    """Declares the reduction of all values that are added for a key.

    Args:
        name: unique among the states of the operator; does not start with `_`.
        reduce: a function of two values, or an object with such a method `reduce`; returns a value of the
            same type.
        value_type: type or annotation of the values; without it they are pickled.
        ttl: how long the reduction lives after a value was added.
        migrate: makes a value of this type out of a stored one that has another.

    Raises:
        StateError: the name is empty or reserved.

    Example:
        >>> ReducingStateDescriptor("longest", max, int).reducer()(3, 5)
        5
    """

    kind: ClassVar[StateKind] = StateKind.REDUCING

    reduce: Callable[[T, T], T] | Reduce[T]
    value_type: Any = None

    @property
    def declared(self) -> tuple[Any, ...]:
        return (self.value_type,)

    def reducer(self) -> Callable[[T, T], T]:
        """Return the function of two values."""
        function: Any = self.reduce
        reducer: Callable[[T, T], T] = getattr(function, "reduce", function)
        return reducer


@dataclass(frozen=True)
class AggregatingStateDescriptor(StateDescriptor, Generic[T, A, R]):
    """Declares the aggregation of all values that are added for a key.

    Args:
        name: unique among the states of the operator; does not start with `_`.
        aggregate: folds values into an accumulator, which is what is stored.
        accumulator_type: type or annotation of the accumulators; without it they are pickled.
        ttl: how long the accumulator lives after a value was added.
        migrate: makes an accumulator of this type out of a stored one that has another.

    Raises:
        StateError: the name is empty or reserved.
    """

    kind: ClassVar[StateKind] = StateKind.AGGREGATING

    aggregate: Aggregate[T, A, R]
    accumulator_type: Any = None

    @property
    def declared(self) -> tuple[Any, ...]:
        return (self.accumulator_type,)
