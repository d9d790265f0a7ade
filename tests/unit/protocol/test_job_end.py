"""A job ends once: when its input has ended, with a savepoint, cancelled or abandoned."""

import pytest

from raystream.errors import ConfigError, ProtocolError, StateCorruptError, StorageError
from raystream.handles import SavepointFormat
from raystream.ids import Attempt, JobStatus, SlotId
from raystream.protocol.checkpoint_requests import Purpose, Request
from raystream.protocol.job_commands import (
    AbandonJob,
    CleanUp,
    CommitSlots,
    EndCheckpoints,
    LogCancel,
    LogEnd,
    LogStop,
    PrepareAttempt,
    ResolveCancel,
    StartSlots,
    StopSlots,
    TakeFinalCheckpoint,
    TakeStopSavepoint,
)
from raystream.protocol.job_end import LOG_RETRY_MS, LOG_TRIES_MAX
from raystream.protocol.job_failures import CAUSE_WAIT_MS, COMMIT_RETRY_MS, COMMIT_TRIES_MAX, Failure
from raystream.protocol.job_phases import Phase
from raystream.protocol.restart import NoRestart
from tests.unit.protocol.job_driver import (
    CRASH,
    DELAY_MS,
    ECHO,
    HOPELESS,
    LOST,
    SLOTS,
    SUBTASKS,
    JobDriver,
    failed,
    running,
    submitted,
)

FIRST, SECOND = SLOTS
REFUSED = StorageError("store refused")


# ---- the end of the input, and stop -----------------------------------------------------


def test_final_checkpoint_is_taken_when_all_subtasks_have_no_more_input():
    job = running()

    assert job.end_of_input() == [TakeFinalCheckpoint()]
    assert job.end_of_input() == []


def test_job_is_finished_when_all_subtasks_have_committed_the_final_checkpoint():
    job = running()
    job.end_of_input()
    job.checkpoint_completed(Purpose.FINAL)

    assert job.commits() == [EndCheckpoints(), StopSlots(Attempt(1), SLOTS)]
    assert job.status == "RUNNING"
    job.stopped()
    assert job.settled() == [LogEnd(JobStatus.FINISHED, None)]
    assert job.end_logged() == [CleanUp(JobStatus.FINISHED, archive=True)]
    job.cleaned_up()
    assert job.status == "FINISHED"


def test_without_checkpointing_the_job_is_finished_when_all_have_committed():
    job = running()
    job.end_of_input()
    assert job.commit_without_checkpoint_due() == [CommitSlots(Attempt(1))]
    job.commits()
    job.stopped()

    assert job.settled() == [LogEnd(JobStatus.FINISHED, None)]


@pytest.mark.parametrize("failure", [CRASH, LOST, ECHO])
def test_failure_of_a_commit_without_a_checkpoint_is_the_end_and_says_that_output_may_be_visible(failure):
    job = running()
    job.end_of_input()
    job.commit_without_checkpoint_due()
    job.commits_done(job.now_ms, SUBTASKS[0])

    job.fail(failure)
    job.stopped()
    (end,) = [*job.settled(), *job.tick(CAUSE_WAIT_MS)]

    assert end.status is JobStatus.FAILED
    assert "may be partly visible" in end.error.message
    assert failure.error.message in end.error.message
    assert "again" in job.machine.failures.gave_up


def test_nothing_is_committed_without_a_checkpoint_by_an_attempt_that_has_failed():
    job = running()
    job.end_of_input()
    job.fail()

    assert job.commit_without_checkpoint_due() == []
    job.stopped()
    job.settled()
    assert job.status == "RESTARTING"


@pytest.mark.parametrize("purpose", [Purpose.FINAL, Purpose.STOP])
def test_failure_after_what_ends_the_job_only_finishes_the_commits(purpose):
    job = running()
    job.checkpoint_completed(purpose)
    failed(job)
    job.tick(DELAY_MS)

    commands = job.run()

    assert commands == [EndCheckpoints(), StopSlots(Attempt(2), SLOTS)], "no slot is started"
    job.stopped()
    assert job.settled() == [LogEnd(JobStatus.FINISHED, None)]


@pytest.mark.parametrize("purpose", [Purpose.FINAL, Purpose.STOP])
def test_commits_are_finished_whatever_the_restart_strategy_says_but_not_for_ever(purpose):
    job = running(strategy=NoRestart())
    job.checkpoint_completed(purpose)

    for number in range(2, COMMIT_TRIES_MAX + 2):
        failed(job)
        assert PrepareAttempt(Attempt(number)) in job.tick(COMMIT_RETRY_MS)
        job.acquire()

    assert failed(job) == [LogEnd(JobStatus.FAILED, CRASH.error)]


def test_job_whose_final_checkpoint_is_passed_over_runs_again_at_once_and_takes_another():
    job = running(strategy=NoRestart())
    job.end_of_input()
    job.checkpoint_completed(Purpose.FINAL)
    unreadable = StateCorruptError("file of the snapshot is missing")
    assert PrepareAttempt(Attempt(2)) not in job.fail(Failure(unreadable, passed_over=True))
    job.stopped()

    assert job.settled() == [PrepareAttempt(Attempt(2))]
    job.run()
    assert job.status == "RUNNING"
    assert job.end_of_input() == [TakeFinalCheckpoint()]


