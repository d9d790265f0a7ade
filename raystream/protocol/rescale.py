"""A job goes on at another parallelism, or in other processes: the state machine, without any I/O.

    IDLE --> ACQUIRING --> CHECKPOINTING --> RESTARTING --> IDLE
     |         |            ^   |               |  the job runs: the downtime is told
     |         +------------|---+               |  the job ends: so is that
     |           not to be had, no checkpoint: the job goes on as it was
     +-- slots leave their nodes

Everything that may take long comes first, while the job runs: processes for slots that it does not have
yet, then a checkpoint.  The attempt ends when that is complete and the next one restores it, as after a
failure, so nothing is lost and nothing comes twice.  The checkpoint is one like any other: the job owns it,
and it counts for recovery.  Slots that are not needed any more are given back by the job machine.

Slots whose nodes are about to go leave them in the same way, at the parallelism that the job has.  Their
next processes are held ready by whoever says that they leave, and who says it again while it is so.

One rescale at a time; who asks for the same meanwhile gets the same answer.

Knows numbers of slots; knows nothing of plans, files and why a checkpoint fails.

Source: Flink's adaptive scheduler, which takes no checkpoint for it and may repeat much.
"""

from dataclasses import dataclass
from enum import Enum

from raystream.errors import CheckpointError, ConfigError, RaystreamError
from raystream.ids import JobStatus, SlotId
from raystream.protocol.checkpoint_requests import Purpose, Request
from raystream.protocol.history import History
from raystream.protocol.job_commands import AcquireSlots
from raystream.protocol.subtasks import JobShape

SLOTS_WAIT_MS = 60_000.0
"""Time in which the processes for new slots have to be there; then the job goes on as it is."""
WAITING_MAX = 100
"""Clients that wait for one rescale."""


@dataclass(frozen=True, slots=True)
class DismissSlots:
    """End the processes of slots that the job does not need; nothing is answered."""

    slots: tuple[SlotId, ...]


@dataclass(frozen=True, slots=True)
class TakeRescaleCheckpoint:
    """Take a checkpoint as soon as the job runs; answered by `checkpoint_ended`."""

    request: Request


@dataclass(frozen=True, slots=True)
class RestartRescaled:
    """End the attempt; the next one has this shape, these further slots, and other processes for some."""

    shape: JobShape
    slots: tuple[SlotId, ...]
    leaving: tuple[SlotId, ...] = ()
    """Slots whose processes are given up."""


@dataclass(frozen=True, slots=True)
class ResolveRescale:
    """Answer a client."""

    request_id: str
    downtime_ms: int
    error: RaystreamError | None


Command = AcquireSlots | DismissSlots | TakeRescaleCheckpoint | RestartRescaled | ResolveRescale


class Stage(Enum):
    """How far a rescale is."""

    IDLE = "idle"
    ACQUIRING = "acquiring"
    CHECKPOINTING = "checkpointing"
    RESTARTING = "restarting"


