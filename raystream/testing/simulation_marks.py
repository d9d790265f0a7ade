"""Rare moments of a simulated run, seen from outside: they tell whether a simulation went where it must.

A simulation that passes says little when what is hard never happened in it.  `Marks` watches the
messages, frames and calls of the store that go by, and notes each `Mark` that it recognises.
Production code has no hook for it.
"""

from collections import Counter
from enum import Enum
from typing import Any

from raystream.ids import SlotId
from raystream.runtime import messages as msg


class Mark(Enum):
    """A moment that a simulation should have reached."""

    ABORTED_DURING_ALIGNMENT = "checkpoint aborted or declined while a slot aligned for it"
    LATE_ACK = "acknowledgement of an attempt that is over"
    METADATA_WITHOUT_ENTRY = "metadata written, and the log entry never"
    ENTRY_WITHOUT_NOTICE = "log entry written, and a slot never told"
    COMMIT_REPEATED = "commit of what was published before"
    CRASH_BEFORE_STOP_ENTRY = "crash after a stop was requested, before its savepoint was logged"
    CRASH_AFTER_STOP_ENTRY = "crash after the savepoint of a stop was logged"
    RESTART_DURING_RESTART = "crash during a restart"
    MASTER_REPLACED = "another job master went on with the job"
    MASTER_FENCED = "old job master found the log taken by a new one"
    RESCALED_AFTER_CRASH = "resumed at another parallelism after a crash"
    RESCALED_RUNNING = "running job went on at another parallelism"
    PRESUMED_DEAD_WOKE = "slot given up as dead went on"
    OLDER_CHECKPOINT = "fall-back to an older checkpoint"
    IN_FLIGHT_STORED = "records in flight stored by an unaligned checkpoint"
    IN_FLIGHT_RESTORED = "records in flight restored"
    IN_FLIGHT_RESCALED = "records in flight restored at another parallelism"

    def __repr__(self) -> str:
        return str(self)


