"""Operators with a context: process, keyed process and keyed reduce."""

from collections import defaultdict
from typing import Any

from raystream.operators.emission import Pass, collector, timed_collector
from raystream.operators.operator import Operator
from raystream.operators.user_code import close_function, open_function, raise_for_record
from raystream.records.batch import RowBatch
from raystream.state.cursor import NO_KEY_GROUP, KeyCursor
from raystream.state.descriptor import ValueStateDescriptor


class ProcessContext(KeyCursor):
    """What `process_element(value, ctx)` gets.

    Attributes:
        current_key: canonical key of the record, on keyed streams only.
        timestamp: ms since the epoch, or None when the record has none.
    """

    __slots__ = ("_side", "emitted", "timestamp")

    def __init__(self) -> None:
        super().__init__()
        self.timestamp: int | None = None
        self.emitted: Pass | None = None
        self._side: defaultdict[str, list[tuple[int | None, Any]]] = defaultdict(list)

    def output(self, tag: Any, value: Any) -> None:
        """Emit a record to a side output.

        Args:
            tag: an `OutputTag` or its name; records of a tag that nobody reads are dropped.
            value: the record; must not be changed any more, like every record that is emitted.
        """
        if self.emitted is not None:
            value = self.emitted(value)
        self._side[getattr(tag, "name", tag)].append((self.timestamp, value))

    def take_side_outputs(self) -> dict[str, list[tuple[int | None, Any]]]:
        """Return (timestamp, record) of everything emitted to side outputs since the last call, by tag."""
        side, self._side = self._side, defaultdict(list)
        return side

    @property
    def has_side_outputs(self) -> bool:
        """True when `take_side_outputs` would return something."""
        return bool(self._side)


class ProcessOperator(Operator):
    """Calls `process_element(value, ctx)`, which yields, returns an iterable or returns None."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._cursor = ProcessContext()

    @property
    def cursor(self) -> ProcessContext:
        """The cursor that keyed state of this operator follows."""
        return self._cursor

    def open(self) -> None:
        self._cursor.emitted = self.context.emitted
        open_function(self._function, self.context)

    def process(self, batch: RowBatch) -> None:
        ctx, call = self._cursor, self._function.process_element
        out: list[Any] = []
        value = None
        try:
            if batch.timestamps is None:
                emit = collector(out, self.context.emitted)
                ctx.timestamp = None
                for value in batch.values:
                    result = call(value, ctx)
                    if result is not None:
                        emit(result)
            else:
                emit = timed_collector(out, self.context.emitted)
                for ctx.timestamp, value in zip(batch.timestamps, batch.values, strict=True):
                    result = call(value, ctx)
                    if result is not None:
                        emit((ctx.timestamp, record) for record in result)
        except BaseException as error:
            raise_for_record(error, self.context, value)
        self._emit_all(out, timestamped=batch.timestamps is not None)

    def _emit_all(self, out: list[Any], *, timestamped: bool) -> None:
        if out:
            self.emit(_with_timestamps(out) if timestamped else RowBatch(out))
        if self._cursor.has_side_outputs:
            for tag, side in self._cursor.take_side_outputs().items():
                if tag in self.emit_side:
                    emit = self.emit_side[tag]
                    emit(_with_timestamps(side) if timestamped else RowBatch([value for _, value in side]))

    def close(self) -> None:
        close_function(self._function)


class KeyedProcessOperator(ProcessOperator):
    """Like `ProcessOperator` on a keyed stream: the key of each record is the current key."""

    def process(self, batch: RowBatch) -> None:
        if batch.timestamps is not None:
            self._process_timestamped(batch)
            return
        ctx, call = self._cursor, self._function.process_element
        out: list[Any] = []
        emit = collector(out, self.context.emitted)
        keys, groups = _keys_of(batch)
        value = ctx.timestamp = None
        try:
            for ctx.current_key, ctx.group, value in zip(keys, groups, batch.values, strict=True):
                result = call(value, ctx)
                if result is not None:
                    emit(result)
        except BaseException as error:
            raise_for_record(error, self.context, value)
        finally:
            ctx.current_key, ctx.group = None, NO_KEY_GROUP
        self._emit_all(out, timestamped=False)

    def _process_timestamped(self, batch: RowBatch) -> None:
        ctx, call = self._cursor, self._function.process_element
        out: list[Any] = []
        emit = timed_collector(out, self.context.emitted)
        keys, groups = _keys_of(batch)
        value = None
        try:
            for ctx.current_key, ctx.group, ctx.timestamp, value in zip(
                keys, groups, batch.timestamps or (), batch.values, strict=True
            ):
                result = call(value, ctx)
                if result is not None:
                    emit((ctx.timestamp, record) for record in result)
        except BaseException as error:
            raise_for_record(error, self.context, value)
        finally:
            ctx.current_key, ctx.group = None, NO_KEY_GROUP
        self._emit_all(out, timestamped=True)


class ReduceFunctionAdapter:
    """A running reduce as a keyed process function: emits the reduced value for each record."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._reduce = getattr(function, "reduce", function)

    def open(self, ctx: Any) -> None:
        if hasattr(self._function, "open") and hasattr(self._function, "close"):
            self._function.open(ctx)
        self._state = ctx.get_state(ValueStateDescriptor("reduced"))

    def process_element(self, value: Any, ctx: ProcessContext) -> tuple[Any]:
        """Return the reduction of everything that this key has seen."""
        before = self._state.value()
        reduced = value if before is None else self._reduce(before, value)
        self._state.update(reduced)
        return (reduced,)

    def close(self) -> None:
        close_function(self._function)


class ReduceOperator(KeyedProcessOperator):
    """Emits, for each record, the running reduction of its key."""

    def __init__(self, function: Any) -> None:
        super().__init__(ReduceFunctionAdapter(function))


def _with_timestamps(records: list[tuple[Any, Any]]) -> RowBatch:
    timestamps, values = zip(*records, strict=True)
    return RowBatch(list(values), list(timestamps))


def _keys_of(batch: RowBatch) -> tuple[list[Any], list[int]]:
    assert batch.keys is not None, "batch on a keyed edge has no keys"
    assert batch.groups is not None, "batch on a keyed edge has no key groups"
    return batch.keys, batch.groups
