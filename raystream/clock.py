"""The only place where raystream reads a clock.

Durations come from `monotonic_ms`; wall time is for people, for processing time
and for TTL, and never runs backwards within one clock.  The simulation passes a
virtual clock instead.
"""

import time
from enum import Enum
from typing import Protocol


class Clock(Protocol):
    """What the runtime needs to know about time."""

    def monotonic_ms(self) -> float:
        """Return milliseconds since an arbitrary fixed point; never decreases."""

    def wall_ms(self) -> int:
        """Return milliseconds since the epoch; never decreases within one clock."""


class SystemClock:
    """The clock of this machine."""

    def __init__(self) -> None:
        self._wall_floor_ms = 0

    def monotonic_ms(self) -> float:
        return time.monotonic() * 1000.0

    def wall_ms(self) -> int:
        # Asked for each access to state that has a time to live: without `max`, in half the time.
        now_ms = time.time_ns() // 1_000_000
        if now_ms > self._wall_floor_ms:  # noqa: PLR1730 - twice as fast
            self._wall_floor_ms = now_ms
        return self._wall_floor_ms


class TimeDomain(Enum):
    """Which time a timer, or a time to live, goes by."""

    EVENT_TIME = "event-time"
    """The watermark."""
    PROCESSING_TIME = "processing-time"
    """The wall clock of the slot."""


class ProcessingTime:
    """Processing time of one subtask: wall time that never falls below a floor.

    The floor is what was read last, or the time of the snapshot that was restored, whichever is later,
    so that neither a clock that is set back nor a move to another machine makes state younger.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._floor_ms = 0

    def now_ms(self) -> int:
        """Return milliseconds since the epoch; never decreases."""
        now_ms = self._clock.wall_ms()
        if now_ms > self._floor_ms:  # noqa: PLR1730 - twice as fast
            self._floor_ms = now_ms
        return self._floor_ms

    def written_ms(self) -> int:
        """Return the time of writing that state which is written now gets."""
        return self.now_ms()

    def raise_floor(self, floor_ms: int) -> None:
        """Let time go on from `floor_ms` at least."""
        self._floor_ms = max(self._floor_ms, floor_ms)
