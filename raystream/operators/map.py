"""Operators without keyed state and context: map, flat_map and filter.

Loops run in C where they can (`map`, `compress`, `list.extend`).
"""

from collections.abc import Callable, Sequence
from itertools import chain, compress
from typing import Any

from raystream.operators.checkpointed import initialize_function, snapshot_function
from raystream.operators.dead_letters import DEAD_LETTERS, DeadLetters, dead_letters_of
from raystream.operators.emission import collector
from raystream.operators.operator import Operator
from raystream.operators.user_code import (
    call_for_each,
    callable_of,
    close_function,
    open_function,
    raise_for_record,
)
from raystream.records.batch import RowBatch
from raystream.state.operator_state import OperatorState


class _FunctionOperator(Operator):
    """An operator around one user function."""

    method: str

    def __init__(self, function: Any) -> None:
        self._function = function
        self._call: Callable[[Any], Any] = callable_of(function, self.method)
        self._letters: DeadLetters | None = None

    def open(self) -> None:
        self._letters = dead_letters_of(self)
        initialize_function(self._function, self.context)
        open_function(self._function, self.context)

    @property
    def dead_letters(self) -> int:
        return 0 if self._letters is None else self._letters.count

    def _call_for_each(self, call: Callable[[Any], Any], batch: RowBatch) -> tuple[list[Any], RowBatch]:
        """Call a function for each record; emit the dead letters of those on which it raises.

        Returns:
            The results, and the records that have one.

        Raises:
            UserCodeError: the function raised, and there are no dead letters.
        """
        if self._letters is None:
            return call_for_each(call, batch.values, self.context), batch
        results, batch, letters = self._letters.call_for_each(call, batch)
        if letters is not None:
            self.emit_side[DEAD_LETTERS](letters)
        return results, batch

    def snapshot(self, checkpoint_id: int, *, savepoint: bool = False) -> list[OperatorState]:
        return snapshot_function(self._function, self.context, checkpoint_id, savepoint=savepoint)

    def close(self) -> None:
        close_function(self._function)


class MapOperator(_FunctionOperator):
    """Emits one record for each record."""

    method = "map"

    def open(self) -> None:
        super().open()
        call, emitted = self._call, self.context.emitted
        if emitted is not None:
            self._call = lambda value: emitted(call(value))

    def process(self, batch: RowBatch) -> None:
        results, batch = self._call_for_each(self._call, batch)
        if results:
            self.emit(RowBatch(results, batch.timestamps))


class FlatMapOperator(_FunctionOperator):
    """Emits every record of the iterable that the function returns; None stands for none."""

    method = "flat_map"

    def process(self, batch: RowBatch) -> None:
        if self._letters is not None:
            self._process_whole(batch, self._letters)
            return
        call = self._call
        out: list[Any] = []
        emit = collector(out, self.context.emitted)
        timestamps: list[int] | None = None if batch.timestamps is None else []
        value = None
        try:
            for position, value in enumerate(batch.values):
                result = call(value)
                if result is not None:
                    emit(result)
                    if timestamps is not None and batch.timestamps is not None:
                        timestamps.extend([batch.timestamps[position]] * (len(out) - len(timestamps)))
        except BaseException as error:
            raise_for_record(error, self.context, value)
        if out:
            self.emit(RowBatch(out, timestamps))

    def _process_whole(self, batch: RowBatch, letters: DeadLetters) -> None:
        """Emit what comes of each record only when all of it has come."""
        call, whole = self._call, letters.whole

        def call_whole(value: Any) -> Sequence[Any]:
            emitted = call(value)
            return () if emitted is None else whole(emitted)

        lists, batch = self._call_for_each(call_whole, batch)
        out = list(chain.from_iterable(lists))
        if out:
            stamps = batch.timestamps
            repeated = None if stamps is None else list(chain.from_iterable(map(_times, stamps, lists)))
            self.emit(RowBatch(out, repeated))


def _times(timestamp: int, records: Sequence[Any]) -> list[int]:
    return [timestamp] * len(records)


class FilterOperator(_FunctionOperator):
    """Emits the records for which the function is true."""

    method = "filter"

    def open(self) -> None:
        super().open()
        call, emitted = self._call, self.context.emitted
        if emitted is not None:
            self._call = lambda value: (emitted(value),) if call(value) else None

    def process(self, batch: RowBatch) -> None:
        chosen, batch = self._call_for_each(self._call, batch)
        if self.context.emitted is None:
            out = list(compress(batch.values, chosen))
        else:
            out = [kept[0] for kept in chosen if kept]
        if out:
            timestamps = None if batch.timestamps is None else list(compress(batch.timestamps, chosen))
            self.emit(RowBatch(out, timestamps))
