"""Whether and when a failed job runs again: one small state machine per strategy.

Knows the times of failures and whether a checkpoint has completed between them; knows
nothing of slots, errors or what a restart does.  Errors that no restart can mend never
get here.

Failures while the delay of a restart is still running are one failure: they get what
is left of that delay, and nothing is counted twice.

Source: Flink's `RestartBackoffTimeStrategy` family.  Two things differ for the
exponential delay: the first restart after a newly completed checkpoint is immediate,
since the job has shown that it makes progress, and the quiet time that resets the delay
counts from the last failure.  And `failure-rate` survives as many failures in an interval as
its option says, as Flink's documentation has it; its class gives up at the last of them.
"""

import random
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Restart:
    """The job runs again after this delay."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed for good."""

    reason: str
    """Why there is no restart, as part of a sentence about the job."""


Decision = Restart | GiveUp


class RestartStrategy(Protocol):
    """Decides about each failure of an attempt."""

    def failure_occurred(self, now_ms: float, *, checkpoint_completed_since: bool) -> Decision:
        """Return what follows from a failure.

        Args:
            now_ms: monotonic time; never less than in an earlier call.
            checkpoint_completed_since: whether a checkpoint has completed after the failure
                before this one, or at all when this is the first.
        """

    def validate(self) -> None:
        """Assert every invariant."""


class NoRestart:
    """Strategy `none`: the first failure ends the job."""

    def failure_occurred(self, now_ms: float, *, checkpoint_completed_since: bool) -> Decision:
        return GiveUp("restarts are switched off (restart-strategy.type is none)")

    def validate(self) -> None:
        """Assert nothing: there is no state."""


class _DelayedRestart:
    """What all strategies with a delay do: failures while it runs get what is left of it."""

    def __init__(self) -> None:
        self._due_ms = float("-inf")  # When the last restart is or was due.

    def failure_occurred(self, now_ms: float, *, checkpoint_completed_since: bool) -> Decision:
        if now_ms < self._due_ms:
            return Restart(round(self._due_ms - now_ms))
        decision = self._decide(now_ms, checkpoint_completed_since)
        if isinstance(decision, Restart):
            self._due_ms = now_ms + decision.delay_ms
        return decision

    @abstractmethod
    def _decide(self, now_ms: float, checkpoint_completed_since: bool) -> Decision:
        """Return what follows from a failure that counts."""


class FixedDelay(_DelayedRestart):
    """Strategy `fixed-delay`: a number of restarts in the life of the job, each after the same delay.

    Args:
        attempts: number of restarts, at least 0.
        delay_ms: time before each of them, at least 0.
    """

    def __init__(self, attempts: int, delay_ms: int) -> None:
        assert attempts >= 0, attempts
        assert delay_ms >= 0, delay_ms
        super().__init__()
        self._attempts = attempts
        self._delay_ms = delay_ms
        self._restarts = 0

    def _decide(self, now_ms: float, checkpoint_completed_since: bool) -> Decision:
        if self._restarts >= self._attempts:
            return GiveUp(
                f"all {self._attempts} restarts of restart-strategy.fixed-delay.attempts are used up"
            )
        self._restarts += 1
        return Restart(self._delay_ms)

    def validate(self) -> None:
        """Assert every invariant."""
        assert 0 <= self._restarts <= self._attempts, (self._restarts, self._attempts)


