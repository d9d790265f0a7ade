"""The checkpoints that are neither complete nor aborted, and how the ended ones ended.

Knows which subtask has acknowledged what; decides nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from raystream.errors import CheckpointError
from raystream.handles import Redistribution, SubtaskSnapshot
from raystream.ids import CheckpointId
from raystream.protocol.checkpoint_commands import AckOutcome
from raystream.protocol.checkpoint_requests import Load, Purpose, Request
from raystream.protocol.subtasks import Subtask

FATES_REMEMBERED_MAX = 1_024
"""Ended checkpoints whose late acknowledgements are still told apart."""


class Stage(Enum):
    """How far a pending checkpoint is."""

    COLLECTING = "collecting"
    """Subtasks are still to acknowledge."""
    WRITING = "writing"
    """`_metadata` is being written."""
    WRITTEN = "written"
    """Waits for the log entry of another one."""
    LOGGING = "logging"
    """The log entry is being written: it can not be aborted any more."""


@dataclass(slots=True)
class PendingCheckpoint:
    """A checkpoint that is neither complete nor aborted."""

    id: CheckpointId
    request: Request
    started_ms: float
    stage: Stage = Stage.COLLECTING
    snapshots: dict[Subtask, SubtaskSnapshot] = field(default_factory=dict)

    @property
    def purpose(self) -> Purpose:
        """What it is taken for."""
        return self.request.purpose

    @property
    def acknowledged(self) -> tuple[SubtaskSnapshot, ...]:
        """What subtasks have stored so far, by vertex and subtask."""
        return tuple(self.snapshots[subtask] for subtask in sorted(self.snapshots))


class PendingCheckpoints:
    """All pending checkpoints of a job, oldest first.

    Args:
        subtasks: everyone whose snapshot a checkpoint needs.
    """

    def __init__(self, subtasks: Iterable[Subtask]) -> None:
        self.subtasks = frozenset(subtasks)
        self._pending: dict[CheckpointId, PendingCheckpoint] = {}
        self._fates: dict[CheckpointId, AckOutcome] = {}

    def __iter__(self) -> Iterator[PendingCheckpoint]:
        return iter(list(self._pending.values()))  # A copy: the caller may end what it gets.

    def __len__(self) -> int:
        return len(self._pending)

    def get(self, checkpoint_id: CheckpointId) -> PendingCheckpoint | None:
        """Return a pending checkpoint, or None when it has ended."""
        return self._pending.get(checkpoint_id)

    @property
    def abortable(self) -> list[PendingCheckpoint]:
        """All that can still be given up."""
        return [pending for pending in self if pending.stage is not Stage.LOGGING]

    @property
    def logging(self) -> PendingCheckpoint | None:
        """The one whose log entry is being written."""
        return next((pending for pending in self if pending.stage is Stage.LOGGING), None)

    @property
    def next_to_log(self) -> PendingCheckpoint | None:
        """The oldest that is written, unless another one is being logged."""
        if self.logging is not None:
            return None
        return next((pending for pending in self if pending.stage is Stage.WRITTEN), None)

    @property
    def load(self) -> Load:
        """How much is pending."""
        purposes = [pending.purpose for pending in self]
        return Load(
            pending=len(purposes),
            savepoints=sum(purpose.savepoint for purpose in purposes),
            ending=any(purpose.ends_attempt for purpose in purposes),
            manual=purposes.count(Purpose.MANUAL),
        )

    def add(self, pending: PendingCheckpoint) -> None:
        """Take in a new one, whose id is above all others."""
        self._pending[pending.id] = pending

    def end(self, pending: PendingCheckpoint, fate: AckOutcome) -> None:
        """Remove one; late acknowledgements of it are of this kind."""
        del self._pending[pending.id]
        self._fates[pending.id] = fate
        if len(self._fates) > FATES_REMEMBERED_MAX:
            del self._fates[next(iter(self._fates))]

    def ack_outcome(self, checkpoint_id: CheckpointId, subtask: Subtask) -> AckOutcome:
        """Return what an acknowledgement from the current attempt is."""
        pending = self._pending.get(checkpoint_id)
        if pending is None:
            return self._fates.get(checkpoint_id, AckOutcome.SETTLED)
        if subtask not in self.subtasks:
            return AckOutcome.STRANGER
        return AckOutcome.DUPLICATE if subtask in pending.snapshots else AckOutcome.TAKEN

    def missing(self, pending: PendingCheckpoint) -> list[Subtask]:
        """Return the subtasks that have not acknowledged, in order."""
        return sorted(self.subtasks - pending.snapshots.keys())

    def validate(self) -> None:
        """Assert every invariant."""
        ids = list(self._pending)
        assert ids == sorted(ids), ids
        assert not (self._pending.keys() & self._fates.keys()), "a checkpoint is pending and ended"
        assert sum(pending.stage is Stage.LOGGING for pending in self) <= 1
        assert sum(pending.purpose.ends_attempt for pending in self) <= 1
        for pending in self:
            assert pending.snapshots.keys() <= self.subtasks
            assert bool(self.missing(pending)) == (pending.stage is Stage.COLLECTING), pending.stage


def partly_ended(snapshots: Iterable[SubtaskSnapshot]) -> CheckpointError | None:
    """Return why a checkpoint must not complete in which only some subtasks of a vertex have ended.

    Every subtask would run again with the whole list of a union state, to which those that had ended
    have added their last already.
    """
    snapshots = list(snapshots)
    ended = {snapshot.vertex for snapshot in snapshots if snapshot.ended}
    running = {snapshot.vertex for snapshot in snapshots if not snapshot.ended}
    for snapshot in snapshots:
        if snapshot.vertex not in ended & running:
            continue
        for operator in snapshot.operators:
            for handle in operator.operator:
                if handle.mode is Redistribution.UNION:
                    return CheckpointError(
                        "only some subtasks of an operator with union state have ended",
                        hint="checkpoints go on when all of them have; until then a failure costs more",
                        uid=operator.uid,
                        state=handle.name,
                    )
    return None
