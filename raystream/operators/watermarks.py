"""Where event time comes from: strategies, and what gives records timestamps and watermarks.

A watermark is made from the timestamps that have been seen, and is emitted in intervals and
not with each batch, since it goes to every channel.  A source makes one for each of its splits and
emits their minimum (`raystream.protocol.split_watermarks`); any other stream is a single split in
each subtask.  A split that has had no record for a while can be declared idle, so that nobody
waits for it.

Source: Flink's `WatermarkStrategy`, `BoundedOutOfOrdernessWatermarks`, `WatermarksWithIdleness` and
`TimestampsAndWatermarksOperator`.
"""

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import repeat
from operator import index
from typing import Any, Self, assert_never

from raystream.config.units import parse_duration_ms
from raystream.errors import GraphError, UserCodeError
from raystream.operators.operator import Emit, EmitEventTime, Operator, OperatorContext
from raystream.operators.user_code import call_for_each, cut_repr
from raystream.protocol import watermark as wm
from raystream.protocol.split_watermarks import WHOLE, SplitWatermarks
from raystream.records.batch import RowBatch
from raystream.records.elements import (
    WATERMARK_MAX_MS,
    Active,
    EventTime,
    Idle,
    Watermark,
)


@dataclass(frozen=True, slots=True)
class WatermarkStrategy:
    """How the event time of a stream is found: a value, made by one of the `for_...` methods.

    Attributes:
        out_of_orderness_ms: how much later than its successors a record may come; None: the strategy makes
            no watermarks, those from upstream pass.
        timestamp_assigner: returns the timestamp of a record; None: it has one already.
        idleness_ms: time without a record after which a split, or a subtask's input, is idle; None: it
            never is.

    Example:
        >>> strategy = (
        ...     WatermarkStrategy.for_bounded_out_of_orderness("5s")
        ...     .with_timestamp_assigner(lambda reading: reading["time_ms"])
        ...     .with_idleness("1min")
        ... )
        >>> strategy.out_of_orderness_ms, strategy.idleness_ms
        (5000, 60000)
    """

    out_of_orderness_ms: int | None = None
    timestamp_assigner: Callable[[Any], int] | None = None
    idleness_ms: int | None = None

    @classmethod
    def for_monotonous_timestamps(cls) -> Self:
        """Return the strategy for records that come, in each split of the source, in the order of time."""
        return cls(0)

    @classmethod
    def for_bounded_out_of_orderness(cls, max_out_of_orderness: str | int | timedelta) -> Self:
        """Return the strategy for records that come at most so much later than ones with a later timestamp.

        Args:
            max_out_of_orderness: text such as `5s`, a `timedelta`, or milliseconds.

        Raises:
            GraphError: it is not a duration.
        """
        return cls(_duration_ms(max_out_of_orderness, "out-of-orderness"))

    @classmethod
    def no_watermarks(cls) -> Self:
        """Return the strategy that only assigns timestamps, and lets watermarks from upstream pass."""
        return cls(None)

    @property
    def makes_watermarks(self) -> bool:
        """False when those from upstream pass."""
        return self.out_of_orderness_ms is not None

    def with_timestamp_assigner(self, assigner: Any) -> Self:
        """Return the strategy with timestamps found by a function of the record.

        Args:
            assigner: returns ms since the epoch as an int; or an object with a method
                `extract_timestamp(value, record_timestamp)`.

        Raises:
            GraphError: it cannot be called.
        """
        if not callable(assigner) and not callable(getattr(assigner, "extract_timestamp", None)):
            raise GraphError(
                "timestamp assigner cannot be called",
                hint="pass a function of the record that returns ms since the epoch",
                assigner=repr(assigner)[:80],
            )
        return replace(self, timestamp_assigner=assigner)

    def with_idleness(self, idle_timeout: str | int | timedelta) -> Self:
        """Return the strategy that declares a split, or an input, idle which has had no record for so long.

        It then no longer holds the watermark back.

        Raises:
            GraphError: it is not a duration above 0.
        """
        idleness_ms = _duration_ms(idle_timeout, "idle timeout")
        if idleness_ms == 0:
            raise GraphError("idle timeout is not above 0", hint='write with_idleness("1min")')
        return replace(self, idleness_ms=idleness_ms)


def checked_strategy(strategy: object) -> WatermarkStrategy:
    """Return the strategy.

    Raises:
        GraphError: it is something else.
    """
    if not isinstance(strategy, WatermarkStrategy):
        raise GraphError(
            "watermarks are not given as a strategy",
            hint="write WatermarkStrategy.for_bounded_out_of_orderness('5s')",
            argument=repr(strategy)[:80],
        )
    return strategy


def _duration_ms(raw: object, what: str) -> int:
    try:
        return parse_duration_ms(raw)
    except ValueError as error:
        raise GraphError(f"{what} of a watermark strategy cannot be read", cause=str(error)) from error


