"""The coordinator runs a job from its submission to its end, whatever its slots and its storage do."""

import pickle

import pytest

from raystream.errors import (
    CheckpointError,
    ConfigError,
    ConnectionLostError,
)
from raystream.handles import FileHandle
from raystream.ids import Attempt, JobStatus
from raystream.runtime import messages as msg
from raystream.storage.log_entries import AttemptStarted, Terminal
from tests.unit.runtime.coordinator_world import (
    CRASH,
    INTERVAL_MS,
    JOB_ID,
    REFUSED,
    FakeSource,
    World,
    chk,
    running,
)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def kinds(entries):
    return [type(entry) for entry in entries]


# ---- the way through a job -----------------------------------------------------------


def test_job_runs_from_submission_to_the_end_of_its_input(directory):
    world = running(directory)
    world.run_for(2 * INTERVAL_MS)
    assert world.completed == [1, 2]

    world.end_input()

    assert world.status == "FINISHED"
    assert world.coordinator.finished
    assert world.released
    assert world.commands(msg.CheckpointCompleted)[-1].final
    assert kinds(world.log_entries)[0] is AttemptStarted
    assert world.log_entries[-1] == Terminal(status=JobStatus.FINISHED)
    assert not list(directory.glob("*/chk-*")), "a finished job leaves no checkpoint"
    assert (directory / JOB_ID / "archive").exists()


def test_all_slots_are_deployed_connected_and_started_in_step(directory):
    world = World(directory)
    world.silent = {msg.Connect}
    world.start()
    deploys = world.commands(msg.Deploy)

    assert [d.slot for d in deploys] == [0, 1]
    assert deploys[0].secret == deploys[1].secret
    assert len(deploys[0].secret) == 32
    assert world.commands(msg.Connect)[0].addresses == {0: "address-0", 1: "address-1"}
    assert not world.commands(msg.Start), "no slot starts before all are ready"


def test_view_can_be_pickled_and_shows_counts_of_all_attempts(directory):
    world = running(directory)
    progress = msg.Progress(attempt=Attempt(1), slot=0, records_in=10, records_out=7, dead_letters=2)
    world.report(progress)
    world.fail()
    world.report(progress)
    world.restart()
    world.report(progress)
    world.report(msg.Progress(attempt=Attempt(2), slot=1, records_in=5, records_out=1))

    view = pickle.loads(pickle.dumps(world.view))

    assert (view.records_in, view.records_out) == (15, 8), "a report of the dead attempt counts once"
    assert view.dead_letters == 2
    assert (view.attempt, view.restarts, view.parallelism) == (2, 1, 2)


def test_output_of_sinks_is_handed_on_unless_it_is_of_an_older_attempt(directory):
    world = running(directory)
    outputs = [msg.ClientOutput(attempt=Attempt(n), slot=0, uid="sink", payload=["line"]) for n in (1, 7)]
    for output in outputs:
        world.report(output)

    assert world.outputs == outputs[:1]


def test_waiting_for_slots_is_shown():
    world = World()
    world.silent = {"acquire"}
    world.start()

    assert world.status == "CREATED"
    assert (world.view.waiting_for, world.view.waiting_ms) == ("2 of 2 slots", 0)
    world.run_for(7_000)
    world._acquired(0)
    world.settle()
    assert (world.view.waiting_for, world.view.waiting_ms) == ("1 of 2 slots", 7_000)
    world._acquired(1)
    world.settle()
    assert (world.view.waiting_for, world.view.waiting_ms) == ("", 0)


def test_without_checkpointing_nothing_is_written_and_the_end_commits_without_a_checkpoint(directory):
    world = running(directory, execution__checkpointing__interval="off")
    world.run_for(5 * INTERVAL_MS)
    world.end_input()

    assert world.status == "FINISHED"
    assert len(world.commands(msg.CommitAtEnd)) == 2
    assert not directory.exists()


def test_job_without_checkpointing_never_runs_again_once_its_sinks_commit(directory):
    world = running(directory, execution__checkpointing__interval="off")
    world.silent = {msg.CommitAtEnd}
    world.end_input()
    world.report(msg.CommitsDone(attempt=Attempt(1), vertex=1, subtask=0))
    world.lose(1)
    world.run_for(INTERVAL_MS)

    assert world.status == "FAILED"
    assert world.view.restarts == 0
    assert "may be partly visible: process of the slot is gone" in world.view.error.message


def test_checkpoints_without_a_directory_stay_in_memory():
    world = running().run_for(2 * INTERVAL_MS)
    assert {c.directory for c in world.commands(msg.TriggerCheckpoint)} == {""}
    world.fail()
    world.restart()

    assert world.status == "RUNNING"
    (restore,) = world.restored[1][1, 1].values()
    assert restore.keyed[0].data.data == b"c2-1"


