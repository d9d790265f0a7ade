"""A checkpoint is complete when all subtasks have acknowledged, `_metadata` stands and the log says so."""

import pytest

from raystream.errors import ProtocolError
from raystream.ids import Attempt, CheckpointId, JobStatus, VertexId
from raystream.protocol.checkpoint_commands import (
    AckOutcome,
    CheckpointFailureReason,
    CommitAtEnd,
    ConfirmDeleted,
    ConfirmSettled,
    DeleteCheckpoint,
    DiscardSnapshot,
    FailAttempt,
    LogCompletion,
    NotifyAborted,
    NotifyCompleted,
    PruneLog,
    RecordCompletion,
    RecordFailure,
    ResolveSavepoint,
    StartCheckpoint,
    WriteMetadata,
)
from raystream.protocol.checkpoint_pending import FATES_REMEMBERED_MAX
from raystream.protocol.checkpoint_requests import FINAL_RETRY_MS, Purpose
from tests.unit.protocol.checkpoint_driver import (
    DECLINED,
    INTERVAL_MS,
    REFUSED,
    SUBTASKS,
    TIMEOUT_MS,
    Driver,
    running,
    snapshot,
)

SOURCE, SINK = SUBTASKS
PERIODIC, FINAL, SAVEPOINT, STOP = Purpose.PERIODIC, Purpose.FINAL, Purpose.SAVEPOINT, Purpose.STOP


def kinds(commands):
    return [type(command) for command in commands]


def reasons(commands):
    return [command.reason for command in commands if isinstance(command, RecordFailure)]


def one(commands, kind):
    found = [command for command in commands if isinstance(command, kind)]
    assert len(found) == 1, commands
    return found[0]


# ---- completion ------------------------------------------------------------------


def test_checkpoint_goes_through_acks_metadata_and_log_before_it_is_complete():
    job = running()

    assert job.tick() == [StartCheckpoint(1, PERIODIC, "")]
    assert job.ack(1, SINK) == []
    assert job.ack(1, SOURCE) == [WriteMetadata(1, (snapshot(SOURCE), snapshot(SINK)))]
    assert job.recovery_point_is(None)
    assert job.written(1) == [LogCompletion(1, PERIODIC)]
    assert job.recovery_point_is(None)
    assert job.logged(1) == [RecordCompletion(1, PERIODIC), NotifyCompleted(1, final=False)]
    assert job.recovery_point_is(1)


def test_ids_count_up_and_are_never_used_again():
    job = running(tolerable=10)
    started = []
    for _ in range(3):
        started += job.tick()
        job.decline(started[-1].checkpoint_id)

    assert [command.checkpoint_id for command in started] == [1, 2, 3]


def test_ids_go_on_after_the_snapshot_that_the_job_starts_from():
    job = Driver()
    job.snapshot_restored(CheckpointId(41), claimed=False)
    job.start_attempt()

    assert job.tick() == [StartCheckpoint(42, PERIODIC, "")]
    assert job.recovery_point_is(41)


def test_restored_snapshot_is_deleted_only_when_it_was_claimed():
    for claimed in (False, True):
        job = Driver()
        job.snapshot_restored(CheckpointId(7), claimed=claimed)
        job.start_attempt()
        job.tick()

        assert (DeleteCheckpoint(7) in job.complete(8)) == claimed


def test_newest_checkpoints_are_kept_and_older_ones_deleted_with_their_log_entries():
    job = running(num_retained=2)
    deleted = []
    for checkpoint_id in (1, 2, 3):
        job.tick()
        deleted += [c for c in job.complete(checkpoint_id) if isinstance(c, DeleteCheckpoint | PruneLog)]

    assert deleted == [DeleteCheckpoint(1), PruneLog((2, 3))]


def test_completion_drops_older_pending_checkpoints_but_no_savepoint():
    job = running(max_concurrent=3)
    job.tick()
    job.savepoint("s")
    job.tick()

    commands = job.complete(3)

    assert NotifyAborted(1) in commands
    assert reasons(commands) == [CheckpointFailureReason.SUBSUMED]
    assert job.ack(2, SOURCE) == []
    assert kinds(job.ack(2, SINK)) == [WriteMetadata]


def test_older_checkpoint_that_waits_for_the_log_is_subsumed_by_the_newer_one():
    job = running(max_concurrent=2)
    job.tick()
    job.tick()
    job.ack_all(2)
    job.ack_all(1)
    assert job.written(2) == [LogCompletion(2, PERIODIC)]
    assert job.written(1) == []

    commands = job.logged(2)

    assert DeleteCheckpoint(1) in commands
    assert not any(isinstance(command, LogCompletion) for command in commands)


def test_metadata_that_is_written_after_its_checkpoint_was_dropped_is_deleted():
    job = running(max_concurrent=2)
    job.tick()
    job.tick()
    job.ack_all(1)
    job.complete(2)

    assert job.written(1) == [DeleteCheckpoint(1)]


# ---- acknowledgements -------------------------------------------------------------


def test_second_ack_of_a_subtask_changes_nothing():
    job = running()
    job.tick()
    job.ack(1, SOURCE)

    assert job.machine.ack_outcome(job.attempt, CheckpointId(1), SOURCE) is AckOutcome.DUPLICATE
    assert job.ack(1, SOURCE) == []
    assert kinds(job.ack(1, SINK)) == [WriteMetadata]


def test_ack_of_a_stranger_is_deleted():
    job = running()
    job.tick()
    stranger = (VertexId(9), 0)

    assert job.ack(1, stranger) == [DiscardSnapshot(1, snapshot(stranger))]


