"""Processes that are to die: asked to fall silent, killed, and watched until nothing of them is left.

    condemned --> asked to fall silent --> killed --> dead by Ray's word --> over
                        |                    ^  |            |  grace, unless it was silent
                        |                    +--+            v
                        |            no word in time        over
                        +--> found dead before it was killed --> over

Ray's head writes an actor down as dead as soon as it is told to kill it, and says so from then on.
The process may live on: one that does not react, such as a stopped one, until its node has lost
patience and ends it by force.  So Ray's word is believed at once only where it is about a death that
nobody here has caused, or about a process that has said before that it does nothing any more.  After
any other kill a grace passes before the process is taken for gone.

A call that kills may fail, hang, or reach a node that is away, so that there is a bound of tries.
Everything but the calls to Ray happens on the job master's thread.  Knows actors by three functions,
and no Ray.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from raystream.clock import Clock
from raystream.ids import SlotId
from raystream.operators.operator import Background

logger = logging.getLogger(__name__)

RETIRE_WAIT_MS = 7_000.0
"""Time that a process has to end its work by itself before it is killed."""
KILL_GRACE_MS = 6_000.0
"""Time after Ray's word in which a process that was killed may still live: a node waits for 5 s
(`kill_worker_timeout_milliseconds`) before it ends by force what does not react."""
KILL_RETRY_MS = 5_000.0
"""Time after which a process that is not known to be dead is killed again."""
KILL_TRIES_MAX = 12
"""Times that a process is killed; by then Ray has given up a node that is away."""


class Answer(Enum):
    """What became of a process, as far as a call to it shows."""

    LIVES = "lives"
    SILENT = "silent"
    """It lives, and nothing in it works or writes any more."""
    GONE = "gone"
    """It is dead by Ray's word."""


_INHERITED = "processes of the job master before"

Ask = Callable[[Any, Callable[[Answer], None]], None]
"""Makes a call to an actor and hands over the answer on the owner's thread, which may be never."""


@dataclass(eq=False, slots=True)
class _Condemned:
    slot: SlotId | None
    """None when it is not known."""
    actor: Any
    over: Callable[[], None]
    silent: bool
    """Nothing in it works any more."""
    due_ms: float
    """When something is to be done about it."""
    tries: int = 0
    dead: bool = False
    """By Ray's word; its grace passes."""


class Endings:
    """Sees to it that processes die; all methods on the owner's thread.

    Args:
        clock: says when to try again.
        background: runs the calls that kill; they may hang.
        retire: asks an actor to fall silent.
        kill: kills an actor; blocks, in a thread.
        ask: asks an actor whether it lives.
    """

    def __init__(
        self,
        clock: Clock,
        background: Background,
        *,
        retire: Ask,
        kill: Callable[[Any], None],
        ask: Ask,
    ) -> None:
        self._clock = clock
        self._background = background
        self._retire = retire
        self._kill = kill
        self._ask = ask
        self._condemned: dict[Any, _Condemned] = {}
        self._all_over: Callable[[], None] | None = None

    def condemn(
        self,
        slot: SlotId | None,
        actor: Any,
        over: Callable[[], None] = lambda: None,
        *,
        silent: bool = False,
    ) -> None:
        """End a process; nothing when that is under way already.

        Args:
            slot: for people, and for `awaits`; None for a process that never had one.
            actor: the process.
            over: called when nothing of it is left, or when it is given up.
            silent: it never got any work, so that it need not be asked to end it.
        """
        if actor in self._condemned:
            return
        due_ms = self._clock.monotonic_ms() + RETIRE_WAIT_MS
        one = self._condemned[actor] = _Condemned(slot, actor, over, silent, due_ms)
        if silent:
            self._try(one)
        else:
            self._retire(actor, partial(self._retired, one))

    def inherit(self, over: Callable[[], None]) -> None:
        """Let the grace of processes pass that Ray has killed with the job master that created them."""
        due_ms = self._clock.monotonic_ms() + KILL_GRACE_MS
        self._condemned[_INHERITED] = _Condemned(
            None, _INHERITED, over, silent=False, due_ms=due_ms, dead=True
        )

    def awaits(self, slot: SlotId) -> bool:
        """Return whether something may be left of a former process of a slot."""
        return any(one.slot == slot for one in self._condemned.values())

    def when_all_over(self, call: Callable[[], None]) -> None:
        """Make a call once, as soon as nothing that was condemned is left."""
        self._all_over = call
        self._tell()

    def step(self) -> None:
        """End the grace of what is dead, and kill what should have died by now."""
        now_ms = self._clock.monotonic_ms()
        for one in [one for one in self._condemned.values() if one.due_ms <= now_ms]:
            if one.dead:
                self._end(one)
            elif one.tries < KILL_TRIES_MAX:
                if one.tries:
                    logger.warning("process of a slot not known to be dead, killing it again", extra=_of(one))
                self._try(one)
            else:
                # Told as an end all the same: a node that stays away for ever holds up neither a restart
                # nor the end of the job.  What such a process writes is kept apart by attempt and id.
                logger.error("process of a slot could not be killed", extra=_of(one))
                self._end(one)

    def next_deadline_ms(self) -> float | None:
        """Return when `step` next has something to do, in ms of the monotonic clock."""
        return min((one.due_ms for one in self._condemned.values()), default=None)

    def _retired(self, one: _Condemned, answer: Answer) -> None:
        if not self._waits_for(one):
            return
        one.silent = one.silent or answer is Answer.SILENT
        if one.tries:  # It was killed meanwhile, so that the news of its death is that of the kill.
            self._answered(one, answer)
        elif answer is Answer.GONE:
            self._end(one)
        else:
            self._try(one)

    def _try(self, one: _Condemned) -> None:
        one.tries += 1
        one.due_ms = self._clock.monotonic_ms() + KILL_RETRY_MS
        self._background.submit(partial(self._kill, one.actor), partial(self._killed, one))

    def _killed(self, one: _Condemned, result: Any) -> None:
        if isinstance(result, Exception):
            logger.warning("process of a slot was not killed", extra=_of(one), exc_info=result)
        else:
            self._ask(one.actor, partial(self._answered, one))

    def _answered(self, one: _Condemned, answer: Answer) -> None:
        if answer is not Answer.GONE or one.dead or not self._waits_for(one):
            return
        if one.silent:
            self._end(one)
        else:
            one.dead, one.due_ms = True, self._clock.monotonic_ms() + KILL_GRACE_MS

    def _waits_for(self, one: _Condemned) -> bool:
        return self._condemned.get(one.actor) is one

    def _end(self, one: _Condemned) -> None:
        del self._condemned[one.actor]
        one.over()
        self._tell()

    def _tell(self) -> None:
        if self._all_over is not None and not self._condemned:
            call, self._all_over = self._all_over, None
            call()


def _of(one: _Condemned) -> dict[str, object]:
    return {"slot": one.slot, "tries": one.tries}
