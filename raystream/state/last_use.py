"""Work in a thread and the owner that may be closed meanwhile: whichever of the two ends last cleans up."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raystream.errors import StateError


class LastUse:
    """Tells the work that the owner was closed, and either of them whether it is the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working = False
        self._closed = False

    def check(self) -> None:
        """Raise a `StateError` once the owner was closed; from any thread."""
        if self._closed:
            raise _closed()

    @contextmanager
    def working(self, clean_up: Callable[[], None]) -> Iterator[None]:
        """Surround the work, of which there is one at a time; it calls `check` as often as it can.

        Raises:
            StateError: the owner was closed, before or meanwhile; whatever the work has made is useless.
        """
        with self._lock:
            if self._closed:
                raise _closed()
            self._working = True
        try:
            yield
            self.check()
        finally:
            with self._lock:
                self._working = False
                last = self._closed
            if last:
                clean_up()

    def close(self, clean_up: Callable[[], None]) -> None:
        """Close the owner, and clean up unless work is under way, which does it then; may be called again."""
        with self._lock:
            last = not self._closed and not self._working
            self._closed = True
        if last:
            clean_up()


def _closed() -> StateError:
    return StateError("backend of the state was closed")
