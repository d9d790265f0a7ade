"""Which of several failures of one attempt counts, and what follows from it.

When a slot dies, its peers report broken connections, usually before the death itself is
known.  Such a *consequence* is believed only when no primary cause follows for a moment; one that
follows later, while the attempt still stops, is shown in its place.
A failure that no restart can mend counts more than the others.

Sinks that commit without a checkpoint can not be told apart afterwards into those that had
committed and those that had not: from then on no failure is followed by a restart, which would
read all input again and write it twice.  Behind the checkpoint that ends a job the opposite holds: all
that is left are its commits, so it is tried again a few times, whatever the strategy says.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raystream.errors import RaystreamError
from raystream.protocol.restart import Decision, GiveUp, Restart, RestartStrategy

if TYPE_CHECKING:
    from raystream.protocol.job_past import JobPast

CAUSE_WAIT_MS = 250
"""Time for a primary cause to follow its consequences."""

COMMIT_TRIES_MAX = 3
"""Attempts to finish the commits of a job that has ended, when the restart strategy allows none any more."""

COMMIT_RETRY_MS = 1_000
"""Time before each of them."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that ends an attempt."""

    error: RaystreamError
    retryable: bool = True
    """False when a restart can not help."""
    consequence: bool = False
    """True when it is probably the echo of another slot's death."""
    passed_over: bool = False
    """True when the attempt could not read its checkpoint, and the next one restores an older one."""
    taken_back: bool = False
    """True when nothing is wrong but that the sources have ended for a savepoint that will not be."""

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

    Attributes:
        gave_up: why the last failure was not followed by a restart; empty before that.
        restart_ms: when the attempt after the last failed one may begin, monotonic; in the past once it has.
        restarts: attempts that began since another one had failed.
    """

    def __init__(self, strategy: RestartStrategy) -> None:
        self._strategy = strategy
        self._first_ms = 0.0
        self._primary: Failure | None = None  # Of this attempt.
        self._last: Failure | None = None  # Of this attempt or an earlier one.
        self._progress = False  # A checkpoint has completed since the last failure.
        self._visible = False  # Output of this attempt may be visible, and no checkpoint says which.
        self._commit_tries = 0  # Those that are left, once only commits are.
        self.gave_up = ""
        self.restart_ms = 0.0
        self.restarts = 0

    @property
    def error(self) -> RaystreamError | None:
        """Primary cause of the last failure, None before the first one."""
        return self._last.error if self._last else None

    @property
    def has_failure(self) -> bool:
        """True when this attempt has failed."""
        return self._primary is not None

    @property
    def decision_ms(self) -> float:
        """When the primary cause is certain: at once for a cause, after a wait for a consequence."""
        assert self._primary is not None, "nothing has failed"
        return self._first_ms + (0 if self._primary.rank else CAUSE_WAIT_MS)

    def recovered(self, now_ms: float, past: "JobPast") -> None:
        """Learn of failures under an earlier job master; the strategy is asked about each once more.

        Args:
            now_ms: monotonic.
            past: of the job; what it failed with last is to be decided about now, or was.
        """
        for failure in past.failures:
            self._strategy.failure_occurred(failure.at_ms, checkpoint_completed_since=failure.progress)
        self._progress, self.restarts = past.progress, past.restarts
        self._commit_tries = COMMIT_TRIES_MAX if past.only_commits_left else 0
        if past.failure is not None:
            self.failure_reported(now_ms, past.failure)

    def attempt_started(self) -> None:
        """Forget the failures of the attempt before, but count that there were some."""
        self.restarts += self._primary is not None and not self._primary.taken_back
        self._primary = None
        self._visible = False

    def commit_without_checkpoint_begun(self) -> None:
        """Sinks publish their output, and no checkpoint remembers it."""
        self._visible = True

    def checkpoint_completed(self, *, ends_job: bool) -> None:
        """The job has made progress that a restart will not undo; perhaps only commits are left."""
        self._progress = True
        self._commit_tries = COMMIT_TRIES_MAX if ends_job else 0

    def failure_reported(self, now_ms: float, failure: Failure) -> None:
        """Take in another failure of this attempt; one that follows the decision may still be its cause."""
        if self._primary is None:
            self._first_ms = now_ms
        if self._primary is None or failure.rank > self._primary.rank:
            self._primary = self._last = failure
        if failure.passed_over:  # The job goes on from a checkpoint before the one that has ended it.
            self._commit_tries = 0

    def decide(self, now_ms: float) -> Decision | None:
        """Return what follows, or None while the primary cause is waited for; once per attempt."""
        assert self._primary is not None, "nothing has failed"
        if now_ms < self.decision_ms:
            return None
        decision = self._decision(now_ms, self._primary)
        match decision:
            case GiveUp(reason):
                self.gave_up = reason
            case Restart(delay_ms):
                self.restart_ms = now_ms + delay_ms
        return decision

    def shown(self, now_ms: float) -> dict[str, Any]:
        """Return what a view of the job shows of it."""
        wait_ms = max(round(self.restart_ms - now_ms), 0)
        return {"restarts": self.restarts, "restart_in_ms": wait_ms, "gave_up": self.gave_up}

    def _decision(self, now_ms: float, primary: Failure) -> Decision:
        if self._visible:
            self._primary = self._last = Failure(_partly_visible(primary.error), retryable=False)
            return GiveUp("a restart would write again what is visible already")
        if not primary.retryable:
            return GiveUp("a restart can not help")
        if primary.passed_over or primary.taken_back:
            # No second try of the same: there are only so many checkpoints, and a client asks for each drain.
            return Restart(0)
        progress, self._progress = self._progress, False
        decision = self._strategy.failure_occurred(now_ms, checkpoint_completed_since=progress)
        if isinstance(decision, GiveUp) and self._commit_tries:
            self._commit_tries -= 1
            return Restart(COMMIT_RETRY_MS)
        return decision

    def validate(self) -> None:
        """Assert every invariant."""
        self._strategy.validate()
        assert self._primary is None or self._primary is self._last


def _partly_visible(error: RaystreamError) -> RaystreamError:
    """Return the error of an attempt that failed while its sinks committed."""
    failure = type(error)(
        f"job failed while it committed its output, which may be partly visible: {error.message}",
        hint="remove that output before the job is run again; with execution.checkpointing.interval set,"
        " a restart finishes the commit",
        **error.context,
    )
    failure.__cause__ = error
    return failure
