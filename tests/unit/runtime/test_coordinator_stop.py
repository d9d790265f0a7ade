"""Stopping a job with a savepoint: whatever fails before its log entry leaves the job running."""

import pytest

from raystream.errors import CheckpointError
from raystream.ids import Attempt, CheckpointId, JobStatus
from raystream.runtime import messages as msg
from raystream.storage.log_entries import AttemptStarted, SavepointCompleted, StopAccepted, Terminal
from tests.unit.runtime.coordinator_world import INTERVAL_MS, REFUSED, running


@pytest.fixture
def world(tmp_path):
    return running(tmp_path / "checkpoints", savepoints=tmp_path / "savepoints")


def decline(world):
    world.silent = {msg.TriggerCheckpoint}
    checkpoint_id = stop(world).commands(msg.TriggerCheckpoint)[-1].checkpoint_id
    world.decline(checkpoint_id, 0, 1, CheckpointError("disk is full"))
    world.silent = set()
    return world.settle()


def expire(world):
    world.silent = {msg.TriggerCheckpoint}
    stop(world)
    world.silent = set()
    return world.run_for(world.config.checkpointing.timeout_ms)


def metadata_refused(world):
    world.faults = {"write_metadata": [REFUSED]}
    return stop(world)


def slot_lost(world):
    world.silent = {msg.TriggerCheckpoint}
    stop(world).lose(0)
    world.silent = set()
    return world.restart()


def stop(world):
    return world.stop(drain=world.drain)


PATHS = [decline, expire, metadata_refused, slot_lost]


@pytest.mark.parametrize("drain", [False, True])
@pytest.mark.parametrize("fail", PATHS)
def test_stop_that_fails_before_its_log_entry_leaves_the_job_running_and_says_why(world, fail, drain):
    world.drain = drain
    world.run_for(INTERVAL_MS)
    before = world.completed[-1]
    fail(world).run_for(0)

    error = world.view.outcome("stop").error
    assert isinstance(error, CheckpointError)
    assert error.message.startswith("savepoint was aborted")
    assert world.status == "RUNNING"
    restarted = drain or fail is slot_lost
    assert world.view.attempt == Attempt(2 if restarted else 1)
    if restarted:
        (restore,) = world.restored[0][1, 0].values()
        (kept,) = [r for r in world.view.checkpoints if r.path and r.checkpoint_id >= before][-1:]
        assert restore.directory == kept.path, "the job goes on from its last checkpoint"
    completed = len(world.completed)
    assert len(world.run_for(3 * INTERVAL_MS).completed) > completed, "checkpoints go on"
    assert world.stop("again").status == "FINISHED"


def test_drain_is_for_the_sources_and_ends_the_job(world):
    world.stop(drain=True)

    assert world.status == "FINISHED"
    assert all(c.stop and c.drain for c in world.commands(msg.TriggerCheckpoint))
    assert [type(entry) for entry in world.log_entries] == [
        AttemptStarted, StopAccepted, SavepointCompleted, Terminal,
    ]  # fmt: skip


def test_source_that_had_ended_does_not_keep_the_job_from_being_stopped(world):
    plan = world.plan
    world.report(msg.InputEnded(attempt=Attempt(1), vertex=plan.vertices[0].id, subtask=0))

    assert world.stop(drain=True).status == "FINISHED"


def test_input_that_ends_while_the_job_is_stopped_leaves_the_savepoint_its_last_snapshot(world):
    world.silent = {msg.TriggerCheckpoint}
    world.stop()
    world.end_input().run_for(INTERVAL_MS)
    assert [record.purpose for record in world.view.checkpoints] == ["stop"]

    world.ack_all(CheckpointId(1))
    assert world.settle().status == "FINISHED"


@pytest.mark.parametrize("lost", [0, 1])
def test_crash_after_the_log_entry_only_finishes_the_commits_of_a_drained_job(world, lost):
    world.silent = {msg.CheckpointCompleted}
    world.stop(drain=True)
    path = world.view.outcome("stop").path
    starts = len(world.commands(msg.Start))
    world.lose(lost)
    world.restart()

    assert world.view.status is JobStatus.FINISHED
    assert len(world.commands(msg.Start)) == starts, "no record is processed any more"
    (restore,) = world.restored[0][1, 0].values()
    assert restore.directory == path


def test_crash_while_the_log_entry_is_written_is_settled_by_the_entry(world):
    world.held = {"append"}
    world.stop(drain=True)
    world.lose(0)
    world.settle()
    assert world.view.outcome("stop") is None, "nobody knows yet"

    world.release_work("append").restart()
    assert world.view.outcome("stop").path
    assert world.view.status is JobStatus.FINISHED