def test_stop_savepoint_that_is_logged_after_the_failure_still_ends_the_job():
    job = running()
    job.fail()
    job.checkpoint_completed(Purpose.STOP)
    job.stopped()
    job.settled()
    job.tick(DELAY_MS)

    assert StartSlots(Attempt(2)) not in job.run()


def test_stop_is_logged_and_taken_with_a_savepoint():
    job = running()

    wanted = Request(Purpose.STOP, "s", "/backup", SavepointFormat.NATIVE)
    assert job.stop_requested(wanted) == [LogStop("s"), TakeStopSavepoint(wanted)]


def test_stop_of_a_job_that_ends_anyway_is_not_logged():
    job = running()
    job.cancel()

    wanted = Request(Purpose.STOP, "s")
    assert job.stop_requested(wanted) == [TakeStopSavepoint(wanted)]


# ---- cancellation -----------------------------------------------------------------------


def test_cancelled_job_stops_its_slots_and_answers_when_it_has_ended():
    job = running()

    assert job.cancel() == [LogCancel("c"), EndCheckpoints(), StopSlots(Attempt(1), SLOTS)]
    assert job.status == "CANCELLING"
    assert job.cancel("c2") == []
    job.stopped()
    assert job.settled() == [LogEnd(JobStatus.CANCELED, None)]
    assert job.end_logged() == [CleanUp(JobStatus.CANCELED, archive=True)]
    assert job.cleaned_up() == [ResolveCancel("c", None), ResolveCancel("c2", None)]
    assert job.status == "CANCELED"
    assert job.cancel("c3") == [ResolveCancel("c3", None)]


def test_cancelled_before_the_first_attempt_is_logged_leaves_no_entry():
    for job in (JobDriver(), submitted()):
        assert job.cancel() == [EndCheckpoints()]
        assert job.settled() == [CleanUp(JobStatus.CANCELED, archive=False)]


@pytest.mark.parametrize("slots_deployed", [0, 1, 2])
def test_cancelled_during_deployment_and_restore(slots_deployed):
    job = submitted()
    job.acquire()
    for slot in SLOTS:
        job.slot_acquired(slot)
    for slot in SLOTS[:slots_deployed]:
        job.slot_deployed(slot, "a")

    assert job.cancel() == [LogCancel("c"), EndCheckpoints(), StopSlots(Attempt(1), SLOTS)]
    job.settled()
    assert job.stopped() == [LogEnd(JobStatus.CANCELED, None)]


def test_cancelled_while_slots_are_acquired_does_not_wait_for_them():
    job = submitted()
    job.acquire()
    job.cancel()

    assert job.settled() == [LogEnd(JobStatus.CANCELED, None)]
    assert job.slot_acquired(FIRST) == []


def test_cancelled_during_the_restart_delay_does_not_wait_for_it():
    job = running()
    failed(job)

    assert job.cancel() == [LogCancel("c"), LogEnd(JobStatus.CANCELED, None)]


def test_failures_of_a_job_that_is_being_cancelled_do_not_count():
    job = running()
    job.cancel()
    job.fail(HOPELESS)
    job.lose(FIRST)
    job.stopped(SECOND)

    assert job.settled() == [LogEnd(JobStatus.CANCELED, None)]


def test_job_that_has_ended_otherwise_can_not_be_cancelled():
    job = running(strategy=NoRestart())
    job.fail()

    for event in (lambda: job.cancel("while it stops"), lambda: failed(job), job.end_logged):
        event()
        (answer,) = job.cancel("c")
        assert isinstance(answer.error, ConfigError)
        assert "raystream list" in answer.error.hint
        assert "already FAILED" in answer.error.message


# ---- the log ----------------------------------------------------------------------------


def test_end_that_can_not_be_logged_is_tried_again_and_then_the_job_has_failed():
    job = running()
    job.checkpoint_completed(Purpose.FINAL)
    job.commits()
    job.stopped()
    job.settled()
    for _ in range(LOG_TRIES_MAX - 1):
        assert job.end_not_logged(job.now_ms, REFUSED) == []
        assert job.tick(LOG_RETRY_MS) == [LogEnd(JobStatus.FINISHED, None)]

    assert job.end_not_logged(job.now_ms, REFUSED) == [CleanUp(JobStatus.FAILED, archive=True)]
    job.cleaned_up()
    assert job.status == "FAILED"
    assert job.machine.error is REFUSED


def test_attempt_that_can_not_be_logged_is_a_failure_like_any_other():
    job = submitted()
    job.attempt_prepared(Attempt(1))
    job.attempt_failed(0, Attempt(1), Failure(REFUSED))
    job.settled()

    assert job.tick(DELAY_MS) == [PrepareAttempt(Attempt(2))]


def test_conflict_in_the_log_makes_the_job_stop_at_once():
    job = running()

    assert job.log_conflicted(REFUSED) == [AbandonJob(SLOTS)]
    assert job.machine.phase is Phase.ABANDONED
    assert job.log_conflicted(REFUSED) == []
    assert job.lose(FIRST) == []
    assert job.tick(10**6) == []
    assert job.machine.next_deadline_ms is None


# ---- bugs -------------------------------------------------------------------------------


def test_impossible_step_is_a_bug_and_shows_the_history():
    job = running()

    with pytest.raises(ProtocolError, match="job can not do this step") as caught:
        job.cleaned_up()
    assert any("slot_ready" in step for step in caught.value.context["history"])


def test_slot_that_was_not_asked_for_is_a_bug():
    with pytest.raises(ProtocolError, match="slot can not change"):
        submitted().slot_acquired(SlotId(0))
