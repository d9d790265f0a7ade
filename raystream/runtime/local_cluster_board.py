"""Where the thread of a local job leaves what its clients wait for: views, and output of sinks.

One thread writes, any number wait.  Output is a queue: what one client has taken is gone for the
others.  It is bounded: with a client that waits, the job waits for it to take some; without
one the oldest output is dropped.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from raystream.api.runner import OutputListener
from raystream.clock import Clock
from raystream.errors import RaystreamError
from raystream.ids import JobStatus, OperatorUid
from raystream.runtime.coordinator_view import JobView

logger = logging.getLogger(__name__)

OUTPUT_BYTES_MAX = 64 << 20
"""Output that waits for a client."""

Output = tuple[OperatorUid, list[str] | bytes]


class LocalBoard:
    """The public state of a local job.

    Args:
        clock: for how long clients wait, and how old a view is.
        view: the first one.
    """

    def __init__(self, clock: Clock, view: JobView) -> None:
        self._clock = clock
        self._view = view
        self._published_ms = clock.monotonic_ms()
        self._changed = threading.Condition()
        self._outputs: deque[Output] = deque()
        self._output_bytes = 0
        self._takers = 0  # Clients that take output now.

    @property
    def view(self) -> JobView:
        """The newest view; the duration of a job that runs goes on."""
        with self._changed:
            view, age_ms = self._view, self._clock.monotonic_ms() - self._published_ms
        return view if view.status.terminal else replace(view, duration_ms=view.duration_ms + round(age_ms))

    def publish(self, view: JobView) -> None:
        """Show a new view."""
        with self._changed:
            self._view, self._published_ms = view, self._clock.monotonic_ms()
            self._changed.notify_all()

    def break_down(self, error: RaystreamError) -> None:
        """Show that the job has failed, whatever it was doing."""
        self.publish(replace(self.view, status=JobStatus.FAILED, error=error))

    def add_output(self, uid: OperatorUid, payload: list[str] | bytes) -> None:
        """Queue what a sink sends to the client; waits while a client has too much to take."""
        with self._changed:
            self._outputs.append((uid, payload))
            self._output_bytes += _size(payload)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._takers or self._output_bytes <= OUTPUT_BYTES_MAX)
            while self._output_bytes > OUTPUT_BYTES_MAX:
                self._output_bytes -= _size(self._outputs.popleft()[1])
                logger.warning("output of a sink is dropped, since no client takes it")

    def wait_until(
        self,
        condition: Callable[[JobView], bool],
        timeout_s: float | None,
        listener: OutputListener | None = None,
    ) -> JobView:
        """Return the first view that fulfils a condition, after the listener has got all output before it.

        Raises:
            TimeoutError: the time is over.
        """
        deadline_ms = None if timeout_s is None else self._clock.monotonic_ms() + timeout_s * 1000
        self._takes_output(listener is not None)
        try:
            while True:
                output, view = self._await_news(condition, deadline_ms, listener is not None)
                if output is None:
                    return view
                assert listener is not None, "output is taken only for a listener"
                listener(*output)
        finally:
            self._takes_output(listener is not None, ended=True)

    def _await_news(
        self, condition: Callable[[JobView], bool], deadline_ms: float | None, takes_output: bool
    ) -> tuple[Output | None, JobView]:
        """Wait; return the oldest output, or None and the right view when there is none."""
        with self._changed:
            timeout_s = (
                None if deadline_ms is None else max(deadline_ms - self._clock.monotonic_ms(), 0.0) / 1000
            )
            if not self._changed.wait_for(
                lambda: condition(self._view) or (takes_output and self._outputs), timeout_s
            ):
                raise TimeoutError("job is not that far yet")
            if not takes_output or not self._outputs:
                return None, self._view
            output = self._outputs.popleft()
            self._output_bytes -= _size(output[1])
            self._changed.notify_all()
            return output, self._view

    def _takes_output(self, takes: bool, *, ended: bool = False) -> None:
        with self._changed:
            self._takers += takes * (-1 if ended else 1)
            self._changed.notify_all()


def _size(payload: list[str] | bytes) -> int:
    return len(payload) if isinstance(payload, bytes) else sum(map(len, payload))
