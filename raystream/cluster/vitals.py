"""Signs of life of a slot's process, and how a loop that is held up is told from a dead process.

The heartbeat is answered by a control thread, so it comes also while user code holds the
slot's loop; what the loop has done since the last one travels in it.  Knows no Ray.
"""

import logging
import resource
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raystream.clock import Clock
from raystream.errors import RaystreamError

logger = logging.getLogger(__name__)

HELD_MS_MIN = 5_000.0
"""A loop that has not come round for this long is reported with its stack."""

_STATM = Path("/proc/self/statm")
_STACK_FRAMES_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a slot's process says about itself."""

    rounds: int
    """Rounds of the loop so far."""
    held_ms: float
    """Time since the loop was last seen to come round or to wait for something to do."""
    stack: str
    """Where the loop is held up; empty while `held_ms` is small."""
    memory_bytes: int
    """Resident memory of the process."""


class LoopThread(threading.Thread):
    """The thread of a loop that is never to end; whoever asks after it learns that it has.

    Args:
        loop: the loop.
        name: of the thread.
    """

    def __init__(self, loop: Callable[[], None], *, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._call = loop
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run the loop, and keep what ends it."""
        try:
            self._call()
        except BaseException as error:
            logger.exception("loop of a slot ended")
            self._error = error

    def check(self) -> None:
        """Do nothing while the loop runs.

        Raises:
            RaystreamError: it does not.
        """
        if not self.is_alive():
            raise RaystreamError("loop of a slot ended", cause=repr(self._error)) from self._error


class LoopWatch:
    """Watches a loop from another thread.

    Args:
        clock: measures how long the loop is held up.
        rounds: returns the rounds of the loop so far.
        waiting: returns whether the loop waits because there is nothing to do.
        stack: returns where the loop is.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        rounds: Callable[[], int],
        waiting: Callable[[], bool],
        stack: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._rounds = rounds
        self._waiting = waiting
        self._stack = stack
        self._seen_rounds = -1
        self._seen_ms = clock.monotonic_ms()

    def heartbeat(self) -> Heartbeat:
        """Return how the loop has got on since the last call."""
        now_ms, rounds = self._clock.monotonic_ms(), self._rounds()
        if rounds != self._seen_rounds or self._waiting():
            self._seen_rounds, self._seen_ms = rounds, now_ms
        held_ms = now_ms - self._seen_ms
        return Heartbeat(
            rounds=rounds,
            held_ms=held_ms,
            stack=self._stack() if held_ms >= HELD_MS_MIN else "",
            memory_bytes=resident_bytes(),
        )


def stack_of(thread_id: int | None) -> str:
    """Return the innermost frames of a thread of this process, or nothing when it has ended."""
    frame = sys._current_frames().get(thread_id) if thread_id is not None else None
    return "".join(traceback.format_stack(frame)[-_STACK_FRAMES_MAX:]) if frame is not None else ""


def resident_bytes() -> int:
    """Return the resident memory of this process; where the system does not tell, its peak."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
