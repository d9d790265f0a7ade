"""Operators with a context: process, keyed process and keyed reduce.

A keyed function that has `on_timer` has timers.  A watermark may be due to more of them than can
fire in one go: then the operator is `catching_up`, and hands the watermark on behind the last one.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from typing import Any

from raystream.clock import TimeDomain
from raystream.operators.checkpointed import initialize_function, snapshot_function
from raystream.operators.dead_letters import DEAD_LETTERS, DeadLetters, dead_letters_of, takes
from raystream.operators.emission import Pass, collector
from raystream.operators.operator import Operator
from raystream.operators.timers import KeyedTimers, Timers, overridden
from raystream.operators.user_code import (
    FunctionAdapter,
    close_function,
    open_function,
    raise_for_record,
    raise_for_timer,
)
from raystream.records.batch import RowBatch
from raystream.records.elements import EventTime, Watermark
from raystream.state.cursor import NO_KEY_GROUP, KeyCursor
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.operator_state import OperatorState


class ProcessContext(KeyCursor):
    """What `process_element(value, ctx)` gets.

    Attributes:
        current_key: canonical key of the record, on keyed streams only.
        timestamp: ms since the epoch, or None when the record has none; the timer's time in `on_timer`.
        timers: event time and processing time, and the timers of the current key.
        time_domain: which time the timer goes by, in `on_timer` only.
        side: tag, timestamp and record of what the batch in hand has emitted to side outputs.
    """

    __slots__ = ("emitted", "side", "timers")

    timers: Timers

    def __init__(self) -> None:
        super().__init__()
        self.emitted: Pass | None = None
        self.side: list[tuple[str, int | None, Any]] = []

    def output(self, tag: Any, value: Any) -> None:
        """Emit a record to a side output.

        Args:
            tag: an `OutputTag` or its name; records of a tag that nobody reads are dropped.
            value: the record; must not be changed any more, like every record that is emitted.
        """
        if self.emitted is not None:
            value = self.emitted(value)
        self.side.append((getattr(tag, "name", tag), self.timestamp, value))

    def take_side_outputs(self) -> Iterator[tuple[str, list[Any], list[Any]]]:
        """Yield tag, timestamps and records of everything emitted to side outputs since the last call."""
        side, self.side = self.side, []
        tags, times, values = zip(*side, strict=True)
        found = dict.fromkeys(tags)
        if len(found) == 1:
            yield tags[0], list(times), list(values)
            return
        for tag in found:
            chosen = [other == tag for other in tags]
            yield tag, list(compress(times, chosen)), list(compress(values, chosen))


ProcessElement = Callable[[Any, ProcessContext], Iterable[Any] | None]
"""The method of a function that takes the records of one input."""


class ProcessOperator(Operator):
    """Calls `process_element(value, ctx)`, which yields, returns an iterable or returns None."""

    cursor_type: type[ProcessContext] = ProcessContext

    def __init__(self, function: Any) -> None:
        self._function = function
        self._cursor = self.cursor_type()
        self._letters: DeadLetters | None = None
        self._passed: Pass | None = None  # What `_run` has records passed through that are emitted.

    @property
    def cursor(self) -> ProcessContext:
        """The cursor that keyed state of this operator follows."""
        return self._cursor

    def open(self) -> None:
        self._cursor.emitted = self.context.emitted
        self._letters = dead_letters_of(self)
        self._passed = self.context.emitted if self._letters is None else None  # Else `whole` does it.
        self._cursor.timers = self._make_timers()
        initialize_function(self._function, self.context)
        open_function(self._function, self.context)

    def _make_timers(self) -> Timers:
        return Timers(self.context)

    def process_event_time(self, element: EventTime) -> None:
        if type(element) is Watermark:
            self._cursor.timers.current_watermark = element.timestamp_ms
            self._cursor.timers.settle_watermark()
        self.emit_event_time(element)

    def process(self, batch: RowBatch) -> None:
        self._run(batch, self._guarded(self._function.process_element))

    def _guarded(self, call: ProcessElement, input_number: int = 0) -> ProcessElement:
        """Return the method as it is or, where there are dead letters, one that makes them of errors.

        All that the method has emitted for such a record is dropped.
        """
        letters, cursor = self._letters, self._cursor
        if letters is None:
            return call
        whole, side = letters.whole, cursor.side

        def guarded(value: Any, ctx: ProcessContext) -> list[Any] | None:
            kept = len(side)
            try:
                emitted = call(value, ctx)
                return None if emitted is None else whole(emitted)
            except BaseException as error:
                if not takes(error):
                    raise
                del side[kept:]
                key, timestamp = cursor.current_key, cursor.timestamp
                letter = letters.letter(error, value, key=key, timestamp=timestamp, input_number=input_number)
                cursor.output(DEAD_LETTERS, letter)
                return None

        return guarded

    @property
    def dead_letters(self) -> int:
        return 0 if self._letters is None else self._letters.count

    def _run(self, batch: RowBatch, call: ProcessElement) -> None:
        """Call a method of the function for each record and emit what it yields."""
        ctx = self._cursor
        out: list[Any] = []
        stamps: list[int] | None = None
        emit = collector(out, self._passed)
        value = None
        try:
            if batch.timestamps is None:
                ctx.timestamp = None
                for value in batch.values:
                    result = call(value, ctx)
                    if result is not None:
                        emit(result)
            else:
                stamps = []
                for timestamp, value in zip(batch.timestamps, batch.values, strict=True):
                    ctx.timestamp = timestamp
                    result = call(value, ctx)
                    if result is not None:
                        emit(result)
                        stamps += [timestamp] * (len(out) - len(stamps))
        except BaseException as error:
            raise_for_record(error, self.context, value)
        self._emit_all(out, stamps)

    def _emit_all(self, out: list[Any], stamps: list[int] | None) -> None:
        """Emit records to the main output, and to side outputs what was given to them.

        Args:
            out: the records.
            stamps: their timestamps; None when those of the side outputs do not count either.
        """
        if out:
            self.emit(RowBatch(out, stamps))
        if self._cursor.side:
            for tag, times, values in self._cursor.take_side_outputs():
                if tag in self.emit_side:
                    self.emit_side[tag](RowBatch(values, None if stamps is None else times))

    def snapshot(self, checkpoint_id: int, *, savepoint: bool = False) -> list[OperatorState]:
        return snapshot_function(self._function, self.context, checkpoint_id, savepoint=savepoint)

    def close(self) -> None:
        close_function(self._function)


class KeyedProcessOperator(ProcessOperator):
    """Like `ProcessOperator` on a keyed stream: the key of each record is the current key."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._on_timer = overridden(function, "on_timer")
        self._timers: KeyedTimers | None = None
        self._arrived: deque[EventTime] = deque()  # Bounded: while there is some, nothing is taken in.

    def _make_timers(self) -> Timers:
        if self._on_timer is None or self.context.keyed_backend is None:
            return super()._make_timers()
        self._timers = KeyedTimers(self.context, self._cursor)
        return self._timers

    def start(self) -> None:
        if self._timers is not None:
            self._timers.wake_for_next()

    def _run(self, batch: RowBatch, call: ProcessElement) -> None:
        self._prefetch(batch.keys or ())
        if batch.timestamps is not None:
            self._run_timestamped(batch, call)
            return
        ctx = self._cursor
        out: list[Any] = []
        emit = collector(out, self._passed)
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
        self._emit_all(out, None)

    def _run_timestamped(self, batch: RowBatch, call: ProcessElement) -> None:
        ctx = self._cursor
        out: list[Any] = []
        stamps: list[int] = []
        emit = collector(out, self._passed)
        keys, groups = _keys_of(batch)
        value = None
        try:
            for ctx.current_key, ctx.group, timestamp, value in zip(
                keys, groups, batch.timestamps or (), batch.values, strict=True
            ):
                ctx.timestamp = timestamp
                result = call(value, ctx)
                if result is not None:
                    emit(result)
                    stamps += [timestamp] * (len(out) - len(stamps))
        except BaseException as error:
            raise_for_record(error, self.context, value)
        finally:
            ctx.current_key, ctx.group = None, NO_KEY_GROUP
        self._emit_all(out, stamps)

    def process_event_time(self, element: EventTime) -> None:
        if self._timers is None:
            super().process_event_time(element)
            return
        self._arrived.append(element)
        if len(self._arrived) == 1:
            self.catch_up()

    @property
    def catching_up(self) -> bool:
        return bool(self._arrived)

    def catch_up(self) -> None:
        timers = self._timers
        assert timers is not None, "an operator without timers is never behind"
        while self._arrived:
            element = self._arrived[0]
            if type(element) is Watermark:
                timers.current_watermark = element.timestamp_ms
                self._fire(timers.due_by_event_time(), TimeDomain.EVENT_TIME)
                if not timers.watermark_settled:
                    return
                timers.settle_watermark()
            self.emit_event_time(self._arrived.popleft())

    def time_reached(self) -> None:
        if self._timers is not None:
            self._fire(self._timers.due_by_processing_time(), TimeDomain.PROCESSING_TIME)
            self._timers.wake_for_next()

    def _prefetch(self, keys: Sequence[Any]) -> None:
        """Have the state backend get ready for calls of the function."""
        backend = self.context.keyed_backend
        prefetch = None if backend is None else backend.prefetch
        if prefetch is not None:
            prefetch(keys)

    def _fire(self, due: Iterator[int], domain: TimeDomain) -> None:
        """Call `on_timer` for each timer; what timers of processing time emit has no timestamp."""
        self._prefetch(())
        ctx, call = self._cursor, self._on_timer
        ctx.time_domain = domain
        out: list[Any] = []
        emit = collector(out, self.context.emitted)
        stamps: list[int] = []
        try:
            for timestamp in due:
                ctx.timestamp = timestamp
                result = call(timestamp, ctx)
                if result is not None:
                    emit(result)
                    stamps += [timestamp] * (len(out) - len(stamps))
        except BaseException as error:
            raise_for_timer(error, self.context, ctx.current_key, ctx.timestamp)
        finally:
            ctx.current_key, ctx.group, ctx.namespace = None, NO_KEY_GROUP, None
            ctx.timestamp = ctx.time_domain = None
        self._emit_all(out, stamps if domain is TimeDomain.EVENT_TIME else None)


class ReduceFunctionAdapter(FunctionAdapter):
    """A running reduce as a keyed process function: emits the reduced value for each record."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
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


def _keys_of(batch: RowBatch) -> tuple[list[Any], list[int]]:
    assert batch.keys is not None, "batch on a keyed edge has no keys"
    assert batch.groups is not None, "batch on a keyed edge has no key groups"
    return batch.keys, batch.groups
