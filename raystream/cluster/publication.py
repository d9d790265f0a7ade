"""What clients of a job wait for: its newest view, and what its sinks send to them.

The job master's thread publishes, coroutines of its actor wait; neither ever blocks the other.

Output is a queue and not a topic: what one client has taken is gone for the others, so that
a job that prints for months keeps only what nobody has fetched yet, and that within a bound.
A client names the last output that it has got, and only then it is dropped, so an
answer that is lost on the way loses nothing.  Knows no Ray.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from raystream.ids import OperatorUid
from raystream.runtime.coordinator_view import JobView

OUTPUT_BYTES_MAX = 256 << 20
"""Output that waits for a client; the oldest is dropped when there is more."""
OUTPUT_BYTES_PER_UPDATE_MAX = 8 << 20
"""Output in one answer, unless a single one is larger."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client has got already."""

    version: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a client has not got yet."""

    seen: Seen
    """To be given with the next question."""
    view: JobView
    outputs: tuple[tuple[OperatorUid, Any], ...]
    lost: int
    """Outputs before these that were dropped because nobody had fetched them in time."""
    complete: bool
    """There is no more output for now."""


class Publication:
    """The public state of a job; `publish` and `add_output` from any thread."""

    def __init__(self, view: JobView) -> None:
        self._lock = threading.Lock()
        self._version = 1
        self._view = view
        self._outputs: deque[tuple[int, OperatorUid, Any, int]] = deque()
        self._output_number = 0
        self._output_bytes = 0
        self._dropped = 0  # Number of the newest output that was dropped unseen.
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @property
    def view(self) -> JobView:
        """The newest view."""
        return self._view

    def publish(self, view: JobView) -> None:
        """Show a new view to everybody who waits; nothing happens when it is the old one."""
        with self._lock:
            if view != self._view:
                self._view = view
                self._version += 1
                self._wake()

    def add_output(self, uid: OperatorUid, payload: list[str] | bytes) -> None:
        """Queue what a sink sends to the client."""
        size_bytes = len(payload) if isinstance(payload, bytes) else sum(map(len, payload))
        with self._lock:
            self._output_number += 1
            self._outputs.append((self._output_number, uid, payload, size_bytes))
            self._output_bytes += size_bytes
            while self._output_bytes > OUTPUT_BYTES_MAX and len(self._outputs) > 1:
                self._dropped = self._drop_oldest()
            self._wake()

    async def update(self, seen: Seen, timeout_s: float) -> Update:
        """Return what the client has not seen, as soon as there is something or the time is over."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        with self._lock:
            self._forget(seen.output)
            if self._version > seen.version or self._outputs:
                return self._update(seen)
            self._waiters.append(waiter)
        try:
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            pass
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            return self._update(seen)

    def _update(self, seen: Seen) -> Update:
        outputs: list[tuple[OperatorUid, Any]] = []
        room_bytes, last = OUTPUT_BYTES_PER_UPDATE_MAX, seen.output
        for number, uid, payload, size_bytes in self._outputs:
            if outputs and size_bytes > room_bytes:
                break
            room_bytes -= size_bytes
            outputs.append((uid, payload))
            last = number
        return Update(
            seen=Seen(self._version, max(last, self._dropped)),
            view=self._view,
            outputs=tuple(outputs),
            lost=max(self._dropped - seen.output, 0),
            complete=len(outputs) == len(self._outputs),
        )

    def _forget(self, output: int) -> None:
        """Drop what a client has got."""
        while self._outputs and self._outputs[0][0] <= output:
            self._drop_oldest()

    def _drop_oldest(self) -> int:
        number, _, _, size_bytes = self._outputs.popleft()
        self._output_bytes -= size_bytes
        return number

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for loop, event in waiters:
            loop.call_soon_threadsafe(event.set)
