"""Which completed checkpoints a job keeps: the state machine, without any I/O.

    checkpoint_completed ... checkpoint_completed      job_ended
    RETAINING ---------------------------------> RETAINING ------> ENDED

A *damaged* one cannot be restored: it does not count as one of those that are kept, and is kept as
evidence until everything older is superfluous too.

Knows checkpoint ids only.  Savepoints are never told to it, so that it can never delete one;
neither are checkpoints that are pending or aborted.  A checkpoint that it returns is no longer
needed by anyone: the caller deletes it, after the log entry that made it superfluous.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

from raystream.errors import ProtocolError
from raystream.ids import CheckpointId, JobStatus

_HISTORY_LENGTH_MAX = 32


class Retention:
    """Keeps the newest completed checkpoints of a job and decides what its end leaves behind.

    Args:
        num_retained: completed checkpoints to keep, at least 1.
        delete_on_cancellation: whether a canceled job leaves no checkpoint.
    """

    def __init__(
        self,
        num_retained: int,
        *,
        delete_on_cancellation: bool = False,
    ) -> None:
        assert num_retained >= 1, "the newest checkpoint is what a failure recovers from"
        self._num_retained = num_retained
        self._delete_on_cancellation = delete_on_cancellation
        self._retained: list[CheckpointId] = []  # Oldest first.
        self._damaged: set[CheckpointId] = set()  # Some of those.
        self._ended = False
        self._history: deque[tuple[str, Any]] = deque(maxlen=_HISTORY_LENGTH_MAX)

    @property
    def retained(self) -> tuple[CheckpointId, ...]:
        """Checkpoints that are kept now, oldest first."""
        return tuple(self._retained)

    @property
    def damaged(self) -> tuple[CheckpointId, ...]:
        """Checkpoints that are kept and cannot be restored, oldest first."""
        return tuple(sorted(self._damaged))

    @property
    def newest(self) -> CheckpointId | None:
        """The newest checkpoint that can be restored, as far as is known; None when there is none."""
        return max(self._whole, default=None)

    def began(self, retained: Iterable[CheckpointId], damaged: Iterable[CheckpointId]) -> None:
        """Keep what the job owns from the start: the checkpoints of its log, or one that it claimed."""
        self._record("began", retained)
        if self._retained:
            raise self._broken("job began twice")
        self._retained, self._damaged = sorted(set(retained)), set(damaged)

    def checkpoint_completed(self, checkpoint_id: CheckpointId) -> list[CheckpointId]:
        """Keep a checkpoint whose log entry exists; return those to delete for it, oldest first.

        Raises:
            ProtocolError: it is not newer than the newest one, which subsumed it, or the job has
                ended.
        """
        self._record("checkpoint_completed", checkpoint_id)
        if self._retained and checkpoint_id <= self._retained[-1]:
            raise self._broken("checkpoint completed after a newer one", checkpoint_id=checkpoint_id)
        self._retained.append(checkpoint_id)
        oldest = self._whole[-self._num_retained :][0]
        superfluous = [one for one in self._retained if one < oldest]
        self._retained = [one for one in self._retained if one >= oldest]
        self._damaged -= set(superfluous)
        return superfluous

    def checkpoint_damaged(self, checkpoint_id: CheckpointId) -> None:
        """Count a checkpoint out that cannot be restored.

        Raises:
            ProtocolError: it is not kept, or the job has ended.
        """
        self._record("checkpoint_damaged", checkpoint_id)
        if checkpoint_id not in self._retained:
            raise self._broken("checkpoint that is not kept was damaged", checkpoint_id=checkpoint_id)
        self._damaged.add(checkpoint_id)

    def job_ended(self, status: JobStatus) -> list[CheckpointId]:
        """Take the job's terminal status; return the checkpoints to delete, oldest first.

        FINISHED leaves none, FAILED all that were retained, CANCELED as configured.

        Raises:
            ProtocolError: the status is not terminal, or the job has ended before.
        """
        self._record("job_ended", status.value)
        match status:
            case JobStatus.FINISHED:
                deleted = self._retained
            case JobStatus.CANCELED:
                deleted = self._retained if self._delete_on_cancellation else []
            case JobStatus.FAILED:
                deleted = []
            case _:
                raise self._broken("job ended with a status that is not terminal", status=status.value)
        self._ended = True
        self._retained = [] if deleted else self._retained
        self._damaged &= set(self._retained)
        return list(deleted)

    @property
    def _whole(self) -> list[CheckpointId]:
        return [one for one in self._retained if one not in self._damaged]

    def validate(self) -> None:
        """Assert every invariant."""
        assert self._retained == sorted(set(self._retained)), "retained checkpoints are ordered"
        assert self._damaged <= set(self._retained), "a damaged checkpoint that is not kept"

    def _record(self, event: str, argument: Any) -> None:
        if self._ended:
            raise self._broken("event after the end of the job", event=event)
        self._history.append((event, argument))

    def _broken(self, message: str, **context: Any) -> ProtocolError:
        return ProtocolError(message, **context, retained=self.retained, history=list(self._history))
