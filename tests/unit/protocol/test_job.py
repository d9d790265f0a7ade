"""A job goes from attempt to attempt until it has ended, once."""

import pytest

from raystream.errors import StorageError
from raystream.ids import Attempt, JobStatus
from raystream.protocol.checkpoint_requests import Purpose
from raystream.protocol.job_commands import (
    AcquireSlots,
    BeginCheckpoints,
    CleanUp,
    ConnectSlots,
    DeploySlots,
    EndCheckpoints,
    KillSlot,
    LogAttempt,
    LogEnd,
    PrepareAttempt,
    StartSlots,
    StopSlots,
)
from raystream.protocol.job_failures import CAUSE_WAIT_MS
from raystream.protocol.job_phases import TRANSITIONS, Phase
from raystream.protocol.rescale import RestartRescaled
from raystream.protocol.restart import GiveUp, NoRestart, Restart
from raystream.protocol.slot_roster import KILL_RETRY_MS
from raystream.protocol.subtasks import JobShape
from tests.unit.protocol.job_driver import (
    CANCELLATION_TIMEOUT_MS,
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
    assert job.tick(KILL_RETRY_MS - 1) == []
    assert job.lose(SECOND) == [PrepareAttempt(Attempt(2))]


def test_slot_that_stays_though_it_was_to_be_killed_is_killed_again_until_it_is_lost():
    job = running()
    job.fail()
    job.settled()
    job.stopped(FIRST)
    job.tick(CANCELLATION_TIMEOUT_MS)

    for _ in range(3):
        assert job.machine.next_deadline_ms == job.now_ms + KILL_RETRY_MS
        assert job.tick(KILL_RETRY_MS) == [KillSlot(SECOND)]
    job.lose(SECOND)

    assert job.tick(10 * KILL_RETRY_MS) == []


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


def test_cause_that_follows_the_decision_is_shown_and_uses_up_no_other_restart():
    job = running(restarts=1)
    job.fail(ECHO, SECOND)
    job.tick(CAUSE_WAIT_MS)
    job.stopped(SECOND)
    job.settled()
    job.tick(DELAY_MS)

    assert job.lose(FIRST) == [PrepareAttempt(Attempt(2))]
    assert job.machine.error is LOST.error
    assert job.machine.failures.restarts == 1


def test_cause_that_follows_the_decision_is_that_of_a_job_that_fails():
    job = running(strategy=NoRestart())
    job.fail(ECHO, SECOND)
    job.tick(CAUSE_WAIT_MS)
    job.stopped(SECOND)
    job.settled()

    (end,) = [command for command in job.lose(FIRST) if isinstance(command, LogEnd)]
    assert end.error is LOST.error


def test_slot_that_was_killed_because_it_did_not_stop_is_no_cause():
    job = running()
    job.fail(ECHO, SECOND)
    job.tick(CAUSE_WAIT_MS)
    assert job.tick(CANCELLATION_TIMEOUT_MS) == [KillSlot(FIRST), KillSlot(SECOND)]
    job.lose(FIRST)

    assert job.machine.error is ECHO.error


def test_slot_that_is_lost_between_two_attempts_is_no_cause():
    job = running()
    job.fail(ECHO, SECOND)
    job.tick(CAUSE_WAIT_MS)
    job.stopped()
    job.settled()
    job.lose(FIRST)

    assert job.machine.error is ECHO.error


def test_loss_while_a_job_stops_for_a_rescale_is_no_failure():
    job = running()
    shape = JobShape(parallelism=2, slots=SLOTS, subtasks=frozenset(SUBTASKS))
    job.rescale_ready(job.now_ms, RestartRescaled(shape, ()))
    assert job.status == "RESTARTING"
    job.lose(FIRST)

    assert job.machine.error is None


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
    assert job.machine.failures.gave_up == "restarts are switched off (restart-strategy.type is none)"
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
