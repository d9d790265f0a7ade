"""What a job log says about a job is what the job master that wrote it knew."""

import pytest

from raystream.errors import StateCorruptError
from raystream.ids import Attempt, CheckpointId, JobStatus
from raystream.protocol.checkpoint_ids import IDS_AHEAD_MAX
from raystream.protocol.job_phases import Aim
from raystream.runtime.logged_job import logged_job
from raystream.storage.log_entries import (
    AttemptStarted,
    CancelAccepted,
    CheckpointCompletedEntry,
    MasterStarted,
    NewestId,
    SavepointCompleted,
    Terminal,
)


def attempt(number, restored=None, *, at_ms=0, **fields):
    path = None if restored is None else f"file:///chk-{restored}"
    return AttemptStarted(
        attempt=Attempt(number), started_ms=at_ms, restored_checkpoint=restored, restored_path=path, **fields
    )


def checkpoint(number, **fields):
    directory = f"file:///chk-{number}"
    return CheckpointCompletedEntry(
        checkpoint_id=CheckpointId(number), directory=directory, attempt=Attempt(1), **fields
    )


def savepoint(number, **fields):
    directory = f"file:///savepoint-{number}"
    return SavepointCompleted(
        checkpoint_id=CheckpointId(number), directory=directory, attempt=Attempt(1), **fields
    )


def job(*entries, num_retained=1, claims=False):
    return logged_job(entries, num_retained=num_retained, claims=claims)


def failures(logged, now_ms=0.0, wall_ms=0.0):
    return [(one.at_ms, one.progress) for one in logged.past(now_ms=now_ms, wall_ms=wall_ms).failures]


def test_newest_complete_checkpoint_is_restored_and_as_many_are_kept_as_configured():
    found = job(attempt(1), checkpoint(1), checkpoint(2), checkpoint(4), num_retained=2).beginning

    assert (found.point, found.retained) == (4, (2, 4))


def test_savepoint_is_restored_only_when_the_job_was_stopped_with_it():
    assert job(attempt(1), checkpoint(1), savepoint(2)).beginning.point == 1
    stopped = job(attempt(1), checkpoint(1), savepoint(2, stop=True))
    assert (stopped.beginning.point, stopped.only_commits_left) == (2, True)
    assert stopped.locations[2] == "file:///savepoint-2"


def test_final_checkpoint_that_was_passed_over_does_not_end_the_job():
    final = [attempt(1), checkpoint(1), checkpoint(2, final=True)]
    assert job(*final, num_retained=2).only_commits_left

    passed_over = job(*final, attempt(2, 1, passed_over=(2,)), num_retained=2)

    assert (passed_over.only_commits_left, passed_over.beginning.point) == (False, 1)
    assert passed_over.beginning.damaged == (2,)


def test_damaged_checkpoint_that_was_deleted_since_is_forgotten():
    entries = [attempt(1), checkpoint(1), checkpoint(2), attempt(2, 1, passed_over=(2,)), checkpoint(3)]

    found = job(*entries).beginning

    assert (found.retained, found.damaged) == ((3,), ())


@pytest.mark.parametrize(
    "last", [checkpoint(7), savepoint(7), NewestId(newest_checkpoint=7), attempt(2, 3, newest_checkpoint=7)]
)
def test_ids_go_on_above_all_that_may_have_been_given(last):
    assert job(attempt(1), checkpoint(3), last).beginning.newest == 7 + IDS_AHEAD_MAX


def test_claimed_snapshot_is_kept_like_a_checkpoint():
    assert job(attempt(1, 9), claims=True).beginning.retained == (9,)
    assert job(attempt(1, 9), checkpoint(10), claims=True).beginning.retained == (10,)
    assert job(attempt(1, 9), claims=False).beginning.retained == ()


def test_failures_are_those_after_which_the_job_went_on():
    entries = [
        attempt(1, at_ms=100),
        attempt(2, at_ms=200),
        checkpoint(1),
        MasterStarted(attempt=Attempt(3), started_ms=300),
        attempt(3, 1, at_ms=310),
        MasterStarted(attempt=Attempt(4), started_ms=400),
        MasterStarted(attempt=Attempt(5), started_ms=500),
        attempt(5, 1, at_ms=510),
    ]

    assert failures(job(*entries), now_ms=1_000.0, wall_ms=600.0) == [
        (600.0, False),  # The second attempt: the first has failed.
        (700.0, True),
        (800.0, False),
        (900.0, False),
    ]


def test_progress_is_told_by_what_was_restored_where_the_entry_of_the_checkpoint_is_pruned():
    assert failures(job(attempt(1), attempt(2, 5), checkpoint(6))) == [(0.0, True)]


def test_second_try_with_an_older_checkpoint_is_no_failure():
    entries = [attempt(1), checkpoint(1), checkpoint(2), attempt(2, 1, passed_over=(2,))]

    assert failures(job(*entries, num_retained=2)) == []


def test_rescale_and_a_drain_that_was_taken_back_are_no_failures():
    logged = job(attempt(1, restarts=0), attempt(2, restarts=0, parallelism=4), attempt(3, 1, restarts=0))

    assert (failures(logged), logged.restarts) == ([], 0)


def test_attempts_that_failed_before_they_were_logged_are_counted():
    logged = job(attempt(2, restarts=1), checkpoint(1), attempt(5, 1, restarts=3, parallelism=4))

    assert (failures(logged), logged.restarts) == ([(0.0, False), (0.0, True), (0.0, False)], 3)


def test_restart_with_an_older_checkpoint_counts_for_users_and_not_for_the_strategy():
    entries = [attempt(1, restarts=0), checkpoint(1), checkpoint(2)]
    logged = job(*entries, attempt(3, 1, passed_over=(2,), restarts=2), num_retained=2)

    assert (failures(logged), logged.restarts) == ([(0.0, True)], 2)


def test_clock_that_was_set_back_brings_no_failure_from_the_future():
    logged = job(attempt(1, at_ms=50), attempt(2, at_ms=900))

    assert failures(logged, now_ms=10.0, wall_ms=60.0) == [(10.0, False)]


@pytest.mark.parametrize(
    ("entries", "aim"),
    [
        ([], Aim.UNDECIDED),
        ([CancelAccepted(request_id="c")], Aim.CANCEL),
        ([CancelAccepted(request_id="c"), Terminal(status=JobStatus.CANCELED)], Aim.CANCEL),
        ([Terminal(status=JobStatus.FINISHED)], Aim.FINISH),
        ([Terminal(status=JobStatus.FAILED, error="broken")], Aim.FAIL),
    ],
)
def test_what_follows_is_what_the_log_says(entries, aim):
    past = job(attempt(1), *entries).past(now_ms=0.0, wall_ms=0.0)

    assert past.aim is aim
    assert (past.error is None) == (aim is not Aim.FAIL)


@pytest.mark.parametrize("end", [(), (Terminal(status=JobStatus.CANCELED),)])
def test_job_may_be_cancelled_before_its_first_attempt(end):
    logged = job(MasterStarted(attempt=2, started_ms=7), CancelAccepted(request_id="c"), *end)

    assert logged.past(now_ms=0.0, wall_ms=0.0).aim is Aim.CANCEL
    assert logged.started_ms == 7


def test_numbers_go_on_above_those_of_masters_that_were_lost_before_the_first_attempt():
    logged = job(MasterStarted(attempt=2), MasterStarted(attempt=3), attempt(1))

    assert (logged.attempt, logged.restarts) == (3, 0)


def test_log_without_attempts_is_damaged():
    with pytest.raises(StateCorruptError, match="lost the entries of its attempts"):
        job(checkpoint(1))