class Marks:
    """The marks that a run has reached.

    Attributes:
        reached: how often each.
    """

    def __init__(self) -> None:
        self.reached: Counter[Mark] = Counter()
        self._crashed = False
        self._parallelism = 0
        self._rescaled = False  # The job has gone on at another parallelism.
        self._damaged: set[int] = set()
        self._begin_job()

    def _begin_job(self) -> None:
        self._barriers: Counter[tuple[SlotId, int]] = Counter()
        self._barriers_max: Counter[SlotId] = Counter()  # Of one checkpoint: then a slot has aligned.
        self._unlogged: set[int] = set()
        self._unnoticed: set[int] = set()  # Checkpoints in the log of which nobody was told.
        self._attempt = 0  # The newest that was deployed.
        self._deployed: set[SlotId] = set()  # Its slots.
        self._ran: set[SlotId] = set()  # Slots of the newest attempt that was started.
        self._in_flight = False  # The newest attempt restored records in flight.
        self._over = 0  # The newest that was stopped.
        self._starting = self._replaced = False
        self._stop_requested = self._stop_logged = False

    def job_starts(self, parallelism: int) -> None:
        """A job begins, the first one or one that goes on from a snapshot."""
        self._begin_job()
        self._rescaled = self._parallelism not in (0, parallelism)
        if self._crashed and self._rescaled:
            self._reach(Mark.RESCALED_AFTER_CRASH)
        self._parallelism = parallelism

    def job_ends(self) -> None:
        """A job has ended: no log entry follows any metadata that has none."""
        if self._unlogged:
            self._reach(Mark.METADATA_WITHOUT_ENTRY)

    def stop_requested(self) -> None:
        """A client stops the job with a savepoint."""
        self._stop_requested = True

    def crashed(self) -> None:
        """A process has died that nobody wanted dead."""
        self._crashed = True
        if self._starting and self._attempt > 1:
            self._reach(Mark.RESTART_DURING_RESTART)
        if self._stop_logged:
            self._reach(Mark.CRASH_AFTER_STOP_ENTRY)
        elif self._stop_requested:
            self._reach(Mark.CRASH_BEFORE_STOP_ENTRY)

    def master_replaced(self) -> None:
        """A job master has died, or is presumed to be dead."""
        self.crashed()
        self._replaced = True
        if self._unnoticed:
            self._reach(Mark.ENTRY_WITHOUT_NOTICE)

    def master_fenced(self) -> None:
        """An older job master wants a number of the log that is taken."""
        self._reach(Mark.MASTER_FENCED)

    def woke(self) -> None:
        """A process that was given up has had a turn."""
        self._reach(Mark.PRESUMED_DEAD_WOKE)

    # ---- messages and frames -------------------------------------------------

    def command_sent(self, slot: SlotId, command: msg.Command) -> None:
        match command:
            case msg.Deploy():
                if self._replaced:
                    self._replaced = False
                    self._reach(Mark.MASTER_REPLACED)
                if command.attempt > self._attempt:
                    self._deployed, self._in_flight = set(), False
                self._deployed.add(slot)
                self._attempt, self._starting = command.attempt, True
                self._look_at_restored(command)
            case msg.Start():
                self._starting = False
                if len(self._ran) not in (0, len(self._deployed)):
                    self._reach(Mark.RESCALED_RUNNING)
                    if self._in_flight:
                        self._reach(Mark.IN_FLIGHT_RESCALED)
                self._ran = self._deployed
            case msg.StopAttempt():
                self._over = max(self._over, command.attempt)
            case msg.CheckpointCompleted():
                self._unnoticed.discard(command.checkpoint_id)
            case msg.CheckpointAborted():
                self._aborted(slot, command.checkpoint_id)

    def command_lost(self, command: msg.Command) -> None:
        """A command has reached nobody, since its slot is dead."""
        if isinstance(command, msg.CheckpointCompleted):
            self._reach(Mark.ENTRY_WITHOUT_NOTICE)

    def report_received(self, report: msg.Report, slot: SlotId) -> None:
        match report:
            case msg.SnapshotAcked():
                if any(handle.records for one in report.snapshot.operators for handle in one.channels):
                    self._reach(Mark.IN_FLIGHT_STORED)
                if report.attempt < self._attempt or report.attempt <= self._over:
                    self._reach(Mark.LATE_ACK)
            case msg.SnapshotDeclined():
                self._aborted(slot, report.checkpoint_id)

    def barrier_arrived(self, slot: SlotId, checkpoint_id: int) -> None:
        """One channel of a slot has a barrier."""
        self._barriers[slot, checkpoint_id] += 1
        self._barriers_max[slot] = max(self._barriers_max[slot], self._barriers[slot, checkpoint_id])

    def _aborted(self, slot: SlotId, checkpoint_id: int) -> None:
        if 0 < self._barriers.pop((slot, checkpoint_id), 0) < self._barriers_max[slot]:
            self._reach(Mark.ABORTED_DURING_ALIGNMENT)

    def _look_at_restored(self, command: msg.Deploy) -> None:
        all_restored = [one for subtask in command.restore.values() for one in subtask.values()]
        directories = {restored.directory for restored in all_restored}
        if any(restored.channels for restored in all_restored):
            self._in_flight = True
            self._reach(Mark.IN_FLIGHT_RESTORED)
            if self._rescaled:
                self._reach(Mark.IN_FLIGHT_RESCALED)
        newest = max(self._damaged, default=0)
        if newest and any(_checkpoint_in(directory) < newest for directory in directories):
            self._reach(Mark.OLDER_CHECKPOINT)

    # ---- the store -----------------------------------------------------------

    def damaged(self, checkpoint_id: int) -> None:
        """A file of a complete checkpoint is lost or damaged."""
        self._damaged.add(checkpoint_id)

    def metadata_written(self, checkpoint_id: int) -> None:
        """`_metadata` of a checkpoint is there."""
        self._unlogged.add(checkpoint_id)

    def checkpoint_logged(self, checkpoint_id: int, entry: dict[str, Any]) -> None:
        """The log entry of a checkpoint is there."""
        self._unlogged.discard(checkpoint_id)
        self._unnoticed.add(checkpoint_id)
        self._stop_logged = self._stop_logged or bool(entry.get("stop"))

    def published_again(self) -> None:
        """A committer was given what was published before."""
        self._reach(Mark.COMMIT_REPEATED)

    def _reach(self, mark: Mark) -> None:
        self.reached[mark] += 1


def _checkpoint_in(directory: str) -> int:
    """Return the id of the checkpoint with this directory; a large number for a savepoint."""
    name = directory.rstrip("/").rpartition("/")[2]
    return int(name.removeprefix("chk-")) if name.startswith("chk-") else 1 << 62
