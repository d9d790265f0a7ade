"""Nodes that are about to go, by Ray's word: asked for once a second.

Ray knows of a node that drains from the node itself when it gets SIGTERM, from the autoscaler, from whoever
watches for the notice of a spot instance, or from `ray drain-node`.  It places nothing new there; what runs
there is left alone until the node's time is over.
"""

import logging
from collections.abc import Callable
from typing import Any

from raystream.clock import Clock
from raystream.cluster import _ray_compat as compat
from raystream.operators.operator import Background

logger = logging.getLogger(__name__)

DRAIN_POLL_MS = 1_000.0
"""Time between two questions; a node that gets SIGTERM has 30 s by default."""


class DrainWatch:
    """Asks Ray which nodes drain; on the owner's thread but for the question, which may hang.

    Args:
        clock: says when to ask.
        background: asks.
        seen: told the ids of all nodes that drain, with every answer.
    """

    def __init__(self, clock: Clock, background: Background, seen: Callable[[frozenset[str]], None]) -> None:
        self._clock = clock
        self._background = background
        self._seen = seen
        self._ended = False
        self.draining: frozenset[str] = frozenset()
        """The nodes that drain, by Ray's last answer."""
        self.next_ms: float | None = None
        """When `step` has something to do, monotonic; None while an answer is waited for, or nobody asks."""

    def begin(self) -> None:
        """Ask from now on."""
        if self.next_ms is None:
            self.next_ms = self._clock.monotonic_ms() + DRAIN_POLL_MS

    def end(self) -> None:
        """Ask no more."""
        self._ended, self.next_ms = True, None

    def step(self) -> None:
        """Ask, when that is due."""
        if self.next_ms is not None and self._clock.monotonic_ms() >= self.next_ms:
            self.next_ms = None
            self._background.submit(compat.draining_nodes, self._answered)

    def _answered(self, nodes: Any) -> None:
        if self._ended:
            return
        self.next_ms = self._clock.monotonic_ms() + DRAIN_POLL_MS
        if isinstance(nodes, Exception):
            logger.debug("Ray's head does not say which nodes drain", exc_info=nodes)
        else:
            self.draining = frozenset(nodes)
            self._seen(self.draining)
