"""Restart strategies say when a failed job runs again, and when it no longer does."""

import random

import pytest

from raystream.protocol.restart import ExponentialDelay, FailureRate, FixedDelay, GiveUp, NoRestart, Restart


def exponential(
    initial_ms=4, max_ms=300, *, multiplier=2.3, reset_ms=10_000, jitter=0.0, seed=0, attempts=None
):
    return ExponentialDelay(
        initial_ms,
        max_ms,
        multiplier=multiplier,
        reset_ms=reset_ms,
        jitter=jitter,
        rng=random.Random(seed),
        attempts=attempts,
    )


def fail(strategy, now_ms, *, progress=False):
    decision = strategy.failure_occurred(now_ms, checkpoint_completed_since=progress)
    strategy.validate()
    return decision


def test_none_gives_up_at_the_first_failure():
    assert isinstance(fail(NoRestart(), 0), GiveUp)


def test_fixed_delay_restarts_as_often_as_it_may_and_then_gives_up():
    strategy = FixedDelay(attempts=2, delay_ms=50)

    assert fail(strategy, 0) == Restart(50)
    assert fail(strategy, 1_000) == Restart(50)
    assert fail(strategy, 2_000) == GiveUp(
        "all 2 restarts of restart-strategy.fixed-delay.attempts are used up"
    )


def test_fixed_delay_without_attempts_gives_up_at_once():
    assert isinstance(fail(FixedDelay(attempts=0, delay_ms=50), 0), GiveUp)


def test_failures_within_the_delay_count_once():
    fixed = FixedDelay(attempts=1, delay_ms=50)
    growing = exponential(initial_ms=100)

    assert [fail(fixed, 0), fail(fixed, 20), fail(fixed, 49)] == [Restart(50), Restart(30), Restart(1)]
    assert [fail(growing, 0), fail(growing, 60)] == [Restart(100), Restart(40)]
    assert isinstance(fail(fixed, 50), GiveUp)
    assert fail(growing, 100) == Restart(230)


def test_failure_rate_survives_as_many_failures_in_an_interval_as_it_may_and_gives_up_at_the_next():
    strategy = FailureRate(3, interval_ms=1_000, delay_ms=10)

    assert [fail(strategy, t) for t in (0, 400, 1_000)] == [Restart(10)] * 3
    assert fail(strategy, 1_000 + 10) == Restart(10)  # The first one is more than an interval ago.
    assert fail(strategy, 1_400) == GiveUp(
        "more than 3 failures within 1000 ms (restart-strategy.failure-rate.max-failures-per-interval)"
    )


def test_failure_rate_never_gives_up_while_failures_are_rare():
    strategy = FailureRate(1, interval_ms=1_000, delay_ms=0)

    assert {fail(strategy, t) for t in range(0, 100_000, 1_001)} == {Restart(0)}


def test_failure_rate_counts_failures_within_the_delay_once():
    strategy = FailureRate(2, interval_ms=1_000, delay_ms=100)

    assert [fail(strategy, t) for t in (0, 30, 99)] == [Restart(100), Restart(70), Restart(1)]
    assert [fail(strategy, t) for t in (100, 199)] == [Restart(100), Restart(1)]
    assert isinstance(fail(strategy, 200), GiveUp)


def test_failure_rate_counts_failures_though_checkpoints_complete_between_them():
    strategy = FailureRate(1, interval_ms=1_000, delay_ms=10)
    fail(strategy, 0)

    assert isinstance(fail(strategy, 500, progress=True), GiveUp)


def test_exponential_delay_gives_up_when_its_restarts_are_used_up():
    strategy = exponential(attempts=3)

    assert [fail(strategy, t) for t in (0, 100, 200)] == [Restart(4), Restart(9), Restart(21)]
    assert fail(strategy, 300) == GiveUp(
        "all 3 restarts of restart-strategy.exponential-delay.attempts-before-reset-backoff are used up"
    )


def test_restarts_of_exponential_delay_are_counted_anew_after_a_quiet_time():
    strategy = exponential(attempts=2, reset_ms=1_000)

    assert [fail(strategy, t) for t in (0, 100)] == [Restart(4), Restart(9)]
    assert [fail(strategy, t) for t in (1_100, 1_200)] == [Restart(4), Restart(9)]
    assert isinstance(fail(strategy, 1_300), GiveUp)


def test_immediate_restarts_are_restarts_and_failures_within_a_delay_are_none():
    strategy = exponential(initial_ms=100, attempts=2)

    assert [fail(strategy, 0), fail(strategy, 50)] == [Restart(100), Restart(50)]
    assert fail(strategy, 200, progress=True) == Restart(0)
    assert isinstance(fail(strategy, 300, progress=True), GiveUp)


def test_exponential_delay_grows_without_rounding_in_between_up_to_its_bound():
    strategy = exponential()

    delays = [fail(strategy, now_ms).delay_ms for now_ms in range(0, 8 * 400, 400)]

    assert delays == [4, 9, 21, 49, 112, 257, 300, 300]


def test_first_restart_after_a_new_checkpoint_is_immediate_and_does_not_lengthen_the_delay():
    strategy = exponential()
    fail(strategy, 0)

    assert fail(strategy, 500, progress=True) == Restart(0)
    assert fail(strategy, 501) == Restart(9)
    assert fail(strategy, 1_000, progress=True) == Restart(0)


def test_delay_starts_anew_after_a_quiet_time():
    strategy = exponential(reset_ms=1_000)
    fail(strategy, 0)
    fail(strategy, 100)

    assert fail(strategy, 1_099) == Restart(21)
    assert fail(strategy, 2_099) == Restart(4)


@pytest.mark.parametrize("seed", range(50))
def test_jitter_stays_within_its_share_and_below_the_longest_delay(seed):
    strategy = exponential(initial_ms=100, max_ms=1_000, multiplier=1.5, jitter=0.1, seed=seed)
    plain = exponential(initial_ms=100, max_ms=1_000, multiplier=1.5)

    for now_ms in range(0, 20_000, 2_000):
        expected, actual = fail(plain, now_ms).delay_ms, fail(strategy, now_ms).delay_ms
        assert expected * 0.9 - 1 <= actual <= min(expected * 1.1 + 1, 1_000)


def test_jitter_of_one_seed_is_the_same_each_time():
    first, second = (exponential(initial_ms=100, jitter=0.5, seed=7) for _ in range(2))

    assert [fail(first, t) for t in range(0, 5_000, 500)] == [fail(second, t) for t in range(0, 5_000, 500)]
