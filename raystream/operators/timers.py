"""`ctx.timers`: what a process function sees of time, and the timers it sets."""

from collections.abc import Callable, Iterator
from operator import index
from typing import Any, TypeVar

from raystream.clock import ProcessingTime
from raystream.errors import StateError
from raystream.operators.operator import OperatorContext
from raystream.records.elements import WATERMARK_MIN_MS
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import EVENT_TIMERS, PROCESSING_TIMERS
from raystream.state.timers import TimerQueue

TIMERS_PER_SLICE_MAX = 1024
"""Timers that fire in one go; in between the slot does its other work."""


C = TypeVar("C", bound=Callable[..., Any])


def optional(method: C) -> C:
    """Mark a method of a function class that does nothing unless it is overridden."""
    method.raystream_optional = True  # type: ignore[attr-defined]
    return method


def overridden(function: Any, name: str) -> Any:
    """Return the method of a user's function, None when there is none or it does nothing."""
    method = getattr(function, name, None)
    return None if getattr(method, "raystream_optional", False) else method


class Timers:
    """Event time and processing time; without keyed state there are no timers.

    Attributes:
        current_watermark: ms since the epoch; records that are not above it are late.  The smallest
            64-bit integer before the first watermark, the largest behind the last record.
    """

    __slots__ = ("_event_time", "_operator", "_time", "current_watermark")

    def __init__(self, context: OperatorContext) -> None:
        backend = context.keyed_backend
        self._time = ProcessingTime(context.clock) if backend is None else backend.processing_time
        self._event_time = None if backend is None else backend.event_time
        self._operator = context.name
        self.current_watermark = WATERMARK_MIN_MS

    @property
    def current_processing_time(self) -> int:
        """Wall time in ms since the epoch; never runs backwards, also not over a restore."""
        return self._time.now_ms()

    def settle_watermark(self) -> None:
        """Let state live by the current watermark, whose timers have fired."""
        if self._event_time is not None:
            self._event_time.reached(self.current_watermark)

    def register_event_time(self, time_ms: int) -> None:
        """Call `on_timer` for the current key when the watermark reaches this time; once, however often set.

        A time that the watermark has passed already is reached by the next watermark.

        Raises:
            StateError: the stream is not keyed, the function has no `on_timer`, there is no current key,
                or the time is not a whole number.
        """
        raise self._refused()

    def register_processing_time(self, time_ms: int) -> None:
        """Call `on_timer` for the current key at this wall time; errors as for `register_event_time`."""
        raise self._refused()

    def delete_event_time(self, time_ms: int) -> None:
        """Take a timer of the current key back; one that is not set is left alone."""
        raise self._refused()

    def delete_processing_time(self, time_ms: int) -> None:
        """Take a timer of the current key back; one that is not set is left alone."""
        raise self._refused()

    def _refused(self) -> StateError:
        return StateError(
            "timer was set where none can fire",
            hint="timers need a KeyedProcessFunction with on_timer(timestamp, ctx), behind key_by(...)",
            operator=self._operator,
        )


class KeyedTimers(Timers):
    """Timers of the keys of one subtask.

    Args:
        context: of an operator with keyed state; its `wake_at` brings about `time_reached`.
        cursor: of the operator.
    """

    __slots__ = ("_clock", "_event", "_processing", "_wake_at", "_woken_at_ms")

    def __init__(self, context: OperatorContext, cursor: KeyCursor) -> None:
        super().__init__(context)
        assert context.keyed_backend is not None, "timers without keyed state"
        self._clock = context.clock
        self._wake_at = context.wake_at
        self._woken_at_ms: int | None = None  # Processing time for which `wake_at` was called.
        self._event = TimerQueue(EVENT_TIMERS, context.keyed_backend, cursor)
        self._processing = TimerQueue(PROCESSING_TIMERS, context.keyed_backend, cursor)

    def register_event_time(self, time_ms: int) -> None:
        self._event.register(time_ms if type(time_ms) is int else _whole(time_ms))

    def register_processing_time(self, time_ms: int) -> None:
        if self._processing.register(time_ms if type(time_ms) is int else _whole(time_ms)):
            self.wake_for_next()

    def delete_event_time(self, time_ms: int) -> None:
        self._event.delete(time_ms if type(time_ms) is int else _whole(time_ms))

    def delete_processing_time(self, time_ms: int) -> None:
        self._processing.delete(time_ms if type(time_ms) is int else _whole(time_ms))

    def due_by_event_time(self) -> Iterator[int]:
        """Return one slice of the timers that the watermark has reached; see `TimerQueue.due`."""
        return self._event.due(self.current_watermark, TIMERS_PER_SLICE_MAX)

    @property
    def watermark_settled(self) -> bool:
        """True when no timer is left that the watermark has reached."""
        next_ms = self._event.next_ms
        return next_ms is None or next_ms > self.current_watermark

    def due_by_processing_time(self) -> Iterator[int]:
        """Return one slice of the timers whose wall time has come; `wake_for_next` must follow."""
        self._woken_at_ms = None
        return self._processing.due(self._time.now_ms(), TIMERS_PER_SLICE_MAX)

    def wake_for_next(self) -> None:
        """See to it that the operator is woken when the next timer of processing time is due."""
        next_ms = self._processing.next_ms
        if next_ms is None or (self._woken_at_ms is not None and self._woken_at_ms <= next_ms):
            return
        self._woken_at_ms = next_ms
        self._wake_at(self._clock.monotonic_ms() + max(next_ms - self._time.now_ms(), 0))


def _whole(time_ms: Any) -> int:
    """Return a time as an exact int, also one of another integer type."""
    try:
        return index(time_ms)
    except TypeError:
        raise StateError(
            "time of a timer is not a whole number",
            hint="pass ms since the epoch, int(moment.timestamp() * 1000)",
            time=time_ms,
        ) from None
