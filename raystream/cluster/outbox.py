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

from raystream.handles import InlineHandle, SubtaskSnapshot, blobs_in
from raystream.runtime.messages import ClientOutput, Report, SnapshotAcked

logger = logging.getLogger(__name__)

REPORTS_PER_CALL_MAX = 1_000
BYTES_PER_CALL_MAX = 16 << 20
"""A report may carry a whole inlined snapshot, or the lines that a sink prints.  A call takes one
report of any size."""
REPORTS_WAITING_MAX = 20_000
BYTES_WAITING_MAX = 64 << 20
"""A loop that prints every record may do so faster than the job master takes it.  It waits here: the
alternative is memory without bound.  Nothing but `ClientOutput` waits, for how an attempt goes on may
depend on any other report; of those there are as many as subtasks, pending checkpoints and seconds."""
REPORT_BYTES = 256
"""What a report is taken for that carries nothing."""
RETRY_DELAYS_S = (0.1, 0.5, 2.0, 5.0)
"""Pauses before a batch is sent again when the job master cannot be reached for a moment."""


class UnreachableError(Exception):
    """The call may have arrived or not; it is safe to repeat, since the batch carries its number."""


class Outbox:
    """Takes reports from the slot's loop and hands them over from its own thread.

    Args:
        call: delivers a batch under its number, from 1, and returns when it was taken; raises
            `UnreachableError` when it is worth another try.
        gone: called once, with what `call` raised, when there is nobody to report to.
        pause: waits before another try, for a time in seconds; by default until `close` at most.
    """

    def __init__(
        self,
        call: Callable[[int, list[Report]], None],
        gone: Callable[[BaseException], None],
        *,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._call = call
        self._gone = gone
        self._pause = pause or self._wait_for_close
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Report, int]] = deque()  # With its bytes.
        self._waiting_bytes = 0
        self._closed = False
        self._batches = 0

    def put(self, report: Report) -> None:
        """Let a report be delivered soon, behind all before it; from any thread.

        Waits for room when it is for the client (`ClientOutput`); never blocks for any other report.
        """
        size_bytes = report_bytes(report)
        with self._changed:
            while isinstance(report, ClientOutput) and self._full and not self._closed:
                self._changed.wait()
            self._waiting.append((report, size_bytes))
            self._waiting_bytes += size_bytes
            self._changed.notify_all()

    def run(self) -> None:
        """Deliver reports until `close`, or until nobody takes them."""
        while batch := self._take():
            self._batches += 1
            try:
                self._deliver(batch)
            except BaseException as error:
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
            batch: list[Report] = []
            room_bytes = BYTES_PER_CALL_MAX
            while self._waiting and len(batch) < REPORTS_PER_CALL_MAX:
                report, size_bytes = self._waiting[0]
                if batch and size_bytes > room_bytes:
                    break
                self._waiting.popleft()
                self._waiting_bytes -= size_bytes
                room_bytes -= size_bytes
                batch.append(report)
            self._changed.notify_all()
            return batch

    @property
    def _full(self) -> bool:
        return len(self._waiting) >= REPORTS_WAITING_MAX or self._waiting_bytes >= BYTES_WAITING_MAX

    def _deliver(self, batch: list[Report]) -> None:
        for delay_s in RETRY_DELAYS_S:
            try:
                self._call(self._batches, batch)
                return
            except UnreachableError:
                logger.warning("job master not reached, trying again", extra={"batch": self._batches})
            self._pause(delay_s)
        self._call(self._batches, batch)

    def _wait_for_close(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout_s)


def report_bytes(report: Report) -> int:
    """Return about how large a report is: what it carries, and a little for the rest."""
    match report:
        case ClientOutput(payload=payload):
            return REPORT_BYTES + (len(payload) if isinstance(payload, bytes) else sum(map(len, payload)))
        case SnapshotAcked(snapshot=snapshot):
            return REPORT_BYTES + _inlined_bytes(snapshot)
        case _:
            return REPORT_BYTES


def _inlined_bytes(snapshot: SubtaskSnapshot) -> int:
    return sum(len(blob.data) for blob in blobs_in(snapshot.operators) if isinstance(blob, InlineHandle))