@pytest.mark.parametrize("end", ["declined", "expired"])
def test_ack_that_comes_after_the_checkpoint_was_given_up_is_deleted(end):
    job = running(tolerable=1)
    job.tick()
    if end == "declined":
        job.decline(1)
    else:
        job.tick(TIMEOUT_MS)

    assert job.machine.ack_outcome(job.attempt, CheckpointId(1), SINK) is AckOutcome.TOO_LATE
    assert job.ack(1, SINK) == [DiscardSnapshot(1, snapshot(SINK))]


def test_ack_of_a_complete_or_subsumed_checkpoint_is_ignored():
    job = running(max_concurrent=2)
    job.tick()
    job.tick()
    job.complete(2)

    assert job.ack(1, SINK) == []
    assert job.ack(2, SINK) == []


def test_ack_of_another_attempt_is_ignored():
    job = running()
    job.tick()

    assert job.machine.ack_outcome(Attempt(9), CheckpointId(1), SOURCE) is AckOutcome.FOREIGN
    assert job.ack(1, SOURCE, attempt=Attempt(9)) == []
    job.attempt_ended(job.now_ms)
    job.start_attempt()
    assert job.ack(1, SOURCE, attempt=Attempt(1)) == []


def test_ack_of_a_checkpoint_that_nobody_remembers_deletes_nothing():
    job = running(tolerable=10**6)
    for checkpoint_id in range(1, FATES_REMEMBERED_MAX + 3):
        job.tick()
        job.decline(checkpoint_id)

    assert job.ack(1, SOURCE) == []
    assert kinds(job.ack(checkpoint_id, SOURCE)) == [DiscardSnapshot]


# ---- failures ------------------------------------------------------------------


def test_decline_gives_up_this_checkpoint_only():
    job = running(max_concurrent=2, tolerable=1)
    job.tick()
    job.tick()

    commands = job.decline(1)

    assert kinds(commands) == [NotifyAborted, DeleteCheckpoint, RecordFailure]
    assert kinds(job.ack_all(2)) == [WriteMetadata]


@pytest.mark.parametrize("failure", ["trigger_failed", "metadata_failed"])
def test_checkpoint_that_can_not_be_triggered_or_written_is_given_up(failure):
    job = running(tolerable=1)
    job.tick()
    if failure == "metadata_failed":
        job.ack_all(1)

    commands = getattr(job, failure)(job.now_ms, CheckpointId(1), REFUSED)

    assert kinds(commands) == [NotifyAborted, DeleteCheckpoint, RecordFailure]


def test_checkpoint_whose_log_entry_was_not_written_is_given_up():
    job = running(tolerable=1)
    job.tick()
    job.ack_all(1)
    job.written(1)

    commands = job.completion_not_logged(job.now_ms, CheckpointId(1), REFUSED)

    assert reasons(commands) == [CheckpointFailureReason.FINALIZE_FAILED]
    assert DeleteCheckpoint(1) in commands
    assert job.recovery_point_is(None)


def test_old_checkpoint_expires_and_says_who_was_missing():
    job = running(tolerable=0)
    job.tick()
    job.ack(1, SOURCE)

    commands = job.tick(TIMEOUT_MS)

    error = one(commands, RecordFailure).error
    assert error.context["missing"] == [SINK]
    assert reasons(commands) == [CheckpointFailureReason.EXPIRED]
    assert kinds(commands)[-1] is StartCheckpoint


def test_checkpoint_that_is_being_logged_neither_expires_nor_can_be_declined():
    job = running()
    job.tick()
    job.ack_all(1)
    job.written(1)

    assert job.tick(10 * TIMEOUT_MS) == []
    assert job.decline(1) == []
    assert NotifyCompleted(1, final=False) in job.logged(1)


def test_more_failures_in_a_row_than_are_tolerable_fail_the_attempt_and_are_named():
    job = running(tolerable=2)
    for checkpoint_id in (1, 2):
        job.tick()
        assert FailAttempt not in kinds(job.decline(checkpoint_id))
    job.tick()

    error = one(job.decline(3), FailAttempt).error

    assert error.message.startswith("3 checkpoints in a row have failed")
    assert all(f"{n} declined: subtask could not take part" in error.message for n in (1, 2, 3))
    assert job.tick() == [], "an attempt that was told to fail starts no checkpoint"


def test_success_and_a_new_attempt_begin_the_count_anew():
    job = running(tolerable=1)
    job.tick()
    job.decline(1)
    job.tick()
    job.complete(2)
    job.tick()
    assert FailAttempt not in kinds(job.decline(3))
    job.attempt_ended(job.now_ms)
    job.start_attempt()
    job.tick()
    assert FailAttempt not in kinds(job.decline(4))


def test_neither_expired_checkpoints_nor_savepoints_nor_late_ones_count():
    job = running(tolerable=0, max_concurrent=2)
    job.tick()
    assert FailAttempt not in kinds(job.tick(TIMEOUT_MS))
    job.savepoint("s")
    assert FailAttempt not in kinds(job.decline(3))
    assert FailAttempt not in kinds(job.decline(3)), "an id counts once"


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

    with pytest.raises(ProtocolError, match="log entry that was not asked for") as caught:
        job.logged(1)
    assert any("attempt_started" in step for step in caught.value.context["history"])


def test_attempt_can_not_start_before_the_last_one_is_settled():
    job = running()
    with pytest.raises(ProtocolError, match="before the last one was settled"):
        job.start_attempt()
