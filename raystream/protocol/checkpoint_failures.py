"""How many checkpoints in a row may fail before the attempt does, and what clients are told.

Counts declines and storage errors, each checkpoint once.  Expired checkpoints do not
count: a slow checkpoint does not kill a healthy job.  Savepoints do not count either:
their client is told.

Source: Flink's `CheckpointFailureManager`.
"""

from raystream.errors import CheckpointError, RaystreamError
from raystream.ids import CheckpointId
from raystream.protocol.checkpoint_commands import CheckpointFailureReason
from raystream.protocol.checkpoint_ids import IDS_AHEAD_MAX

_REASONS_SHOWN_MAX = 3


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

    def failed(
        self, checkpoint_id: CheckpointId, reason: CheckpointFailureReason, error: RaystreamError
    ) -> CheckpointError | None:
        """Count a failure; return what the attempt fails with when this one is the first too many."""
        if not reason.counts or checkpoint_id <= self._last_success or self.exhausted:
            return None
        self._failures.append(f"{checkpoint_id} {reason.value}: {error.message}")
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


def savepoint_error(reason: CheckpointFailureReason, error: RaystreamError) -> RaystreamError:
    """Return what the client is told; a request that could not even start is answered as it is."""
    if reason is CheckpointFailureReason.TRIGGER_FAILED:
        return error
    outcome = CheckpointError(
        f"savepoint was aborted: {error.message}",
        hint=error.hint,
        **{"reason": reason.value, **error.context},
    )
    outcome.__cause__ = error
    return outcome


def never_complete() -> CheckpointError:
    """Return what an attempt fails with that has used up its ids."""
    return CheckpointError(
        f"{IDS_AHEAD_MAX} checkpoints in a row were not complete",
        hint="raise execution.checkpointing.timeout, or use faster storage",
    )
