"""How many checkpoints in a row may fail before the attempt does, and what clients are told.

Counts declines and storage errors, each checkpoint once.  Expired checkpoints do not
count: a slow checkpoint does not kill a healthy job.  Nor does what a client has asked for, which is
told.  One for which the sources have ended does away with the attempt all
the same, since event time does not run backwards: the job goes on from its last checkpoint.

Source: Flink's `CheckpointFailureManager`.
"""

from collections.abc import Sequence

from raystream.errors import CheckpointError, RaystreamError
from raystream.ids import CheckpointId
from raystream.protocol.checkpoint_commands import CheckpointFailureReason, Command, FailAttempt
from raystream.protocol.checkpoint_requests import Purpose, Request
from raystream.protocol.subtasks import Subtask

_REASONS_SHOWN_MAX = 3
_MISSING_SHOWN_MAX = 3


class TolerableFailures:
    """Counts the failures since the last success.

    Args:
        tolerable: failures in a row that the attempt survives, at least 0.
    """

    def __init__(self, tolerable: int) -> None:
        assert tolerable >= 0, tolerable
        self._tolerable = tolerable
        self._last_success = CheckpointId(0)
        self._failures: list[str] = []

    @property
    def exhausted(self) -> bool:
        """True when more have failed than is tolerable."""
        return len(self._failures) > self._tolerable

    def attempt_started(self) -> None:
        """Begin to count anew."""
        self._failures = []

    def succeeded(self, checkpoint_id: CheckpointId) -> None:
        """A checkpoint has completed; failures of older ones no longer count."""
        self._last_success = checkpoint_id
        self._failures = []

    def aborted(
        self,
        checkpoint_id: CheckpointId,
        request: Request,
        reason: CheckpointFailureReason,
        error: RaystreamError,
    ) -> list[Command]:
        """Return what follows for the attempt, which goes on otherwise, when a checkpoint is given up."""
        if request.purpose.savepoint or request.purpose is Purpose.RESCALE:
            if not request.drain or reason is CheckpointFailureReason.TRIGGER_FAILED:
                return []
            return [FailAttempt(_drain_error(checkpoint_id, error), taken_back=True)]
        failure = self._failed(checkpoint_id, reason, error)
        return [FailAttempt(failure)] if failure else []

    def _failed(
        self, checkpoint_id: CheckpointId, reason: CheckpointFailureReason, error: RaystreamError
    ) -> CheckpointError | None:
        """Count a failure; return what the attempt fails with when this one is the first too many."""
        if not reason.counts or checkpoint_id <= self._last_success or self.exhausted:
            return None
        self._failures.append(f"{checkpoint_id} {reason.value}: {error.brief}")
        if not self.exhausted:
            return None
        failure = CheckpointError(
            f"{len(self._failures)} checkpoints in a row have failed; "
            + "; ".join(self._failures[-_REASONS_SHOWN_MAX:]),
            hint=error.hint,
            tolerable=self._tolerable,
        )
        failure.__cause__ = error
        return failure


def savepoint_error(
    request: Request, reason: CheckpointFailureReason, error: RaystreamError
) -> RaystreamError:
    """Return what the client is told; a request that could not even start is answered as it is."""
    if reason is CheckpointFailureReason.TRIGGER_FAILED or request.purpose is Purpose.RESCALE:
        return error
    goes_on = request.purpose is Purpose.STOP and reason is not CheckpointFailureReason.ATTEMPT_ENDED
    outcome = CheckpointError(
        f"{request.purpose.noun} was aborted{', and the job goes on' if goes_on else ''}: {error.message}",
        hint=error.hint,
        **{"reason": reason.value, **error.context},
    )
    outcome.__cause__ = error
    return outcome


def _drain_error(checkpoint_id: CheckpointId, error: RaystreamError) -> CheckpointError:
    failure = CheckpointError(
        f"sources that had ended for a savepoint go on from the last checkpoint: {error.message}",
        hint=error.hint,
        checkpoint_id=checkpoint_id,
    )
    failure.__cause__ = error
    return failure


def expiry_error(
    checkpoint_id: CheckpointId, timeout_ms: float, missing: Sequence[Subtask]
) -> CheckpointError:
    """Return why a checkpoint expired.

    Args:
        checkpoint_id: the checkpoint.
        timeout_ms: age at which it expired.
        missing: subtasks whose acknowledgement had not come.
    """
    return CheckpointError(
        "checkpoint expired before all subtasks had acknowledged it"
        if missing
        else "checkpoint expired before it was written",
        checkpoint_id=checkpoint_id,
        timeout_ms=timeout_ms,
        missing=list(missing[:_MISSING_SHOWN_MAX]),
    )
