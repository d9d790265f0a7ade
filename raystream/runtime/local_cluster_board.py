"""Where the thread of a local job leaves what its clients wait for: views, and output of sinks.

One thread writes, any number wait.  Output is a queue: what one client has taken is gone for the
others.  It is bounded: with a client that waits, the job waits for it to take some; without
one the oldest output is dropped.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from raystream.api.runner import OutputListener
from raystream.ids import OperatorUid
from raystream.runtime.coordinator_view import JobView

logger = logging.getLogger(__name__)

OUTPUT_BYTES_MAX = 64 << 20
"""Output that waits for a client."""

Output = tuple[OperatorUid, list[str] | bytes]


class LocalBoard:
    """The public state of a local job."""

    def __init__(self, view: JobView) -> None:
        self._view = view
        self._changed = threading.Condition()
        self._outputs: deque[Output] = deque()
        self._output_bytes = 0
        self._takers = 0  # Clients that take output now.

    @property
    def view(self) -> JobView:
        """The newest view."""
        return self._view

    def publish(self, view: JobView) -> None:
        """Show a new view."""
        with self._changed:
            self._view = view
            self._changed.notify_all()

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
        deadline_s = None if timeout_s is None else _now_s() + timeout_s
        self._takes_output(listener is not None)
        try:
            while True:
                outputs, view = self._await_news(condition, deadline_s, listener is not None)
                for uid, payload in outputs:
                    assert listener is not None, "output is taken only for a listener"
                    listener(uid, payload)
                if not outputs and condition(view):
                    return view
        finally:
            self._takes_output(listener is not None, ended=True)

    def _await_news(
        self, condition: Callable[[JobView], bool], deadline_s: float | None, takes_output: bool
    ) -> tuple[list[Output], JobView]:
        """Wait for output or for the right view; return all output there is, and the view then."""
        with self._changed:
            timeout_s = None if deadline_s is None else max(deadline_s - _now_s(), 0.0)
            if not self._changed.wait_for(
                lambda: condition(self._view) or (takes_output and self._outputs), timeout_s
            ):
                raise TimeoutError("job is not that far yet")
            outputs = list(self._outputs) if takes_output else []
            if outputs:
                self._outputs.clear()
                self._output_bytes = 0
                self._changed.notify_all()
            return outputs, self._view

    def _takes_output(self, takes: bool, *, ended: bool = False) -> None:
        with self._changed:
            self._takers += takes * (-1 if ended else 1)
            self._changed.notify_all()


def with_age(view: JobView, age_ms: float) -> JobView:
    """Return a view of a job that has run on since."""
    if view.status.terminal:
        return view
    return replace(view, duration_ms=view.duration_ms + round(age_ms))


def _size(payload: list[str] | bytes) -> int:
    return len(payload) if isinstance(payload, bytes) else sum(map(len, payload))


def _now_s() -> float:
    return time.monotonic()
