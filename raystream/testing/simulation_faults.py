"""Makes the faults of one simulated run happen, and remembers which did.

It sees everything that goes through the pieces that the simulation puts around the slots:
messages, frames, calls of the store, blocking work.  From these it knows the phase of every
checkpoint; production code has no hook for it.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from raystream.errors import (
    ConfigError,
    ConnectionLostError,
    ProtocolError,
    RaystreamError,
    StateCorruptError,
    StorageError,
    UserCodeError,
)
from raystream.ids import SlotId
from raystream.records.elements import Barrier
from raystream.runtime import messages as msg
from raystream.runtime.frame import FrameKind, decode_control
from raystream.storage.layout import METADATA_NAME
from raystream.testing.faults import (
    CheckpointDamage,
    CheckpointPhase,
    ClockJump,
    ConnectionBreak,
    CrashAtCall,
    Fault,
    FrameDamage,
    FrameDelay,
    MasterCrash,
    MasterKill,
    MasterPause,
    MasterPresumedDead,
    RestartCrash,
    SlotCrash,
    SlotKill,
    SlotPause,
    SlotPresumedDead,
    SlowConnections,
    SlowSlot,
    StorageFailure,
    WorkDelay,
)
from raystream.testing.simulation_coordinator import MASTER_MACHINE, JobMasters
from raystream.testing.simulation_marks import Marks
from raystream.testing.simulation_sink import checkpoint_of_output
from raystream.testing.simulation_slots import SimulatedSlotPool, machine_of
from raystream.testing.simulation_sockets import FrameFate
from raystream.testing.simulation_storage import StorageCall
from raystream.testing.simulation_work import Running
from raystream.testing.simulation_world import World

_METADATA = re.compile(rf"/chk-([0-9]+)/{METADATA_NAME}$")
_LOG_ENTRY = re.compile(r"/log/[0-9]+$")
_PROBE = "/probe-"


WorldFault = (
    SlotKill | SlotPause | SlotPresumedDead | SlowSlot | MasterKill | MasterPause | MasterPresumedDead
    | SlowConnections | ClockJump
)  # fmt: skip
"""What happens at a time, and not by a client."""


class FaultInjector:
    """Watches a run and lets its faults happen.

    Attributes:
        happened: the faults that did, in order.
        completed_id: newest checkpoint that is complete, because its log entry exists.
        problems: what was seen and must not be.
        files: those of the store, by URL.
        marks: rare moments that the run has reached.
        storage_calls: number of calls of the store that could have failed.
    """

    def __init__(self, world: World, faults: Sequence[Fault], running: Running) -> None:
        self.files: dict[str, bytes] = {}
        self.happened: list[Fault] = []
        self.completed_id = 0
        self.problems: list[str] = []
        self.marks = Marks()
        self.storage_calls = 0
        self._world = world
        self._running = running
        self._masters: JobMasters | None = None
        self._crashes = [fault for fault in faults if isinstance(fault, SlotCrash)]
        self._master_crashes = [fault for fault in faults if isinstance(fault, MasterCrash)]
        self._call_crashes = [fault for fault in faults if isinstance(fault, CrashAtCall)]
        self._restart_crashes = [fault for fault in faults if isinstance(fault, RestartCrash)]
        self._damages = [fault for fault in faults if isinstance(fault, CheckpointDamage)]
        self._whole: set[int] = set()  # Checkpoints that were completed and not damaged.
        self._storage = [fault for fault in faults if isinstance(fault, StorageFailure)]
        self._work = [fault for fault in faults if isinstance(fault, WorkDelay)]
        self._frames = [
            fault for fault in faults if isinstance(fault, FrameDelay | FrameDamage | ConnectionBreak)
        ]
        self._moments: dict[tuple[int, CheckpointPhase], int] = {}
        self._calls = dict.fromkeys(self._storage, 0)
        self._works = self._frame_count = 0
        self._slow_until_ms = self._frame_extra_ms = 0.0
        self._starting: tuple[int, int] | None = None  # An attempt, and the messages of its start so far.
        self._log_written = False  # A job that keeps everything in the job master's memory has no files.

    def attach(self, masters: JobMasters, parallelism: int) -> None:
        """Let faults happen to the processes of a new job."""
        self._masters = masters
        self._starting = None
        self.marks.job_starts(parallelism)

    def happens(self, fault: Fault) -> None:
        """Remember that a fault has happened."""
        if fault not in self.happened:
            self.happened.append(fault)
        self._world.record("fault", repr(fault))

    # ---- checkpoints ---------------------------------------------------------

    def command_sent(self, slot: SlotId, command: msg.Command) -> None:
        self.marks.command_sent(slot, command)
        match command:
            case msg.Deploy() | msg.Connect():
                self._start_moment(command.attempt, slot)
            case msg.TriggerCheckpoint():
                self._moment(command.checkpoint_id, CheckpointPhase.BEFORE_TRIGGER, slot)
            case msg.CheckpointCompleted():
                self._moment(command.checkpoint_id, CheckpointPhase.LOGGED, slot)

    def command_lost(self, slot: SlotId, command: msg.Command) -> None:
        self.marks.command_lost(command)

    def presumed_dead_woke(self, slot: SlotId) -> None:
        self.marks.woke()

    def report_received(self, report: msg.Report, slot: SlotId, *, counts: bool) -> None:
        self.marks.report_received(report, slot)
        match report:
            case msg.SlotDeployed() | msg.SlotReady():
                self._start_moment(report.attempt, slot)
            case msg.SnapshotAcked():
                self._moment(report.checkpoint_id, CheckpointPhase.ACKNOWLEDGED, slot)
            case msg.SlotFailed() if not self._excused(report.error, counts=counts):
                self.problems.append(f"slot {slot} failed: {report.error}")

    def _excused(self, error: RaystreamError, *, counts: bool) -> bool:
        """True for an error that faults of this run explain, or that is the business of user code."""
        if isinstance(error, ProtocolError):
            return self._has_happened(FrameDamage)
        if isinstance(error, StateCorruptError) and self._has_happened(CheckpointDamage):
            return True
        if isinstance(error, StateCorruptError | ConfigError):
            # Slots that were given up, or their job master, miss what was deleted: a checkpoint, the probe.
            return not counts or self._has_happened(MasterPresumedDead)
        return isinstance(error, ConnectionLostError | StorageError | UserCodeError)

    def _has_happened(self, kind: type[Fault]) -> bool:
        return any(isinstance(fault, kind) for fault in self.happened)

    def frame_arrived(self, slot: SlotId, kind: FrameKind, payload: bytes) -> None:
        if kind is FrameKind.CONTROL:
            control = decode_control(memoryview(payload))
            if isinstance(control, Barrier):
                self.marks.barrier_arrived(slot, control.checkpoint_id)
                self._moment(control.checkpoint_id, CheckpointPhase.ALIGNMENT, slot)

    def _moment(self, checkpoint_id: int, phase: CheckpointPhase, slot: SlotId | None) -> None:
        """A phase of a checkpoint has one of its moments; crash whoever is to crash in it."""
        number = self._moments.get((checkpoint_id, phase), 0)
        self._moments[checkpoint_id, phase] = number + 1
        for fault in list(self._crashes):
            if (fault.checkpoint_id, fault.phase, fault.moment) == (checkpoint_id, phase, number):
                self._crashes.remove(fault)
                self._crash(fault, fault.slot if fault.slot is not None else slot or 0)
        for crash in list(self._master_crashes):
            if (crash.checkpoint_id, crash.phase, crash.moment) == (checkpoint_id, phase, number):
                self._master_crashes.remove(crash)
                self._crash_master(crash)

    def _start_moment(self, attempt: int, slot: SlotId) -> None:
        """A message of an attempt's start goes by; crash whoever is to crash at it."""
        number = self._starting[1] if self._starting is not None and self._starting[0] == attempt else 0
        self._starting = attempt, number + 1
        for fault in list(self._restart_crashes):
            if (fault.attempt, fault.moment) == (attempt, number):
                self._restart_crashes.remove(fault)
                self._crash(fault, fault.slot if fault.slot is not None else slot)

    def _crash(self, fault: Fault, slot: int) -> None:
        if self._pool.crash(SlotId(slot)):
            self.marks.crashed()
            self.happens(fault)

    def _crash_master(self, fault: Fault) -> None:
        if self._job_masters.crash():
            self.marks.master_replaced()
            self.happens(fault)

    @property
    def _job_masters(self) -> JobMasters:
        assert self._masters is not None, "a fault before the start"
        return self._masters

    @property
    def _pool(self) -> SimulatedSlotPool:
        return self._job_masters.current.pool

    def world_fault(self, fault: WorldFault) -> None:
        """The time of a fault has come; one that finds nothing to do does not happen."""
        pool, masters = self._pool, self._job_masters
        match fault:
            case SlotKill():
                self._crash(fault, fault.slot)
            case SlotPause() if pool.pause(SlotId(fault.slot), fault.duration_ms):
                self.happens(fault)
            case SlotPresumedDead() if pool.presume_dead(SlotId(fault.slot), fault.duration_ms):
                self.marks.crashed()
                self.happens(fault)
            case SlowSlot() if pool.slow(SlotId(fault.slot), fault.duration_ms, fault.step_ms):
                self.happens(fault)
            case MasterKill():
                self._crash_master(fault)
            case MasterPause() if masters.pause(fault.duration_ms):
                self.happens(fault)
            case MasterPresumedDead() if masters.presume_dead(fault.duration_ms):
                self.marks.master_replaced()
                self.happens(fault)
            case SlowConnections():
                self._slow_until_ms = self._world.now_ms + fault.duration_ms
                self._frame_extra_ms = fault.delay_ms
                self.happens(fault)
            case ClockJump():
                machine = MASTER_MACHINE if fault.slot is None else machine_of(SlotId(fault.slot))
                ahead = self._world.clocks_ahead_ms
                ahead[machine] = ahead.get(machine, 0.0) + fault.by_ms
                self.happens(fault)

    # ---- storage -------------------------------------------------------------

    def storage_called(self, call: StorageCall) -> None:
        process = self._running.process
        actor = "world" if process is None else process.name
        # Names of probes are random, and no seed decides them.
        self._world.record(actor, f"{call.operation} {call.url.partition(_PROBE)[0]}")
        self._storage_moment(call, before=True)
        self._crash_at_call(call, effective=False)
        self._running.stop_if_dead()
        # A store that is down when the job is submitted is told to the user, and no restart follows.
        if _PROBE not in call.url:
            self.storage_calls += 1
            for fault in self._storage:
                self._calls[fault] += fault.where in call.url
            self._fail_storage(call, effective=False)

    def storage_done(self, call: StorageCall) -> None:
        self._storage_moment(call, before=False)
        self._crash_at_call(call, effective=True)
        self._running.call_made()
        if _PROBE not in call.url:
            self._fail_storage(call, effective=True)

    def _crash_at_call(self, call: StorageCall, *, effective: bool) -> None:
        """Let whoever makes this call die, if it is to; its number is that of the calls before it."""
        process = self._running.process
        number = self.storage_calls - int(effective)
        for fault in list(self._call_crashes):
            if (fault.call, fault.effective) == (number, effective) and process and _PROBE not in call.url:
                self._call_crashes.remove(fault)
                if process.slot_id is not None:
                    self._crash(fault, process.slot_id)
                elif process is self._job_masters.current:
                    self._crash_master(fault)

    def _fail_storage(self, call: StorageCall, *, effective: bool) -> None:
        for fault in self._storage:
            due = fault.call < self._calls[fault] <= fault.call + fault.count
            if due and fault.effective == effective and fault.where in call.url:
                self.happens(fault)
                raise StorageError(
                    "store did not answer" if effective else "store refused",
                    operation=call.operation,
                    path=call.url,
                )

    def _storage_moment(self, call: StorageCall, *, before: bool) -> None:
        """Find out what a file means for its checkpoint."""
        if before:
            self._mark_call(call)
        if call.operation != "create_exclusive":
            return
        slot = None if self._running.process is None else self._running.process.slot_id
        self._log_written = self._log_written or bool(_LOG_ENTRY.search(call.url))
        if found := _METADATA.search(call.url):
            phase = CheckpointPhase.ACKNOWLEDGED if before else CheckpointPhase.METADATA_WRITTEN
            if not before:
                self.marks.metadata_written(int(found[1]))
            self._moment(int(found[1]), phase, slot)
        elif (entry := _completed_by(call)) is not None:
            checkpoint_id = entry["checkpoint_id"]
            phase = CheckpointPhase.METADATA_WRITTEN if before else CheckpointPhase.LOGGED
            if not before:
                self.completed_id = max(self.completed_id, checkpoint_id)
                self.marks.checkpoint_logged(checkpoint_id, entry)
                self._whole.add(checkpoint_id)
                self._damage(checkpoint_id)
            self._moment(checkpoint_id, phase, slot)
        elif (checkpoint_id := checkpoint_of_output(call.url)) is not None:
            if self._log_written and checkpoint_id > self.completed_id:
                self.problems.append(
                    f"output of checkpoint {checkpoint_id} was published before it was complete"
                )
            self._moment(checkpoint_id, CheckpointPhase.COMMITTING, slot)

    def _mark_call(self, call: StorageCall) -> None:
        """Recognise calls that say something by finding what is there already."""
        if call.url not in self.files:
            return
        if call.operation == "exists" and checkpoint_of_output(call.url):
            self.marks.published_again()
        old = self._running.process is not self._job_masters.current
        if call.operation == "create_exclusive" and _LOG_ENTRY.search(call.url) and old:
            self.marks.master_fenced()

    def _damage(self, checkpoint_id: int) -> None:
        for fault in self._damages:
            places = (f"/chk-{checkpoint_id}/", f"/shared/c{checkpoint_id}-")
            found = [url for place in places for url in sorted(self.files) if place in url]
            url = next((url for url in found if fault.where in url), None)
            if fault.checkpoint_id != checkpoint_id or url is None or not self._older_than(checkpoint_id):
                continue
            self.happens(fault)
            self._whole.discard(checkpoint_id)
            self.marks.damaged(checkpoint_id)
            content = self.files.pop(url)
            if not fault.lost:
                middle = len(content) // 2
                flipped = bytes([content[middle] ^ 1]) if content else b""
                self.files[url] = content[:middle] + flipped + content[middle + 1 :]

    def _older_than(self, checkpoint_id: int) -> bool:
        """True when there is an older checkpoint that is whole: nobody survives the loss of the only one."""
        older = (int(found[1]) for url in self.files if (found := _METADATA.search(url)))
        return any(other < checkpoint_id and other in self._whole for other in older)

    # ---- work and frames -----------------------------------------------------

    def work_begun(self) -> float:
        self._works += 1
        extra_ms = 0.0
        for fault in self._work:
            if fault.work == self._works - 1:
                self.happens(fault)
                extra_ms += fault.delay_ms
        return extra_ms

    def frame_sent(self) -> FrameFate:
        number, self._frame_count = self._frame_count, self._frame_count + 1
        fate = FrameFate()
        for fault in self._frames:
            if fault.frame == number:
                self.happens(fault)
                fate = _fate(fault)
        if self._world.now_ms < self._slow_until_ms:
            fate = replace(fate, delay_ms=fate.delay_ms + self._frame_extra_ms)
        return fate


def _completed_by(call: StorageCall) -> dict[str, Any] | None:
    """Return the log entry that makes a checkpoint complete; None for any other file."""
    if not _LOG_ENTRY.search(call.url):
        return None
    record = msgspec.json.decode(call.data)["content"]
    if record["type"] == "checkpoint-completed" or record["entry"].get("stop"):
        entry: dict[str, Any] = record["entry"]
        return entry
    return None


def _fate(fault: FrameDelay | FrameDamage | ConnectionBreak) -> FrameFate:
    match fault:
        case FrameDelay():
            return FrameFate(delay_ms=fault.delay_ms)
        case FrameDamage():
            return FrameFate(damage=fault.damage)
        case ConnectionBreak():
            return FrameFate(breaks=True)
