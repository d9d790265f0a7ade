"""Processes that are to die: killed, and killed again, until Ray says that they are dead.

    condemned --> kill called --> death asked for --> dead
                     ^                  |
                     +---- not yet, or no answer in time

A call that kills may fail, hang, or reach a node that is away; and a process that is dead for the job
may still write.  So each is watched to its end, within a bound of tries.  Everything but the calls to
Ray happens on the job master's thread.  Knows actors by two functions, and no Ray.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from raystream.clock import Clock
from raystream.ids import SlotId
from raystream.operators.operator import Background

logger = logging.getLogger(__name__)

KILL_RETRY_MS = 5_000.0
"""Time after which a process that is not known to be dead is killed again."""
KILL_TRIES_MAX = 20
"""Times that a process is killed; more tries would not help."""


@dataclass(eq=False, slots=True)
class _Condemned:
    slot: SlotId
    actor: Any
    dead: Callable[[], None]
    tries: int = 0
    due_ms: float = 0.0


class Endings:
    """Sees to it that processes die; all methods on the owner's thread.

    Args:
        clock: says when to try again.
        background: runs the calls that kill; they may hang.
        kill: kills an actor; blocks, in a thread.
        ask: asks an actor whether it is dead, and calls back on the owner's thread with the answer.
    """

    def __init__(
        self,
        clock: Clock,
        background: Background,
        *,
        kill: Callable[[Any], None],
        ask: Callable[[Any, Callable[[bool], None]], None],
    ) -> None:
        self._clock = clock
        self._background = background
        self._kill = kill
        self._ask = ask
        self._condemned: dict[Any, _Condemned] = {}
        self._all_dead: Callable[[], None] | None = None

    def condemn(self, slot: SlotId, actor: Any, dead: Callable[[], None] = lambda: None) -> None:
        """Kill a process and call `dead` when it is; not when that is under way already."""
        if actor not in self._condemned:
            self._condemned[actor] = _Condemned(slot, actor, dead)
            self._try(self._condemned[actor])

    def when_all_dead(self, call: Callable[[], None]) -> None:
        """Make a call once, as soon as nothing that was condemned is left."""
        self._all_dead = call
        self._tell()

    def step(self) -> None:
        """Kill again what should have died by now."""
        now_ms = self._clock.monotonic_ms()
        for one in [one for one in self._condemned.values() if one.due_ms <= now_ms]:
            if one.tries < KILL_TRIES_MAX:
                logger.warning("process of a slot is not known to be dead, killing it again", extra=_of(one))
                self._try(one)
            else:
                logger.error("process of a slot could not be killed", extra=_of(one))
                del self._condemned[one.actor]

    def next_deadline_ms(self) -> float | None:
        """Return when `step` next has something to do, in ms of the monotonic clock."""
        return min((one.due_ms for one in self._condemned.values()), default=None)

    def _try(self, one: _Condemned) -> None:
        one.tries += 1
        one.due_ms = self._clock.monotonic_ms() + KILL_RETRY_MS
        self._background.submit(partial(self._kill, one.actor), partial(self._killed, one))

    def _killed(self, one: _Condemned, result: Any) -> None:
        if isinstance(result, Exception):
            logger.warning("process of a slot was not killed", extra=_of(one), exc_info=result)
        else:
            self._ask(one.actor, partial(self._answered, one))

    def _answered(self, one: _Condemned, dead: bool) -> None:
        if dead and self._condemned.get(one.actor) is one:
            del self._condemned[one.actor]
            one.dead()
            self._tell()

    def _tell(self) -> None:
        if self._all_dead is not None and not self._condemned:
            call, self._all_dead = self._all_dead, None
            call()


def _of(one: _Condemned) -> dict[str, object]:
    return {"slot": one.slot, "tries": one.tries}