class EventTimeMaker:
    """Stamps the records of one subtask and says how far their time has come, as a strategy wants it.

    Watermarks and idleness that come with the records end here, unless the strategy makes none itself;
    the last watermark always passes.  Time is asked for only while there is something to say.

    Args:
        strategy: how event time is found.
        interval_ms: time between two watermarks.
        context: of the operator that owns the maker, and calls `tick` when `due_ms` has come.
        emit: takes the stamped records.
        emit_event_time: takes what moves event time.
    """

    due_ms: float | None = None
    """When `tick` has to be called, in ms of the monotonic clock; None while there is nothing to say."""

    def __init__(
        self,
        strategy: WatermarkStrategy,
        interval_ms: int,
        context: OperatorContext,
        emit: Emit,
        emit_event_time: EmitEventTime,
    ) -> None:
        assigner = strategy.timestamp_assigner
        self._assign = assigner
        self._extract = getattr(assigner, "extract_timestamp", None)
        self._makes_watermarks = strategy.makes_watermarks
        self._behind_ms = (strategy.out_of_orderness_ms or 0) + 1
        self._detects_idleness = strategy.idleness_ms is not None
        self._interval_ms = min(interval_ms, strategy.idleness_ms or interval_ms)
        # A tick may come late, when the outputs had no room for what it emits; then no record came
        # because none was read, so it counts as one interval.
        self._splits = SplitWatermarks(tick_ms=self._interval_ms, idleness_ms=strategy.idleness_ms)
        self._context = context
        self._emit = emit
        self._emit_event_time = emit_event_time

    @property
    def due(self) -> bool:
        """True when `tick` has to be called."""
        return self.due_ms is not None and self._context.clock.monotonic_ms() >= self.due_ms

    def start(self) -> None:
        """Begin to wait for records, or for their absence."""
        if self._detects_idleness:
            self.tick_later()

    def take(self, batch: RowBatch, split: Hashable = WHOLE) -> None:
        """Stamp and emit the records of a batch, which all come from one split."""
        timestamps = self._timestamps(batch)
        watermark_ms = max(timestamps) - self._behind_ms if self._makes_watermarks else None
        self._execute(self._splits.records_read(split, watermark_ms))
        self._emit(RowBatch(batch.values, timestamps))
        if self.due_ms is None:
            self.tick_later()

    def take_event_time(self, element: EventTime) -> None:
        """Hand on what moves event time, if it shall pass."""
        if element == Watermark(WATERMARK_MAX_MS):
            self._emit_event_time(element)
        elif not self._makes_watermarks:
            idle = isinstance(element, Idle)
            self._execute(self._splits.idle_heard() if idle else self._splits.active_heard())
            if isinstance(element, Watermark):
                self._emit_event_time(element)

    def tick(self, splits: Collection[Hashable] = (WHOLE,)) -> None:
        """Emit a watermark, or that nothing has come for so long that nobody should wait.

        Args:
            splits: those that are read now, also those of which nothing has come.
        """
        self.due_ms = None
        self._execute(self._splits.ticked(splits))
        if self._detects_idleness and not self._splits.idle:
            self.tick_later()

    def splits_changed(self, splits: Collection[Hashable]) -> None:
        """See to it that splits which have ended, or are new, count soon."""
        if self.due_ms is None and not self._splits.knows(splits):
            self.tick_later()

    def tick_later(self) -> None:
        """Ask for the next tick, if the strategy has something to say then."""
        if self._makes_watermarks or self._detects_idleness:
            self.due_ms = self._context.clock.monotonic_ms() + self._interval_ms
            self._context.wake_at(self.due_ms)

    def _execute(self, commands: list[wm.Command]) -> None:
        for command in commands:
            match command:
                case wm.ForwardWatermark(timestamp_ms):
                    if self._makes_watermarks:
                        self._emit_event_time(Watermark(timestamp_ms))
                case wm.ForwardIdle():
                    self._emit_event_time(Idle())
                case wm.ForwardActive():
                    self._emit_event_time(Active())
                case _:
                    assert_never(command)

    def _timestamps(self, batch: RowBatch) -> list[int]:
        values = batch.values
        if self._extract is not None:
            extract, before = self._extract, batch.timestamps or repeat(None)
            pairs = list(zip(values, before, strict=False))
            timestamps = call_for_each(lambda pair: extract(*pair), pairs, self._context)
        elif self._assign is not None:
            timestamps = call_for_each(self._assign, values, self._context)
        elif batch.timestamps is not None:
            return batch.timestamps
        else:
            hint = "call with_timestamp_assigner(...) on the strategy"
            raise self._refused("record has no timestamp", values[0], hint)
        if set(map(type, timestamps)) == {int}:
            return timestamps
        return [self._whole(*pair) for pair in zip(timestamps, values, strict=True)]

    def _whole(self, timestamp: Any, record: Any) -> int:
        """Return a timestamp as an exact int, also one of another integer type."""
        try:
            return index(timestamp)
        except TypeError:
            hint = "return ms since the epoch, int(moment.timestamp() * 1000)"
            raise self._refused("timestamp is not a whole number", record, hint) from None

    def _refused(self, message: str, record: Any, hint: str) -> UserCodeError:
        context = self._context
        return UserCodeError(
            message, hint=hint, operator=context.name, subtask=context.subtask, record=cut_repr(record)
        )


class WatermarkOperator(Operator):
    """Assigns timestamps and emits the watermarks of a strategy; what it gets is not cut into splits."""

    def __init__(self, strategy: WatermarkStrategy, interval_ms: int) -> None:
        self._strategy = strategy
        self._interval_ms = interval_ms

    def open(self) -> None:
        self._maker = EventTimeMaker(
            self._strategy, self._interval_ms, self.context, self.emit, self.emit_event_time
        )

    def start(self) -> None:
        self._maker.start()

    def process(self, batch: RowBatch) -> None:
        self._maker.take(batch)

    def process_event_time(self, element: EventTime) -> None:
        self._maker.take_event_time(element)

    def time_reached(self) -> None:
        self._maker.tick()
