"""Reports of a slot on their way to the job master: one call at a time, in order.

Ray keeps the order of calls only for an actor that runs one at a time, which the job master
does not.  So there is never more than one call under way, and what is reported meanwhile
goes with the next one: that keeps the order, and batches when the job master is slow.

A thread of its own makes the calls.  They could be chained by callbacks, but Ray runs those
on the thread that does its I/O, and a call with large arguments waits for that I/O.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

from raystream.runtime.messages import Report

logger = logging.getLogger(__name__)

REPORTS_PER_CALL_MAX = 1_000
REPORTS_WAITING_MAX = 20_000
"""A loop that reports faster than the job master takes it, such as one that prints every record,
waits here: the alternative is memory without bound."""
CALLS_PER_BATCH_MAX = 5
"""Times that a batch is sent when the job master cannot be reached for a moment."""


class UnreachableError(Exception):
    """The call may have arrived or not; it is safe to repeat, since the batch carries its number."""


class Outbox:
    """Takes reports from the slot's loop and hands them over from its own thread.

    Args:
        call: delivers a batch under its number, from 1, and returns when it was taken; raises
            `UnreachableError` when it is worth another try.
        gone: called once, with what `call` raised, when there is nobody to report to.
    """

    def __init__(self, call: Callable[[int, list[Report]], None], gone: Callable[[Exception], None]) -> None:
        self._call = call
        self._gone = gone
        self._changed = threading.Condition()
        self._waiting: deque[Report] = deque()
        self._closed = False
        self._batches = 0

    def put(self, report: Report) -> None:
        """Let a report be delivered soon; from any thread."""
        with self._changed:
            while len(self._waiting) >= REPORTS_WAITING_MAX and not self._closed:
                self._changed.wait()
            self._waiting.append(report)
            self._changed.notify_all()

    def run(self) -> None:
        """Deliver reports until `close`, or until nobody takes them."""
        while batch := self._take():
            self._batches += 1
            try:
                self._deliver(batch)
            except Exception as error:
                self.close()
                self._gone(error)

    def close(self) -> None:
        """Drop what is not yet delivered; from any thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self) -> list[Report]:
        """Wait for reports; nothing means that the outbox is closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            count = min(len(self._waiting), REPORTS_PER_CALL_MAX)
            batch = [self._waiting.popleft() for _ in range(count)]
            self._changed.notify_all()
            return batch

    def _deliver(self, batch: list[Report]) -> None:
        for tries_left in reversed(range(CALLS_PER_BATCH_MAX)):
            try:
                self._call(self._batches, batch)
                return
            except UnreachableError:
                if not tries_left:
                    raise
                logger.warning("job master not reached, trying again", extra={"batch": self._batches})
