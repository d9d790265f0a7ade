"""A running job gets another parallelism, and when it can not have it, it goes on as it was."""

import pytest

from raystream.errors import CheckpointError, ConfigError, SlotLostError
from raystream.ids import JobStatus, SlotId, VertexId
from raystream.protocol.checkpoint_requests import Purpose, Request
from raystream.protocol.job_commands import AcquireSlots
from raystream.protocol.rescale import (
    SLOTS_WAIT_MS,
    DismissSlots,
    Rescale,
    ResolveRescale,
    RestartRescaled,
    TakeRescaleCheckpoint,
)
from raystream.protocol.subtasks import JobShape

REFUSED = CheckpointError("store refused")
GONE = SlotLostError("process of the slot is gone")


def shape(parallelism):
    subtasks = frozenset((VertexId(0), subtask) for subtask in range(parallelism))
    return JobShape(
        parallelism=parallelism, slots=tuple(SlotId(slot) for slot in range(parallelism)), subtasks=subtasks
    )


class Driver:
    """A machine of a job at parallelism 2; every call validates it."""

    def __init__(self):
        self.machine = Rescale(shape(2))

    def __getattr__(self, event):
        method = getattr(self.machine, event)

        def call(*arguments):
            commands = method(*arguments)
            self.machine.validate()
            return commands

        return call


@pytest.fixture
def rescale():
    return Driver()


def checkpoint(request_id="r"):
    return TakeRescaleCheckpoint(Request(Purpose.RESCALE, request_id))


def refusals(commands):
    return [command.error.message for command in commands if isinstance(command, ResolveRescale)]


def test_further_slots_come_first_then_a_checkpoint_and_only_then_the_attempt_ends(rescale):
    assert rescale.rescale_requested(0, "r", shape(4)) == [AcquireSlots((SlotId(2), SlotId(3)))]
    assert rescale.machine.waiting_for == "2 of 2 further slots for parallelism 4"
    assert rescale.slot_acquired(SlotId(3)) == []
    assert rescale.slot_acquired(SlotId(2)) == [checkpoint()]
    assert rescale.checkpoint_ended(1_000, None) == [RestartRescaled(shape(4), (SlotId(2), SlotId(3)))]
    assert rescale.attempt_runs(1_750) == [ResolveRescale("r", 750, None)]
    assert not rescale.machine.owns(SlotId(2))


def test_fewer_slots_need_only_a_checkpoint(rescale):
    assert rescale.rescale_requested(0, "r", shape(1)) == [checkpoint()]
    assert rescale.checkpoint_ended(0, None) == [RestartRescaled(shape(1), ())]


def test_downtime_lasts_until_the_job_runs_however_many_attempts_that_takes(rescale):
    rescale.rescale_requested(0, "r", shape(1))
    rescale.checkpoint_ended(100, None)

    assert rescale.rescale_requested(150, "again", shape(1)) == []
    assert rescale.attempt_runs(9_100) == [
        ResolveRescale("r", 9_000, None),
        ResolveRescale("again", 9_000, None),
    ]
    assert rescale.attempt_runs(9_200) == []


def test_parallelism_that_the_job_has_needs_nothing(rescale):
    assert rescale.rescale_requested(0, "r", shape(2)) == [ResolveRescale("r", 0, None)]


def test_one_rescale_after_the_other_and_what_was_rescaled_is_the_start_of_the_next(rescale):
    rescale.rescale_requested(0, "r", shape(1))
    (refusal,) = rescale.rescale_requested(0, "other", shape(3))
    assert isinstance(refusal.error, ConfigError)
    assert refusal.error.context == {"parallelism": 1}

    rescale.checkpoint_ended(0, None)
    rescale.attempt_runs(0)

    assert rescale.rescale_requested(0, "next", shape(2)) == [AcquireSlots((SlotId(1),))]


def test_checkpoint_that_fails_leaves_the_job_as_it_is_and_gives_the_slots_back(rescale):
    rescale.rescale_requested(0, "r", shape(3))
    rescale.slot_acquired(SlotId(2))

    dismissed, answer = rescale.checkpoint_ended(50, REFUSED)

    assert dismissed == DismissSlots((SlotId(2),))
    assert refusals([answer]) == ["job was not rescaled and goes on at parallelism 2: store refused"]
    assert rescale.rescale_requested(60, "again", shape(3)) == [AcquireSlots((SlotId(2),))]


