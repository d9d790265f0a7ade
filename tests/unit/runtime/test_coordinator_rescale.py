"""A job is rescaled by a checkpoint and a restart from it; when that can not be, it goes on as it was."""

from dataclasses import replace

import pytest

from raystream.errors import CheckpointError, ConfigError
from raystream.protocol.rescale import SLOTS_WAIT_MS
from raystream.runtime import messages as msg
from raystream.storage.log_entries import AttemptStarted
from tests.unit.runtime.coordinator_world import INTERVAL_MS, REFUSED, FakeSource, World, make_plan


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def running(directory, **options):
    world = World(directory, packed=True, parallelism__default=2, **options).start()
    assert world.status == "RUNNING", world.view.error
    return world


def outcome(world, request_id="rescale"):
    return world.view.outcome(request_id)


def slots_of(world, attempt):
    return sorted(deploy.slot for deploy in world.commands(msg.Deploy) if deploy.attempt == attempt)


def make_plan_given():
    plan = make_plan(FakeSource())
    vertices = (
        replace(vertex, operators=tuple(replace(node, parallelism_given=True) for node in vertex.operators))
        for vertex in plan.vertices
    )
    return replace(plan, vertices=tuple(vertices))


def keyed_states(world):
    """Return the keyed state that each subtask of the last deployment has restored."""
    operators = [one for restore in world.restored.values() for one in restore.values()]
    return [state for one in operators for state in one.values() if state.keyed]


def test_job_goes_on_from_a_checkpoint_at_the_new_parallelism(directory):
    world = running(directory)

    world.rescale(4)

    assert (world.status, world.view.attempt, world.view.parallelism) == ("RUNNING", 2, 4)
    assert outcome(world).error is None
    assert outcome(world).answer == "0"
    (record,) = world.view.checkpoints
    assert (record.purpose, record.status) == ("rescale", "completed")
    assert slots_of(world, 2) == [0, 1, 2, 3]
    assert not world.killed, "live slots are used again"
    assert len(keyed_states(world)) == 4
    started = [entry for entry in world.log_entries if isinstance(entry, AttemptStarted)]
    assert [entry.parallelism for entry in started] == [None, 4]
    assert started[-1].restored_checkpoint == record.checkpoint_id


def test_slots_that_are_not_needed_are_given_back_and_asked_for_again(directory):
    world = running(directory)

    world.rescale(1, "down")
    assert (world.view.parallelism, world.dismissed, world.alive) == (1, [1], {0})
    assert world.renewed == [], "nothing is to stand by for it"
    world.rescale(3, "up")

    assert (world.status, world.view.parallelism, world.alive) == ("RUNNING", 3, {0, 1, 2})
    assert slots_of(world, 3) == [0, 1, 2]
    assert [outcome(world, name).error for name in ("down", "up")] == [None, None]
    world.run_for(INTERVAL_MS)
    assert world.completed[-1] > 2, "checkpoints of the new attempt have all its subtasks"


def test_job_runs_on_until_all_further_slots_are_there(directory):
    world = running(directory)
    world.silent = {"acquire"}

    world.rescale(3)

    assert (world.status, world.view.attempt) == ("RUNNING", 1)
    assert world.view.waiting_for == "1 of 1 further slots for parallelism 3"
    world._acquired(2)
    world.settle()
    assert (world.status, world.view.parallelism) == ("RUNNING", 3)


def test_job_goes_on_as_it_was_when_there_is_no_room(directory):
    world = running(directory)
    world.silent = {"acquire"}
    world.rescale(3)

    world.run_for(SLOTS_WAIT_MS)

    assert "goes on at parallelism 2: 1 of 1 further slots" in outcome(world).error.message
    assert (world.status, world.view.attempt, world.view.waiting_for) == ("RUNNING", 1, "")
    assert world.dismissed == [2]


