"""A coordinator with a scripted world: slots that answer, work that is done when the test says so."""

import random
from collections import deque
from dataclasses import replace
from functools import partial

from raystream.api.runner import (
    CancelRequest,
    CheckpointRequest,
    RescaleRequest,
    SavepointRequest,
    StopRequest,
)
from raystream.config.load import load_config
from raystream.errors import CheckpointError, SlotLostError, StorageError, UserCodeError
from raystream.handles import (
    SavepointFormat,
)
from raystream.ids import Attempt, JobId, OperatorUid, SlotId
from raystream.runtime import messages as msg
from raystream.runtime.coordinator import JobCoordinator
from raystream.runtime.coordinator_services import CoordinatorServices, JobSubmission
from raystream.runtime.coordinator_storage import open_storage
from raystream.runtime.program import Program, pack, unpack
from raystream.storage.stores import open_file_system
from tests.unit.runtime.coordinator_plans import FakeSource, make_plan, make_snapshot

JOB_ID = JobId("0123456789abcdef" * 2)
CRASH = UserCodeError("user function raised")
DECLINED = CheckpointError("no")
REFUSED = StorageError("store refused")
INTERVAL_MS = 1_000
"""In this time after the start of an attempt one checkpoint starts, then one in every such time."""
RESTART_DELAY_MS = 10


class VirtualClock:
    def __init__(self):
        self.now_ms = 0.0

    def monotonic_ms(self):
        return self.now_ms

    def wall_ms(self):
        return 1_700_000_000_000 + int(self.now_ms)


class _Deletion:
    def __init__(self, world):
        self._world = world

    def submit(self, work, done):
        self._world.deleting.append(_name(work))
        self._world.submit(work, done)


