"""Savepoints end a job or leave it alone, and an attempt ends when nothing of it can complete any more."""

import pytest

from raystream.errors import ProtocolError
from raystream.ids import Attempt, CheckpointId, JobStatus
from raystream.protocol.checkpoint_commands import (
    CommitAtEnd,
    ConfirmDeleted,
    ConfirmSettled,
    DeleteCheckpoint,
    FailAttempt,
    NotifyAborted,
    NotifyCompleted,
    RecordCompletion,
    RecordFailure,
    ResolveSavepoint,
    StartCheckpoint,
)
from raystream.protocol.checkpoint_requests import FINAL_RETRY_MS, Purpose
from tests.unit.protocol.checkpoint_driver import (
    DECLINED,
    INTERVAL_MS,
    REFUSED,
    SUBTASKS,
    Driver,
    kinds,
    one,
    running,
)

SOURCE, SINK = SUBTASKS
PERIODIC, FINAL, SAVEPOINT, STOP = Purpose.PERIODIC, Purpose.FINAL, Purpose.SAVEPOINT, Purpose.STOP


# ---- savepoints ------------------------------------------------------------------


def test_savepoint_commits_nothing_and_is_no_basis_for_recovery():
    job = running()
    assert job.savepoint("s", base="/backup") == [StartCheckpoint(1, SAVEPOINT, "/backup")]

    commands = job.complete(1)

    assert commands[-2:] == [RecordCompletion(1, SAVEPOINT), ResolveSavepoint("s", CheckpointId(1), None)]
    assert NotifyCompleted not in kinds(commands)
    assert job.recovery_point_is(None)


def test_savepoint_is_never_deleted():
    job = running()
    job.savepoint("s")
    job.complete(1)
    job.tick()

    assert DeleteCheckpoint(1) not in job.complete(2)
    job.attempt_ended(job.now_ms)
    assert job.job_ended(JobStatus.FINISHED) == [DeleteCheckpoint(2), ConfirmDeleted()]


def test_savepoint_waits_for_the_job_to_run():
    job = Driver()
    assert job.savepoint("s") == []

    assert job.start_attempt() == [StartCheckpoint(1, SAVEPOINT, "")]


def test_failed_savepoint_is_answered_with_its_reason():
    job = running()
    job.savepoint("s")

    answer = one(job.decline(1), ResolveSavepoint)

    assert answer.checkpoint_id is None
    assert answer.error.message == "savepoint was aborted: subtask could not take part"
    assert answer.error.context["reason"] == "declined"


def test_savepoint_that_could_not_start_is_answered_with_the_error_itself():
    job = running()
    job.savepoint("s")

    commands = job.trigger_failed(job.now_ms, CheckpointId(1), REFUSED)

    assert one(commands, ResolveSavepoint).error is REFUSED


def test_savepoint_under_way_fails_with_the_attempt_and_a_waiting_one_outlives_it():
    job = running()
    job.savepoint("under way", stop=True)
    job.savepoint("waiting")

    commands = job.attempt_ended(job.now_ms)

    assert one(commands, ResolveSavepoint).request_id == "under way"
    assert job.start_attempt() == [StartCheckpoint(2, SAVEPOINT, "")]


def test_savepoints_that_wait_when_the_job_ends_are_answered():
    job = Driver()
    job.savepoint("s")

    assert one(job.job_ended(JobStatus.CANCELED), ResolveSavepoint).request_id == "s"
    assert one(job.savepoint("later"), ResolveSavepoint).error is not None


# ---- the end of a job ---------------------------------------------------------------


def test_complete_stop_savepoint_commits_ends_the_job_and_is_what_a_failure_recovers_from():
    job = running()
    job.savepoint("s", stop=True)

    commands = job.complete(1)

    assert NotifyCompleted(1, final=True) in commands
    assert ResolveSavepoint("s", CheckpointId(1), None) in commands
    assert job.recovery_point_is(1)
    assert job.tick(10 * INTERVAL_MS) == [], "nothing starts any more"
    assert job.savepoint("later") == []


