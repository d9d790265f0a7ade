"""The only place where raystream reads a clock.

Durations come from `monotonic_ms`; wall time is for people, for processing time
and for TTL, and never runs backwards within one clock.  The simulation passes a
virtual clock instead.
"""

import time
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
        self._wall_floor_ms = max(self._wall_floor_ms, time.time_ns() // 1_000_000)
        return self._wall_floor_ms