def test_slots_that_are_not_there_in_time_are_given_up(rescale):
    rescale.rescale_requested(100, "r", shape(4))
    rescale.slot_acquired(SlotId(2))
    assert rescale.machine.next_deadline_ms == 100 + SLOTS_WAIT_MS
    assert rescale.time_passed(99 + SLOTS_WAIT_MS) == []

    dismissed, answer = rescale.time_passed(100 + SLOTS_WAIT_MS)

    assert dismissed == DismissSlots((SlotId(2), SlotId(3)))
    (message,) = refusals([answer])
    assert message.startswith("job was not rescaled and goes on at parallelism 2: 1 of 2 further slots")
    assert message.endswith("for parallelism 4 were not there in time")
    assert rescale.machine.next_deadline_ms is None


def test_slot_that_can_not_be_had_ends_the_rescale_with_its_error(rescale):
    rescale.rescale_requested(0, "r", shape(4))

    dismissed, answer = rescale.slot_lost(SlotId(3), GONE)

    assert dismissed == DismissSlots((SlotId(2), SlotId(3))), "something may stand by for the lost one"
    assert refusals([answer])[0].endswith("process of the slot is gone")


def test_further_slot_that_is_lost_during_the_checkpoint_is_for_the_job_to_replace(rescale):
    rescale.rescale_requested(0, "r", shape(4))
    rescale.slot_acquired(SlotId(2))
    rescale.slot_acquired(SlotId(3))

    assert rescale.slot_lost(SlotId(2), GONE) == []
    assert rescale.checkpoint_ended(0, None) == [RestartRescaled(shape(4), (SlotId(3),))]


def test_job_that_ends_answers_everybody_and_takes_no_more(rescale):
    rescale.rescale_requested(0, "r", shape(4))

    assert refusals(rescale.job_ended(JobStatus.FINISHED)) == ["job is FINISHED; it can not be rescaled"]
    assert refusals(rescale.rescale_requested(0, "late", shape(1))) == [
        "job is FINISHED; it can not be rescaled"
    ]


def test_slots_leave_their_nodes_by_a_checkpoint_at_the_parallelism_that_the_job_has(rescale):
    assert rescale.slots_leave((SlotId(1),)) == [checkpoint("move 1")]
    assert rescale.slots_leave((SlotId(1),)) == [], "it is under way"
    assert not rescale.owns(SlotId(1)), "what becomes of its process is the job's business"

    assert rescale.checkpoint_ended(10, None) == [RestartRescaled(shape(2), (), (SlotId(1),))]
    assert rescale.attempt_runs(20) == []
    assert rescale.slots_leave((SlotId(0),)) == [checkpoint("move 2")]


def test_slots_leave_at_the_next_word_when_the_checkpoint_fails(rescale):
    rescale.slots_leave((SlotId(1),))

    assert rescale.checkpoint_ended(10, REFUSED) == []
    assert rescale.slots_leave((SlotId(1),)) == [checkpoint("move 2")]


def test_client_is_told_that_the_job_leaves_a_node_and_may_ask_again(rescale):
    rescale.slots_leave((SlotId(1),))
    (message,) = refusals(rescale.rescale_requested(0, "r", shape(4)))
    rescale.checkpoint_ended(10, None)
    rescale.attempt_runs(20)

    assert message == "job is leaving a node that is about to go"
    assert rescale.rescale_requested(30, "r", shape(4)) == [AcquireSlots((SlotId(2), SlotId(3)))]


def test_rescale_that_still_waits_for_slots_is_given_up_for_those_that_leave_a_node(rescale):
    rescale.rescale_requested(0, "r", shape(4))
    rescale.slot_acquired(SlotId(2))

    dismissed, answer, taken = rescale.slots_leave((SlotId(1),))

    assert (dismissed, taken) == (DismissSlots((SlotId(2), SlotId(3))), checkpoint("move 1"))
    (message,) = refusals([answer])
    assert message.endswith("goes on at parallelism 2: job is leaving a node that is about to go")
    assert rescale.checkpoint_ended(10, None) == [RestartRescaled(shape(2), (), (SlotId(1),))]


def test_slots_leave_when_a_rescale_is_over(rescale):
    rescale.rescale_requested(0, "r", shape(1))

    assert rescale.slots_leave((SlotId(1),)) == []
    rescale.checkpoint_ended(10, None)
    rescale.attempt_runs(20)
    assert rescale.slots_leave((SlotId(0),)) == [checkpoint("move 1")]


def test_no_slot_leaves_a_job_that_has_ended(rescale):
    rescale.slots_leave((SlotId(1),))
    assert rescale.job_ended(JobStatus.FINISHED) == []

    assert rescale.slots_leave((SlotId(1),)) == []
