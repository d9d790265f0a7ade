"""The world of one simulated run: virtual time, what happens when, whose turn it is, and the trace.

Knows actors (anything with a loop) and calls that are due at a time; knows nothing of jobs.

    due calls (frames arrive, work ends, ...) -> one step of an actor that is awake -> time passes
        -> nobody is awake: time jumps to the next call or deadline -> neither: stuck

Whose turn it is, how long a step takes and how long everything else takes is drawn from one
`random.Random`, and nothing else is random: the seed is the run.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

import xxhash

from raystream.errors import RaystreamError

TRACE_EVENTS_MAX = 400
"""Events that are kept for people; the hash is over all."""

STEP_MS_MAX = 0.2
"""Longest time that one step of a loop takes."""

IDLE_MS_MAX = 120_000.0
"""Time without any work after which a run counts as stuck; far above every timeout of a job."""

WALL_EPOCH_MS = 1_700_000_000_000


class SimulationError(RaystreamError):
    """A simulated run went wrong: it is stuck, lasts too long, or showed something that must not be."""


class ProcessDiedError(BaseException):
    """Unwinds what a process was doing when it was killed; whoever holds it up does nothing that counts."""


class Trace:
    """The events of a run: a hash of all, and the last ones to be read.

    An event is hashed with its time, so that two runs with one hash did the same at the same moments.
    """

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_64()
        self._last: deque[tuple[float, str, str]] = deque(maxlen=TRACE_EVENTS_MAX)

    def add(self, now_ms: float, actor: str, what: str) -> None:
        """Record that something happened."""
        self._hash.update(f"{now_ms!r} {actor} {what}\n".encode())
        self._last.append((now_ms, actor, what))

    def add_step(self, now_ms: float, actor: str) -> None:
        """Record whose turn it was; not shown to people, there are too many."""
        self._hash.update(f"{now_ms!r} {actor}\n".encode())

    def note(self, now_ms: float, actor: str, what: str) -> None:
        """Show people something that does not make a run another one, such as a log record."""
        self._last.append((now_ms, actor, what))

    def digest(self) -> str:
        """Return the hash of everything so far, 16 hex digits."""
        return self._hash.hexdigest()

    def last(self) -> tuple[str, ...]:
        """Return the last events as text, oldest first."""
        return tuple(f"{now_ms:12.3f} ms  {actor:<12} {what}" for now_ms, actor, what in self._last)


class Actor(Protocol):
    """Something with a loop: the coordinator, or the process of a slot."""

    name: str

    def step(self) -> bool:
        """Do one round of the loop; True when there was anything to do."""

    def next_deadline_ms(self) -> float | None:
        """Return when the loop has timed work; None when it has none."""


class World:
    """Time, calls that are due and actors, driven by one thread.

    Attributes:
        now_ms: virtual time since the start of the run.
        rng: source of everything random.
        trace: what has happened.
        clocks_ahead_ms: how far the clock on the wall of a machine is ahead of the time, by its name.
    """

    def __init__(self, rng: random.Random) -> None:
        self.now_ms = 0.0
        self.rng = rng
        self.trace = Trace()
        self.steps = 0
        self._worked_ms = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._actors: list[Actor] = []
        self._awake: list[Actor] = []
        self._alarms: dict[Actor, float] = {}
        self._paused_until_ms: dict[Actor, float] = {}
        self._slow: dict[Actor, tuple[float, float]] = {}
        self.clocks_ahead_ms: dict[str, float] = {}

    # ---- actors ------------------------------------------------------------

    def add(self, actor: Actor) -> None:
        """Let an actor take part, awake."""
        self._actors.append(actor)
        self._awake.append(actor)

    def remove(self, actor: Actor) -> None:
        """Take an actor away, for good."""
        self._actors.remove(actor)
        if actor in self._awake:
            self._awake.remove(actor)

    def wake(self, actor: Actor) -> None:
        """Interrupt an actor's wait, now or its next one."""
        if actor not in self._awake and actor in self._actors:
            self._awake.append(actor)

    def pause(self, actor: Actor, duration_ms: float) -> None:
        """Give an actor no turn for a while, as if its machine were busy with something else."""
        self._paused_until_ms[actor] = self.now_ms + duration_ms

    def paused_until_ms(self, actor: Actor) -> float:
        """Return until when an actor is paused; a time that is over when it is not."""
        return self._paused_until_ms.get(actor, 0.0)

    def slow(self, actor: Actor, duration_ms: float, step_ms: float) -> None:
        """Let every step of an actor take up to `step_ms` for a while; the others go on meanwhile."""
        self._slow[actor] = self.now_ms + duration_ms, step_ms

    # ---- time --------------------------------------------------------------

    def delay_ms(self, longest_ms: float) -> float:
        """Draw how long something takes: mostly short, sometimes up to `longest_ms`."""
        return longest_ms * self.rng.random() ** 3

    def after(self, delay_ms: float, call: Callable[[], None]) -> None:
        """Make a call when some time has passed."""
        self.at(self.now_ms + delay_ms, call)

    def at(self, time_ms: float, call: Callable[[], None]) -> None:
        """Make a call at a time; those of one moment in the order in which they were asked for."""
        self._count += 1
        heapq.heappush(self._due, (time_ms, self._count, call))

    def record(self, actor: str, what: str) -> None:
        """Add an event to the trace."""
        self.trace.add(self.now_ms, actor, what)

    def run(self, done: Callable[[], bool], *, steps_max: int) -> None:
        """Let time pass until `done`.

        Args:
            done: asked before every step.
            steps_max: bound on all steps since the start of the run.

        Raises:
            SimulationError: nothing happens any more, or the run takes too long.
        """
        while True:
            self._make_due_calls()
            if done():
                return
            actor = self._choose()
            if actor is not None:
                self._step(actor)
            elif not self._jump():
                raise SimulationError("job is stuck: nothing is under way and no deadline is set")
            self.steps += 1
            if self.now_ms - self._worked_ms > IDLE_MS_MAX:
                raise SimulationError("job is stuck: nobody has anything to do", idle_ms=IDLE_MS_MAX)
            if self.steps > steps_max:
                raise SimulationError("job does not come to an end", steps_max=steps_max)

    def _make_due_calls(self) -> None:
        while self._due and self._due[0][0] <= self.now_ms:
            heapq.heappop(self._due)[2]()

    def _choose(self) -> Actor | None:
        """Draw one of the actors that are awake and not paused."""
        candidates = self._awake
        if self._paused_until_ms:
            candidates = [actor for actor in candidates if not self._paused(actor)]
        if not candidates:
            return None
        return candidates[int(self.rng.random() * len(candidates))]

    def _paused(self, actor: Actor) -> bool:
        until_ms = self._paused_until_ms.get(actor)
        if until_ms is None:
            return False
        if until_ms > self.now_ms:
            return True
        del self._paused_until_ms[actor]
        return False

    def _step(self, actor: Actor) -> None:
        self._awake.remove(actor)
        self.trace.add_step(self.now_ms, actor.name)
        worked = actor.step()
        self.now_ms += self.rng.random() * STEP_MS_MAX
        if self._slow and actor in self._slow:
            self._rest(actor)
        if worked:
            self._worked_ms = self.now_ms
            self.wake(actor)
        elif actor not in self._awake:
            self._set_alarm(actor)

    def _rest(self, actor: Actor) -> None:
        """Give a slow actor no turn until its step would have ended."""
        until_ms, step_ms = self._slow[actor]
        if self.now_ms < until_ms:
            self.pause(actor, self.rng.random() * step_ms)
        else:
            del self._slow[actor]

    def _set_alarm(self, actor: Actor) -> None:
        """Wake an actor that waits at its deadline."""
        deadline_ms = actor.next_deadline_ms()
        if deadline_ms is None or self._alarms.get(actor) == deadline_ms:
            return
        self._alarms[actor] = deadline_ms

        def ring() -> None:
            if self._alarms.get(actor) == deadline_ms:
                del self._alarms[actor]
                self.wake(actor)

        self.at(deadline_ms, ring)

    def _jump(self) -> bool:
        """Go to the next moment at which something happens; False when there is none."""
        moments = [until_ms for actor, until_ms in self._paused_until_ms.items() if actor in self._awake]
        moments += [self._due[0][0]] if self._due else []
        if not moments:
            return False
        self.now_ms = max(self.now_ms, min(moments))
        return True


class VirtualClock:
    """The clock of one actor; reading it takes time, so that work cut by time is cut somewhere.

    Args:
        world: whose time it shows.
        read_ms: what passes with each reading.
        machine: where it is; the clock on the wall there may be wrong.
    """

    def __init__(self, world: World, read_ms: float, machine: str = "") -> None:
        self._world = world
        self._read_ms = read_ms
        self._machine = machine

    def monotonic_ms(self) -> float:
        self._world.now_ms += self._read_ms
        return self._world.now_ms

    def wall_ms(self) -> int:
        ahead_ms = self._world.clocks_ahead_ms.get(self._machine, 0.0)
        return WALL_EPOCH_MS + int(self._world.now_ms + ahead_ms)
