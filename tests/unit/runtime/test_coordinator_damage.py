"""An attempt that cannot read its checkpoint is followed by one that restores an older one, or by none."""

import logging
from dataclasses import replace

import pytest

from raystream.errors import StateCorruptError, StorageError
from raystream.ids import Attempt
from raystream.runtime import messages as msg
from raystream.storage.latest import find_latest
from raystream.storage.log_entries import AttemptStarted
from tests.unit.runtime.coordinator_world import INTERVAL_MS, FakeSource, World, chk, make_plan, running

MISSING = StateCorruptError("file of the snapshot is missing", path="file:///chk-3/state")
RETAINED = 3


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def with_checkpoints(directory, **options):
    world = running(directory, state__checkpoints__num_retained=RETAINED, **options)
    return world.run_for(RETAINED * INTERVAL_MS)


def restore_with_damage(world, *slots):
    """Let the attempt fail, and the next one find that its checkpoint is damaged."""
    world.silent = {msg.Connect}
    world.fail()
    world.restart()
    assert world.commands(msg.Connect)
    world.silent = set()
    attempt = world.view.attempt
    for slot in slots or (0,):
        world.report(msg.SlotFailed(attempt=attempt, slot=slot, error=MISSING, retryable=False, damage=True))
    return world.run_for(1)


def begun(world):
    """Return what each attempt restores and passes over, by the log."""
    entries = [entry for entry in world.log_entries if isinstance(entry, AttemptStarted)]
    return [(entry.attempt, entry.restored_checkpoint, entry.passed_over) for entry in entries]


def records(world):
    return {record.checkpoint_id: record for record in world.view.checkpoints}


def test_checkpoint_that_a_slot_cannot_read_is_passed_over_at_once(directory, caplog):
    world = with_checkpoints(directory)
    with caplog.at_level(logging.WARNING, logger="raystream"):
        restore_with_damage(world, 0, 1)

    assert (world.status, world.view.attempt) == ("RUNNING", 3)
    assert begun(world) == [(1, None, ()), (2, 3, ()), (3, 2, (3,))]
    assert world.view.last_checkpoint_id == 2
    (restored,) = world.restored[1][1, 1].values()
    assert restored.keyed[0].data.data == b"c2-1"
    (warning,) = (record for record in caplog.records if record.getMessage() == "checkpoint is damaged")
    told = (warning.checkpoint_id, warning.path, warning.older_checkpoint)
    assert told == (3, MISSING.context["path"], 2)


def test_damaged_checkpoint_is_shown_and_stays_as_evidence_until_what_is_older_goes_too(directory):
    world = restore_with_damage(with_checkpoints(directory))
    assert records(world)[3].status == "damaged"
    assert records(world)[3].path.endswith("chk-3")
    assert MISSING.context["path"] in records(world)[3].failure

    world.run_for(INTERVAL_MS)
    assert world.completed == [1, 2, 4], "ids go on above the damaged one"
    assert [chk(directory, n).exists() for n in (1, 2, 3, 4)] == [True] * 4
    world.run_for(INTERVAL_MS)
    assert [chk(directory, n).exists() for n in (1, 2, 3, 4, 5)] == [False, True, True, True, True]
    world.run_for(INTERVAL_MS)
    assert [chk(directory, n).exists() for n in (2, 3, 4, 5, 6)] == [False, False, True, True, True]
    assert records(world)[3].path == ""
    world.fail()
    assert begun(world.restart())[-1] == (4, 6, ())


@pytest.mark.parametrize("damage", ["gone", "no metadata", "empty", "cut"])
def test_metadata_that_cannot_be_read_is_damage_too(directory, damage):
    world = with_checkpoints(directory)
    metadata = chk(directory, 3) / "_metadata"
    content = metadata.read_bytes()
    metadata.unlink()
    if damage == "gone":
        chk(directory, 3).rmdir()
    if damage in ("empty", "cut"):
        metadata.write_bytes(content[:100] if damage == "cut" else b"")
    world.fail()
    world.restart()

    assert world.status == "RUNNING"
    assert begun(world)[-1] == (3, 2, (3,))
    assert str(metadata) in records(world)[3].failure


def test_store_that_does_not_answer_is_tried_again_and_never_a_reason_to_fall_back(directory):
    world = with_checkpoints(directory)
    world.faults["load_complete"] = [StorageError("503 slow down")] * 3
    world.fail()
    for _ in range(4):
        world.restart()

    assert world.status == "RUNNING"
    assert begun(world)[-1] == (5, 3, ())


