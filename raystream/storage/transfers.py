"""Several files, or pieces of one, on their way at once: a bounded number for each slot.

Only where the store gains by it.  On a disk they go one after the other in the caller's thread, and so they
do in the simulation, whose order of calls must not depend on threads.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")

TRANSFERS_AT_ONCE = 4
"""Files, or pieces of a file that is read, that one slot has on their way."""


class Transfers:
    """The threads of one slot that wait for a store; none of them exists before it is needed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(TRANSFERS_AT_ONCE, thread_name_prefix="raystream-transfer")

    def each(self, work: Callable[[A], T], items: Iterable[A]) -> list[T]:
        """Return the work's result for each item, in the order of the items.

        The first error is raised when nothing of this is under way any more; what had not begun never does.
        """
        futures = [self._pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def ahead(self, work: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
        """Yield the work's result for each item in order, while the next ones are on their way."""
        under_way: deque[Future[T]] = deque()
        try:
            for item in items:
                under_way.append(self._pool.submit(work, item))
                if len(under_way) == TRANSFERS_AT_ONCE:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


class OneByOne:
    """The same in the caller's thread."""

    def each(self, work: Callable[[A], T], items: Iterable[A]) -> list[T]:
        """Return the work's result for each item."""
        return list(map(work, items))

    def ahead(self, work: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
        """Yield the work's result for each item."""
        return map(work, items)