class Rescale:
    """Decides how a job gets another parallelism.

    Args:
        shape: of the job as it is.
    """

    def __init__(self, shape: JobShape) -> None:
        self._shape = self._target = shape
        self._stage = Stage.IDLE
        self._wanted: set[SlotId] = set()  # Slots that are asked for and not there.
        self._there: set[SlotId] = set()  # Slots that are there and that the job does not have yet.
        self._waiting: list[str] = []  # Requests to be answered, the first one first.
        self._leaving: tuple[SlotId, ...] = ()  # Slots that leave their nodes; nobody waits for an answer.
        self._moves = 0  # Times that slots have left their nodes.
        self._checkpoint_of = ""  # The request for which a checkpoint is under way; the job may end first.
        self._began_ms = self._stopped_ms = 0.0
        self._over: ConfigError | None = None  # Why there is nothing to rescale any more.
        self._history: History[Command] = History()
        self._done = self._history.done

    @property
    def waiting_for(self) -> str:
        """What holds a rescale up, for people; empty when nothing does."""
        if not self._wanted:
            return ""
        count = len(self._wanted | self._there)
        return f"{len(self._wanted)} of {count} further slots for parallelism {self._target.parallelism}"

    @property
    def next_deadline_ms(self) -> float | None:
        """When `time_passed` has something to do, monotonic."""
        return self._began_ms + SLOTS_WAIT_MS if self._stage is Stage.ACQUIRING else None

    def owns(self, slot: SlotId) -> bool:
        """Return whether a slot is one that was asked for here, and not the job's yet."""
        return slot in self._wanted or slot in self._there

    def awaits(self, request_id: str) -> bool:
        """Return whether a checkpoint of this request is this machine's."""
        return self._checkpoint_of == request_id

    # ---- clients ---------------------------------------------------------------

    def rescale_requested(self, now_ms: float, request_id: str, target: JobShape) -> list[Command]:
        """A client wants another parallelism, which the plan of the job allows."""
        return self._done("rescale_requested", (request_id, target), self._take(now_ms, request_id, target))

    def _take(self, now_ms: float, request_id: str, target: JobShape) -> list[Command]:
        if self._over is not None:
            return [ResolveRescale(request_id, 0, self._over)]
        if self._stage is not Stage.IDLE:
            return self._join(request_id, target)
        if target.parallelism == self._shape.parallelism:
            return [ResolveRescale(request_id, 0, None)]
        self._target, self._began_ms = target, now_ms
        self._waiting.append(request_id)
        self._stage = Stage.ACQUIRING
        further = tuple(slot for slot in target.slots if slot not in self._shape.slots)
        self._wanted.update(further)
        return [AcquireSlots(further)] if further else self._take_checkpoint(request_id)

    def slots_leave(self, slots: tuple[SlotId, ...]) -> list[Command]:
        """The nodes of some of the job's slots are about to go, and other processes are there for them."""
        commands: list[Command] = []
        if self._stage is Stage.ACQUIRING:  # A node that goes waits for nobody.
            commands = self._give_up(_leaves())
        if self._over is None and self._stage is Stage.IDLE:
            self._leaving, self._target = slots, self._shape
            self._moves += 1
            commands += self._take_checkpoint(f"move {self._moves}")
        return self._done("slots_leave", slots, commands)

    def _join(self, request_id: str, target: JobShape) -> list[Command]:
        if self._leaving:
            return [ResolveRescale(request_id, 0, _leaves())]
        if target.parallelism != self._target.parallelism or len(self._waiting) >= WAITING_MAX:
            error = ConfigError(
                "job is being rescaled already",
                hint="wait until that is over",
                parallelism=self._target.parallelism,
            )
            return [ResolveRescale(request_id, 0, error)]
        self._waiting.append(request_id)
        return []

    # ---- what was asked for -------------------------------------------------------

    def slot_acquired(self, slot: SlotId) -> list[Command]:
        """The process of a further slot is there."""
        commands: list[Command] = []
        if slot in self._wanted:
            self._wanted.remove(slot)
            self._there.add(slot)
            if self._stage is Stage.ACQUIRING and not self._wanted:
                commands = self._take_checkpoint(self._waiting[0])
        return self._done("slot_acquired", slot, commands)

    def slot_lost(self, slot: SlotId, error: RaystreamError) -> list[Command]:
        """The process of a further slot is gone, or is not to be had."""
        self._wanted.discard(slot)
        self._there.discard(slot)
        # Behind the checkpoint the job asks for the slot itself, as it does for any.
        commands = self._give_up(error) if self._stage is Stage.ACQUIRING else []
        return self._done("slot_lost", slot, commands)

    def checkpoint_ended(self, now_ms: float, error: RaystreamError | None) -> list[Command]:
        """The checkpoint is complete, or will never be."""
        commands: list[Command] = []
        self._checkpoint_of = ""
        if self._stage is Stage.CHECKPOINTING and error is not None:
            commands = self._give_up(error)
        elif self._stage is Stage.CHECKPOINTING:
            self._stage, self._shape, self._stopped_ms = Stage.RESTARTING, self._target, now_ms
            slots, self._there = tuple(sorted(self._there)), set()
            commands = [RestartRescaled(self._target, slots, self._leaving)]
        return self._done("checkpoint_ended", error, commands)

    def attempt_runs(self, now_ms: float) -> list[Command]:
        """All slots of an attempt process records."""
        commands: list[Command] = []
        if self._stage is Stage.RESTARTING:
            commands = self._answer(round(now_ms - self._stopped_ms), None)
        return self._done("attempt_runs", None, commands)

    def job_ended(self, status: JobStatus) -> list[Command]:
        """The job has ended; all its slots are given back."""
        self._wanted, self._there = set(), set()
        hint = "start it again with `-s latest -p N`"
        self._over = ConfigError(f"job is {status.value}; it can not be rescaled", hint=hint)
        return self._done("job_ended", status.value, self._answer(0, self._over))

    def time_passed(self, now_ms: float) -> list[Command]:
        """Give up slots that are not to be had."""
        deadline_ms = self.next_deadline_ms
        if deadline_ms is None or now_ms < deadline_ms:
            return []
        error = CheckpointError(
            f"{self.waiting_for} were not there in time",
            hint="add nodes or wait for other jobs to end; the job needs these slots beside its own",
            waited_ms=round(SLOTS_WAIT_MS),
        )
        return self._done("time_passed", now_ms, self._give_up(error))

    # ---- inside --------------------------------------------------------------------

    def _take_checkpoint(self, request_id: str) -> list[Command]:
        self._stage, self._checkpoint_of = Stage.CHECKPOINTING, request_id
        return [TakeRescaleCheckpoint(Request(Purpose.RESCALE, request_id))]

    def _give_up(self, error: RaystreamError) -> list[Command]:
        """Let the job go on as it is."""
        # Also those that were lost: something may stand by for one.
        further = tuple(slot for slot in self._target.slots if slot not in self._shape.slots)
        self._wanted, self._there = set(), set()
        self._target = self._shape
        refusal = type(error)(
            f"job was not rescaled and goes on at parallelism {self._shape.parallelism}: {error.message}",
            hint=error.hint,
            **error.context,
        )
        refusal.__cause__ = error
        commands = self._answer(0, refusal)
        return [DismissSlots(further), *commands] if further else commands

    def _answer(self, downtime_ms: int, error: RaystreamError | None) -> list[Command]:
        waiting, self._waiting, self._stage, self._leaving = self._waiting, [], Stage.IDLE, ()
        return [ResolveRescale(request_id, downtime_ms, error) for request_id in waiting]

    def validate(self) -> None:
        """Assert every invariant."""
        assert not self._wanted & self._there, "a slot is there and wanted"
        assert bool(self._waiting) is not bool(self._leaving) or self._stage is Stage.IDLE, self._stage
        assert bool(self._waiting or self._leaving) == (self._stage is not Stage.IDLE), self._stage
        assert not self._wanted or self._stage is Stage.ACQUIRING, self._stage
        assert not self._there or self._stage in (Stage.ACQUIRING, Stage.CHECKPOINTING), self._stage
        assert not self.owns(SlotId(0)), "every job has slot 0"


def _leaves() -> ConfigError:
    return ConfigError("job is leaving a node that is about to go", hint="try again in a moment")
