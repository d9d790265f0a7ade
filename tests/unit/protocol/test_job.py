"""A job goes from attempt to attempt until it has ended, once."""

import pytest

from raystream.errors import ConfigError, ProtocolError, StorageError
from raystream.ids import Attempt, JobStatus, SlotId
from raystream.protocol.checkpoint_requests import Purpose
from raystream.protocol.job_commands import (
    AbandonJob,
    AcquireSlots,
    BeginCheckpoints,
    CleanUp,
    ConnectSlots,
    DeploySlots,
    EndCheckpoints,
    KillSlot,
    LogAttempt,
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
from raystream.protocol.job_failures import CAUSE_WAIT_MS, Failure
from raystream.protocol.job_phases import TRANSITIONS, Phase
from raystream.protocol.restart import GiveUp, NoRestart, Restart
from tests.unit.protocol.job_driver import (
    CANCELLATION_TIMEOUT_MS,
    CRASH,
    DELAY_MS,
    ECHO,
    HOPELESS,
    LOST,
    SLOTS,
    JobDriver,
    running,
    submitted,
)

FIRST, SECOND = SLOTS
REFUSED = StorageError("store refused")


def failed(job):
    """Let the attempt fail and everything of it come to rest."""
    job.fail()
    job.stopped()
    return job.settled()


# ---- the way to RUNNING ------------------------------------------------------------


def test_attempt_is_prepared_logged_acquired_deployed_connected_and_started():
    job = JobDriver()
    assert job.status == "CREATED"

    assert job.job_submitted() == [PrepareAttempt(Attempt(1))]
    assert job.attempt_prepared(Attempt(1)) == [LogAttempt(Attempt(1))]
    assert job.attempt_logged(Attempt(1)) == [AcquireSlots(SLOTS)]
    assert job.machine.waiting_for == "2 of 2 slots"
    assert job.slot_acquired(SECOND) == []
    assert job.machine.waiting_for == "1 of 2 slots"
    assert job.slot_acquired(FIRST) == [DeploySlots(Attempt(1), SLOTS)]
    assert job.slot_deployed(FIRST, "a") == []
    assert job.slot_deployed(SECOND, "b") == [ConnectSlots(Attempt(1), {FIRST: "a", SECOND: "b"})]
    assert job.slot_ready(0, FIRST) == []
    assert job.status == "CREATED"
    assert job.slot_ready(0, SECOND) == [StartSlots(Attempt(1)), BeginCheckpoints(Attempt(1))]
    assert job.status == "RUNNING"


def test_every_phase_has_its_legal_steps():
    assert TRANSITIONS.keys() == set(Phase)


# ---- failures ----------------------------------------------------------------------


def test_failed_attempt_is_stopped_and_followed_by_another_one_after_the_delay():
    job = running()

    assert job.fail() == [EndCheckpoints(), StopSlots(Attempt(1), SLOTS)]
    assert job.status == "RESTARTING"
    job.stopped()
    assert job.settled() == []
    assert job.machine.next_deadline_ms == DELAY_MS
    assert job.tick(DELAY_MS - 1) == []
    assert job.tick(1) == [PrepareAttempt(Attempt(2))]
    assert job.status == "RESTARTING"
    assert job.machine.error is CRASH.error


def test_slots_that_are_still_there_are_used_again_and_only_lost_ones_acquired():
    job = running()
    job.lose(FIRST)
    job.stopped(SECOND)
    job.settled()
    job.tick(DELAY_MS)

    assert job.acquire() == [AcquireSlots((FIRST,))]
    assert job.slot_acquired(FIRST) == [DeploySlots(Attempt(2), SLOTS)]


def test_attempt_without_lost_slots_is_deployed_at_once():
    job = running()
    failed(job)
    job.tick(DELAY_MS)

    assert job.acquire() == [DeploySlots(Attempt(2), SLOTS)]


def test_next_attempt_waits_until_no_checkpoint_of_the_last_one_can_complete():
    job = running()
    job.fail()
    job.stopped()

    assert job.tick(10 * DELAY_MS) == []
    assert job.settled() == [PrepareAttempt(Attempt(2))]


def test_next_attempt_waits_until_all_slots_have_stopped():
    job = running()
    job.fail()
    job.settled()

    assert job.tick(DELAY_MS) == []
    assert job.stopped(FIRST) == []
    assert job.stopped(SECOND) == [PrepareAttempt(Attempt(2))]


def test_slot_that_does_not_stop_in_time_is_killed():
    job = running()
    job.fail()
    job.settled()
    job.stopped(FIRST)

    assert job.tick(CANCELLATION_TIMEOUT_MS) == [KillSlot(SECOND)]
    assert job.tick(CANCELLATION_TIMEOUT_MS) == []
    assert job.lose(SECOND) == [PrepareAttempt(Attempt(2))]


@pytest.mark.parametrize("cause", [CRASH, LOST])
def test_broken_connection_waits_for_its_primary_cause(cause):
    job = running()
    job.fail(ECHO, SECOND)
    assert job.status == "FAILING"
    assert job.machine.next_deadline_ms == CAUSE_WAIT_MS
    job.tick(CAUSE_WAIT_MS - 1)

    (job.lose if cause is LOST else lambda slot: job.fail(CRASH, slot))(FIRST)

    assert job.status == "RESTARTING"
    assert job.machine.error is cause.error


def test_broken_connection_without_another_cause_is_the_cause():
    job = running()
    job.fail(ECHO)
    job.tick(CAUSE_WAIT_MS)

    assert job.status == "RESTARTING"
    assert job.machine.error is ECHO.error


def test_several_failures_of_an_attempt_use_up_one_restart():
    job = running(restarts=1)
    job.fail()
    job.fail(slot=SECOND)
    job.lose(FIRST)
    job.stopped(SECOND)
    job.settled()

    assert job.tick(DELAY_MS) == [PrepareAttempt(Attempt(2))]


def test_failure_that_no_restart_can_mend_fails_the_job_at_once():
    job = submitted()
    job.attempt_failed(0, Attempt(1), HOPELESS)

    assert job.settled() == [CleanUp(JobStatus.FAILED, archive=False)]
    job.cleaned_up()
    assert job.status == "FAILED"
    assert job.machine.error is HOPELESS.error


def test_hopeless_failure_that_is_reported_late_still_fails_the_job():
    job = running()
    job.fail()
    job.fail(HOPELESS, SECOND)
    job.stopped()

    assert job.settled() == [LogEnd(JobStatus.FAILED, HOPELESS.error)]


def test_job_fails_when_its_strategy_gives_up():
    job = running(strategy=NoRestart())
    job.fail()
    assert job.status == "FAILING"
    job.stopped()

    assert job.settled() == [LogEnd(JobStatus.FAILED, CRASH.error)]
    assert job.machine.gave_up == "restarts are switched off (restart-strategy.type is none)"
    assert job.end_logged() == [CleanUp(JobStatus.FAILED, archive=True)]
    assert job.status == "FAILING"
    assert job.cleaned_up() == []
    assert job.status == "FAILED"


def test_slot_that_is_not_to_be_had_is_a_failure():
    job = submitted(strategy=NoRestart())
    job.acquire()
    job.lose(FIRST)

    assert job.settled() == [LogEnd(JobStatus.FAILED, LOST.error)]


def test_slot_that_is_lost_between_two_attempts_is_only_replaced():
    job = running(restarts=1)
    failed(job)
    job.lose(FIRST)
    assert job.tick(DELAY_MS) == [PrepareAttempt(Attempt(2))]
    job.lose(SECOND)

    assert job.acquire() == [AcquireSlots(SLOTS)]


def test_slot_that_is_still_being_acquired_is_not_asked_for_twice():
    job = submitted()
    job.acquire()
    job.slot_acquired(FIRST)
    job.attempt_failed(0, Attempt(1), CRASH)
    job.settled()
    job.tick(DELAY_MS)

    assert job.acquire() == []
    assert job.slot_acquired(SECOND) == [DeploySlots(Attempt(2), SLOTS)]


def test_loss_of_a_slot_is_noticed_once():
    job = running()
    job.lose(FIRST)

    assert job.lose(FIRST) == []


def test_failure_of_an_older_attempt_is_ignored():
    job = running()
    failed(job)
    job.tick(DELAY_MS)

    assert job.attempt_failed(job.now_ms, Attempt(1), CRASH) == []
    assert job.attempt_prepared(Attempt(1)) == []
    assert job.attempt_logged(Attempt(1)) == []


def test_answers_that_come_after_the_attempt_has_failed_change_nothing():
    job = submitted()
    job.acquire()
    for slot in SLOTS:
        job.slot_acquired(slot)
    job.slot_deployed(FIRST, "a")
    job.fail()

    assert job.slot_deployed(SECOND, "b") == []
    assert job.slot_ready(0, FIRST) == []
    assert job.stopped() == []
    assert job.status == "RESTARTING"


class Recorder:
    """A strategy that remembers what it was told."""

    def __init__(self):
        self.progress = []

    def failure_occurred(self, now_ms, *, checkpoint_completed_since):
        self.progress.append(checkpoint_completed_since)
        return Restart(0) if len(self.progress) < 4 else GiveUp("enough")

    def validate(self):
        pass


def test_strategy_is_told_whether_a_checkpoint_has_completed_since_the_last_failure():
    strategy = Recorder()
    job = running(strategy=strategy)
    failed(job)
    job.run()
    job.checkpoint_completed(Purpose.PERIODIC)
    failed(job)
    job.run()
    job.checkpoint_completed(Purpose.SAVEPOINT)
    failed(job)

    assert strategy.progress == [False, True, False]


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
    job.commit_without_checkpoint_begun()
    job.commits()
    job.stopped()

    assert job.settled() == [LogEnd(JobStatus.FINISHED, None)]


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

    assert job.stop_requested("s", "/backup") == [LogStop("s"), TakeStopSavepoint("s", "/backup")]


def test_stop_of_a_job_that_ends_anyway_is_not_logged():
    job = running()
    job.cancel()

    assert job.stop_requested("s", "") == [TakeStopSavepoint("s", "")]


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
    failed(job)
    job.end_logged()

    (answer,) = job.cancel()

    assert isinstance(answer.error, ConfigError)
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
