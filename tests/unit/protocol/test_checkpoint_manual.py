"""A checkpoint that a client wants is one like any other, and the client is told what came of it."""

import pytest

from raystream.errors import ConfigError
from raystream.ids import CheckpointId, JobStatus
from raystream.protocol.checkpoint_commands import (
    CheckpointFailureReason,
    DeleteCheckpoint,
    FailAttempt,
    NotifyCompleted,
    ResolveSavepoint,
    StartCheckpoint,
)
from raystream.protocol.checkpoint_requests import Purpose
from tests.unit.protocol.checkpoint_driver import (
    INTERVAL_MS,
    TIMEOUT_MS,
    Driver,
    kinds,
    one,
    reasons,
    running,
)

PERIODIC, MANUAL = Purpose.PERIODIC, Purpose.MANUAL


@pytest.mark.parametrize("full", [False, True])
def test_manual_checkpoint_commits_is_recovered_from_and_retained(full):
    job = running()
    job.tick()
    job.complete(1)
    assert job.checkpoint("m", full=full) == [StartCheckpoint(2, MANUAL, "", full=full)]

    commands = job.complete(2)
    assert NotifyCompleted(2, final=False) in commands
    assert DeleteCheckpoint(1) in commands
    assert one(commands, ResolveSavepoint) == ResolveSavepoint("m", CheckpointId(2), None)
    assert job.recovery_point_is(2)
    assert job.tick() == [StartCheckpoint(3, PERIODIC, "")]


def test_manual_checkpoint_that_fails_counts_like_any_other_and_its_client_is_told():
    job = running(tolerable=0)
    job.checkpoint("m")
    commands = job.decline(1)

    told = one(commands, ResolveSavepoint).error.message
    assert told == "checkpoint was aborted: subtask could not take part"
    assert one(commands, FailAttempt).error.message.startswith("1 checkpoints in a row have failed")


def test_manual_checkpoint_that_expires_is_told_and_costs_nothing():
    job = running()
    job.checkpoint("m")
    commands = job.tick(TIMEOUT_MS)

    told = one(commands, ResolveSavepoint).error.message
    assert told.startswith("checkpoint was aborted: checkpoint expired")
    assert FailAttempt not in kinds(commands)


def test_manual_checkpoint_that_a_newer_one_overtakes_is_told_so():
    job = running(max_concurrent=2)
    job.checkpoint("m")
    job.tick(2 * INTERVAL_MS)
    commands = job.complete(2)

    assert reasons(commands) == [CheckpointFailureReason.SUBSUMED]
    assert one(commands, ResolveSavepoint).error.message.endswith("a newer checkpoint completed first")


def test_manual_checkpoint_waits_for_the_job_to_run():
    job = Driver()
    assert job.checkpoint("m") == []
    assert job.start_attempt() == [StartCheckpoint(1, MANUAL, "")]


def test_manual_checkpoint_of_a_job_that_has_ended_is_refused():
    job = Driver()
    job.checkpoint("m")
    (waiting, _) = job.job_ended(JobStatus.CANCELED)
    assert waiting.error.message == "job is CANCELED; the checkpoint was not taken"

    (late,) = job.checkpoint("late")
    assert late.error.message == "checkpoint was requested after the end of the job"


def test_manual_checkpoint_without_checkpointing_is_a_wrong_configuration():
    (answer,) = running(interval_ms=None).checkpoint("m")

    assert isinstance(answer.error, ConfigError)
