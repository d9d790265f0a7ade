"""The way into a single-threaded loop from other threads.

A mailbox holds calls that the loop makes on its own thread, in the order in which they
were posted.  Nothing else crosses threads.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from raystream.operators.user_code import as_exception

logger = logging.getLogger(__name__)

Call = Callable[[], None]


class Mailbox:
    """An ordered queue of calls; `post` from any thread, `take` on the loop's thread.

    Args:
        wake: interrupts the loop's wait; called after each post, from the posting thread.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._calls: deque[Call] = deque()
        self._wake = wake

    def post(self, call: Call) -> None:
        """Let the loop make this call soon."""
        self._calls.append(call)
        self._wake()

    def __len__(self) -> int:
        return len(self._calls)

    def take(self) -> Call | None:
        """Return the oldest call, or None."""
        return self._calls.popleft() if self._calls else None

    def run_pending(self) -> bool:
        """Make the calls that were waiting when this was called; True when there were any."""
        count = len(self._calls)
        for _ in range(count):
            self._calls.popleft()()
        return count > 0


class ThreadBackground:
    """Runs blocking work of one kind in a few threads and posts the outcome to the owner's mailbox.

    The threads are daemons, which `concurrent.futures` does not offer: work that hangs ends with the
    process and does not keep it alive.  Whoever needs the end of running work asks for it by `join`.

    Args:
        mailbox: where `done` calls go.
        name: prefix of the threads' names.
        threads_max: bound on work under way, and on threads, which start on demand; more waits its turn.
    """

    def __init__(self, mailbox: Mailbox, *, name: str, threads_max: int) -> None:
        self._mailbox = mailbox
        self._name = name
        self._threads_max = threads_max
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._idle = 0  # Threads that wait for work.
        self._closed = False

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Call `work` in a thread, then `done` with its result or its exception on the owner's loop.

        After `close` neither is called.
        """
        with self._changed:
            if self._closed:
                return
            self._waiting.append((work, done))
            self._changed.notify()
            if len(self._waiting) > self._idle and len(self._threads) < self._threads_max:
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self) -> None:
        """Let running work end by itself; nothing new starts."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of running work, after `close`; False when it has not come in time.  Blocks."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._threads, timeout_s)

    def _serve(self) -> None:
        while self._run_next():
            pass
        with self._changed:
            self._threads.remove(threading.current_thread())
            self._changed.notify_all()

    def _run_next(self) -> bool:
        """Wait for work and do it; False when there will be none."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._idle -= 1
            if self._closed:
                return False
            work, done = self._waiting.popleft()
        result: Any
        try:
            result = work()
        except BaseException as error:
            result = as_exception(error)
        self._mailbox.post(partial(done, result))
        del work, done, result  # An error's traceback holds this frame, which would hold the error.
        return True
