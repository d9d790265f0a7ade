"""What the end of a job waits for: the slots are given back, then files deleted, then an archive written.

A process that is killed or still closing writes as long as it lives, so the slots come before the
files.  Every wait has a bound: neither a node that cannot be reached nor a store that does not answer
keeps a job from ending.
"""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from raystream.ids import SlotId
from raystream.operators.operator import Background
from raystream.runtime.coordinator_log import Later
from raystream.runtime.coordinator_services import SlotPool

logger = logging.getLogger(__name__)

RELEASE_WAIT_MS = 15_000.0
"""Time that the processes of the slots have to be gone before files are deleted all the same."""
DELETION_WAIT_MS = 20_000.0
"""Time that the deletions of a job that has ended have; those under way then go on for themselves."""
ARCHIVE_WAIT_MS = 10_000.0
"""Time that the archive has to be written before the job has ended without it."""


def go_on_within(
    limit_ms: float,
    begin: Callable[[Callable[[], None]], None],
    go_on: Callable[[], None],
    *,
    later: Later,
    late: str,
) -> None:
    """Begin something, and go on once: when it says that it is over, or when its time is.

    Args:
        limit_ms: its time.
        begin: begins it; takes what it calls when it is over.
        go_on: what follows.
        later: makes a call after a time in ms.
        late: what to warn of when the time is over.
    """
    waits = True

    def end(*, in_time: bool) -> None:
        nonlocal waits
        if waits:
            waits = False
            if not in_time:
                logger.warning(late)
            go_on()

    begin(partial(end, in_time=True))
    if waits:
        later(limit_ms, partial(end, in_time=False))


def release_slots(slots: SlotPool, later: Later, gone: Callable[[], None]) -> None:
    """Give all slots back, and call `gone` once: when their processes have ended, or the time is over."""
    late = "processes of slots may be left and write files after the end of the job"
    go_on_within(RELEASE_WAIT_MS, slots.release, gone, later=later, late=late)


def abandon_slots(slots: SlotPool, busy: Iterable[SlotId]) -> None:
    """Kill processes at once, and give all others back, without an answer."""
    for slot in busy:
        slots.kill(slot)
    slots.release(lambda: None)


class Deletions:
    """Deletes files that nothing needs any more, in threads of their own, and knows when that is over.

    Nothing but the end of a job waits for it, and that not for ever.

    Args:
        background: threads that nothing else needs: deletions may hang.
        later: for the bound of the last wait.
    """

    def __init__(self, background: Background, later: Later) -> None:
        self._background = background
        self._later = later
        self._under_way = 0
        self._tell_over: Callable[[], None] | None = None

    def submit(
        self,
        work: Callable[[], object],
        *,
        failed: str,
        done: Callable[[], None] = lambda: None,
        undone: Callable[[], None] = lambda: None,
    ) -> None:
        """Delete something.

        Args:
            work: deletes; blocks.
            failed: what to warn of when it raises.
            done: called when it has not.
            undone: called when it has.
        """

        def ended(result: Any) -> None:
            self._under_way -= 1
            if isinstance(result, Exception):
                logger.warning(failed, exc_info=result)
                undone()
            else:
                done()
            self._tell_if_over()

        self._under_way += 1
        self._background.submit(work, ended)

    def awaiting(self, done: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return what gives the outcome of a write to `done`, which may want the file deleted.

        Until it is called, deletions are not over.
        """

        def ended(result: Any) -> None:
            done(result)
            self._under_way -= 1
            self._tell_if_over()

        self._under_way += 1
        return ended

    def when_over(self, call: Callable[[], None]) -> None:
        """Make a call once: when everything that was submitted is done, or the time is over."""

        def wait(over: Callable[[], None]) -> None:
            self._tell_over = over
            self._tell_if_over()

        late = "deletions have not ended in time: files of the job may stay"
        go_on_within(DELETION_WAIT_MS, wait, call, later=self._later, late=late)

    def _tell_if_over(self) -> None:
        if self._tell_over is not None and not self._under_way:
            tell, self._tell_over = self._tell_over, None
            tell()
