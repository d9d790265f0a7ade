"""Operators with two inputs, made by `connect`: co-map, co-flat-map, co-process and their keyed forms.

Each input has a method of the function; both share the context, and on keyed streams the state of
the key.  In which order records of different inputs come is not defined.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from raystream.errors import GraphError
from raystream.operators.operator import Emit
from raystream.operators.process import KeyedProcessOperator, ProcessElement, ProcessOperator
from raystream.operators.user_code import FunctionAdapter
from raystream.records.batch import RowBatch


class _TwoInputs(ProcessOperator):
    """Calls `process_element1` or `process_element2`, by the input that a record came through."""

    def process(self, batch: RowBatch) -> None:
        self._run(batch, self._guarded(self._function.process_element1))

    def process_second(self, batch: RowBatch) -> None:
        """Handle the records of a batch of the second input."""
        self._run(batch, self._guarded(self._function.process_element2, 1))

    @property
    def inputs(self) -> tuple[Emit, ...]:
        return (self.process, self.process_second)


class CoProcessOperator(_TwoInputs):
    """Calls a `CoProcessFunction`."""


class KeyedCoProcessOperator(_TwoInputs, KeyedProcessOperator):
    """Calls a function for each record with the state of its key, whichever input it came through."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._key_types: list[str | None] = [None, None]

    def process(self, batch: RowBatch) -> None:
        if self._key_types[0] is None:
            self._see_key(0, batch)
        super().process(batch)

    def process_second(self, batch: RowBatch) -> None:
        if self._key_types[1] is None:
            self._see_key(1, batch)
        super().process_second(batch)

    def _see_key(self, number: int, batch: RowBatch) -> None:
        """Look at the first key of an input: keys of two types would never meet.

        Raises:
            GraphError: the first key of the other input is of another type.
        """
        keys = batch.keys
        assert keys, "batch on a keyed edge has no keys"
        own, other = _key_type(keys[0]), self._key_types[1 - number]
        self._key_types[number] = own
        if other is not None and other != own:
            first, second = (own, other) if number == 0 else (other, own)
            raise GraphError(
                "inputs that share keyed state have keys of different types",
                hint="have both key selectors return keys of one type",
                operator=self.context.name,
                first=first,
                second=second,
            )


def _key_type(key: Any) -> str:
    """Return what keys that may be equal have in common: numbers of all types may be."""
    if isinstance(key, int | float | Decimal):
        return "number"
    if isinstance(key, tuple):
        return f"tuple of {len(key)}"
    if isinstance(key, date) and not isinstance(key, datetime):
        return "date"
    return type(key).__name__


class _CoAdapter(FunctionAdapter):
    """A function object in the place of a `CoProcessFunction`."""

    def __init__(self, function: Any, first: ProcessElement, second: ProcessElement) -> None:
        super().__init__(function)
        self.process_element1 = first
        self.process_element2 = second


def _co_map(function: Any) -> _CoAdapter:
    return _CoAdapter(
        function, lambda value, _: (function.map1(value),), lambda value, _: (function.map2(value),)
    )


def _co_flat_map(function: Any) -> _CoAdapter:
    return _CoAdapter(
        function, lambda value, _: function.flat_map1(value), lambda value, _: function.flat_map2(value)
    )


class CoMapOperator(CoProcessOperator):
    """Emits one record for each record of either input."""

    def __init__(self, function: Any) -> None:
        super().__init__(_co_map(function))


class KeyedCoMapOperator(KeyedCoProcessOperator):
    """Emits one record for each record of either input, with keyed state at hand."""

    def __init__(self, function: Any) -> None:
        super().__init__(_co_map(function))


class CoFlatMapOperator(CoProcessOperator):
    """Emits every record of the iterable that the function returns; None stands for none."""

    def __init__(self, function: Any) -> None:
        super().__init__(_co_flat_map(function))


class KeyedCoFlatMapOperator(KeyedCoProcessOperator):
    """Emits every record of the iterable that the function returns, with keyed state at hand."""

    def __init__(self, function: Any) -> None:
        super().__init__(_co_flat_map(function))
