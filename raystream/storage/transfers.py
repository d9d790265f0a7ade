"""Several files on their way at once: a bounded number for each slot.

Only where the store gains by it.  On a disk they go one after the other in the caller's thread, and so they
do in the simulation, whose order of calls must not depend on threads.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")

TRANSFERS_AT_ONCE = 4
"""Files that one slot has on their way; of each of them some pieces are in memory."""


class Transfers:
    """What one slot has on its way, of any number of snapshots.

    The threads are daemons, which `concurrent.futures` does not offer: a store that hangs must not keep the
    process alive.
    """

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(TRANSFERS_AT_ONCE)

    def each(self, work: Callable[[A], T], items: Iterable[A]) -> list[T]:
        """Return the work's result for each item, in the order of the items; the work asks for no other.

        An error is raised when nothing of this is under way any more; what had not begun never does.
        """
        waiting = deque(enumerate(items))
        results: dict[int, T] = {}
        errors: dict[int, BaseException] = {}

        def serve() -> None:
            while waiting and not errors:
                with self._places:
                    try:
                        number, item = waiting.popleft()
                    except IndexError:
                        return  # Another thread was faster.
                    try:
                        results[number] = work(item)
                    except BaseException as error:  # Raised where the results are waited for.
                        errors[number] = error

        count = min(len(waiting), TRANSFERS_AT_ONCE)
        threads = [threading.Thread(target=serve, name=f"transfer-{n}", daemon=True) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[min(errors)]
        return [results[number] for number in range(len(results))]
