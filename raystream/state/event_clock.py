"""Event time of one subtask, as state with a time to live goes by it.

*Now* is the watermark, once its timers have fired; while a timer of event time fires, it is the time of that
timer.  So how far watermarks are apart decides neither which state a timer finds nor, at the end of the
input, whether it finds any.  What is written gets the timestamp of the record, or now, whichever is later:
it can be read back, also by a late record.  Where nothing is known of event time, neither a watermark nor
a timestamp, it gets the wall clock, which is normally ahead: nothing is lost for that.

A snapshot carries the watermark, so that a restore makes nothing younger.
"""

from collections.abc import Sequence

from raystream.clock import ProcessingTime, TimeDomain
from raystream.records.elements import WATERMARK_MIN_MS
from raystream.state.cursor import KeyCursor


class EventClock:
    """Tells event time to the state of one subtask.

    Args:
        cursor: of the operator; knows the record or timer in hand.
        wall: stands in while nothing is known of event time.
    """

    __slots__ = ("_cursor", "_reached_ms", "_wall")

    def __init__(self, cursor: KeyCursor, wall: ProcessingTime) -> None:
        self._cursor = cursor
        self._wall = wall
        self._reached_ms = WATERMARK_MIN_MS

    def reached(self, watermark_ms: int) -> None:
        """Take in a watermark whose timers have fired."""
        self._reached_ms = max(self._reached_ms, watermark_ms)

    def restored(self, watermarks_ms: Sequence[int | None]) -> None:
        """Go on from the lowest watermark of some snapshots, if each of them has one."""
        known = [watermark_ms for watermark_ms in watermarks_ms if watermark_ms is not None]
        if known and len(known) == len(watermarks_ms):
            self.reached(min(known))

    def now_ms(self) -> int:
        """Return event time in ms since the epoch; the smallest 64-bit integer before the first watermark."""
        cursor = self._cursor
        if cursor.time_domain is TimeDomain.EVENT_TIME and cursor.timestamp is not None:
            return max(self._reached_ms, cursor.timestamp)
        return self._reached_ms

    def written_ms(self) -> int:
        """Return the time of writing that state which is written now gets."""
        cursor = self._cursor
        if cursor.timestamp is not None and cursor.time_domain is not TimeDomain.PROCESSING_TIME:
            return max(self._reached_ms, cursor.timestamp)
        return self._wall.now_ms() if self._reached_ms == WATERMARK_MIN_MS else self._reached_ms
