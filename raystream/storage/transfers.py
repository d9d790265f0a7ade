"""Several files on their way at once: a bounded number for each slot.

Only where the store gains by it.  On a disk they go one after the other in the caller's thread, and so they
do in the simulation, whose order of calls must not depend on threads.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")

TRANSFERS_AT_ONCE = 4
"""Files that one slot has on their way; of each of them some pieces are in memory."""


class Transfers:
    """The threads of one slot that wait for a store; none of them exists before it is needed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(TRANSFERS_AT_ONCE, thread_name_prefix="raystream-transfer")

    def each(self, work: Callable[[A], T], items: Iterable[A]) -> list[T]:
        """Return the work's result for each item, in the order of the items; the work asks for no other.

        The first error is raised when nothing of this is under way any more; what had not begun never does.
        """
        futures = [self._pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)
