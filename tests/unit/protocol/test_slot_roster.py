"""A slot goes through its states in order, and may be lost in any of them."""

import pytest

from raystream.errors import ProtocolError
from raystream.ids import SlotId
from raystream.protocol.rescale import RestartRescaled
from raystream.protocol.slot_roster import SlotRoster, SlotState
from raystream.protocol.subtasks import JobShape

FIRST, SECOND, THIRD = SlotId(0), SlotId(1), SlotId(2)
WAY = [
    SlotState.WANTED,
    SlotState.IDLE,
    SlotState.DEPLOYING,
    SlotState.DEPLOYED,
    SlotState.CONNECTING,
    SlotState.READY,
    SlotState.STOPPING,
    SlotState.IDLE,
]


@pytest.mark.parametrize("steps", range(1, len(WAY) + 1))
def test_slot_may_be_lost_in_every_state_and_asked_for_again(steps):
    roster = SlotRoster([FIRST])
    for state in WAY[:steps]:
        roster.move(FIRST, state)

    assert roster.lost(FIRST)
    assert not roster.lost(FIRST)
    assert roster.move_all(SlotState.ABSENT, SlotState.WANTED) == (FIRST,)


def test_state_can_not_be_left_out():
    roster = SlotRoster([FIRST])
    roster.move(FIRST, SlotState.WANTED)

    with pytest.raises(ProtocolError, match="slot can not change"):
        roster.move(FIRST, SlotState.DEPLOYING)


def test_only_slots_that_were_told_to_deploy_are_stopped():
    roster = SlotRoster([FIRST, SECOND])
    roster.move_all(SlotState.ABSENT, SlotState.WANTED)
    roster.move(SECOND, SlotState.IDLE)
    roster.move(SECOND, SlotState.DEPLOYING)
    roster.deployed(SECOND, "address")

    assert roster.waiting_for == "1 of 2 slots"
    assert roster.addresses == {SECOND: "address"}
    assert roster.stop_busy(kill_ms=500) == (SECOND,)
    assert roster.slots(SlotState.STOPPING) == (SECOND,)


def test_slot_that_leaves_its_node_is_given_up_unless_it_has_lost_its_process_already():
    roster = SlotRoster([FIRST, SECOND])
    for slot in (FIRST, SECOND):
        roster.move(slot, SlotState.WANTED)
        roster.move(slot, SlotState.IDLE)
    roster.lost(SECOND)
    shape = JobShape(parallelism=2, slots=(FIRST, SECOND), subtasks=frozenset())

    roster.reshape_next(RestartRescaled(shape, (), leaving=(FIRST, SECOND)))

    assert roster.reshape() == (shape, (FIRST,))
    assert roster.slots(SlotState.ABSENT) == (FIRST, SECOND)
    assert roster.reshape() is None, "it is done once"


def test_further_slot_that_is_lost_before_the_job_has_it_is_absent():
    roster = SlotRoster([FIRST])
    roster.move(FIRST, SlotState.WANTED)
    roster.move(FIRST, SlotState.IDLE)
    shape = JobShape(parallelism=3, slots=(FIRST, SECOND, THIRD), subtasks=frozenset())
    roster.reshape_next(RestartRescaled(shape, (SECOND, THIRD)))

    assert not roster.lost(SECOND)
    assert roster.reshape() == (shape, ())
    assert (roster.slots(SlotState.IDLE), roster.slots(SlotState.ABSENT)) == ((FIRST, THIRD), (SECOND,))
