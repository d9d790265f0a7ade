"""The slots of a job that has ended: given back, and waited for before anything is deleted.

A process that is killed or still closing writes as long as it lives.  The wait has a bound: a node
that cannot be reached does not keep a job from ending.
"""

import logging
from collections.abc import Callable
from functools import partial

from raystream.runtime.coordinator_services import SlotPool

logger = logging.getLogger(__name__)

RELEASE_WAIT_MS = 15_000.0
"""Time that the processes of the slots have to be gone before files are deleted all the same."""


def release_slots(
    slots: SlotPool, later: Callable[[float, Callable[[], None]], None], gone: Callable[[], None]
) -> None:
    """Give all slots back, and call `gone` once: when their processes have ended, or the time is over.

    Args:
        slots: the slots.
        later: makes a call after a time in ms.
        gone: what follows.
    """
    waits = True

    def go_on(*, late: bool) -> None:
        nonlocal waits
        if waits:
            waits = False
            if late:
                logger.warning("processes of slots may be left and write files after the end of the job")
            gone()

    slots.release(partial(go_on, late=False))
    later(RELEASE_WAIT_MS, partial(go_on, late=True))