def test_job_goes_on_as_it_was_when_the_checkpoint_fails(directory):
    world = running(directory)
    world.faults = {"write_metadata": [REFUSED]}

    world.rescale(4)

    assert isinstance(outcome(world).error, type(REFUSED))
    assert "goes on at parallelism 2: store refused" in outcome(world).error.message
    assert (world.status, world.view.attempt, world.view.parallelism) == ("RUNNING", 1, 2)
    assert world.alive == {0, 1}
    world.rescale(4, "again")
    assert (world.status, world.view.parallelism) == ("RUNNING", 4)


def test_failures_of_such_checkpoints_do_not_count_against_the_job(directory):
    world = running(directory, execution__checkpointing__tolerable_failed_checkpoints=0)
    world.faults = {"write_metadata": [REFUSED]}

    world.rescale(1)

    assert (world.status, world.view.attempt) == ("RUNNING", 1)


def test_failure_during_the_checkpoint_ends_the_rescale(directory):
    world = running(directory)
    world.silent = {msg.TriggerCheckpoint}
    world.rescale(1)

    world.fail()

    assert isinstance(outcome(world).error, CheckpointError)
    world.restart()
    assert (world.status, world.view.parallelism) == ("RUNNING", 2)


def test_restart_that_fails_is_tried_again_at_the_new_parallelism(directory):
    world = running(directory)
    world.silent = {msg.Connect}
    world.rescale(3)
    assert (world.view.attempt, outcome(world)) == (2, None)

    world.silent = set()
    world.fail(2).restart()

    assert (world.status, world.view.attempt, world.view.parallelism) == ("RUNNING", 3, 3)
    assert int(outcome(world).answer) >= 10


def test_lost_slot_of_a_rescaled_job_is_acquired_again(directory):
    world = running(directory).rescale(4)

    world.lose(3)
    world.restart()

    assert (world.status, world.view.attempt, world.view.parallelism) == ("RUNNING", 3, 4)
    assert slots_of(world, 3) == [0, 1, 2, 3]


def test_further_slot_that_is_lost_while_the_attempt_still_stops_is_acquired_again(directory):
    world = running(directory)
    world.silent = {msg.StopAttempt}
    world.rescale(4)
    assert world.status == "RESTARTING"

    world.lose(3)
    world.lose(0)
    world.lose(1)
    world.restart()

    assert (world.status, world.view.attempt, world.view.parallelism) == ("RUNNING", 2, 4)
    assert slots_of(world, 2) == [0, 1, 2, 3]


def test_same_request_again_is_the_same_request(directory):
    world = running(directory).rescale(4)

    world.rescale(4)
    world.rescale(4, "new")

    assert (world.view.attempt, outcome(world, "new").answer) == (2, "0")


@pytest.mark.parametrize(("parallelism", "cause"), [(0, "at least 1"), (129, "above the max parallelism")])
def test_parallelism_that_the_job_cannot_have_changes_nothing(directory, parallelism, cause):
    world = running(directory, pipeline__max_parallelism=128)

    world.rescale(parallelism)

    assert isinstance(outcome(world).error, ConfigError)
    assert cause in outcome(world).error.message
    assert (world.status, world.view.attempt) == ("RUNNING", 1)


def test_job_that_has_ended_says_so(directory):
    world = running(directory)
    world.silent = {"acquire"}
    world.rescale(3)

    world.cancel()
    world.rescale(4, "late")

    assert world.status == "CANCELED"
    for request_id in ("rescale", "late"):
        assert outcome(world, request_id).error.message == "job is CANCELED; it can not be rescaled"


def test_job_that_ends_before_the_checkpoint_of_a_rescale_could_begin_says_so(directory):
    world = running(directory)
    world.fail()
    world.rescale(1)

    world.cancel()

    assert world.status == "CANCELED"
    assert outcome(world).error.message == "job is CANCELED; it can not be rescaled"


def test_savepoint_that_is_asked_for_meanwhile_is_taken_after_the_restart(directory, tmp_path):
    world = running(directory, savepoints=tmp_path / "savepoints")
    world.held = {"write_metadata"}
    world.rescale(4)
    world.savepoint()

    world.release_work("write_metadata")

    assert world.view.outcome("s").error is None
    assert [record.attempt for record in world.view.checkpoints] == [1, 2]


