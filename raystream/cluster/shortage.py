"""What the slots of a job wait for that have no process yet: found out after a while, and told in words.

A job that starts may have a limit for that, after which it fails.  One that has run waits for as long as it
takes: a node that was lost may take its time to be replaced.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from raystream.clock import Clock
from raystream.cluster.incarnation import Incarnation
from raystream.cluster.resources import Needs, cluster_nodes, waiting_text
from raystream.errors import ConfigError, RaystreamError
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
        limit_ms: time that a job that starts waits; None for ever.
        late: told why the job fails when that is over.
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
        limit_ms: float | None,
        late: Callable[[RaystreamError], None],
    ) -> None:
        self._needs = needs
        self._waiting = waiting
        self._placed = placed
        self._clock = clock
        self._background = background
        self._changed = changed
        self._limit_ms = limit_ms
        self._late = late
        self._late_ms: float | None = None
        self.look_ms: float | None = None
        """When to look, monotonic; None while nothing waits."""
        self.text = ""
        """What is waited for; empty when nothing is known."""

    def begin(self) -> None:
        """Slots wait from now on."""
        now_ms = self._clock.monotonic_ms()
        self.look_ms = now_ms + WAIT_SHOWN_AFTER_MS
        if self._limit_ms is not None and self._late_ms is None:
            self._late_ms = now_ms + self._limit_ms
            self.look_ms = min(self.look_ms, now_ms + self._limit_ms / 2)  # So as to know what to say.

    @property
    def next_deadline_ms(self) -> float | None:
        """When `step` has something to do, monotonic; None while nothing waits."""
        deadlines = [due for due in (self.look_ms, self._late_ms) if due is not None]
        return min(deadlines, default=None)

    def end(self) -> None:
        """No slot waits any more."""
        self.look_ms = self._late_ms = self._limit_ms = None
        self._show("")

    def step(self) -> None:
        """Look, or give up, when that is due."""
        now_ms = self._clock.monotonic_ms()
        if self.look_ms is not None and now_ms >= self.look_ms:
            self.look_ms = now_ms + WAIT_SHOWN_AFTER_MS
            self._background.submit(lambda: (cluster_nodes(), self._placed()), self._looked)
        if self._late_ms is not None and now_ms >= self._late_ms:
            error = ConfigError(
                "job did not get its slots in time",
                hint="add nodes, or give it more time with --timeout or slot.request.timeout",
                missing=self.text or "Ray has not started their processes",
                timeout_ms=self._limit_ms,
            )
            self._late_ms = self._limit_ms = None
            self._late(error)

    def _looked(self, looked: Any) -> None:
        missing, wanted = self._waiting()
        if self.look_ms is None or not missing:
            return  # They have started meanwhile.
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
