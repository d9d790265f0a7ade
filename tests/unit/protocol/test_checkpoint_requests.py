"""The queue of requests decides which checkpoint starts, and when."""

import random

import pytest

from raystream.errors import ConfigError
from raystream.protocol.checkpoint_requests import (
    SAVEPOINTS_PENDING_MAX,
    SAVEPOINTS_WAITING_MAX,
    CheckpointRequests,
    Load,
    Purpose,
    Request,
)

IDLE = Load(pending=0, savepoints=0, ending=False)
ONE_PENDING = Load(pending=1, savepoints=0, ending=False)
SAVEPOINT_PENDING = Load(pending=1, savepoints=1, ending=False)
STOP_PENDING = Load(pending=1, savepoints=1, ending=True)

SAVEPOINT = Request(Purpose.SAVEPOINT, "s1", "/backup")
STOP = Request(Purpose.STOP, "s2", "")
MANUAL = Request(Purpose.MANUAL, "m1")
FULL = Request(Purpose.MANUAL, "m2", full=True)
PERIODIC = Request(Purpose.PERIODIC)


def started(interval_ms=100, *, min_pause_ms=0, max_concurrent=1, seed=0):
    requests = CheckpointRequests(
        interval_ms, min_pause_ms=min_pause_ms, max_concurrent=max_concurrent, rng=random.Random(seed)
    )
    requests.attempt_started(0)
    requests.validate()
    return requests


@pytest.mark.parametrize("seed", range(30))
def test_first_periodic_checkpoint_starts_at_a_random_time_between_pause_and_interval(seed):
    requests = started(100, min_pause_ms=40, seed=seed)

    assert 40 <= requests.deadline_ms(IDLE) <= 100


def test_next_periodic_checkpoint_is_due_an_interval_after_the_start_of_the_last_one():
    requests = started(100)

    assert requests.take(100, IDLE) == PERIODIC
    assert requests.take(199, IDLE) is None
    assert requests.deadline_ms(IDLE) == 200
    assert requests.take(200, IDLE) == PERIODIC


def test_no_periodic_checkpoint_starts_while_as_many_are_pending_as_may_be():
    requests = started(100)

    assert requests.take(150, ONE_PENDING) is None
    assert requests.deadline_ms(ONE_PENDING) is None
    assert requests.take(150, IDLE) == PERIODIC


def test_pending_savepoint_counts_against_periodic_checkpoints():
    assert started(100).take(150, SAVEPOINT_PENDING) is None
    assert started(100, max_concurrent=2).take(150, SAVEPOINT_PENDING) == PERIODIC


def test_savepoint_waits_while_as_many_others_are_taken_as_may_be():
    requests = started()
    requests.requested(SAVEPOINT)
    full = Load(pending=SAVEPOINTS_PENDING_MAX, savepoints=SAVEPOINTS_PENDING_MAX, ending=False)

    assert requests.take(0, full) is None
    assert requests.take(0, Load(pending=9, savepoints=SAVEPOINTS_PENDING_MAX - 1, ending=False)) == SAVEPOINT


def test_periodic_checkpoint_is_put_off_until_the_pause_after_a_completion_is_over():
    requests = started(100, min_pause_ms=60)
    requests.checkpoint_completed(90)

    assert requests.deadline_ms(IDLE) == 150
    assert requests.take(149, IDLE) is None
    assert requests.take(150, IDLE) == PERIODIC


def test_savepoint_goes_first_and_ignores_pause_and_pending_checkpoints():
    requests = started(100, min_pause_ms=60)
    requests.checkpoint_completed(90)
    requests.requested(SAVEPOINT)

    assert requests.take(100, ONE_PENDING) == SAVEPOINT


def test_stop_waits_for_other_savepoints_and_nothing_starts_after_it():
    requests = started(100, max_concurrent=9)
    requests.requested(STOP)
    requests.requested(SAVEPOINT)

    assert requests.take(500, SAVEPOINT_PENDING) is None
    assert requests.deadline_ms(SAVEPOINT_PENDING) is None
    assert requests.take(500, ONE_PENDING) == STOP
    assert requests.take(500, STOP_PENDING) is None
    assert requests.deadline_ms(STOP_PENDING) is None


