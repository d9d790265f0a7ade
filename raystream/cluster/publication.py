"""What clients of a job wait for: its newest view, and what its sinks send to them.

The job master's thread publishes, coroutines of its actor wait; neither ever blocks the other.

Output is a queue and not a topic: what one client has taken is gone for the others, so that
a job that prints for months keeps only what nobody has fetched yet, and that within a bound.
A client names the last output that it has got, and only then it is dropped, so an
answer that is lost on the way loses nothing.  Knows no Ray.
"""

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raystream.ids import OperatorUid, SlotId
from raystream.runtime.coordinator_view import JobView
from raystream.runtime.messages import Progress

OUTPUT_BYTES_MAX = 256 << 20
"""Output that waits for a client; the oldest is dropped when there is more."""
RECOVERY_PATIENCE_S = 5.0
"""Time for which it is not said how a job stands that another job master had, until its log is read."""
OUTPUT_BYTES_PER_UPDATE_MAX = 8 << 20
"""Output in one answer, unless a single one is larger."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client has got already."""

    version: int = 0
    output: int | None = 0
    """None for a client that leaves the output to others."""
    life: str = ""
    """Which life of the job master has said so; of another one the client has seen nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a client has not got yet."""

    seen: Seen
    """To be given with the next question."""
    view: JobView
    outputs: tuple[tuple[OperatorUid, Any], ...]
    lost_lines: int
    """Printed lines before these that were dropped because nobody had fetched them in time."""
    lost_values: int
    """Collected batches before these, likewise."""
    complete: bool
    """There is no more output for now."""


class Publication:
    """The public state of a job; `publish` and `add_output` from any thread."""

    def __init__(self, view: JobView) -> None:
        self.progress: Mapping[SlotId, Progress] = {}
        """What each slot has reported last; never changed, but replaced."""
        self._lock = threading.Lock()
        self._life = secrets.token_hex(8)
        self._version = 1
        self._view = view
        self._outputs: deque[tuple[int, OperatorUid, Any, int]] = deque()
        self._output_number = 0
        self._output_bytes = 0
        self._dropped = 0  # Number of the newest output that was dropped unseen.
        self._lost_lines = 0
        self._lost_values = 0
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @property
    def life(self) -> str:
        """What tells this from the publications of earlier job masters of the job."""
        return self._life

    @property
    def view(self) -> JobView:
        """The newest view."""
        return self._view

    def publish(self, view: JobView, *, news: bool) -> None:
        """Show a new view; those who wait are woken only if it has news and not just higher counts."""
        with self._lock:
            news = news or (self._view.recovering and not view.recovering)
            self._view = view
            if news:
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
                self._lose_oldest()
            self._wake()

    async def known_view(self) -> JobView:
        """Return the newest view; of a job that is being recovered once that is over, or has taken long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._recovered(), RECOVERY_PATIENCE_S)
        return self._view

    async def _recovered(self) -> None:
        seen = Seen(output=None)
        while self._view.recovering:
            seen = (await self.update(seen, RECOVERY_PATIENCE_S)).seen

    async def update(self, seen: Seen, timeout_s: float) -> Update:
        """Return what the client has not seen, as soon as there is something or the time is over.

        A client that does not take output, since its `seen.output` is None, gets the view alone.
        """
        if seen.life != self._life:
            seen = Seen(output=None if seen.output is None else 0, life=self._life)
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        with self._lock:
            self._forget(seen)
            if self._version > seen.version or (self._outputs and seen.output is not None):
                return self._update(seen)
            self._waiters.append(waiter)
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), timeout_s)
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            return self._update(seen)

    def _update(self, seen: Seen) -> Update:
        if seen.output is None:
            return Update(
                seen=Seen(self._version, None, self._life),
                view=self._view,
                outputs=(),
                lost_lines=0,
                lost_values=0,
                complete=True,
            )
        outputs: list[tuple[OperatorUid, Any]] = []
        known = seen.output >= self._dropped  # Nothing was dropped that the client has not got.
        room_bytes, last = OUTPUT_BYTES_PER_UPDATE_MAX, max(seen.output, self._dropped)
        for number, uid, payload, size_bytes in self._outputs:
            if outputs and size_bytes > room_bytes:
                break
            room_bytes -= size_bytes
            outputs.append((uid, payload))
            last = number
        return Update(
            seen=Seen(self._version, last, self._life),
            view=self._view,
            outputs=tuple(outputs),
            lost_lines=0 if known else self._lost_lines,
            lost_values=0 if known else self._lost_values,
            complete=len(outputs) == len(self._outputs),
        )

    def _forget(self, seen: Seen) -> None:
        """Drop what a client has got."""
        while seen.output is not None and self._outputs and self._outputs[0][0] <= seen.output:
            self._drop_oldest()

    def _lose_oldest(self) -> None:
        self._dropped, _, payload, _ = self._outputs[0]
        if isinstance(payload, bytes):
            self._lost_values += 1
        else:
            self._lost_lines += len(payload)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._output_bytes -= self._outputs.popleft()[3]

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for loop, event in waiters:
            loop.call_soon_threadsafe(event.set)
