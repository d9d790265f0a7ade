"""What a coordinator takes for a savepoint, and what it may start from."""

import pytest

from raystream.handles import SavepointFormat
from raystream.runtime import messages as msg
from raystream.storage.snapshots import load_snapshot
from tests.unit.runtime.coordinator_world import INTERVAL_MS, World, running


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


def test_checkpoint_has_no_savepoint_format(directory):
    world = running(directory).run_for(INTERVAL_MS)

    assert {trigger.savepoint_format for trigger in world.commands(msg.TriggerCheckpoint)} == {None}
