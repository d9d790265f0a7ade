"""Operators without state and context: map, flat_map and filter.

Loops run in C (`map`, `filter`, `list.extend`) over an iterator whose position tells,
after an exception, which record it was.
"""

from collections.abc import Callable
from itertools import compress
from typing import Any

from raystream.operators.operator import Operator
from raystream.operators.user_code import (
    callable_of,
    close_function,
    open_function,
    raise_for_record,
    record_at,
)
from raystream.records.batch import RowBatch


class _FunctionOperator(Operator):
    """An operator around one user function."""

    method: str

    def __init__(self, function: Any) -> None:
        self._function = function
        self._call: Callable[[Any], Any] = callable_of(function, self.method)

    def open(self) -> None:
        open_function(self._function, self.context)

    def close(self) -> None:
        close_function(self._function)


class MapOperator(_FunctionOperator):
    """Emits one record for each record."""

    method = "map"

    def process(self, batch: RowBatch) -> None:
        values = iter(batch.values)
        try:
            mapped = list(map(self._call, values))
        except Exception as error:
            raise_for_record(error, self.context, record_at(values, batch.values))
        self.emit(RowBatch(mapped, batch.timestamps))


class FlatMapOperator(_FunctionOperator):
    """Emits every record of the iterable that the function returns; None stands for none."""

    method = "flat_map"

    def process(self, batch: RowBatch) -> None:
        call = self._call
        out: list[Any] = []
        timestamps: list[int] | None = None if batch.timestamps is None else []
        value = None
        try:
            for position, value in enumerate(batch.values):
                result = call(value)
                if result is not None:
                    out.extend(result)
                    if timestamps is not None and batch.timestamps is not None:
                        timestamps.extend([batch.timestamps[position]] * (len(out) - len(timestamps)))
        except Exception as error:
            raise_for_record(error, self.context, value)
        if out:
            self.emit(RowBatch(out, timestamps))


class FilterOperator(_FunctionOperator):
    """Emits the records for which the function is true."""

    method = "filter"

    def process(self, batch: RowBatch) -> None:
        values = iter(batch.values)
        try:
            chosen = list(map(self._call, values))
        except Exception as error:
            raise_for_record(error, self.context, record_at(values, batch.values))
        out = list(compress(batch.values, chosen))
        if out:
            timestamps = None if batch.timestamps is None else list(compress(batch.timestamps, chosen))
            self.emit(RowBatch(out, timestamps))
