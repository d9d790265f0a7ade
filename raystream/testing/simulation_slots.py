"""Processes of slots in a simulated run: started, talked to, and killed.

The slots are the real ones.  What a message, a piece of blocking work or the news of a death
takes is drawn by the world; messages are pickled, so that no two processes share an object.
"""

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from raystream.errors import RaystreamError, SlotLostError
from raystream.ids import SlotId
from raystream.runtime import messages as msg
from raystream.runtime.mailbox import Mailbox
from raystream.runtime.slot import Slot
from raystream.runtime.tcp import TcpLinks
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import OpenFileSystem
from raystream.testing.simulation_sockets import HOST, Network, ProcessSockets
from raystream.testing.simulation_world import ProcessDiedError, VirtualClock, World

MESSAGE_MS_MAX = 3.0
WORK_MS_MAX = 12.0
"""Longest time of a piece of blocking work that no fault delays."""
START_MS_MAX = 20.0
"""Longest time that a new process takes to start."""
DEATH_NOTICE_MS_MAX = 400.0
"""Longest time until the death of a process is known; peers may notice first."""
THREADS = 4
"""Pieces of blocking work of one process at a time, as in `ThreadBackground`."""

CLOCK_READ_MS = (0.0, 0.001, 0.05, 0.4)
"""What reading the clock takes in a process; one is drawn for each."""


class ProcessWatcher(Protocol):
    """Sees what processes say, and may kill them for it."""

    def command_sent(self, slot: SlotId, command: msg.Command) -> None:
        """The coordinator has sent a command, which is still on its way."""

    def report_received(self, report: msg.Report, slot: SlotId) -> None:
        """A report has arrived; the coordinator does not know it yet."""

    def work_begun(self) -> float:
        """Return what a new piece of blocking work takes longer than usual, in ms."""


class Running:
    """Whose code runs now; a process that is killed by what it does stops at once."""

    def __init__(self) -> None:
        self.process: SlotProcess | None = None

    @contextmanager
    def inside(self, process: "SlotProcess | None") -> Iterator[None]:
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
        process: "SlotProcess | None",
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


class SlotProcess:
    """One life of a slot.

    Attributes:
        alive: False from the moment of its death.
        told_dead: the coordinator was told, or is about to be.
    """

    def __init__(self, pool: "SimulatedSlotPool", slot: SlotId, life: int) -> None:
        world = self._world = pool.world
        self.slot_id = slot
        self.name = f"slot {slot}.{life}"
        self.alive = True
        self.told_dead = False
        self._pool = pool
        self._commands_ms = self._reports_ms = 0.0
        mailbox = Mailbox(self._wake)
        self._sockets = ProcessSockets(pool.network, slot, self._wake)
        clock = VirtualClock(world, world.rng.choice(CLOCK_READ_MS))
        background = SimulatedBackground(
            world, mailbox, pool.running, process=self, extra_ms=pool.watcher.work_begun
        )
        self._slot = Slot(
            slot,
            clock=clock,
            mailbox=mailbox,
            uploads=background,
            commits=background,
            links=TcpLinks(HOST, clock, self._sockets),
            report=self._report,
            files=SnapshotFiles(pool.open_fs),
            compaction=False,
        )

    def step(self) -> bool:
        """Do one round of the slot's loop."""
        try:
            with self._pool.running.inside(self):
                return self._slot.step() or self._sockets.ready
        except ProcessDiedError:
            return False

    def next_deadline_ms(self) -> float | None:
        """Return when the slot has timed work."""
        return self._slot.next_deadline_ms() if self.alive else None

    def send(self, command: msg.Command) -> None:
        """Let a command arrive after a while, behind all before it."""
        data = pickle.dumps(command)
        arrival_ms = self._world.now_ms + self._world.delay_ms(MESSAGE_MS_MAX)
        self._commands_ms = max(self._commands_ms, arrival_ms)

        def arrive() -> None:
            if self.alive:
                self._world.record(self.name, f"gets {_describe(command)}")
                self._slot.deliver(pickle.loads(data))

        self._world.at(self._commands_ms, arrive)

    def die(self) -> None:
        """Lose mailbox, blocking work and connections at once."""
        self.alive = False
        self._sockets.die()
        self._world.remove(self)

    def _wake(self) -> None:
        self._world.wake(self)

    def _report(self, report: msg.Report) -> None:
        if not self.alive:
            return  # What unwinds a dead process looks to its slot like an error to be reported.
        data = pickle.dumps(report)
        self._world.record(self.name, f"says {_describe(report)}")
        arrival_ms = self._world.now_ms + self._world.delay_ms(MESSAGE_MS_MAX)
        self._reports_ms = max(self._reports_ms, arrival_ms)

        def arrive() -> None:
            # What a process has said before its death may still arrive, until the death is known.
            if not self.told_dead:
                self._pool.reported(self, pickle.loads(data))

        self._world.at(self._reports_ms, arrive)