# ---- checkpoints -----------------------------------------------------------------------


def test_checkpoint_shows_times_and_sizes_of_its_subtasks(directory):
    (record, *_) = running(directory).run_for(INTERVAL_MS).view.checkpoints

    assert (record.status, record.purpose, record.attempt) == ("completed", "periodic", 1)
    assert record.path.endswith("chk-1")
    assert record.size_bytes > 0
    assert [(s.vertex, s.subtask, s.sync_ms) for s in record.subtasks] == [
        (0, 0, 1.0), (0, 1, 1.0), (1, 0, 1.0), (1, 1, 1.0)
    ]  # fmt: skip


def test_checkpoint_is_complete_only_with_its_log_entry(directory):
    world = running(directory)
    world.held = {"append"}
    world.run_for(INTERVAL_MS)

    assert (chk(directory, 1) / "_metadata").exists()
    assert world.completed == []
    assert not world.commands(msg.CheckpointCompleted)
    world.release_work("append")
    assert world.completed == [1]
    assert len(world.commands(msg.CheckpointCompleted)) == 2


def test_declined_checkpoint_is_deleted_and_the_job_goes_on(directory):
    world = running(directory)
    world.silent = {msg.TriggerCheckpoint}
    world.run_for(INTERVAL_MS)
    chk(directory, 1).mkdir(parents=True)
    world.decline(1, 1, 0, CheckpointError("too large"))
    world.settle()

    assert not chk(directory, 1).exists()
    assert world.view.checkpoints[0].failure == "declined: too large (count 1/2)"
    assert len(world.commands(msg.CheckpointAborted)) == 2
    world.silent.clear()
    assert world.run_for(2 * INTERVAL_MS).completed[-1] >= 2


def test_late_ack_of_a_declined_checkpoint_is_deleted(directory):
    world = running(directory)
    world.silent = {msg.TriggerCheckpoint}
    world.run_for(INTERVAL_MS)
    world.decline(1, 1, 0)
    world.settle()
    file = chk(directory, 1) / "late"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"state")

    world.ack(1, 1, 1, data=FileHandle(path="late", size_bytes=5, checksum="0" * 16))
    world.settle()

    assert not file.exists()


def test_file_that_is_written_for_a_declined_checkpoint_after_its_deletion_goes_with_an_older_one(directory):
    world = running(directory)
    world.silent = {msg.TriggerCheckpoint}
    world.run_for(INTERVAL_MS)
    world.decline(1, 1, 0)
    world.settle()
    chk(directory, 1).mkdir(parents=True)
    (chk(directory, 1) / "late").write_bytes(b"state")
    world.silent.clear()

    world.run_for(3 * INTERVAL_MS)

    assert world.completed[-2:] == [3, 4]
    assert [path.name for path in directory.glob("*/chk-*")] == ["chk-4"]


def test_directory_is_swept_after_a_checkpoint_was_given_up_until_no_slot_writes_for_it_any_more(directory):
    world = running(directory)
    world.run_for(INTERVAL_MS)
    assert world.deleting.count("sweep") == 1, "that of the attempt"
    world.silent = {msg.TriggerCheckpoint}
    world.run_for(INTERVAL_MS)
    world.decline(2, 1, 0)
    world.silent.clear()
    world.writing_from = {0: 2, 1: 4}
    world.run_for(3 * INTERVAL_MS)
    assert world.completed[-3:] == [3, 4, 5]
    assert world.deleting.count("sweep") == 4
    world.writing_from = {1: 5}
    world.faults = {"sweep": [REFUSED]}
    world.run_for(INTERVAL_MS)
    assert world.deleting.count("sweep") == 5
    world.run_for(INTERVAL_MS)
    assert world.deleting.count("sweep") == 6, "the one before had failed"

    world.run_for(3 * INTERVAL_MS)

    assert world.completed[-1] == 10
    assert world.deleting.count("sweep") == 6


def test_a_deleted_checkpoint_is_shown_without_a_path(directory):
    world = running(directory).run_for(2 * INTERVAL_MS)

    assert [record.path for record in world.view.checkpoints] == ["", f"file://{chk(directory, 2)}"]
    world.end_input()
    assert world.status == "FINISHED"
    assert [record.path for record in world.view.checkpoints] == [""] * 3


def test_too_many_failed_checkpoints_fail_the_attempt(directory):
    world = running(directory, execution__checkpointing__tolerable_failed_checkpoints="1")
    world.faults = {"write_metadata": [REFUSED] * 2}
    world.run_for(2 * INTERVAL_MS)

    assert world.view.restarts == 1
    assert isinstance(world.view.error, CheckpointError)
    assert "2 checkpoints in a row have failed" in world.view.error.message
    assert "store refused" in world.view.error.message


