"""A client has a checkpoint taken, and gets its path."""

import pytest

from raystream.errors import ConfigError
from raystream.runtime import messages as msg
from tests.unit.runtime.coordinator_world import INTERVAL_MS, REFUSED, chk, running


@pytest.mark.parametrize("full", [False, True])
def test_manual_checkpoint_is_answered_with_its_path_and_commits(tmp_path, full):
    world = running(tmp_path).checkpoint(full=full)

    outcome = world.view.outcome("m")
    assert outcome.path == chk(tmp_path, 1).as_uri()
    assert [trigger.full for trigger in world.commands(msg.TriggerCheckpoint)] == [full] * 2
    assert len(world.commands(msg.CheckpointCompleted)) == 2
    (record,) = world.view.checkpoints
    assert (record.purpose, record.status, record.path) == ("manual", "completed", outcome.path)
    assert world.run_for(INTERVAL_MS).completed == [1, 2], "the period goes on"


def test_repeated_request_is_one_checkpoint(tmp_path):
    assert running(tmp_path).checkpoint().checkpoint().completed == [1]


def test_checkpoint_that_fails_is_told(tmp_path):
    world = running(tmp_path, execution__checkpointing__tolerable_failed_checkpoints=1)
    world.faults = {"write_metadata": [REFUSED]}
    world.checkpoint()

    assert world.view.outcome("m").error.message == "checkpoint was aborted: store refused"
    assert world.status == "RUNNING"


def test_checkpoint_of_a_job_whose_checkpointing_is_off_is_refused(tmp_path):
    world = running(tmp_path, execution__checkpointing__interval="none").checkpoint()

    assert isinstance(world.view.outcome("m").error, ConfigError)
    assert not world.commands(msg.TriggerCheckpoint)
