"""A checkpoint is complete when all subtasks have acknowledged, `_metadata` stands and the log says so."""

import pytest

from raystream.ids import Attempt, CheckpointId, VertexId
from raystream.protocol.checkpoint_commands import (
    AckOutcome,
    CheckpointFailureReason,
    DeleteCheckpoint,
    DiscardSnapshot,
    FailAttempt,
    LogCompletion,
    NotifyAborted,
    NotifyCompleted,
    PruneLog,
    RecordCompletion,
    RecordFailure,
    StartCheckpoint,
    WriteMetadata,
)
from raystream.protocol.checkpoint_ids import IDS_AHEAD_MAX
from raystream.protocol.checkpoint_pending import FATES_REMEMBERED_MAX
from raystream.protocol.checkpoint_requests import Purpose
from raystream.protocol.recovery import Beginning
from tests.unit.protocol.checkpoint_driver import (
    REFUSED,
    SUBTASKS,
    TIMEOUT_MS,
    Driver,
    kinds,
    one,
    reasons,
    running,
    snapshot,
)

SOURCE, SINK = SUBTASKS
PERIODIC, FINAL, SAVEPOINT, STOP = Purpose.PERIODIC, Purpose.FINAL, Purpose.SAVEPOINT, Purpose.STOP


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
    job.job_began(Beginning(newest=CheckpointId(41), point=CheckpointId(41)))
    job.start_attempt()

    assert job.tick() == [StartCheckpoint(42, PERIODIC, "")]
    assert job.recovery_point_is(41)


def test_restored_snapshot_is_deleted_only_when_it_was_claimed():
    for claimed in (False, True):
        job = Driver()
        retained = (CheckpointId(7),) if claimed else ()
        job.job_began(Beginning(newest=CheckpointId(7), point=CheckpointId(7), retained=retained))
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
        if checkpoint_id % (IDS_AHEAD_MAX // 2):
            job.decline(checkpoint_id)
        else:
            job.complete(checkpoint_id)

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
