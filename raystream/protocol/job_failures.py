"""Which of several failures of one attempt counts, and what follows from it.

When a slot dies, its peers report broken connections, usually before the death itself is
known.  Such a *consequence* is believed only when no primary cause follows for a moment.
A failure that no restart can mend counts more than the others.
"""

from dataclasses import dataclass

from raystream.errors import RaystreamError
from raystream.protocol.restart import Decision, GiveUp, RestartStrategy

CAUSE_WAIT_MS = 250
"""Time for a primary cause to follow its consequences."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that ends an attempt."""

    error: RaystreamError
    retryable: bool = True
    """False when a restart can not help."""
    consequence: bool = False
    """True when it is probably the echo of another slot's death."""

    @property
    def rank(self) -> int:
        """How much it counts; of failures of one rank the first one does."""
        if not self.retryable:
            return 2
        return 0 if self.consequence else 1


class FailureJudge:
    """Finds the primary cause of a failed attempt and asks the restart strategy about it.

    Args:
        strategy: whether and when a failed attempt is followed by another one.
    """

    def __init__(self, strategy: RestartStrategy) -> None:
        self._strategy = strategy
        self._first_ms = 0.0
        self._primary: Failure | None = None  # Of this attempt.
        self._last: Failure | None = None  # Of this attempt or an earlier one.
        self._progress = False  # A checkpoint has completed since the last failure.

    @property
    def error(self) -> RaystreamError | None:
        """Primary cause of the last failure, None before the first one."""
        return self._last.error if self._last else None

    @property
    def decision_ms(self) -> float:
        """When the primary cause is certain: at once for a cause, after a wait for a consequence."""
        assert self._primary is not None, "nothing has failed"
        return self._first_ms + (0 if self._primary.rank else CAUSE_WAIT_MS)

    def attempt_started(self) -> None:
        """Forget the failures of the attempt before."""
        self._primary = None

    def checkpoint_completed(self) -> None:
        """The job has made progress that a restart will not undo."""
        self._progress = True

    def failure_reported(self, now_ms: float, failure: Failure) -> None:
        """Take in another failure of this attempt."""
        if self._primary is None:
            self._first_ms = now_ms
        if self._primary is None or failure.rank > self._primary.rank:
            self._primary = self._last = failure

    def decide(self, now_ms: float) -> Decision | None:
        """Return what follows, or None while the primary cause is waited for; once per attempt."""
        assert self._primary is not None, "nothing has failed"
        if now_ms < self.decision_ms:
            return None
        if not self._primary.retryable:
            return GiveUp("a restart can not help")
        progress, self._progress = self._progress, False
        return self._strategy.failure_occurred(now_ms, checkpoint_completed_since=progress)

    def validate(self) -> None:
        """Assert every invariant."""
        self._strategy.validate()
        assert self._primary is None or self._primary is self._last
