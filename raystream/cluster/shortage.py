"""What the slots of a job wait for that have no process yet: found out after a while, and told in words."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from raystream.clock import Clock
from raystream.cluster.incarnation import Incarnation
from raystream.cluster.resources import Needs, cluster_nodes, waiting_text
from raystream.ids import SlotId
from raystream.operators.operator import Background

logger = logging.getLogger(__name__)

WAIT_SHOWN_AFTER_MS = 5_000.0
"""A job that waits for its slots this long says what it waits for, and again after as long."""


class Shortage:
    """Looks at the cluster while slots wait; all methods on the owner's thread.

    Args:
        needs: what each slot reserves.
        waiting: gives the processes that are not there yet, and all slots of the job.
        placed: returns the numbers of processes that have a place already, and only start there; blocks.
        clock: says when to look.
        background: runs the look, which may hang.
        changed: called when `text` has changed.
    """

    def __init__(
        self,
        needs: Needs,
        waiting: Callable[[], tuple[Sequence[Incarnation], Sequence[SlotId]]],
        placed: Callable[[], frozenset[int]],
        *,
        clock: Clock,
        background: Background,
        changed: Callable[[], None],
    ) -> None:
        self._needs = needs
        self._waiting = waiting
        self._placed = placed
        self._clock = clock
        self._background = background
        self._changed = changed
        self.look_ms: float | None = None
        """When `step` has something to do, monotonic; None while nothing waits."""
        self.text = ""
        """What is waited for; empty when nothing is known."""

    def begin(self) -> None:
        """Slots wait from now on."""
        self.look_ms = self._clock.monotonic_ms() + WAIT_SHOWN_AFTER_MS

    def end(self) -> None:
        """No slot waits any more."""
        self.look_ms = None
        self._show("")

    def step(self) -> None:
        """Look, when that is due."""
        now_ms = self._clock.monotonic_ms()
        if self.look_ms is not None and now_ms >= self.look_ms:
            self.look_ms = now_ms + WAIT_SHOWN_AFTER_MS
            self._background.submit(lambda: (cluster_nodes(), self._placed()), self._looked)

    def _looked(self, looked: Any) -> None:
        missing, wanted = self._waiting()
        if not missing:
            self.end()  # They have started meanwhile, or are not wanted any more.
        if self.look_ms is None:
            return
        if isinstance(looked, Exception):
            self._show("Ray's head does not answer")
            return
        nodes, placed = looked
        without = [self._needs(one.slot) for one in missing if one.incarnation not in placed]
        if without:
            self._show(waiting_text(without, [*map(self._needs, wanted)], nodes))
        else:
            self._show(f"{len(missing)} of {len(wanted)} slots: their processes are starting")

    def _show(self, text: str) -> None:
        if text != self.text:
            self.text = text
            if text:
                logger.warning("job waits for slots", extra={"missing": text})
            self._changed()