class SlotUser(Protocol):
    """Who uses the slots: the coordinator, through its mailbox."""

    def slot_acquired(self, slot: SlotId) -> None:
        """The process of a slot is there."""

    def slot_lost(self, slot: SlotId, error: RaystreamError) -> None:
        """The process of a slot is gone."""

    def slot_reported(self, report: msg.Report) -> None:
        """A slot says something."""


class SimulatedSlotPool:
    """The `SlotPool` of a simulated run.

    Attributes:
        user: gets the answers; set before the first call.
        lives: processes that were started so far.
    """

    user: SlotUser

    def __init__(
        self,
        world: World,
        network: Network,
        running: Running,
        *,
        watcher: ProcessWatcher,
        open_fs: OpenFileSystem,
    ) -> None:
        self.world = world
        self.network = network
        self.running = running
        self.watcher = watcher
        self.open_fs = open_fs
        self.lives = 0
        self._processes: dict[SlotId, SlotProcess] = {}
        self._released = False

    def acquire(self, slots: Sequence[SlotId]) -> None:
        """Start a process for each slot."""
        for slot in slots:
            self.world.after(self.world.delay_ms(START_MS_MAX), partial(self._start, slot))

    def send(self, slot: SlotId, command: msg.Command) -> None:
        """Send a command; it is lost with a process that is dead, whether that is known or not."""
        process = self._processes.get(slot)
        self.watcher.command_sent(slot, command)
        if process is not None:
            process.send(command)

    def kill(self, slot: SlotId) -> None:
        """Kill a process, as the coordinator wants it."""
        self.crash(slot)

    def release(self, released: Callable[[], None]) -> None:
        """Stop all processes, at once."""
        self._released = True
        for process in self._processes.values():
            if process.alive:
                process.die()
        self._processes = {}
        released()

    def crash(self, slot: SlotId) -> bool:
        """Let a process die; False when there is none."""
        process = self._processes.get(slot)
        if process is None or not process.alive:
            return False
        self.world.record(process.name, "dies")
        process.die()

        def noticed() -> None:
            process.told_dead = True
            if self._processes.get(slot) is process:
                del self._processes[slot]
                self.user.slot_lost(slot, SlotLostError("process of a slot died", slot=slot))

        self.world.after(self.world.delay_ms(DEATH_NOTICE_MS_MAX), noticed)
        return True

    def pause(self, slot: SlotId, duration_ms: float) -> bool:
        """Let a process do nothing for a while; False when there is none."""
        process = self._processes.get(slot)
        if process is None or not process.alive:
            return False
        self.world.record(process.name, f"pauses for {duration_ms} ms")
        self.world.pause(process, duration_ms)
        return True

    def reported(self, process: SlotProcess, report: msg.Report) -> None:
        """Hand a report on."""
        if not self._released:
            self.watcher.report_received(report, process.slot_id)
            self.user.slot_reported(report)

    def _start(self, slot: SlotId) -> None:
        if self._released:
            return
        self.lives += 1
        process = self._processes[slot] = SlotProcess(self, slot, self.lives)
        self.world.add(process)
        self.world.record(process.name, "starts")
        self.user.slot_acquired(slot)


def _describe(message: msg.Command | msg.Report) -> str:
    """Return a message as one short line."""
    name = type(message).__name__
    match message:
        case msg.TriggerCheckpoint() | msg.CheckpointCompleted() | msg.CheckpointAborted():
            return f"{name} {message.checkpoint_id}"
        case msg.SnapshotAcked():
            return f"{name} {message.checkpoint_id} by {message.snapshot.vertex}/{message.snapshot.subtask}"
        case msg.SnapshotDeclined():
            return f"{name} {message.checkpoint_id} by {message.vertex}/{message.subtask}: {message.reason}"
        case msg.SlotFailed():
            return f"{name}: {message.error.message}"
        case msg.InputEnded() | msg.CommitsDone():
            return f"{name} {message.vertex}/{message.subtask}"
        case msg.Deploy() | msg.StopAttempt() | msg.Start() | msg.SlotReady():
            return f"{name} attempt {message.attempt}"
        case msg.Progress():
            return f"{name} {message.records_in} in, {message.records_out} out"
    return name
