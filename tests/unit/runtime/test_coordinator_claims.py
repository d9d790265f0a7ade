"""What becomes of the snapshot that a job starts from: it is left alone, or the job's own and deleted."""

import logging
from pathlib import Path

import pytest

from raystream.errors import StateRestoreError, StorageError
from raystream.storage.claims import claimed_by
from tests.unit.runtime.coordinator_world import INTERVAL_MS, FakeSource, World, chk, make_plan, running
from tests.unit.runtime.test_coordinator_shared import step, there, write

OLD_JOB = "5" * 32
OTHER_JOB = "6" * 32
REFUSED = StorageError("store refused")


@pytest.fixture
def savepoint(tmp_path):
    """The directory of a savepoint of another job."""
    world = running(tmp_path / "old", savepoints=tmp_path, job_id=OLD_JOB)
    world.run_for(3 * INTERVAL_MS)
    world.stop()
    return Path(world.view.outcome("stop").path.removeprefix("file://"))


def starting(directory, path, mode="claim", **options):
    recovery = {"execution__state_recovery__path": path, "execution__state_recovery__claim_mode": mode}
    return World(directory, **{**recovery, **options}).start()


def everything_in(directory):
    """Return all files with their contents and times."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("end", [World.end_input, World.cancel])
def test_snapshot_that_is_not_claimed_is_never_touched(tmp_path, savepoint, end):
    before = everything_in(savepoint)
    world = starting(tmp_path / "new", savepoint, "no-claim").run_for(3 * INTERVAL_MS)
    end(world)

    assert everything_in(savepoint) == before


@pytest.mark.parametrize("name", ["as it was", "renamed"])
def test_claimed_savepoint_is_deleted_when_the_first_checkpoint_is_complete(tmp_path, savepoint, name):
    if name == "renamed":
        savepoint = savepoint.rename(tmp_path / "backup")
    world = starting(tmp_path / "new", savepoint)
    assert world.status == "RUNNING"
    assert claimed_by(savepoint.as_uri()) == world.view.job_id
    world.run_for(INTERVAL_MS)

    assert not savepoint.exists()
    world.fail()
    world.restart()
    assert world.run_for(INTERVAL_MS).status == "RUNNING"


def test_claimed_savepoint_counts_as_one_that_is_retained(tmp_path, savepoint):
    world = starting(tmp_path / "new", savepoint, execution__checkpointing__num_retained=2)
    world.run_for(INTERVAL_MS)
    assert savepoint.exists()
    world.run_for(INTERVAL_MS)
    assert not savepoint.exists()


def test_claim_outlives_a_crash_before_the_first_checkpoint(tmp_path, savepoint):
    world = starting(tmp_path / "new", savepoint)
    world.restored.clear()
    world.fail()
    world.restart()

    (restore,) = world.restored[0][1, 0].values()
    assert restore.directory == savepoint.as_uri()
    world.run_for(INTERVAL_MS)
    assert not savepoint.exists()


def test_claimed_snapshot_that_could_not_be_deleted_goes_with_a_later_completion(tmp_path, savepoint):
    world = starting(tmp_path / "new", savepoint)
    world.faults["delete"] = [REFUSED, REFUSED]
    world.run_for(INTERVAL_MS)
    assert savepoint.exists()
    world.run_for(2 * INTERVAL_MS)

    assert not savepoint.exists()


def test_claimed_snapshot_that_could_not_be_deleted_goes_when_the_job_ends(tmp_path, savepoint):
    world = starting(tmp_path / "new", savepoint)
    world.faults["delete"] = [REFUSED]
    world.run_for(INTERVAL_MS)
    assert savepoint.exists()
    world.cancel()

    assert not savepoint.exists()
    assert chk(tmp_path / "new", 5).exists()


def test_of_two_jobs_that_claim_one_snapshot_the_second_is_refused_and_the_first_unharmed(
    tmp_path, savepoint
):
    first = starting(tmp_path / "first", savepoint)
    second = starting(tmp_path / "second", savepoint, job_id=OTHER_JOB)

    assert second.status == "FAILED"
    assert isinstance(second.view.error, StateRestoreError)
    assert second.view.error.context["job"] == first.view.job_id
    assert second.view.restarts == 0
    assert claimed_by(savepoint.as_uri()) == first.view.job_id
    first.fail()
    first.restart()
    assert first.run_for(INTERVAL_MS).completed == [5]


def test_start_from_a_snapshot_that_another_job_has_claimed_is_warned_of(tmp_path, savepoint, caplog):
    starting(tmp_path / "first", savepoint)
    with caplog.at_level(logging.WARNING, logger="raystream"):
        second = starting(tmp_path / "second", savepoint, "no-claim", job_id=OTHER_JOB)

    assert second.status == "RUNNING"
    (warning,) = (record for record in caplog.records if "another job has claimed" in record.message)
    assert warning.snapshot == savepoint.as_uri()


@pytest.mark.parametrize("fails", [True, False])
def test_job_that_ends_before_its_first_checkpoint_gives_the_snapshot_back(tmp_path, savepoint, fails):
    before = everything_in(savepoint)
    first = starting(tmp_path / "first", savepoint)
    if fails:
        first.fail(retryable=False)
    else:
        first.cancel()
    assert first.status in ("FAILED", "CANCELED")
    assert everything_in(savepoint) == before

    second = starting(tmp_path / "second", savepoint, job_id=OTHER_JOB).run_for(INTERVAL_MS)
    assert second.completed == [5]
    assert not savepoint.exists()


def test_job_that_finishes_deletes_what_it_claimed(tmp_path, savepoint):
    world = starting(tmp_path / "new", savepoint, execution__checkpointing__num_retained=5)
    world.end_input()

    assert world.status == "FINISHED"
    assert not savepoint.exists()


def test_snapshot_that_does_not_fit_is_not_even_claimed(tmp_path, savepoint):
    world = starting(tmp_path / "new", savepoint, plan=make_plan(FakeSource(), count_uid="renamed"))

    assert world.status == "FAILED"
    assert "missing  count" in world.view.error.message
    assert "claim" not in world.done


# ---- incremental checkpoints ----


@pytest.fixture
def older(tmp_path):
    """A job with an incremental checkpoint; the directory of its checkpoints."""
    world = running(tmp_path / "old")
    step(world, 1, write(tmp_path / "old", 1, "a"))
    return world, tmp_path / "old"


def test_incremental_checkpoint_of_a_job_that_runs_is_refused(tmp_path, older):
    world, directory = older
    second = starting(tmp_path / "new", chk(directory, 1), job_id=OTHER_JOB)

    assert second.status == "FAILED"
    assert "may need its files" in second.view.error.message
    assert world.run_for(INTERVAL_MS).completed[-1] == 2


def test_incremental_checkpoint_of_a_job_that_has_ended_goes_with_its_files(tmp_path, older):
    world, directory = older
    world.cancel()
    second = starting(tmp_path / "new", chk(directory, 1), job_id=OTHER_JOB)
    (restore,) = second.restored[0][1, 0].values()
    assert not restore.own, "nothing may refer to files that are about to go"
    second.run_for(INTERVAL_MS)

    assert second.completed == [2]
    assert not chk(directory, 1).exists()
    assert there(directory) == []
