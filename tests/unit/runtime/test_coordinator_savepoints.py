"""What a coordinator takes for a savepoint, and what it may start from."""

import logging

import pytest

from raystream.errors import StorageError
from raystream.handles import SavepointFormat
from raystream.runtime import messages as msg
from raystream.storage.snapshots import load_snapshot
from tests.unit.runtime.coordinator_world import INTERVAL_MS, FakeSource, World, make_plan, running


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("take", [World.savepoint, World.stop])
@pytest.mark.parametrize("wanted", SavepointFormat)
def test_format_of_a_savepoint_goes_from_the_request_to_the_slots_and_into_its_metadata(
    directory, tmp_path, take, wanted
):
    world = running(directory, savepoints=tmp_path)
    take(world, "s", wanted=wanted)

    assert {trigger.savepoint_format for trigger in world.commands(msg.TriggerCheckpoint)} == {wanted}
    _, metadata = load_snapshot(world.view.outcome("s").path)
    assert metadata.savepoint_format is wanted


def test_savepoint_that_a_slot_cannot_write_is_answered_with_path_cause_and_advice(directory, tmp_path):
    world = running(directory, savepoints=tmp_path)
    world.silent = {msg.TriggerCheckpoint}
    trigger = world.savepoint("s").commands(msg.TriggerCheckpoint)[-1]
    refused = {"cause": "Not a directory", "path": f"{trigger.directory}/count/part-0.parquet"}
    error = StorageError("could not write file", hint="choose another directory", **refused)
    world.decline(trigger.checkpoint_id, 1, 0, error)

    told = world.settle().view.outcome("s").error
    assert told.message == "savepoint was aborted: could not write file"
    assert told.context == {"reason": "declined", **refused, "vertex": 1, "subtask": 0}
    assert told.hint == "choose another directory"


def test_checkpoint_has_no_savepoint_format(directory):
    world = running(directory).run_for(INTERVAL_MS)

    assert {trigger.savepoint_format for trigger in world.commands(msg.TriggerCheckpoint)} == {None}


@pytest.mark.parametrize("max_parallelism", [128, 64])
def test_price_of_another_max_parallelism_is_told_before_it_is_paid(
    directory, tmp_path, caplog, max_parallelism
):
    older = running(directory, savepoints=tmp_path).run_for(INTERVAL_MS)
    older.stop()
    plan = make_plan(FakeSource(), max_parallelism=max_parallelism)
    with caplog.at_level(logging.INFO, logger="raystream"):
        world = World(
            tmp_path / "new", plan=plan, execution__state_recovery__path=older.view.outcome("stop").path
        ).start()

    assert world.status == "RUNNING"
    told = [record for record in caplog.records if "dealt out anew" in record.message]
    assert len(told) == (max_parallelism == 64)
    for record in told:
        assert (record.operator, record.stored_max_parallelism, record.max_parallelism) == ("COUNT", 128, 64)
        assert record.read_bytes == 2 * record.size_bytes > 0