def test_older_checkpoint_that_is_damaged_as_well_is_passed_over_too(directory):
    world = with_checkpoints(directory)
    for n in (2, 3):
        (chk(directory, n) / "_metadata").unlink()
    world.fail()
    world.restart()

    assert world.status == "RUNNING"
    assert begun(world)[-1] == (4, 1, (2, 3))


def test_job_without_an_older_checkpoint_has_failed_and_leaves_what_there_is(directory):
    world = with_checkpoints(directory)
    for n in (1, 2, 3):
        (chk(directory, n) / "_metadata").unlink()
    world.fail()
    world.run_for(INTERVAL_MS)

    assert world.status == "FAILED"
    assert isinstance(world.view.error, StateCorruptError)
    assert world.view.error.context["path"] == (chk(directory, 1) / "_metadata").as_uri()
    assert [chk(directory, n).exists() for n in (1, 2, 3)] == [True] * 3


def committing_plan(source):
    plan = make_plan(source)
    read, count = plan.vertices
    sink = replace(count.operators[0], transactional=True)
    return replace(plan, vertices=(read, replace(count, operators=(sink,))))


def test_job_that_commits_ends_with_the_file_unless_an_older_checkpoint_is_allowed(directory):
    source = FakeSource()
    world = with_checkpoints(directory, source=source, plan=committing_plan(source))
    restore_with_damage(world)

    assert (world.status, world.view.attempt) == ("FAILED", 2)
    assert world.view.error.context["path"] == MISSING.context["path"]
    assert world.view.error.context["older_checkpoint"] == 2
    assert "--allow-older-checkpoint" in world.view.error.hint
    assert records(world)[3].status == "damaged"

    source = FakeSource()
    options = {"source": source, "plan": committing_plan(source)}
    options["execution__state_recovery__allow_older_checkpoint"] = "true"
    world = with_checkpoints(directory.with_name("other"), **options)
    assert begun(restore_with_damage(world))[-1] == (3, 2, (3,))
    assert world.status == "RUNNING"


def test_final_checkpoint_that_is_damaged_is_taken_again(directory):
    world = with_checkpoints(directory)
    world.silent = {msg.CheckpointCompleted}
    world.end_input()
    assert world.completed == [1, 2, 3, 4]
    (chk(directory, 4) / "_metadata").unlink()
    world.silent = set()
    world.fail()
    world.restart()
    assert (world.status, begun(world)[-1]) == ("RUNNING", (3, 3, (4,)))

    world.end_input()
    assert world.status == "FINISHED"
    assert not list(directory.glob("*/chk-*"))


def test_snapshot_that_the_job_starts_from_is_never_passed_over(directory, tmp_path):
    world = running(directory, savepoints=tmp_path).run_for(INTERVAL_MS)
    world.stop()
    path = world.view.outcome("stop").path
    world = World(directory.with_name("other"), execution__state_recovery__path=path)
    world.silent = {msg.Connect}
    world.start()
    world.fail(0, MISSING, retryable=False, damage=True)
    world.report(msg.SlotStopped(attempt=Attempt(1), slot=1))
    world.settle()

    assert (world.status, world.view.restarts) == ("FAILED", 0)
    assert world.view.error.context == MISSING.context


def test_next_start_of_the_job_comes_to_the_same_decision(directory):
    world = restore_with_damage(with_checkpoints(directory))
    (chk(directory, 3) / "_metadata").unlink()
    world.coordinator = None  # Its job master dies.

    assert find_latest(str(directory), "hits").path == chk(directory, 2).as_uri()


def test_damage_that_is_met_while_the_job_is_cancelled_does_no_harm(directory):
    world = with_checkpoints(directory)
    world.silent = {msg.Connect, msg.StopAttempt}
    world.fail()
    for slot in (0, 1):
        world.report(msg.SlotStopped(attempt=Attempt(1), slot=slot))
    world.restart()
    world.cancel()
    world.fail(0, MISSING, retryable=False, damage=True)
    for slot in (0, 1):
        world.report(msg.SlotStopped(attempt=Attempt(2), slot=slot))
    world.settle()

    assert world.status == "CANCELED"
    assert [chk(directory, n).exists() for n in (1, 2, 3)] == [True] * 3
