"""Spare processes: started ahead of a loss, so that a slot that loses its process has another one at once.

Most of a recovery is the start of a process and its imports.  A spare has done both, and waits on a node
on which the job has slots.  It reserves nothing: whoever takes it gives it what the process before had
reserved there (`Reservations.hand_over`).  So it helps where a process is lost, and not where a node is.

Flink has the like for whole TaskManagers (`slotmanager.redundant-taskmanager-num`).
"""

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from raystream.clock import Clock
from raystream.cluster.resources import SlotNeeds

logger = logging.getLogger(__name__)

SPARE_LOOK_MS = 3_000.0
"""Time between two looks at which spares there are; the first is that long after the first start of slots."""
SPARE_DOUBT_MS = 1_000.0
"""A spare that has not answered for so long is not taken."""
SPARE_PAUSE_MS_MAX = 300_000.0
"""A node on which spares die gets the next one after a pause that doubles, up to this; it begins anew for one
that has lived that long."""

_PLAIN = {"CPU", "memory"}
"""What a process may reserve without being told, when it starts, which one it has (as with GPUs)."""
_CPUS_MAX = 1.0
"""Ray tells a process when it starts how many threads libraries may use: one where it reserves no CPU."""

Ask = Callable[[Any, Callable[["Future[None]"], None]], None]
"""Asks an actor whether it is there, and hands over the answer on the owner's thread, which may be never."""


@dataclass(eq=False, slots=True)
class _Spare:
    actor: Any
    node_id: str
    began_ms: float
    there: bool = False
    asked_ms: float | None = None
    """When it was asked whether it is there, and has not answered yet."""


@dataclass(slots=True)
class _Pause:
    """Of a node on which a spare has died."""

    until_ms: float
    length_ms: float


class Spares:
    """The spares of a job; all methods on the owner's thread.

    Args:
        per_node: how many each node with slots of the job has; 0 keeps none.
        clock: says when to look.
        silent_ms: time after which a spare that does not answer is given up.
        start: makes an actor on a node, which may never be there.
        ask: asks it.
        end: ends it.
        nodes: the nodes on which slots are that stay there.
    """

    def __init__(
        self,
        per_node: int,
        clock: Clock,
        *,
        silent_ms: float,
        start: Callable[[str], Any],
        ask: Ask,
        end: Callable[[Any], None],
        nodes: Callable[[], Iterable[str]],
    ) -> None:
        self._per_node = per_node
        self._clock = clock
        self._silent_ms = silent_ms
        self._start = start
        self._ask = ask
        self._end = end
        self._nodes = nodes
        self._spares: list[_Spare] = []
        self._pauses: dict[str, _Pause] = {}
        self._ended = False
        self.next_ms: float | None = None
        """When `step` has something to do, monotonic; None while nothing is kept."""

    def begin(self) -> None:
        """Keep spares from now on."""
        if self._per_node and self.next_ms is None and not self._ended:
            self.next_ms = self._clock.monotonic_ms() + SPARE_LOOK_MS

    def end(self) -> None:
        """End all of them, and keep none any more."""
        self._ended, self.next_ms = True, None
        self._end_those(self._spares)

    def step(self) -> None:
        """Start what is missing, end what is of no use, and ask the others whether they live; when due."""
        now_ms = self._clock.monotonic_ms()
        if self.next_ms is None or now_ms < self.next_ms:
            return
        self.next_ms = now_ms + SPARE_LOOK_MS
        nodes = frozenset(self._nodes())
        self._end_those([one for one in self._spares if one.node_id not in nodes])
        self._pauses = {node_id: pause for node_id, pause in self._pauses.items() if node_id in nodes}
        for one in [*self._spares]:
            if one.asked_ms is None:
                self._look_at(one)
            elif one.there and now_ms >= one.asked_ms + self._silent_ms:
                self._lost(one, TimeoutError("spare process does not answer"))
        for node_id in sorted(nodes):
            self._complete(node_id, now_ms)

    def take(self, node_id: str, needs: SlotNeeds) -> Any | None:
        """Return the actor of a spare on a node, which is nobody's business here any more; None without one.

        Args:
            node_id: where a slot has lost its process.
            needs: of the slot; one with a GPU gets a process that Ray has given one, and one with more than
                a CPU a process whose libraries use them.
        """
        if not _PLAIN.issuperset(needs.amounts) or needs.amounts.get("CPU", 0.0) > _CPUS_MAX:
            return None
        doubted_ms = self._clock.monotonic_ms() - SPARE_DOUBT_MS
        for one in self._spares:
            answers = one.there and (one.asked_ms is None or one.asked_ms > doubted_ms)
            if answers and one.node_id == node_id:
                self._spares.remove(one)
                return one.actor
        return None

    def _complete(self, node_id: str, now_ms: float) -> None:
        """Start the spares that a node lacks, unless they die there."""
        if node_id in self._pauses and now_ms < self._pauses[node_id].until_ms:
            return
        there = sum(one.node_id == node_id for one in self._spares)
        for _ in range(self._per_node - there):
            one = _Spare(self._start(node_id), node_id, now_ms)
            self._spares.append(one)
            self._look_at(one)

    def _look_at(self, one: _Spare) -> None:
        one.asked_ms = self._clock.monotonic_ms()
        self._ask(one.actor, partial(self._looked, one))

    def _looked(self, one: _Spare, answer: "Future[None]") -> None:
        if one not in self._spares:
            return
        one.asked_ms = None
        error = answer.exception()
        if error is not None:
            self._lost(one, error)
        elif not one.there:
            one.there = True
            logger.info("spare process stands by", extra={"node_id": one.node_id})

    def _lost(self, one: _Spare, error: BaseException) -> None:
        now_ms = self._clock.monotonic_ms()
        pause = self._pauses.get(one.node_id)
        lived_long = now_ms - one.began_ms >= SPARE_PAUSE_MS_MAX
        length_ms = SPARE_LOOK_MS if pause is None or lived_long else 2 * pause.length_ms
        length_ms = min(length_ms, SPARE_PAUSE_MS_MAX)
        self._pauses[one.node_id] = _Pause(now_ms + length_ms, length_ms)
        where = {"node_id": one.node_id, "pause_s": round(length_ms / 1000)}
        logger.warning("spare process is lost", extra=where, exc_info=error)
        self._end_those([one])

    def _end_those(self, spares: Iterable[_Spare]) -> None:
        for one in [*spares]:
            self._spares.remove(one)
            self._end(one.actor)
