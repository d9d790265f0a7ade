"""Makes the faults of one simulated run happen, and remembers which did.

It sees everything that goes through the pieces that the simulation puts around the slots:
messages, frames, calls of the store, blocking work.  From these it knows the phase of every
checkpoint; production code has no hook for it.
"""

import re
from collections.abc import Callable, Sequence

from raystream.errors import StorageError
from raystream.ids import SlotId
from raystream.records.elements import Barrier
from raystream.runtime import messages as msg
from raystream.runtime.frame import FrameKind, decode_control
from raystream.storage.layout import METADATA_NAME
from raystream.testing.faults import (
    CheckpointPhase,
    ConnectionBreak,
    Fault,
    FrameDamage,
    FrameDelay,
    SlotCrash,
    SlotKill,
    SlotPause,
    StorageFailure,
    WorkDelay,
)
from raystream.testing.simulation_links import FrameFate
from raystream.testing.simulation_sink import checkpoint_of_output
from raystream.testing.simulation_slots import Running, SimulatedSlotPool
from raystream.testing.simulation_storage import StorageCall
from raystream.testing.simulation_world import World

_CHECKPOINT_FILE = re.compile(r"/chk-([0-9]+)/")
_PROBE = "/probe-"
_COMPLETION = re.compile(rb'"type":"checkpoint-completed".*"checkpoint_id":([0-9]+)')


