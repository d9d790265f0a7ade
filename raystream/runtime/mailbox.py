"""The way into a single-threaded loop from other threads.

A mailbox holds calls that the loop makes on its own thread, in the order in which they
were posted.  Nothing else crosses threads.
"""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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

    Args:
        mailbox: where `done` calls go.
        name: prefix of the threads' names.
        threads_max: bound on work under way; more waits its turn.
    """

    def __init__(self, mailbox: Mailbox, *, name: str, threads_max: int) -> None:
        self._mailbox = mailbox
        self._pool = ThreadPoolExecutor(threads_max, thread_name_prefix=name)

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Call `work` in a thread, then `done` with its result or its exception on the owner's loop."""
        self._pool.submit(self._run, work, done)

    def close(self) -> None:
        """Let running work end by itself; nothing new starts."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for the end of running work, after `close`; blocks."""
        self._pool.shutdown(wait=True)

    def _run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        result: Any
        try:
            result = work()
        except BaseException as error:
            result = as_exception(error)
        self._mailbox.post(partial(done, result))
        del work, done, result  # An error's traceback holds this frame, which would hold the error.
