"""The coordinator keeps the shared files that its complete checkpoints need, and no others."""

import pytest

from raystream.errors import StorageError
from raystream.runtime import messages as msg
from raystream.storage.blobs import SnapshotFiles
from tests.unit.runtime.coordinator_world import CRASH, INTERVAL_MS, JOB_ID, World, chk, running
from tests.unit.storage import sample

FILES = SnapshotFiles()
REFUSED = StorageError("store refuses", path="there")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def write(directory, checkpoint_id, local):
    """Store a shared file as a slot does; return what is known of it."""
    file = sample.shared_file(checkpoint_id, local.encode(), local=local)
    FILES.write_shared((directory / JOB_ID / f"chk-{checkpoint_id}").as_uri(), file, local.encode())
    return file


def there(directory):
    """Return the local names of the shared files that are there."""
    return sorted(path.read_text() for path in (directory / JOB_ID / "shared").iterdir())


def step(world, checkpoint_id, *files):
    """Have one checkpoint taken in which subtask 0 has these files."""
    world.shared[checkpoint_id, 0] = files
    world.run_for(INTERVAL_MS)
    return world.view.checkpoints[-1]


def test_shared_file_goes_with_the_last_checkpoint_that_uses_it(directory):
    world = running(directory, execution__checkpointing__num_retained=2)
    first = write(directory, 1, "a")
    step(world, 1, first)
    second = write(directory, 2, "b")
    step(world, 2, first, second)
    for checkpoint_id, left in ((3, ["a", "b"]), (4, ["b"]), (5, ["b"])):
        step(world, checkpoint_id, second)
        assert there(directory) == left
    step(world, 6)
    step(world, 7)

    assert there(directory) == []


def test_record_shows_what_was_written_for_a_checkpoint_and_how_large_it_is(directory):
    world = running(directory)
    first = write(directory, 1, "a" * 100)
    whole = step(world, 1, first)
    assert whole.uploaded_bytes == whole.size_bytes > 100
    second = step(world, 2, first, write(directory, 2, "b" * 10))

    assert second.size_bytes == whole.size_bytes + 10
    assert second.uploaded_bytes == second.size_bytes - 100


@pytest.mark.parametrize("fault", ["no complete checkpoint has", "have one name"])
def test_checkpoint_with_a_reference_that_leads_nowhere_fails_and_the_job_goes_on(directory, fault):
    world = running(directory)
    first = write(directory, 1, "a")
    step(world, 1, first)
    wrong = write(directory, 9, "c") if "complete" in fault else sample.shared_file(1, b"other", local="a")

    failed = step(world, 2, first, wrong)
    assert failed.status == "failed"
    assert fault in failed.failure
    assert world.status == "RUNNING"
    assert world.view.attempt == 1
    assert "a" in there(directory)

    assert step(world, 3, first).status == "completed"


def test_files_of_a_checkpoint_that_was_given_up_are_swept_once_an_older_one_is_not_needed(directory):
    world = running(directory)
    first = write(directory, 1, "a")
    step(world, 1, first)
    world.silent = {msg.TriggerCheckpoint}
    step(world, 2)
    world.decline(2, 1, 0)
    world.settle()
    write(directory, 2, "late")
    assert there(directory) == ["a", "late"], "an abort deletes no shared file"
    world.silent.clear()
    step(world, 3, first)

    assert there(directory) == ["a"]


@pytest.mark.parametrize("slot_writes", [False, True])
def test_files_of_a_checkpoint_that_were_not_deleted_go_with_the_next_completion(directory, slot_writes):
    world = running(directory)
    if slot_writes:  # For something that was given up; the failed deletion is not a part of it.
        world.writing_from = {0: 2, 1: 2}
    step(world, 1, write(directory, 1, "a"))
    world.faults = {"delete": [REFUSED]}
    step(world, 2)
    assert there(directory) == ["a"]
    assert chk(directory, 1).exists()
    assert world.status == "RUNNING"

    world.faults = {"sweep": [REFUSED]}
    step(world, 3)
    assert there(directory) == ["a"]
    step(world, 4)

    assert there(directory) == []
    assert not chk(directory, 1).exists()


def test_what_older_attempts_left_goes_with_a_completion_when_the_first_sweep_was_refused(directory):
    world = running(directory)
    step(world, 1)
    write(directory, 1, "left by a slot that died")
    world.faults = {"sweep": [REFUSED]}
    world.fail(error=CRASH)
    world.restart()
    assert there(directory) == ["left by a slot that died"]
    step(world, 2)

    assert there(directory) == []


def test_shared_directory_goes_as_a_whole_behind_all_checkpoints_when_the_job_has_finished(directory):
    world = running(directory)
    first = write(directory, 1, "a")
    step(world, 1, first)
    world.shared[2, 0] = (first,)
    world.held = {"sweep"}
    world.end_input()
    assert there(directory) == ["a"]
    assert not list((directory / JOB_ID).glob("chk-*"))
    world.release_work("sweep")

    assert world.status == "FINISHED"
    assert not (directory / JOB_ID / "shared").exists()


def test_new_attempt_sweeps_what_no_checkpoint_needs_and_may_refer_to_the_rest(directory):
    world = running(directory)
    first = write(directory, 1, "a")
    step(world, 1, first)
    write(directory, 2, "left by a slot that died")
    world.silent = {msg.TriggerCheckpoint}
    world.run_for(INTERVAL_MS)
    world.fail(error=CRASH)
    world.silent.clear()
    world.restart()

    assert there(directory) == ["a"]
    (restore,) = world.restored[0][1, 0].values()
    assert restore.own
    assert restore.keyed[0].shared == (first,)
    assert step(world, 3, first).status == "completed"


def test_job_refers_to_no_file_of_the_job_whose_checkpoint_it_started_from(directory, tmp_path):
    older = running(directory)
    step(older, 1, write(directory, 1, "a"))
    older.cancel()
    assert there(directory) == ["a"]
    path = older.view.checkpoints[-1].path

    world = World(tmp_path / "elsewhere", execution__state_recovery__path=path).start()
    (restore,) = world.restored[0][1, 0].values()
    assert [file.local for file in restore.keyed[0].shared] == ["a"]
    assert not restore.own
    world.run_for(INTERVAL_MS)
    world.end_input()
    assert world.status == "FINISHED"
    assert there(directory) == ["a"], "of another job nothing is deleted"


def test_nothing_is_left_when_the_job_has_finished(directory):
    world = running(directory)
    first = write(directory, 1, "a")
    step(world, 1, first)
    step(world, 2, first, write(directory, 2, "b"))
    write(directory, 2, "of an aborted one")
    world.end_input()

    assert world.status == "FINISHED"
    assert not (directory / JOB_ID / "shared").exists()