def test_stop_that_fails_leaves_the_job_running():
    job = running()
    job.savepoint("s", stop=True)

    commands = job.decline(1)

    assert NotifyAborted(1) in commands
    assert FailAttempt not in kinds(commands)
    assert job.tick() == [StartCheckpoint(2, PERIODIC, "")]


def test_final_checkpoint_ends_the_job():
    job = running()
    assert job.input_ended(job.now_ms) == [StartCheckpoint(1, FINAL, "")]

    assert NotifyCompleted(1, final=True) in job.complete(1)
    assert job.tick() == []


def test_final_checkpoint_that_fails_is_tried_again():
    job = running(tolerable=1)
    job.input_ended(job.now_ms)
    job.decline(1)

    assert job.tick(FINAL_RETRY_MS - 1) == []
    assert job.machine.next_deadline_ms == job.now_ms + 1
    assert job.tick(1) == [StartCheckpoint(2, FINAL, "")]


def test_without_checkpointing_the_end_of_input_commits_at_once_and_after_savepoints():
    assert running(interval_ms=None).input_ended(0) == [CommitAtEnd()]

    job = running(interval_ms=None)
    job.savepoint("s")
    assert job.input_ended(0) == []
    assert job.complete(1)[-1] == CommitAtEnd()
    assert job.savepoint("later") == []


@pytest.mark.parametrize(
    ("status", "delete_on_cancellation", "deleted"),
    [
        (JobStatus.FINISHED, False, [DeleteCheckpoint(1)]),
        (JobStatus.FAILED, True, []),
        (JobStatus.CANCELED, False, []),
        (JobStatus.CANCELED, True, [DeleteCheckpoint(1)]),
    ],
)
def test_end_of_the_job_deletes_what_its_status_does_not_keep(status, delete_on_cancellation, deleted):
    job = running(delete_on_cancellation=delete_on_cancellation)
    job.tick()
    job.complete(1)
    job.attempt_ended(job.now_ms)

    assert job.job_ended(status) == [*deleted, ConfirmDeleted()]


# ---- the end of an attempt ---------------------------------------------------------------


def test_end_of_an_attempt_gives_up_what_is_pending():
    job = running()
    job.tick()

    commands = job.attempt_ended(job.now_ms)

    assert kinds(commands) == [DeleteCheckpoint, RecordFailure, ConfirmSettled]
    assert job.machine.next_deadline_ms is None


def test_end_of_an_attempt_waits_for_the_entry_that_is_being_logged():
    job = running()
    job.tick()
    job.ack_all(1)
    job.written(1)
    assert job.attempt_ended(job.now_ms) == []

    assert job.logged(1) == [RecordCompletion(1, PERIODIC), ConfirmSettled()]
    assert job.recovery_point_is(1)


def test_entry_that_was_not_logged_settles_the_attempt_too():
    job = running()
    job.tick()
    job.ack_all(1)
    job.written(1)
    job.attempt_ended(job.now_ms)

    commands = job.completion_not_logged(job.now_ms, CheckpointId(1), REFUSED)

    assert kinds(commands) == [DeleteCheckpoint, RecordFailure, ConfirmSettled]
    assert job.recovery_point_is(None)


def test_end_of_an_attempt_that_never_ran_is_settled_at_once():
    assert Driver().attempt_ended(0) == [ConfirmSettled()]


def test_decline_of_an_older_attempt_is_ignored():
    job = running()
    job.attempt_ended(0)
    job.start_attempt()
    job.tick()

    assert job.snapshot_declined(job.now_ms, Attempt(1), CheckpointId(1), DECLINED) == []


# ---- bugs -------------------------------------------------------------------------


def test_answer_that_nobody_asked_for_is_a_bug_and_shows_the_history():
    job = running()
    job.tick()

    with pytest.raises(ProtocolError, match="log entry was not asked for") as caught:
        job.logged(1)
    assert any("attempt_started" in step for step in caught.value.context["history"])


def test_attempt_can_not_start_before_the_last_one_is_settled():
    job = running()
    with pytest.raises(ProtocolError, match="before the last one was settled"):
        job.start_attempt()
