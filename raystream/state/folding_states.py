"""Reducing and aggregating state of every backend: a value state and a function."""

from collections.abc import Callable
from typing import Generic, TypeVar

from raystream.errors import StateError
from raystream.state.backend import ValueState
from raystream.state.descriptor import AggregatingStateDescriptor, ReducingStateDescriptor

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")


class FoldedReducingState(Generic[T]):
    """A `ReducingState` whose reduction is in a value state."""

    __slots__ = ("_name", "_reduce", "_state", "clear", "get")

    def __init__(self, descriptor: ReducingStateDescriptor[T], state: ValueState[T]) -> None:
        self._name = descriptor.name
        self._reduce: Callable[[T, T], T] = descriptor.reducer()
        self._state = state
        self.get = state.value
        self.clear = state.clear

    def add(self, value: T) -> None:
        if value is None:
            raise _none(self._name, "reducing state was given None as a value")
        state = self._state
        before = state.value()
        reduced = value if before is None else self._reduce(before, value)
        if reduced is None:
            raise _none(self._name, "reduce function of a state returned None")
        state.update(reduced)


class FoldedAggregatingState(Generic[T, A, R]):
    """An `AggregatingState` whose accumulator is in a value state."""

    __slots__ = ("_aggregate", "_name", "_state", "clear")

    def __init__(self, descriptor: AggregatingStateDescriptor[T, A, R], state: ValueState[A]) -> None:
        self._name = descriptor.name
        self._aggregate = descriptor.aggregate
        self._state = state
        self.clear = state.clear

    def get(self) -> R | None:
        accumulator = self._state.value()
        return None if accumulator is None else self._aggregate.get_result(accumulator)

    def add(self, value: T) -> None:
        state, aggregate = self._state, self._aggregate
        accumulator = state.value()
        if accumulator is None:
            accumulator = aggregate.create_accumulator()
        accumulator = aggregate.add(value, accumulator)
        if accumulator is None:
            raise _none(self._name, "aggregate function of a state returned None as its accumulator")
        state.update(accumulator)


def _none(name: str, message: str) -> StateError:
    return StateError(message, hint="None stands for nothing added; use a value of its own", state=name)