def test_enumerator_that_can_not_be_snapshotted_fails_the_checkpoint_and_triggers_nothing(directory):
    world = running(directory)
    world.source.snapshot_error = ValueError("not now")
    world.run_for(INTERVAL_MS)

    assert world.view.checkpoints[0].failure.startswith("trigger-failed: split enumerator")
    assert not world.commands(msg.TriggerCheckpoint)


# ---- failures ------------------------------------------------------------------------


def test_crash_before_the_first_checkpoint_starts_from_nothing(directory):
    world = running(directory)
    world.lose(0)
    world.settle()
    assert world.status == "RESTARTING"
    world.restart()

    assert world.status == "RUNNING"
    assert world.restored == {0: {}, 1: {}}
    assert [state for _, state in world.source.made] == [None, None]
    assert (world.log_entries[1].attempt, world.log_entries[1].restored_checkpoint) == (2, None)


def test_crash_between_metadata_and_log_entry_restores_the_checkpoint_before(directory):
    world = running(directory).run_for(INTERVAL_MS)
    assert world.completed == [1]
    world.held = {"write_metadata"}
    world.run_for(INTERVAL_MS)
    world.held = set()
    world.lose(0)
    world.settle()
    world.restart()

    assert world.view.last_checkpoint_id == 1
    assert world.log_entries[-1].restored_checkpoint == 1
    assert not chk(directory, 2).exists(), "what never became complete is deleted"


def test_restart_waits_for_the_log_entry_that_is_being_written_and_restores_its_checkpoint(directory):
    world = running(directory).run_for(INTERVAL_MS)
    world.held = {"append"}
    world.run_for(INTERVAL_MS)
    world.lose(0)
    world.restart()
    assert world.status == "RESTARTING"

    world.release_work("append")

    assert world.status == "RUNNING"
    assert world.log_entries[-1].restored_checkpoint == 2
    (restore,) = world.restored[0][1, 0].values()
    assert restore.keyed[0].data.data == b"c2-0"


def test_late_ack_of_an_older_attempt_changes_nothing(directory):
    world = running(directory)
    world.silent = {msg.TriggerCheckpoint}
    world.run_for(INTERVAL_MS)
    world.fail()
    world.restart()
    world.run_for(INTERVAL_MS)
    sent = len(world.sent)

    for vertex, subtask in world.plan.subtasks():
        world.ack(2, vertex.id, subtask, attempt=1)
    world.settle()

    assert world.completed == []
    assert len(world.sent) == sent


def test_root_cause_is_shown_before_the_connections_that_it_broke(directory):
    world = running(directory)
    broken = ConnectionLostError("connection broke")
    world.fail(1, broken, consequence=True)
    world.run_for(INTERVAL_MS)
    world.lose(0)
    world.settle()

    assert world.view.error.message == "process of the slot is gone"


def test_job_fails_when_restarts_are_used_up_and_keeps_its_checkpoints(directory):
    world = running(directory, restart_strategy__type="none").run_for(INTERVAL_MS)
    world.fail()

    assert world.status == "FAILED"
    assert world.view.error is CRASH
    assert chk(directory, 1).exists()
    assert world.log_entries[-1].status is JobStatus.FAILED
    assert "user function raised" in world.log_entries[-1].error


def test_failure_that_is_not_retryable_fails_the_job_without_a_restart(directory):
    world = running(directory)
    world.fail(0, ConfigError("no such file"), retryable=False)

    assert world.status == "FAILED"
    assert world.view.restarts == 0


def test_source_that_can_not_be_read_fails_the_job_before_a_slot_is_asked_for(directory):
    world = World(directory, source=FakeSource([ConfigError("no such file")])).start()

    assert world.status == "FAILED"
    assert world.view.error.message == "no such file"
    assert not world.sent
    assert not directory.exists(), "a job that never started leaves nothing"


def test_lost_slot_is_acquired_again_and_the_others_are_kept(directory):
    world = running(directory)
    world.lose(0)
    world.restart()

    assert world.alive == {0, 1}
    assert [slot for slot, c in world.sent if isinstance(c, msg.StopAttempt)] == [1]


def test_slot_that_does_not_stop_is_killed(directory):
    world = running(directory, task__cancellation__timeout="3s")
    world.silent = {msg.StopAttempt}
    world.fail()
    world.run_for(3_000)

    assert world.killed == [0, 1]
    world.silent.clear()
    assert world.restart().status == "RUNNING"
