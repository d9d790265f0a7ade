"""What an acknowledgement, a decline and time that passes are to a checkpoint in every stage of its life."""

import pytest

from raystream.ids import Attempt, CheckpointId, VertexId
from raystream.protocol.checkpoint_commands import (
    AckOutcome,
    CheckpointFailureReason,
    DiscardSnapshot,
    FailAttempt,
    NotifyAborted,
    RecordFailure,
)
from raystream.protocol.checkpoint_failures import TolerableFailures
from raystream.protocol.checkpoint_requests import Purpose, Request
from tests.unit.protocol.checkpoint_driver import (
    DECLINED,
    INTERVAL_MS,
    REFUSED,
    SUBTASKS,
    TIMEOUT_MS,
    kinds,
    reasons,
    running,
    snapshot,
)

FIRST, SECOND = SUBTASKS
STRANGER = (VertexId(7), 0)
ONE = CheckpointId(1)
Outcome = AckOutcome


def started():
    job = running(tolerable=5, max_concurrent=2)
    job.tick()
    job.ack(1, FIRST)
    return job


def writing():
    job = started()
    job.ack(1, SECOND)
    return job


def waiting_for_the_log():
    """Its metadata is written while the entry of a savepoint is."""
    job = running(tolerable=5, max_concurrent=3)
    job.tick()
    job.savepoint("s")
    job.ack_all(2)
    job.written(2)
    job.ack_all(1)
    job.written(1)
    return job


def logging():
    job = writing()
    job.written(1)
    return job


def complete():
    job = logging()
    job.logged(1)
    return job


def subsumed():
    job = started()
    job.tick(INTERVAL_MS)
    job.complete(2)
    return job


def declined():
    job = started()
    job.decline(1)
    return job


def expired():
    job = started()
    job.tick(TIMEOUT_MS)
    return job


def never_started():
    return running()


STAGES = {
    # stage: what an ack of the first subtask, of the second, and of a stranger is
    started: (Outcome.DUPLICATE, Outcome.TAKEN, Outcome.STRANGER),
    writing: (Outcome.DUPLICATE, Outcome.DUPLICATE, Outcome.STRANGER),
    waiting_for_the_log: (Outcome.DUPLICATE, Outcome.DUPLICATE, Outcome.STRANGER),
    logging: (Outcome.DUPLICATE, Outcome.DUPLICATE, Outcome.STRANGER),
    complete: (Outcome.SETTLED, Outcome.SETTLED, Outcome.SETTLED),
    subsumed: (Outcome.SETTLED, Outcome.SETTLED, Outcome.SETTLED),
    declined: (Outcome.TOO_LATE, Outcome.TOO_LATE, Outcome.TOO_LATE),
    expired: (Outcome.TOO_LATE, Outcome.TOO_LATE, Outcome.TOO_LATE),
    never_started: (Outcome.SETTLED, Outcome.SETTLED, Outcome.SETTLED),
}


@pytest.mark.parametrize("stage", STAGES)
def test_acknowledgement_is_taken_once_and_deleted_only_where_nobody_refers_to_it(stage):
    for subtask, outcome in zip((FIRST, SECOND, STRANGER), STAGES[stage], strict=True):
        job = stage()
        assert job.ack_outcome(job.attempt, ONE, subtask) is outcome
        discarded = [command for command in job.ack(1, subtask) if isinstance(command, DiscardSnapshot)]
        deleted = outcome in (Outcome.STRANGER, Outcome.TOO_LATE)
        assert discarded == ([DiscardSnapshot(ONE, snapshot(subtask))] if deleted else [])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("attempt", [0, 2])
def test_acknowledgement_and_decline_of_another_attempt_change_nothing(stage, attempt):
    job = stage()
    other = Attempt(attempt)

    assert job.ack_outcome(other, ONE, SECOND) is Outcome.FOREIGN
    assert job.ack(1, SECOND, attempt=other) == [] if attempt else True
    assert job.snapshot_declined(job.now_ms, other, ONE, DECLINED) == []


@pytest.mark.parametrize("stage", STAGES)
def test_decline_and_refusal_abort_a_checkpoint_once_and_never_one_whose_entry_is_being_written(stage):
    abortable = stage in (started, writing, waiting_for_the_log)
    job = stage()

    assert reasons(job.decline(1)) == [CheckpointFailureReason.DECLINED] * abortable
    assert job.decline(1) == []
    assert job.trigger_failed(job.now_ms, ONE, REFUSED) == []


@pytest.mark.parametrize("stage", STAGES)
def test_only_what_is_not_complete_and_not_being_logged_expires(stage):
    job = stage()
    commands = job.tick(TIMEOUT_MS)
    expired = [c for c in commands if isinstance(c, RecordFailure) and c.checkpoint_id == ONE]

    assert [failure.reason for failure in expired] == [CheckpointFailureReason.EXPIRED] * (
        stage in (started, writing, waiting_for_the_log)
    )


def test_abort_reaches_all_subtasks_before_anything_newer_starts():
    job = started()
    job.tick(INTERVAL_MS)
    commands = job.decline(1)

    assert commands[0] == NotifyAborted(ONE)
    assert reasons(commands) == [CheckpointFailureReason.DECLINED], "the one beside it goes on"


COUNTED = [
    CheckpointFailureReason.DECLINED,
    CheckpointFailureReason.TRIGGER_FAILED,
    CheckpointFailureReason.FINALIZE_FAILED,
]


@pytest.mark.parametrize("reason", CheckpointFailureReason)
@pytest.mark.parametrize("purpose", Purpose)
def test_failures_that_count_are_those_of_checkpoints_for_a_reason_of_their_own(reason, purpose):
    failures = TolerableFailures(0)
    commands = failures.aborted(ONE, Request(purpose, "r"), reason, REFUSED)

    counted = purpose in (Purpose.PERIODIC, Purpose.MANUAL, Purpose.FINAL)
    assert bool(commands) == (reason in COUNTED and counted)
    if commands:
        (failure,) = commands
        assert f"1 {reason.value}: store refused" in failure.error.message
        assert failure.error.__cause__ is REFUSED


def test_ids_up_to_the_last_success_do_not_count_and_a_success_resets():
    failures = TolerableFailures(1)
    request = Request(Purpose.PERIODIC)
    decline = CheckpointFailureReason.DECLINED
    assert failures.aborted(CheckpointId(4), request, decline, DECLINED) == []
    failures.succeeded(CheckpointId(5))
    for late in (3, 4, 5):
        assert failures.aborted(CheckpointId(late), request, decline, DECLINED) == []
    assert failures.aborted(CheckpointId(6), request, decline, DECLINED) == []

    assert kinds(failures.aborted(CheckpointId(7), request, decline, DECLINED)) == [FailAttempt]
    assert failures.aborted(CheckpointId(8), request, decline, DECLINED) == [], "the attempt fails once"