class FailureRate(_DelayedRestart):
    """Strategy `failure-rate`: restarts after the same delay, until failures come too often.

    Args:
        failures_max: failures within any interval that the job survives, at least 1.
        interval_ms: length of the interval; a failure this long ago still counts.
        delay_ms: time before each restart, at least 0.

    Example:
        >>> strategy = FailureRate(2, interval_ms=1_000, delay_ms=10)
        >>> [strategy.failure_occurred(t, checkpoint_completed_since=False) for t in (0, 500, 1_001)]
        [Restart(delay_ms=10), Restart(delay_ms=10), Restart(delay_ms=10)]
        >>> strategy.failure_occurred(1_500, checkpoint_completed_since=False).reason
        'more than 2 failures within 1000 ms (restart-strategy.failure-rate.max-failures-per-interval)'
    """

    def __init__(self, failures_max: int, *, interval_ms: int, delay_ms: int) -> None:
        assert failures_max >= 1, failures_max
        assert interval_ms > 0, interval_ms
        assert delay_ms >= 0, delay_ms
        super().__init__()
        self._failures_max = failures_max
        self._interval_ms = interval_ms
        self._delay_ms = delay_ms
        self._failures_ms: deque[float] = deque(maxlen=failures_max)  # The newest ones, oldest first.

    def _decide(self, now_ms: float, checkpoint_completed_since: bool) -> Decision:
        if (
            len(self._failures_ms) == self._failures_max
            and now_ms - self._failures_ms[0] <= self._interval_ms
        ):
            return GiveUp(
                f"more than {self._failures_max} failures within {self._interval_ms} ms"
                " (restart-strategy.failure-rate.max-failures-per-interval)"
            )
        self._failures_ms.append(now_ms)
        return Restart(self._delay_ms)

    def validate(self) -> None:
        """Assert every invariant."""
        assert list(self._failures_ms) == sorted(self._failures_ms), self._failures_ms


class ExponentialDelay(_DelayedRestart):
    """Strategy `exponential-delay`: restarts, each after a longer delay than the one before.

    Args:
        initial_ms: first delay, and the first again after a quiet time; above 0.
        max_ms: longest delay, with jitter; at least `initial_ms`.
        multiplier: from one delay to the next; at least 1.
        reset_ms: time without failure after which the delay is the first one again.
        jitter: share of a delay that is added or taken off at random, `0 <= jitter <= 1`.
        attempts: restarts without a quiet time between them, immediate ones included, at least 1;
            None for any number.
        rng: where the jitter comes from.

    Example:
        >>> strategy = ExponentialDelay(
        ...     4, 300, multiplier=2.3, reset_ms=10_000, jitter=0.0, rng=random.Random(0)
        ... )
        >>> [strategy.failure_occurred(t, checkpoint_completed_since=False).delay_ms for t in (0, 50, 90)]
        [4, 9, 21]
    """

    def __init__(
        self,
        initial_ms: int,
        max_ms: int,
        *,
        multiplier: float,
        reset_ms: int,
        jitter: float,
        rng: random.Random,
        attempts: int | None = None,
    ) -> None:
        assert attempts is None or attempts >= 1, attempts
        assert 0 < initial_ms <= max_ms, (initial_ms, max_ms)
        assert multiplier >= 1, multiplier
        assert 0 <= jitter <= 1, jitter
        super().__init__()
        self._initial_ms = initial_ms
        self._max_ms = max_ms
        self._multiplier = multiplier
        self._reset_ms = reset_ms
        self._jitter = jitter
        self._rng = rng
        self._attempts = attempts
        self._restarts = 0  # Since the last quiet time.
        self._next_delay_ms = float(initial_ms)  # Without jitter; kept exact, so 4 -> 9.2 -> 21.16.
        self._last_failure_ms = float("-inf")

    def _decide(self, now_ms: float, checkpoint_completed_since: bool) -> Decision:
        if now_ms - self._last_failure_ms >= self._reset_ms:
            self._next_delay_ms, self._restarts = float(self._initial_ms), 0
        self._last_failure_ms = now_ms
        if self._restarts == self._attempts:
            return GiveUp(
                f"all {self._attempts} restarts of"
                " restart-strategy.exponential-delay.attempts-before-reset-backoff are used up"
            )
        self._restarts += 1
        return Restart(0 if checkpoint_completed_since else self._take_delay())

    def validate(self) -> None:
        """Assert every invariant."""
        assert self._initial_ms <= self._next_delay_ms <= self._max_ms, self._next_delay_ms
        assert self._due_ms - self._last_failure_ms <= self._max_ms or self._due_ms == float("-inf")
        assert self._attempts is None or self._restarts <= self._attempts, self._restarts

    def _take_delay(self) -> int:
        """Return the delay that is due, with jitter, and lengthen the next one."""
        delay_ms = self._next_delay_ms
        self._next_delay_ms = min(delay_ms * self._multiplier, float(self._max_ms))
        jittered_ms = delay_ms * (1 + self._rng.uniform(-self._jitter, self._jitter))
        return min(round(jittered_ms), self._max_ms)