class World:
    """Runs a coordinator until nothing more happens by itself.

    `silent` holds the types of commands that slots do not answer, or `release`; `held` names of work
    that is not done before the test says so; `faults` makes such work raise.
    """

    open_fs, seed = staticmethod(open_file_system), 1

    def __init__(
        self,
        directory=None,
        *,
        source=None,
        plan=None,
        savepoints=None,
        job_id=JOB_ID,
        packed=False,
        inherits=False,
        **options,
    ):
        self.source = source or FakeSource()
        self.plan = plan or make_plan(self.source)
        self.config = load_config(overrides=_settings(directory, savepoints, options))
        self.packed = packed  # Slots are sent a program that can be unpacked: a new one, or these bytes.
        self.program = b"program" if packed is False else packed
        if packed is True:
            self.program = pack(Program(job_name="hits", plan=self.plan, config=self.config))
        self.clock = VirtualClock()
        self.silent, self.held, self.faults = set(), set(), {}
        self.sent, self.outputs, self.killed, self.dismissed, self.renewed = [], [], [], [], []
        self.work = deque()
        self.done = []  # Names of work that was done, or has failed.
        self.shared = {}  # Shared files of keyed state, by checkpoint and subtask.
        self.writing_from = {}  # The oldest checkpoint that a slot still writes for.
        self.deleting = []  # Names of the work that was given to the threads for deletions.
        self.inbox, self.alive = deque(), set()
        self.released = False
        self.attempt_of, self.restored = {}, {}
        self.changes = 0
        self.storage = open_storage(job_id, self.config, open_fs=self.open_fs)
        self.coordinator = JobCoordinator(
            CoordinatorServices(
                submission=JobSubmission(
                    job_id=job_id, name="hits", plan=self.plan, config=self.config, program=self.program
                ),
                storage=self.storage,
                slots=self,
                clock=self.clock,
                background=self,
                log=self,
                discovery=self,
                deletion=_Deletion(self),
                rng=random.Random(self.seed),
                inherits=inherits,
            ),
            on_change=self._changed,
            on_output=self.outputs.append,
        )

    # ---- background ------------------------------------------------------------

    def submit(self, work, done):
        self.work.append((_name(work), work, done))

    def _do_one(self):
        for position, (name, work, done) in enumerate(self.work):
            if name in self.held:
                continue
            del self.work[position]
            self.done.append(name)
            try:
                if self.faults.get(name):
                    raise self.faults[name].pop(0)
                result = work()
            except Exception as error:
                result = error
            done(result)
            return True
        return False

    def release_work(self, *names):
        """Do work that was held back, and what follows."""
        self.held -= set(names)
        return self.settle()

    # ---- slots -----------------------------------------------------------------

    def acquire(self, slots):
        for slot in slots:
            if "acquire" not in self.silent:
                self.inbox.append(partial(self._acquired, slot))

    def _acquired(self, slot):
        self.alive.add(slot)
        self.coordinator.slot_acquired(slot)

    def send(self, slot, command):
        self.sent.append((slot, command))
        if slot in self.alive and type(command) not in self.silent:
            self.inbox.append(partial(self._answer, slot, command))

    def kill(self, slot):
        self.killed.append(slot)
        self.inbox.append(partial(self.lose, slot))

    def dismiss(self, slots, *, again=()):
        self.dismissed += slots
        self.renewed += [slot for slot in slots if slot in again]
        self.alive -= set(slots)

    def release(self, released):
        self.released = True
        self.alive.clear()
        self.told_released = released
        if "release" not in self.silent:
            self.inbox.append(released)

    def report(self, report):
        self.coordinator.slot_reported(report)

    def lose(self, slot):
        self.alive.discard(slot)
        self.coordinator.slot_lost(SlotId(slot), SlotLostError("process of the slot is gone", slot=slot))

    def fail(self, slot=0, error=CRASH, **flags):
        self.report(msg.SlotFailed(attempt=self.view.attempt, slot=SlotId(slot), error=error, **flags))
        return self.settle()

    def _answer(self, slot, command):
        attempt = command.attempt
        match command:
            case msg.Deploy():
                self.plan = unpack(command.program).plan if self.packed else self.plan
                self.restored[slot] = command.restore
                self.report(msg.SlotDeployed(attempt=attempt, slot=slot, address=f"address-{slot}"))
            case msg.Connect():
                self.report(msg.SlotReady(attempt=attempt, slot=slot))
            case msg.Start():
                self.report(msg.SplitsRequested(attempt=attempt, uid=OperatorUid("read"), subtask=slot))
            case msg.TriggerCheckpoint():
                for vertex in self.plan.vertices:
                    self.ack(command.checkpoint_id, vertex.id, slot, attempt=attempt)
            case msg.CheckpointCompleted(final=True) | msg.CommitAtEnd():
                for vertex in self.plan.vertices:
                    self.report(msg.CommitsDone(attempt=attempt, vertex=vertex.id, subtask=slot))
            case msg.StopAttempt():
                self.report(msg.SlotStopped(attempt=attempt, slot=slot))

    def ack(self, checkpoint_id, vertex, subtask, *, attempt=None, data=None):
        shared = self.shared.get((checkpoint_id, subtask), ())
        snapshot = make_snapshot(self.plan, vertex, subtask, checkpoint_id, data=data, shared=shared)
        snapshot = replace(snapshot, writing_from=self.writing_from.get(subtask))
        attempt = Attempt(attempt or self.view.attempt)
        self.report(msg.SnapshotAcked(attempt=attempt, checkpoint_id=checkpoint_id, snapshot=snapshot))

    def decline(self, checkpoint_id, vertex, subtask, error=DECLINED):
        identity = {"attempt": Attempt(self.view.attempt), "checkpoint_id": checkpoint_id}
        self.report(msg.SnapshotDeclined(**identity, vertex=vertex, subtask=subtask, error=error))

    def ack_all(self, checkpoint_id):
        for vertex, subtask in self.plan.subtasks():
            self.ack(checkpoint_id, vertex.id, subtask)

    def end_input(self):
        for vertex, subtask in self.plan.subtasks():
            self.report(msg.InputEnded(attempt=self.view.attempt, vertex=vertex.id, subtask=subtask))
        return self.settle()

    # ---- time and clients --------------------------------------------------------

    def settle(self):
        """Let everything happen that needs no time."""
        for _ in range(10_000):
            self.coordinator.validate()
            if self.inbox:
                self.inbox.popleft()()
            elif not self._do_one() and not self.coordinator.step():
                return self
        raise AssertionError("the coordinator never comes to rest")

    def run_for(self, ms):
        """Let time pass, from one deadline to the next."""
        end_ms = self.settle().clock.now_ms + ms
        while (deadline_ms := self.coordinator.next_deadline_ms()) is not None and deadline_ms <= end_ms:
            self.clock.now_ms = max(deadline_ms, self.clock.now_ms)
            self.settle()
        self.clock.now_ms = end_ms
        return self.settle()

    def start(self):
        self.coordinator.start()
        return self.settle()

    def restart(self):
        """Let the restart that is due happen."""
        return self.run_for(RESTART_DELAY_MS)

    def savepoint(self, request_id="s", directory=None, wanted=SavepointFormat.CANONICAL):
        return self.request(SavepointRequest(request_id, directory, wanted))

    def checkpoint(self, request_id="m", *, full=False):
        return self.request(CheckpointRequest(request_id, full))

    def stop(self, request_id="stop", directory=None, wanted=SavepointFormat.CANONICAL, *, drain=False):
        return self.request(StopRequest(request_id, directory, wanted, drain))

    def cancel(self, request_id="c"):
        return self.request(CancelRequest(request_id))

    def request(self, request):
        self.coordinator.request(request)
        return self.settle()

    def rescale(self, parallelism, request_id="rescale"):
        return self.request(RescaleRequest(request_id, parallelism))

    # ---- what came of it -----------------------------------------------------------

    @property
    def view(self):
        return self.coordinator.view()

    @property
    def status(self):
        return self.view.status.value

    def commands(self, kind, slot=None):
        return [c for s, c in self.sent if isinstance(c, kind) and slot in (None, s)]

    @property
    def completed(self):
        return [r.checkpoint_id for r in self.view.checkpoints if r.status == "completed"]

    @property
    def log_entries(self):
        return open_storage(JOB_ID, self.config).log.read()

    def _changed(self):
        self.changes += 1


def _settings(directory, savepoints, options):
    """Return the configuration of a job; an option that is "off" is left out."""
    settings = {
        "execution.checkpointing.interval": "1s",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": "5",
        "restart-strategy.fixed-delay.delay": "10ms",
    }
    if directory is not None:
        settings["execution.checkpointing.dir"] = str(directory)
    if savepoints is not None:
        settings["execution.checkpointing.savepoint-dir"] = str(savepoints)
    settings |= {key.replace("__", ".").replace("_", "-"): str(value) for key, value in options.items()}
    return {key: value for key, value in settings.items() if value != "off"}


def _name(work):
    """Return what a piece of work is called: the innermost function's name."""
    while isinstance(work, partial):
        work = work.func
    return work.__name__.lstrip("_")


def running(directory=None, **options):
    world = World(directory, **options).start()
    assert world.status == "RUNNING", world.view.error
    return world


def chk(directory, checkpoint_id):
    """Return the directory of a checkpoint."""
    return directory / JOB_ID / f"chk-{checkpoint_id}"
