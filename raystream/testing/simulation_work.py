"""Blocking work in a simulated run: done later, some pieces at a time, and lost with its process."""

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

THREADS = 4
"""Pieces of blocking work of one process at a time, as in `ThreadBackground`."""


class Process(Protocol):
    """Whose work it is.

    Attributes:
        alive: False from the moment of its death.
    """

    slot_id: SlotId
    name: str
    alive: bool


class Running:
    """Whose code runs now; a process that is killed by what it does stops at once."""

    def __init__(self) -> None:
        self.process: Process | None = None

    @contextmanager
    def inside(self, process: Process | None) -> Iterator[None]:
        """Run code of a process, None for the coordinator."""
        before, self.process = self.process, process
        try:
            yield
        finally:
            self.process = before

    def stop_if_dead(self) -> None:
        """Unwind what runs, when its process is dead.

        Raises:
            ProcessDiedError: it is.
        """
        if self.process is not None and not self.process.alive:
            raise ProcessDiedError


class SimulatedBackground:
    """Runs blocking work later, some pieces at a time, and loses it with its process.

    Args:
        world: draws how long it takes.
        mailbox: where outcomes go.
        running: told whose work runs.
        process: owner of the work, None for the coordinator.
        extra_ms: what faults add to a piece.
    """

    def __init__(
        self,
        world: World,
        mailbox: Mailbox,
        running: Running,
        *,
        process: Process | None,
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

    @property
    def _lost(self) -> bool:
        return self._process is not None and not self._process.alive

    def _begin(self) -> None:
        while self._waiting and self._threads < THREADS:
            work, done = self._waiting.popleft()
            self._threads += 1
            delay_ms = self._world.delay_ms(WORK_MS_MAX) + self._extra_ms()
            self._world.after(delay_ms, partial(self._run, work, done))

    def _run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        if self._lost:
            return
        result: Any
        try:
            with self._running.inside(self._process):
                result = work()
        except ProcessDiedError:
            return
        except Exception as error:
            result = error

        def deliver() -> None:
            self._threads -= 1
            if not self._lost:
                self._mailbox.post(lambda: done(result))
                self._begin()

        self._world.after(self._world.delay_ms(WORK_MS_MAX), deliver)
