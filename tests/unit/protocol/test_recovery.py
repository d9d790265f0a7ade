"""A checkpoint that cannot be read is passed over for an older one where that is harmless, and never else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import StateCorruptError
from raystream.ids import Attempt, CheckpointId, JobStatus
from raystream.protocol.checkpoint_commands import DeleteCheckpoint, FailAttempt, PruneLog, RecordDamage
from raystream.protocol.recovery import Beginning, RecoveryPoint
from raystream.protocol.retention import Retention
from tests.unit.protocol.checkpoint_driver import Driver, kinds

DAMAGE = StateCorruptError("file of the snapshot is missing", path="file:///chk-3/state", hint="restore it")
RUNNING = Attempt(1)


def after(*completed, num_retained=3, older_allowed=True):
    recovery = RecoveryPoint(Retention(num_retained), older_allowed=older_allowed)
    for checkpoint_id in completed:
        recovery.completed(CheckpointId(checkpoint_id))
        recovery.kept(CheckpointId(checkpoint_id))
    return recovery


def damaged(recovery, attempt):
    commands = recovery.damaged(Attempt(attempt), DAMAGE, running=RUNNING)
    recovery.validate()
    return commands


def test_damaged_checkpoint_is_passed_over_for_the_next_older_one():
    recovery = after(1, 2, 3)

    assert damaged(recovery, 2) == [RecordDamage(3, DAMAGE, 2), FailAttempt(DAMAGE, passed_over=True)]
    assert recovery.point == 2
    assert damaged(recovery, 3) == [RecordDamage(2, DAMAGE, 1), FailAttempt(DAMAGE, passed_over=True)]
    assert (recovery.point, recovery.passed_over, recovery.retained) == (1, (2, 3), (1, 2, 3))


def test_damage_that_several_slots_find_in_one_attempt_counts_once():
    recovery = after(1, 2, 3)
    damaged(recovery, 2)

    assert damaged(recovery, 2) == [FailAttempt(DAMAGE, passed_over=True)]
    assert recovery.point == 2


def test_job_ends_when_there_is_no_older_checkpoint():
    recovery = after(1, 2, num_retained=1)

    refusals = [command for _ in "ab" for command in damaged(recovery, 2)]
    assert refusals == [RecordDamage(2, DAMAGE, None), *[FailAttempt(DAMAGE, retryable=False)] * 2]


def test_job_whose_output_would_come_twice_ends_with_the_file_and_what_would_help():
    recovery = after(1, 2, older_allowed=False)
    record, fail = damaged(recovery, 2)

    assert record == RecordDamage(2, DAMAGE, None)
    assert (fail.retryable, fail.passed_over) == (False, False)
    assert type(fail.error) is StateCorruptError
    assert fail.error.context == {"path": DAMAGE.context["path"], "checkpoint_id": 2, "older_checkpoint": 1}
    assert "--allow-older-checkpoint" in fail.error.hint
    assert recovery.point == 2


@pytest.mark.parametrize("begin", [None, 7])
def test_snapshot_that_is_not_the_jobs_own_is_not_passed_over(begin):
    recovery = after()
    if begin is not None:
        recovery.began(Beginning(newest=CheckpointId(begin), point=CheckpointId(begin)))

    assert damaged(recovery, 2) == [FailAttempt(DAMAGE, retryable=False)]


def test_savepoint_with_which_the_job_was_stopped_is_not_passed_over():
    recovery = after(1, 2)
    recovery.completed(CheckpointId(3))  # And not kept: it belongs to the user.

    assert damaged(recovery, 2) == [FailAttempt(DAMAGE, retryable=False)]


def test_claimed_snapshot_is_what_the_first_checkpoint_falls_back_to():
    recovery = after()
    claimed = CheckpointId(7)
    recovery.began(Beginning(newest=claimed, point=claimed, retained=(claimed,)))
    recovery.completed(CheckpointId(8))
    recovery.kept(CheckpointId(8))

    assert damaged(recovery, 2)[0] == RecordDamage(8, DAMAGE, 7)


def test_damage_that_a_running_attempt_finds_says_nothing_about_the_checkpoint():
    recovery = after(1, 2)

    assert damaged(recovery, RUNNING) == [FailAttempt(DAMAGE, retryable=False)]
    assert recovery.passed_over == ()


def test_damaged_checkpoint_counts_as_none_and_goes_with_the_ones_around_it():
    recovery = after(1, 2, 3, num_retained=2)
    damaged(recovery, 2)
    assert recovery.retained == (2, 3)

    assert recovery.kept(CheckpointId(4)) == []
    assert recovery.retained == (2, 3, 4)
    assert recovery.kept(CheckpointId(5)) == [DeleteCheckpoint(2), DeleteCheckpoint(3), PruneLog((4, 5))]
    assert recovery.passed_over == ()


def test_end_of_the_job_deletes_damaged_checkpoints_like_any_other():
    for status, deleted in ((JobStatus.FINISHED, [1, 2]), (JobStatus.FAILED, [])):
        recovery = after(1, 2)
        damaged(recovery, 2)
        assert recovery.job_ended(status) == [*map(DeleteCheckpoint, deleted)]
        recovery.validate()


def test_ids_go_on_above_a_checkpoint_that_was_passed_over():
    job = Driver(num_retained=2)
    job.start_attempt()
    for checkpoint_id in (1, 2):
        job.tick()
        job.complete(checkpoint_id)
    job.attempt_ended(job.now_ms)

    assert kinds(job.restore_damaged(Attempt(2), DAMAGE)) == [RecordDamage, FailAttempt]
    assert job.recovery_point_is(1)
    job.attempt_ended(job.now_ms)
    job.attempt = Attempt(2)
    job.start_attempt()
    job.tick()
    job.complete(3)
    assert (job.machine.retained, job.machine.passed_over) == ((1, 2, 3), (2,))


@given(
    num_retained=st.integers(1, 3),
    older_allowed=st.booleans(),
    steps=st.lists(st.sampled_from(["complete", "complete", "damage", "again"]), max_size=40),
)
def test_no_history_restores_what_is_damaged_or_deletes_what_may_be_restored(
    num_retained, older_allowed, steps
):
    recovery = RecoveryPoint(Retention(num_retained), older_allowed=older_allowed)
    whole, stored, attempt, newest = [], set(), 2, 0
    for step in steps:
        if step == "complete":
            newest += 1
            recovery.completed(CheckpointId(newest))
            commands = recovery.kept(CheckpointId(newest))
            whole.append(newest)
            stored.add(newest)
            gone = {command.checkpoint_id for command in commands if isinstance(command, DeleteCheckpoint)}
            assert gone <= stored
            stored -= gone
            assert set(whole[-num_retained:]) <= stored
            assert all(one >= whole[-num_retained:][0] for one in stored)
            whole = [one for one in whole if one in stored]
        elif whole:
            attempt += step == "damage"
            before = recovery.point
            fail = damaged(recovery, attempt)[-1]
            if before != recovery.point:
                assert older_allowed
                whole.remove(before)
            if not fail.retryable:
                return  # The job has failed.
        assert set(recovery.retained) == stored
        assert recovery.point == (max(whole) if whole else None)