def test_final_checkpoint_waits_for_savepoints_but_not_for_periodic_checkpoints():
    requests = started(100)
    requests.final_wanted(10)

    assert requests.take(10, SAVEPOINT_PENDING) is None
    assert requests.take(10, ONE_PENDING) == Request(Purpose.FINAL)


def test_final_checkpoint_keeps_periodic_ones_from_starting():
    requests = started(100)
    requests.final_wanted(500)

    assert requests.take(300, IDLE) is None
    assert requests.deadline_ms(IDLE) == 500
    assert requests.take(500, IDLE) == Request(Purpose.FINAL)


def test_without_period_only_savepoints_and_the_end_start():
    requests = started(None)
    requests.requested(SAVEPOINT)

    assert requests.take(0, IDLE) == SAVEPOINT
    assert requests.take(10**9, IDLE) is None
    assert requests.deadline_ms(IDLE) is None
    requests.final_wanted(5)
    assert requests.take(5, IDLE) == Request(Purpose.FINAL)


def test_savepoints_outlive_the_attempt_that_they_were_not_started_in():
    requests = started(100)
    requests.requested(SAVEPOINT)
    requests.final_wanted(0)
    requests.attempt_ended()

    assert requests.deadline_ms(IDLE) is None
    requests.attempt_started(1_000)
    assert requests.take(1_000, IDLE) == SAVEPOINT
    assert requests.take(1_000, IDLE) is None


def test_manual_checkpoint_ignores_the_pause_and_comes_behind_savepoints():
    requests = started(100, min_pause_ms=60)
    requests.checkpoint_completed(90)
    requests.requested(MANUAL)
    requests.requested(SAVEPOINT)

    assert requests.deadline_ms(IDLE) is None
    assert requests.take(91, IDLE) == SAVEPOINT
    assert requests.take(91, IDLE) == MANUAL
    assert requests.take(91, IDLE) is None


@pytest.mark.parametrize("pending", [ONE_PENDING, SAVEPOINT_PENDING])
def test_manual_checkpoint_waits_while_as_much_is_pending_as_may_be_and_goes_before_periodic_ones(pending):
    requests = started(100)
    requests.requested(MANUAL)

    assert requests.take(500, pending) is None
    assert requests.deadline_ms(pending) is None
    assert requests.take(501, IDLE) == MANUAL
    assert requests.take(501, IDLE) == PERIODIC


def test_manual_checkpoints_start_in_the_order_in_which_they_were_asked_for_also_in_the_next_attempt():
    requests = started(100)
    requests.requested(MANUAL)
    requests.requested(FULL)
    requests.attempt_ended()
    requests.attempt_started(1_000)

    assert [requests.take(1_000, IDLE) for _ in range(3)] == [MANUAL, FULL, None]


def test_final_checkpoint_waits_for_manual_ones():
    requests = started(100)
    requests.requested(MANUAL)
    requests.final_wanted(10)

    assert requests.take(10, IDLE) == MANUAL
    assert requests.take(10, Load(pending=1, savepoints=0, ending=False, manual=1)) is None
    assert requests.take(10, IDLE) == Request(Purpose.FINAL)


def test_manual_checkpoint_needs_checkpointing_and_says_so():
    requests = started(None)
    refusal = requests.requested(MANUAL)

    assert isinstance(refusal, ConfigError)
    assert "execution.checkpointing.interval" in refusal.hint
    assert requests.take(0, IDLE) is None


@pytest.mark.parametrize("purpose", [Purpose.SAVEPOINT, Purpose.MANUAL])
def test_more_requests_than_the_bound_are_refused(purpose):
    requests = started(1_000)
    refusals = [requests.requested(Request(purpose, str(n))) for n in range(SAVEPOINTS_WAITING_MAX + 1)]

    assert refusals[:-1] == [None] * SAVEPOINTS_WAITING_MAX
    assert refusals[-1].message == f"too many {purpose.noun}s wait"
    assert len(requests.drain()) == SAVEPOINTS_WAITING_MAX
    requests.validate()
