"""Blocking work in a simulated run: done later, some pieces at a time, and lost with its process.

A thread of a process that is paused is paused with it.  One request to the store may be under way when
a job master dies, and take effect without anybody who waits for its answer.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from raystream.ids import SlotId
from raystream.runtime.mailbox import Mailbox
from raystream.testing.simulation_world import ProcessDiedError, World

WORK_MS_MAX = 12.0
"""Longest time of a piece of blocking work that no fault delays."""

LATE_SHARE = 0.3
"""Share of the pieces of a dead job master that still make their first call of the store."""

THREADS = 4
"""Pieces of blocking work of one process at a time, as in `ThreadBackground`."""


class Process(Protocol):
    """Whose work it is.

    Attributes:
        alive: False from the moment of its death.
    """

    name: str
    alive: bool

    @property
    def slot_id(self) -> SlotId | None:
        """The slot; None for a job master."""

    def step(self) -> bool:
        """Do one round of its loop."""

    def next_deadline_ms(self) -> float | None:
        """Return when its loop has timed work."""


class Running:
    """Whose code runs now; a process that is killed by what it does stops at once."""

    def __init__(self) -> None:
        self.process: Process | None = None
        self._late_calls = 0

    @contextmanager
    def inside(self, process: Process, late_calls: int = 0) -> Iterator[None]:
        """Run code of a process, which may make so many calls of the store after its death."""
        before, self.process = self.process, process
        self._late_calls = late_calls
        try:
            yield
        finally:
            self.process = before

    def call_made(self) -> None:
        """A call of the store has had its effect.

        Raises:
            ProcessDiedError: the process is dead, and nobody takes the answer.
        """
        self._late_calls = 0
        self.stop_if_dead()

    def stop_if_dead(self) -> None:
        """Unwind what runs, when its process is dead.

        Raises:
            ProcessDiedError: it is.
        """
        if self.process is not None and not self.process.alive and not self._late_calls:
            raise ProcessDiedError


class SimulatedBackground:
    """Runs blocking work later, some pieces at a time, and loses it with its process.

    Args:
        world: draws how long it takes.
        mailbox: where outcomes go.
        running: told whose work runs.
        process: owner of the work.
        extra_ms: what faults add to a piece.
    """

    def __init__(
        self,
        world: World,
        mailbox: Mailbox,
        running: Running,
        *,
        process: Process,
        extra_ms: Callable[[], float],
    ) -> None:
        self._world = world
        self._mailbox = mailbox
        self._running = running
        self._process = process
        self._extra_ms = extra_ms
        self._waiting: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._threads = 0

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Call `work` after a while, then `done` with its result or its exception on the owner's loop."""
        self._waiting.append((work, done))
        self._begin()

    def _begin(self) -> None:
        while self._waiting and self._threads < THREADS:
            work, done = self._waiting.popleft()
            self._threads += 1
            delay_ms = self._world.delay_ms(WORK_MS_MAX) + self._extra_ms()
            self._world.after(delay_ms, partial(self._run, work, done))

    def _run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        process, world = self._process, self._world
        if world.paused_until_ms(process) > world.now_ms:
            world.at(world.paused_until_ms(process), partial(self._run, work, done))
            return
        late = not process.alive
        if late and (process.slot_id is not None or world.rng.random() >= LATE_SHARE):
            return
        result: Any
        try:
            with self._running.inside(process, late_calls=int(late)):
                result = work()
        except ProcessDiedError:
            return
        except Exception as error:
            result = error

        def deliver() -> None:
            self._threads -= 1
            if self._process.alive:
                self._mailbox.post(lambda: done(result))
                self._begin()

        self._world.after(self._world.delay_ms(WORK_MS_MAX), deliver)