def test_rescale_waits_for_savepoints_that_are_being_taken(directory, tmp_path):
    world = running(directory, savepoints=tmp_path / "savepoints")
    world.held = {"write_metadata"}
    world.savepoint()
    world.rescale(4)
    assert [record.purpose for record in world.view.checkpoints] == ["savepoint"]

    world.release_work("write_metadata")

    assert world.view.outcome("s").error is None
    assert (world.status, world.view.parallelism) == ("RUNNING", 4)


def test_rescale_that_still_waits_when_the_job_is_cancelled_is_answered_once(directory, tmp_path):
    world = running(directory, savepoints=tmp_path)
    world.silent = {msg.TriggerCheckpoint}
    world.savepoint().rescale(1)
    assert outcome(world) is None, "its checkpoint waits for the savepoint"

    assert world.cancel().status == "CANCELED"
    assert outcome(world).error.message == "job is CANCELED; it can not be rescaled"


def test_rescaled_job_without_checkpointing_loses_nothing(directory):
    world = running(directory, execution__checkpointing__interval="off")

    world.rescale(3)

    assert (world.status, world.view.parallelism) == ("RUNNING", 3)
    assert len(keyed_states(world)) == 3


def test_operators_that_were_given_their_parallelism_keep_it_and_alone_they_are_refused(directory):
    world = World(directory, packed=True, plan=make_plan_given()).start()

    world.rescale(4)

    assert "every operator of the job was given its parallelism" in outcome(world).error.message
    assert (world.status, world.view.parallelism) == ("RUNNING", 2)


def test_next_job_master_goes_on_at_the_parallelism_of_the_rescaled_job(directory):
    before = running(directory).rescale(4)
    before.run_for(INTERVAL_MS)

    after = World(directory, packed=before.program, parallelism__default=2).start().restart()

    assert (after.status, after.view.parallelism) == ("RUNNING", 4)
    assert sorted(after.alive) == [0, 1, 2, 3]
    assert len(keyed_states(after)) == 4
    after.rescale(4)
    assert outcome(after).answer == "0", "the client asks the new job master again"
    after.rescale(2, "back")
    assert (after.status, after.view.parallelism) == ("RUNNING", 2)


def test_rescale_is_no_failure_that_the_next_job_master_counts(directory):
    options = {"restart_strategy__fixed_delay__attempts": "1"}
    before = running(directory, **options).rescale(4)

    after = World(directory, packed=before.program, parallelism__default=2, **options).start().restart()

    assert after.status == "RUNNING", after.view.gave_up


def test_checkpoint_without_the_attempt_behind_it_leaves_the_next_job_master_at_the_old_parallelism(
    directory,
):
    before = running(directory)
    before.silent = {msg.StopAttempt}
    before.rescale(4)
    assert before.view.last_checkpoint_id == 1

    after = World(directory, packed=before.program, parallelism__default=2).start().restart()

    assert (after.status, after.view.parallelism) == ("RUNNING", 2)
    after.rescale(4)
    assert (after.status, after.view.parallelism) == ("RUNNING", 4)


def test_slots_leave_their_nodes_by_a_checkpoint_that_the_next_attempt_restores(directory):
    world = running(directory)

    world.coordinator.slots_leave((1,))
    world.settle()

    (record,) = world.view.checkpoints
    assert (record.purpose, record.status) == ("rescale", "completed")
    assert (world.status, world.view.attempt, world.view.parallelism) == ("RUNNING", 2, 2)
    assert (world.dismissed, world.renewed) == ([1], [1]), "its process is given up, the other one used again"
    started = [entry for entry in world.log_entries if isinstance(entry, AttemptStarted)]
    assert started[-1].restored_checkpoint == record.checkpoint_id
    assert [entry.parallelism for entry in started] == [None, None]


def test_job_whose_operators_all_have_their_own_parallelism_leaves_nodes_too(directory):
    world = running(directory, plan=make_plan_given())

    world.coordinator.slots_leave((0, 1))
    world.settle()

    assert (world.status, world.view.attempt, sorted(world.dismissed)) == ("RUNNING", 2, [0, 1])
