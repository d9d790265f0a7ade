"""From which snapshot the next attempt of a job goes on: the state machine, without any I/O.

    completed --> the newest one --> damaged --> the next older one that is kept --> damaged --> ...
                       ^                 |            |
                       +---- completed --|------------+
                                         +--> nothing: the job has failed

A snapshot that an attempt cannot read, because a file is missing or damaged, is *passed over*, if the job
has an older checkpoint and nothing was committed after that: it would come twice.  Else the job ends, and
the error names the file.  A store that does not answer is no damage, and never leads here.

Several slots may find damage in one attempt, in the same snapshot; the first one decides.

Knows ids; knows nothing of files.  What is kept is decided by `raystream.protocol.retention`.
"""

from dataclasses import dataclass

from raystream.errors import RaystreamError
from raystream.ids import Attempt, CheckpointId, JobStatus
from raystream.protocol.checkpoint_commands import (
    Command,
    DeleteCheckpoint,
    FailAttempt,
    PruneLog,
    RecordDamage,
)
from raystream.protocol.retention import Retention


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What a job has when a job master begins with it: a snapshot of another job, or its own checkpoints."""

    newest: CheckpointId
    """Ids go on above this one."""
    point: CheckpointId | None
    """What the next attempt restores; None for nothing."""
    retained: tuple[CheckpointId, ...] = ()
    """Complete checkpoints that the job owns, oldest first; one that it claimed is among them."""
    damaged: tuple[CheckpointId, ...] = ()
    """Those of them that cannot be restored."""


class RecoveryPoint:
    """Decides what the next attempt restores.

    Args:
        retention: knows the checkpoints that the job owns.
        older_allowed: an older checkpoint may be restored although newer ones were complete: no sink commits,
            or the user takes what comes twice.
    """

    def __init__(self, retention: Retention, *, older_allowed: bool) -> None:
        self._retention = retention
        self._older_allowed = older_allowed
        self._point: CheckpointId | None = None
        self._judged = Attempt(0)  # The last attempt that could not read what it restores.
        self._passed_over = False  # And what was decided.

    @property
    def point(self) -> CheckpointId | None:
        """What the next attempt restores; None for nothing."""
        return self._point

    @property
    def retained(self) -> tuple[CheckpointId, ...]:
        """Complete checkpoints that the job owns and keeps, oldest first."""
        return self._retention.retained

    @property
    def passed_over(self) -> tuple[CheckpointId, ...]:
        """Those of them that are damaged, so that no attempt restores them."""
        return self._retention.damaged

    def began(self, beginning: Beginning) -> None:
        """The job does not begin with nothing."""
        self._point = beginning.point
        self._retention.began(beginning.retained, beginning.damaged)

    def completed(self, checkpoint_id: CheckpointId) -> None:
        """A snapshot is complete, and a failure from now on restores it."""
        self._point = checkpoint_id

    def kept(self, checkpoint_id: CheckpointId) -> list[Command]:
        """A checkpoint is complete and the job's own: delete those that it makes superfluous."""
        superfluous = self._retention.checkpoint_completed(checkpoint_id)
        prune: list[Command] = [PruneLog(self.retained)] if superfluous else []
        return [*map(DeleteCheckpoint, superfluous), *prune]

    def job_ended(self, status: JobStatus) -> list[Command]:
        """The job has ended: delete what it does not leave."""
        return [*map(DeleteCheckpoint, self._retention.job_ended(status))]

    def damaged(self, attempt: Attempt, error: RaystreamError, *, running: Attempt) -> list[Command]:
        """An attempt can not read what it restores.

        Args:
            attempt: which one.
            error: names the file.
            running: the newest attempt that has restored everything.
        """
        if attempt <= running:
            return [FailAttempt(error, retryable=False)]
        if attempt == self._judged:
            return [FailAttempt(error, retryable=self._passed_over, passed_over=self._passed_over)]
        self._judged, self._passed_over = attempt, False
        damaged = self._point
        if damaged is None or damaged not in self._retention.retained:
            return [FailAttempt(error, retryable=False)]  # It is not ours, or the job was stopped with it.
        self._retention.checkpoint_damaged(damaged)
        older = self._retention.newest
        if older is None:
            return [RecordDamage(damaged, error, None), FailAttempt(error, retryable=False)]
        if not self._older_allowed:
            refusal = _with_advice(error, damaged, older)
            return [RecordDamage(damaged, error, None), FailAttempt(refusal, retryable=False)]
        self._point, self._passed_over = older, True
        return [RecordDamage(damaged, error, older), FailAttempt(error, passed_over=True)]

    def validate(self) -> None:
        """Assert every invariant."""
        self._retention.validate()
        assert not self._passed_over or self._point not in self._retention.damaged, self._point


def _with_advice(error: RaystreamError, damaged: CheckpointId, older: CheckpointId) -> RaystreamError:
    return type(error)(
        error.message,
        hint="go on from the older checkpoint with -s latest --allow-older-checkpoint: what was committed"
        " since then comes twice",
        **{**error.context, "checkpoint_id": damaged, "older_checkpoint": older},
    )
