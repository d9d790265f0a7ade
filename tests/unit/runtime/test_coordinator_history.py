"""The history of a job says of each checkpoint why it was slow, or who kept it from completing."""

from dataclasses import replace

from raystream.errors import StorageError
from raystream.ids import Attempt, CheckpointId, VertexId
from raystream.protocol.checkpoint_requests import Purpose
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_view import (
    RECORDS_MAX,
    SUBTASKS_KEPT,
    SUBTASKS_MAX,
    CheckpointRecords,
    archived,
)
from raystream.storage.archive import ArchivedJob
from tests.unit.runtime.coordinator_world import (
    INTERVAL_MS,
    FakeSource,
    make_plan,
    make_snapshot,
    running,
)


def waiting(tmp_path):
    """Return a world whose checkpoint 1 waits for all subtasks."""
    world = running(tmp_path)
    world.silent = {msg.TriggerCheckpoint}
    return world.run_for(INTERVAL_MS)


def test_expired_checkpoint_says_who_had_not_acknowledged(tmp_path):
    world = waiting(tmp_path)
    world.ack(CheckpointId(1), VertexId(0), 0)
    world.run_for(world.config.checkpointing.timeout_ms)

    record = world.view.checkpoints[0]
    assert (record.status, record.missing) == ("failed", ("read 2/2", "count 1/2", "count 2/2"))
    assert record.missing_count == 3
    assert [one.label for one in record.subtasks] == ["read 1/2"]
    assert record.held_up_by.endswith("had not acknowledged")


def test_declined_checkpoint_names_the_subtask_that_declined(tmp_path):
    world = waiting(tmp_path)
    error = StorageError("could not write file", cause="No space left on device", path="file:///data/x")
    world.decline(1, 1, 1, error)

    failure = world.settle().view.checkpoints[0].failure
    assert failure == "declined: could not write file: No space left on device (count 2/2)"


def test_time_of_the_metadata_is_told_of_a_complete_checkpoint(tmp_path):
    world = running(tmp_path)
    world.held = {"write_metadata"}
    world.run_for(3 * INTERVAL_MS).release_work("write_metadata")

    record = world.view.checkpoints[0]
    assert record.status == "completed"
    assert record.held_up_by.startswith("job master: ")


def test_history_in_the_log_has_what_held_each_up_and_not_every_subtask(tmp_path):
    world = running(tmp_path).run_for(INTERVAL_MS)

    (record,) = world.log_entries[-1].history
    assert record.held_up_by == world.view.checkpoints[0].held_up_by != ""
    assert record.subtasks == ()
    job: ArchivedJob = archived(world.view, world.view.status)
    assert len(job.checkpoints[0].subtasks) == 4


def test_checkpoint_that_a_failure_goes_back_to_is_shown_however_many_have_failed_since():
    records = CheckpointRecords()
    ends = {1: "", 2: "expired", 3: ""}
    for number in range(1, RECORDS_MAX + 11):
        purpose = Purpose.SAVEPOINT if number == RECORDS_MAX else Purpose.PERIODIC
        records.started(CheckpointId(number), purpose, Attempt(1), wall_ms=0, now_ms=0)
        failure = "" if purpose is Purpose.SAVEPOINT else "expired"
        records.ended(CheckpointId(number), 1.0, failure=ends.get(number, failure))

    shown = [record.checkpoint_id for record in records.shown()]
    assert shown == [3, *range(12, RECORDS_MAX + 11)]


def test_subtasks_of_old_checkpoints_are_forgotten_but_for_the_slowest():
    plan = make_plan(FakeSource(), parallelism=200, max_parallelism=400)
    records = CheckpointRecords()
    for number in range(1, 11):
        checkpoint_id = CheckpointId(number)
        records.started(checkpoint_id, Purpose.PERIODIC, Attempt(1), wall_ms=0, now_ms=0)
        snapshots = [make_snapshot(plan, vertex.id, i, number) for vertex, i in plan.subtasks()]
        snapshots[7] = replace(snapshots[7], async_ms=50.0)
        records.acknowledged(checkpoint_id, plan, snapshots)
        records.ended(checkpoint_id, 1.0, failure="")

    shown = records.shown()
    counts = [len(record.subtasks) for record in shown]
    assert counts == [SUBTASKS_KEPT] * 8 + [400, 400]
    assert sum(counts) <= SUBTASKS_MAX + 10 * SUBTASKS_KEPT
    assert {record.subtasks[0].label for record in shown} == {shown[-1].subtasks[0].label}
    assert all(record.held_up_by for record in shown)
