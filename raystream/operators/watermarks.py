"""Where event time comes from: strategies, and the operator that gives records timestamps and watermarks.

A watermark is made from the timestamps that have been seen, and is emitted in intervals and
not with each batch, since it goes to every channel.  An input that has had no record for a while
can be declared idle, so that nobody waits for it.

Source: Flink's `WatermarkStrategy`, `BoundedOutOfOrdernessWatermarks`, `WatermarksWithIdleness` and
`TimestampsAndWatermarksOperator`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import repeat
from operator import index
from typing import Any, Self

from raystream.config.units import parse_duration_ms
from raystream.errors import GraphError, UserCodeError
from raystream.operators.operator import Operator
from raystream.operators.user_code import call_for_each, cut_repr
from raystream.records.batch import RowBatch
from raystream.records.elements import (
    WATERMARK_MAX_MS,
    WATERMARK_MIN_MS,
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
        idleness_ms: time without a record after which the input is idle; None: it never is.

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
        """Return the strategy for records that come, in each subtask of the source, in the order of time."""
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
        """Return the strategy that declares an input idle which has had no record for so long.

        Raises:
            GraphError: it is not a duration above 0.
        """
        idleness_ms = _duration_ms(idle_timeout, "idle timeout")
        if idleness_ms == 0:
            raise GraphError("idle timeout is not above 0", hint='write with_idleness("1min")')
        return replace(self, idleness_ms=idleness_ms)


def _duration_ms(raw: object, what: str) -> int:
    try:
        return parse_duration_ms(raw)
    except ValueError as error:
        raise GraphError(f"{what} of a watermark strategy cannot be read", cause=str(error)) from error


class WatermarkOperator(Operator):
    """Assigns timestamps and emits the watermarks of a strategy.

    Watermarks and idleness from upstream end here, unless the strategy makes none itself; the last
    watermark always passes.  The operator asks for time only while it has something to say.

    Args:
        strategy: how event time is found.
        interval_ms: time between two watermarks.
    """

    def __init__(self, strategy: WatermarkStrategy, interval_ms: int) -> None:
        assigner = strategy.timestamp_assigner
        self._assign = assigner
        self._extract = getattr(assigner, "extract_timestamp", None)
        self._makes_watermarks = strategy.out_of_orderness_ms is not None
        self._behind_ms = (strategy.out_of_orderness_ms or 0) + 1
        self._idleness_ms = strategy.idleness_ms
        self._interval_ms = min(interval_ms, strategy.idleness_ms or interval_ms)
        self._highest_ms: int | None = None
        self._emitted_ms = WATERMARK_MIN_MS
        self._idle = False
        self._silent = True  # No record since the last tick.
        self._silent_ms = 0
        self._ticks = False

    def start(self) -> None:
        if self._idleness_ms is not None:
            self._tick_later()

    def process(self, batch: RowBatch) -> None:
        timestamps = self._timestamps(batch)
        self._silent = False
        self._be_active()
        self.emit(RowBatch(batch.values, timestamps))
        if self._makes_watermarks:
            highest_ms = max(timestamps)
            if self._highest_ms is None or highest_ms > self._highest_ms:
                self._highest_ms = highest_ms
        if not self._ticks and (self._makes_watermarks or self._idleness_ms is not None):
            self._tick_later()

    def process_event_time(self, element: EventTime) -> None:
        if element == Watermark(WATERMARK_MAX_MS):
            self.emit_event_time(element)
        elif not self._makes_watermarks:
            self._pass(element)

    def time_reached(self) -> None:
        """Emit a watermark, or that nothing has come for so long that nobody should wait."""
        self._ticks = False
        self._emit_watermark()
        # A tick may come late, when the outputs had no room for what it emits; then no record came
        # because none was read, so it counts as one interval.
        self._silent_ms = self._silent_ms + self._interval_ms if self._silent else 0
        self._silent = True
        if self._idleness_ms is None or self._idle:
            return
        if self._silent_ms >= self._idleness_ms:
            self._idle = True
            self.emit_event_time(Idle())
        else:
            self._tick_later()

    def _tick_later(self) -> None:
        self._ticks = True
        self.context.wake_at(self.context.clock.monotonic_ms() + self._interval_ms)

    def _emit_watermark(self) -> None:
        if self._highest_ms is None:
            return
        watermark_ms = self._highest_ms - self._behind_ms
        if watermark_ms > self._emitted_ms:
            self._emitted_ms = watermark_ms
            self.emit_event_time(Watermark(watermark_ms))

    def _be_active(self) -> None:
        if self._idle:
            self._idle = False
            self._silent_ms = 0
            self.emit_event_time(Active())

    def _pass(self, element: EventTime) -> None:
        if not isinstance(element, Idle):
            self._be_active()
            if isinstance(element, Watermark):
                self.emit_event_time(element)
        elif not self._idle:
            self._idle = True
            self.emit_event_time(element)

    def _timestamps(self, batch: RowBatch) -> list[int]:
        values = batch.values
        if self._extract is not None:
            extract, before = self._extract, batch.timestamps or repeat(None)
            pairs = list(zip(values, before, strict=False))
            timestamps = call_for_each(lambda pair: extract(*pair), pairs, self.context)
        elif self._assign is not None:
            timestamps = call_for_each(self._assign, values, self.context)
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
        context = self.context
        return UserCodeError(
            message, hint=hint, operator=context.name, subtask=context.subtask, record=cut_repr(record)
        )
