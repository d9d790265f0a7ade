"""Processes of slots in a simulated run: started, talked to, and killed.

The slots are the real ones.  What a message, a piece of blocking work or the news of a death
takes is drawn by the world; messages are pickled, so that no two processes share an object.
"""

import pickle
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Protocol

from raystream.errors import RaystreamError, SlotLostError
from raystream.ids import SlotId
from raystream.runtime import messages as msg
from raystream.runtime.mailbox import Mailbox
from raystream.runtime.slot import Slot
from raystream.runtime.tcp import TcpLinks
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import OpenFileSystem
from raystream.testing.simulation_sockets import HOST, Network, ProcessSockets
from raystream.testing.simulation_work import Running, SimulatedBackground
from raystream.testing.simulation_world import ProcessDiedError, VirtualClock, World

MESSAGE_MS_MAX = 3.0
START_MS_MAX = 20.0
"""Longest time that a new process takes to start."""
DEATH_NOTICE_MS_MAX = 400.0
"""Longest time until the death of a process is known; peers may notice first."""
CLOCK_READ_MS = (0.0, 0.001, 0.05, 0.4)
"""What reading the clock takes in a process; one is drawn for each."""


class ProcessWatcher(Protocol):
    """Sees what processes say, and may kill them for it."""

    def command_sent(self, slot: SlotId, command: msg.Command) -> None:
        """The coordinator has sent a command, which is still on its way."""

    def command_lost(self, slot: SlotId, command: msg.Command) -> None:
        """A command has reached nobody: the slot is dead."""

    def report_received(self, report: msg.Report, slot: SlotId, *, counts: bool) -> None:
        """A report has arrived of which the coordinator does not know yet; never will, unless it `counts`."""

    def presumed_dead_woke(self, slot: SlotId) -> None:
        """A process that was given up as dead has had a turn."""

    def work_begun(self) -> float:
        """Return what a new piece of blocking work takes longer than usual, in ms."""