class FaultInjector:
    """Watches a run and lets its faults happen.

    Attributes:
        happened: the faults that did, in order.
        phases: every (checkpoint, phase) in which a slot has crashed.
        completed: checkpoints whose log entry exists.
    """

    def __init__(self, world: World, faults: Sequence[Fault], running: Running) -> None:
        self.happened: list[Fault] = []
        self.completed: set[int] = set()
        self._world = world
        self._running = running
        self._pool: SimulatedSlotPool | None = None
        self._crashes = [fault for fault in faults if isinstance(fault, SlotCrash)]
        self._timed = [fault for fault in faults if isinstance(fault, SlotKill | SlotPause)]
        self._storage = [fault for fault in faults if isinstance(fault, StorageFailure)]
        self._work = [fault for fault in faults if isinstance(fault, WorkDelay)]
        self._frames = [fault for fault in faults if isinstance(fault, FrameDelay | FrameDamage | ConnectionBreak)]
        self._moments: dict[tuple[int, CheckpointPhase], int] = {}
        self._calls = self._works = self._frame_count = 0

    def attach(self, pool: SimulatedSlotPool) -> None:
        """Begin: faults that come at a time are set up."""
        self._pool = pool
        for fault in self._timed:
            self._world.after(fault.at_ms, lambda fault=fault: self._at_its_time(fault))

    @property
    def damaged(self) -> bool:
        """True when a frame was damaged, so that slots may report broken protocol."""
        return any(isinstance(fault, FrameDamage) for fault in self.happened)

    # ---- checkpoints ---------------------------------------------------------

    def command_sent(self, slot: SlotId, command: msg.Command) -> None:
        match command:
            case msg.TriggerCheckpoint():
                self._moment(command.checkpoint_id, CheckpointPhase.BEFORE_TRIGGER, slot)
            case msg.CheckpointCompleted():
                self._moment(command.checkpoint_id, CheckpointPhase.LOGGED, slot)

    def report_received(self, report: msg.Report, slot: SlotId) -> None:
        if isinstance(report, msg.SnapshotAcked):
            self._moment(report.checkpoint_id, CheckpointPhase.ACKNOWLEDGED, slot)

    def frame_arrived(self, slot: SlotId, kind: FrameKind, payload: memoryview) -> None:
        if kind is FrameKind.CONTROL:
            control = decode_control(payload)
            if isinstance(control, Barrier):
                self._moment(control.checkpoint_id, CheckpointPhase.ALIGNMENT, slot)
                self._running.stop_if_dead()

    def _moment(self, checkpoint_id: int, phase: CheckpointPhase, slot: SlotId | None) -> None:
        """A phase of a checkpoint has one of its moments; crash whoever is to crash in it."""
        number = self._moments.get((checkpoint_id, phase), 0)
        self._moments[checkpoint_id, phase] = number + 1
        for fault in list(self._crashes):
            if (fault.checkpoint_id, fault.phase, fault.moment) == (checkpoint_id, phase, number):
                self._crashes.remove(fault)
                self._crash(fault, fault.slot if fault.slot is not None else slot or 0)

    def _crash(self, fault: Fault, slot: int) -> None:
        assert self._pool is not None, "a fault before the start"
        if self._pool.crash(SlotId(slot)):
            self._happens(fault)

    def _at_its_time(self, fault: SlotKill | SlotPause) -> None:
        assert self._pool is not None, "a fault before the start"
        if isinstance(fault, SlotKill):
            self._crash(fault, fault.slot)
        elif self._pool.pause(SlotId(fault.slot), fault.duration_ms):
            self._happens(fault)

    # ---- storage -------------------------------------------------------------

    def storage_called(self, call: StorageCall) -> None:
        self._note(call, "")
        self._storage_moment(call, before=True)
        self._running.stop_if_dead()
        # A store that is down when the job is submitted is told to the user, and no restart follows.
        if _PROBE not in call.url:
            self._calls += 1
            self._fail_storage(call, effective=False)

    def storage_done(self, call: StorageCall) -> None:
        self._storage_moment(call, before=False)
        self._running.stop_if_dead()
        if _PROBE not in call.url:
            self._fail_storage(call, effective=True)

    def _fail_storage(self, call: StorageCall, *, effective: bool) -> None:
        for fault in self._storage:
            if fault.effective == effective and 0 <= self._calls - 1 - fault.call < fault.count:
                self._happens(fault)
                raise StorageError(
                    "store did not answer" if effective else "store refused", operation=call.operation, path=call.url
                )

    def _storage_moment(self, call: StorageCall, *, before: bool) -> None:
        """Find out what a file means for its checkpoint."""
        if call.operation != "create_exclusive":
            return
        slot = None if self._running.process is None else self._running.process.slot_id
        if call.url.endswith(METADATA_NAME) and (found := _CHECKPOINT_FILE.search(call.url)):
            phase = CheckpointPhase.ACKNOWLEDGED if before else CheckpointPhase.METADATA_WRITTEN
            self._moment(int(found[1]), phase, slot)
        elif completion := _COMPLETION.search(call.data):
            if not before:
                self.completed.add(int(completion[1]))
            phase = CheckpointPhase.METADATA_WRITTEN if before else CheckpointPhase.LOGGED
            self._moment(int(completion[1]), phase, slot)
        elif (checkpoint_id := checkpoint_of_output(call.url)) is not None:
            self._moment(checkpoint_id, CheckpointPhase.COMMITTING, slot)

    def _note(self, call: StorageCall, outcome: str) -> None:
        actor = "coordinator" if self._running.process is None else self._running.process.name
        path = _PROBE.join(call.url.split(_PROBE)[:1]) if _PROBE in call.url else call.url
        self._world.record(actor, f"{call.operation} {path}{outcome}")

    # ---- work and frames -----------------------------------------------------

    def work_begun(self) -> float:
        self._works += 1
        extra_ms = 0.0
        for fault in self._work:
            if fault.work == self._works - 1:
                self._happens(fault)
                extra_ms += fault.delay_ms
        return extra_ms

    def frame_sent(self) -> FrameFate:
        number, self._frame_count = self._frame_count, self._frame_count + 1
        fate = FrameFate()
        for fault in self._frames:
            if fault.frame == number:
                self._happens(fault)
                fate = _fate(fault)
        return fate

    def _happens(self, fault: Fault) -> None:
        if fault not in self.happened:
            self.happened.append(fault)
        self._world.record("fault", repr(fault))


def _fate(fault: FrameDelay | FrameDamage | ConnectionBreak) -> FrameFate:
    match fault:
        case FrameDelay():
            return FrameFate(delay_ms=fault.delay_ms)
        case FrameDamage():
            return FrameFate(damage=fault.damage)
        case ConnectionBreak():
            return FrameFate(breaks=True)
