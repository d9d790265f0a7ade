"""A drain ends the sources for a savepoint; when that fails the job goes on from its last checkpoint."""

import pytest

from raystream.ids import CheckpointId
from raystream.protocol.checkpoint_commands import (
    FailAttempt,
    NotifyAborted,
    NotifyCompleted,
    ResolveSavepoint,
    StartCheckpoint,
)
from raystream.protocol.checkpoint_requests import Purpose
from raystream.protocol.job_failures import FailureJudge
from raystream.protocol.restart import GiveUp, NoRestart, Restart
from tests.unit.protocol.checkpoint_driver import (
    REFUSED,
    SUBTASKS,
    TIMEOUT_MS,
    kinds,
    one,
    running,
)
from tests.unit.protocol.job_driver import CRASH, Failure

SAVEPOINT = CheckpointId(1)


def draining(**options):
    job = running(interval_ms=None, **options)
    assert job.savepoint("s", drain=True) == [StartCheckpoint(1, Purpose.STOP, "", drain=True)]
    return job


def declined(job):
    return job.decline(SAVEPOINT)


def expired(job):
    return job.tick(TIMEOUT_MS)


def not_written(job):
    job.ack_all(SAVEPOINT)
    return job.metadata_failed(job.now_ms, SAVEPOINT, REFUSED)


def not_logged(job):
    job.ack_all(SAVEPOINT)
    job.written(SAVEPOINT)
    return job.completion_not_logged(job.now_ms, SAVEPOINT, REFUSED)


def ended_sources_then_declined(job):
    for _ in SUBTASKS:
        assert job.input_ended(job.now_ms) == [], "the savepoint is the last snapshot already"
    return declined(job)


FAILURES = [declined, expired, not_written, not_logged, ended_sources_then_declined]


@pytest.mark.parametrize("fails", FAILURES)
def test_drain_whose_savepoint_fails_is_taken_back_with_the_attempt_and_the_client_is_told(fails):
    job = draining()
    commands = fails(job)

    assert NotifyAborted(SAVEPOINT) in commands
    assert one(commands, ResolveSavepoint).error.message.startswith("savepoint was aborted, and the job goes")
    failure = one(commands, FailAttempt)
    assert failure.taken_back
    assert failure.error.message.startswith("sources that had ended for a savepoint go on")
    job.attempt_ended(job.now_ms)
    assert job.start_attempt() == [], "the drain is not tried again by itself"


@pytest.mark.parametrize("fails", FAILURES[:-1])
def test_stop_without_a_drain_is_taken_back_without_harm(fails):
    job = running(interval_ms=None)
    job.savepoint("s", stop=True)
    commands = fails(job)

    assert FailAttempt not in kinds(commands)
    assert one(commands, ResolveSavepoint).error.message.startswith("savepoint was aborted, and the job goes")


def test_drain_that_never_reached_the_sources_leaves_the_attempt_alone():
    job = draining()
    commands = job.trigger_failed(job.now_ms, SAVEPOINT, REFUSED)

    assert FailAttempt not in kinds(commands)
    assert one(commands, ResolveSavepoint).error is REFUSED


def test_attempt_that_fails_during_a_drain_fails_once():
    job = draining()
    commands = job.attempt_ended(job.now_ms)

    assert FailAttempt not in kinds(commands)
    assert one(commands, ResolveSavepoint).error.message.startswith("savepoint was aborted: attempt ended")


def test_complete_drain_commits_and_ends_the_job():
    job = draining()

    assert NotifyCompleted(SAVEPOINT, final=True) in job.complete(SAVEPOINT)
    assert job.recovery_point_is(SAVEPOINT)
    assert job.input_ended(job.now_ms) == []


@pytest.mark.parametrize("drained", [False, True])
def test_second_stop_is_refused_when_only_one_of_them_drains(drained):
    job = running()
    job.savepoint("first", stop=True, drain=drained)
    (answer,) = job.savepoint("second", stop=True, drain=not drained)

    assert answer.checkpoint_id is None
    assert "drain" in answer.error.message
    assert f"{'with' if drained else 'without'} --drain" in answer.error.hint


def test_taking_back_a_drain_is_no_failure_that_a_restart_strategy_counts():
    judge = FailureJudge(NoRestart())
    judge.attempt_started()
    judge.failure_reported(0, Failure(REFUSED, taken_back=True))
    assert judge.decide(0) == Restart(0)

    judge.attempt_started()
    judge.failure_reported(0, CRASH)
    assert isinstance(judge.decide(0), GiveUp)