class SlotProcess:
    """One life of a slot.

    Attributes:
        alive: False from the moment of its death.
        told_dead: the coordinator was told, or is about to be.
    """

    def __init__(self, pool: "SimulatedSlotPool", slot: SlotId, life: int) -> None:
        world = self._world = pool.world
        self.slot_id = slot
        self.name = f"slot {slot}.{life}{pool.suffix}"
        self.alive = True
        self.told_dead = False
        self._pool = pool
        self._commands_ms = self._reports_ms = 0.0
        mailbox = Mailbox(self._wake)
        self._sockets = ProcessSockets(pool.network, slot, self._wake)
        clock = VirtualClock(world, world.rng.choice(CLOCK_READ_MS), machine_of(slot))
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
            threads=False,
        )

    def step(self) -> bool:
        """Do one round of the slot's loop."""
        if self.told_dead:
            self._pool.watcher.presumed_dead_woke(self.slot_id)
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
            else:
                self._pool.watcher.command_lost(self.slot_id, command)

        self._world.at(self._commands_ms, arrive)

    def end(self) -> None:
        """Die, if not dead already."""
        if self.alive:
            self._world.record(self.name, "ends")
            self.die()

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
        suffix: of the names of processes.
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
        suffix: str = "",
    ) -> None:
        self.suffix = suffix
        self.world = world
        self.network = network
        self.running = running
        self.watcher = watcher
        self.open_fs = open_fs
        self.lives = 0
        self._processes: dict[SlotId, SlotProcess] = {}
        self._given_up: list[SlotProcess] = []  # Alive, and presumed dead.
        self._asked: dict[SlotId, int] = {}  # How often each slot was asked for, or not wanted any more.
        self._released = False

    def acquire(self, slots: Sequence[SlotId]) -> None:
        """Start a process for each slot."""
        for slot in slots:
            number = self._asked[slot] = self._asked.get(slot, 0) + 1
            self.world.after(self.world.delay_ms(START_MS_MAX), partial(self._start, slot, number))

    def send(self, slot: SlotId, command: msg.Command) -> None:
        """Send a command; it is lost with a process that is dead, whether that is known or not."""
        process = self._processes.get(slot)
        self.watcher.command_sent(slot, command)
        self.running.stop_if_dead()
        if process is None:
            self.watcher.command_lost(slot, command)
        else:
            process.send(command)

    def kill(self, slot: SlotId) -> None:
        """Kill a process, as the coordinator wants it."""
        self.crash(slot)

    def dismiss(self, slots: Sequence[SlotId], *, again: Collection[SlotId] = ()) -> None:
        """Stop some processes, at once, also those that have not started yet."""
        for slot in slots:
            self._asked[slot] = self._asked.get(slot, 0) + 1
            process = self._processes.pop(slot, None)
            if process is not None and process.alive:
                self.world.record(process.name, "is dismissed")
                process.told_dead = True
                process.die()

    def release(self, released: Callable[[], None]) -> None:
        """Stop all processes, at once."""
        self._released = True
        for process in (*self._processes.values(), *self._given_up):
            process.end()
        self._processes = {}
        released()

    def orphan(self) -> None:
        """The user is dead: nobody listens any more, and the processes end when their nodes know of it."""
        self._released = True
        for process in (*self._processes.values(), *self._given_up):
            self.world.after(self.world.delay_ms(DEATH_NOTICE_MS_MAX), process.end)

    def crash(self, slot: SlotId) -> bool:
        """Let a process die; False when there is none."""
        process = self._processes.get(slot)
        if process is None or not process.alive:
            return False
        self.world.record(process.name, "dies")
        process.die()
        self._noticed_later(process, "process of a slot died")
        return True

    def presume_dead(self, slot: SlotId, duration_ms: float) -> bool:
        """Pause a process and give it up before it wakes up; False when there is none."""
        process = self._processes.get(slot)
        if process is None or not process.alive:
            return False
        self.world.record(process.name, f"pauses for {duration_ms} ms and is given up")
        self.world.pause(process, duration_ms)
        self._given_up.append(process)
        self._noticed_later(process, "process of a slot did not answer")
        return True

    def slow(self, slot: SlotId, duration_ms: float, step_ms: float) -> bool:
        """Let every step of a process take long for a while; False when there is none."""
        process = self._processes.get(slot)
        if process is None or not process.alive:
            return False
        self.world.record(process.name, f"is slow for {duration_ms} ms")
        self.world.slow(process, duration_ms, step_ms)
        return True

    def _noticed_later(self, process: SlotProcess, message: str) -> None:
        slot = process.slot_id

        def noticed() -> None:
            process.told_dead = True
            if self._processes.get(slot) is process:
                del self._processes[slot]
                self.user.slot_lost(slot, SlotLostError(message, slot=slot))

        self.world.after(self.world.delay_ms(DEATH_NOTICE_MS_MAX), noticed)

    def pause(self, slot: SlotId, duration_ms: float) -> bool:
        """Let a process do nothing for a while; False when there is none."""
        process = self._processes.get(slot)
        if process is None or not process.alive:
            return False
        self.world.record(process.name, f"pauses for {duration_ms} ms")
        self.world.pause(process, duration_ms)
        return True

    def reported(self, process: SlotProcess, report: msg.Report) -> None:
        """Hand a report on.

        What a process has said before its death may still arrive, until the death is known.  One that was
        given up ends when nobody takes its reports.
        """
        if self._released:
            return
        self.watcher.report_received(report, process.slot_id, counts=not process.told_dead)
        if not process.told_dead:
            self.user.slot_reported(report)
        else:
            process.end()

    def _start(self, slot: SlotId, number: int) -> None:
        if self._released or self._asked[slot] != number:
            return
        self.lives += 1
        process = self._processes[slot] = SlotProcess(self, slot, self.lives)
        self.world.add(process)
        self.world.record(process.name, "starts")
        self.user.slot_acquired(slot)


def machine_of(slot: SlotId) -> str:
    """Return the name of the machine on which a slot runs."""
    return f"machine of slot {slot}"


def _describe(message: msg.Command | msg.Report) -> str:
    """Return a message as one short line."""
    name = type(message).__name__
    match message:
        case msg.TriggerCheckpoint() | msg.CheckpointCompleted() | msg.CheckpointAborted():
            return f"{name} {message.checkpoint_id}"
        case msg.SnapshotAcked():
            return f"{name} {message.checkpoint_id} by {message.snapshot.vertex}/{message.snapshot.subtask}"
        case msg.SnapshotDeclined():
            by = f"{message.vertex}/{message.subtask}"
            return f"{name} {message.checkpoint_id} by {by}: {message.error.brief}"
        case msg.SlotFailed():
            return f"{name}: {message.error.message}"
        case msg.InputEnded() | msg.CommitsDone():
            return f"{name} {message.vertex}/{message.subtask}"
        case msg.Deploy() | msg.StopAttempt() | msg.Start() | msg.SlotReady():
            return f"{name} attempt {message.attempt}"
        case msg.Progress():
            return f"{name} {message.records_in} in, {message.records_out} out"
    return name
