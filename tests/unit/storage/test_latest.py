"""`-s latest` is the newest snapshot that a log calls complete and that still exists."""

import pytest

from raystream.errors import StateCorruptError
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import join_url, open_file_system
from raystream.storage.job_log import (
    AttemptStarted,
    CheckpointCompletedEntry,
    DurableJobLog,
    SavepointCompleted,
)
from raystream.storage.latest import find_latest
from raystream.storage.layout import JobLayout, metadata_path
from raystream.storage.snapshots import SnapshotStore
from tests.unit.storage import sample
from tests.unit.storage.sample import JOB, OTHER_JOB


class Job:
    """A job that completes snapshots at given times."""

    def __init__(self, fs, base, job_id=JOB, name="count"):
        self.name = name
        self.base = base
        self.job_id = job_id
        self.layout = JobLayout(base, job_id)
        self.store = SnapshotStore(job_id, self.layout)
        self.log = DurableJobLog(fs, self.layout)
        self.log.read()
        self.log.append(AttemptStarted(attempt=1))

    def _write(self, checkpoint_id, directory, at_ms):
        state = SnapshotFiles().write_blob(directory, "state", b"x" * 100, inline_bytes_max=0)
        return self.store.write_metadata(
            directory,
            sample.snapshot(
                checkpoint_id, (state,), job_id=self.job_id, name=self.name, completed_ms=at_ms
            ),
        )

    def checkpoint(self, checkpoint_id, *, at_ms, complete=True):
        location = self._write(checkpoint_id, self.store.checkpoint_directory(checkpoint_id), at_ms)
        if complete:
            self.log.append(
                CheckpointCompletedEntry(checkpoint_id=checkpoint_id, directory=location, attempt=1)
            )
        return location

    def savepoint(self, checkpoint_id, *, at_ms):
        directory = self.store.savepoint_directory(join_url(self.base, "saved"), f"{checkpoint_id:012x}")
        location = self._write(checkpoint_id, directory, at_ms)
        self.log.append(SavepointCompleted(checkpoint_id=checkpoint_id, directory=location, attempt=1))
        return location


@pytest.fixture
def job(fs, base):
    return Job(fs, base)


def test_nothing_is_found_where_nothing_is(base):
    assert find_latest(base, "count") is None
    assert find_latest(join_url(base, "nothing"), "count") is None


def test_the_newest_checkpoint_is_found(job, base):
    job.checkpoint(1, at_ms=100)
    newest = job.checkpoint(2, at_ms=200)

    assert find_latest(base, "count") == newest


def test_a_savepoint_counts_like_a_checkpoint(job, base):
    job.checkpoint(1, at_ms=100)
    savepoint = job.savepoint(2, at_ms=200)
    assert find_latest(base, "count") == savepoint

    checkpoint = job.checkpoint(3, at_ms=300)
    assert find_latest(base, "count") == checkpoint


def test_a_snapshot_without_a_log_entry_is_not_complete(job, base):
    complete = job.checkpoint(1, at_ms=100)
    job.checkpoint(2, at_ms=200, complete=False)

    assert find_latest(base, "count") == complete


def test_a_deleted_snapshot_is_passed_over(job, base):
    kept = job.savepoint(1, at_ms=100)
    job.store.delete(job.checkpoint(2, at_ms=200))

    assert find_latest(base, "count") == kept


def test_of_several_jobs_with_the_name_the_newest_snapshot_counts(fs, job, base):
    other = Job(fs, base, OTHER_JOB)
    job.checkpoint(9, at_ms=100)
    newest = other.checkpoint(1, at_ms=200)

    assert find_latest(base, "count") == newest


def test_jobs_of_other_names_do_not_count(fs, job, base):
    mine = job.checkpoint(1, at_ms=100)
    Job(fs, base, OTHER_JOB, name="other").checkpoint(1, at_ms=200)

    assert find_latest(base, "count") == mine
    assert find_latest(base, "nobody") is None


def test_a_damaged_newest_snapshot_is_an_error_that_says_how_to_pass_over_it(fs, job, base):
    job.checkpoint(1, at_ms=100)
    newest = job.checkpoint(2, at_ms=200)
    fs.write(metadata_path(newest), b'{"raystream":"snapshot"')

    with pytest.raises(StateCorruptError) as caught:
        find_latest(base, "count")
    assert caught.value.context["path"] == metadata_path(newest)
    assert "--allow-older-checkpoint" in caught.value.hint


def test_a_damaged_newest_snapshot_is_passed_over_when_that_is_allowed(fs, job, base):
    older = job.checkpoint(1, at_ms=100)
    newest = job.checkpoint(2, at_ms=200)
    fs.write(metadata_path(newest), b'{"raystream":"snapshot"')

    assert find_latest(base, "count", allow_older=True) == older


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_newest_snapshot_of_which_a_file_is_missing_or_damaged_is_passed_over_when_that_is_allowed(
    fs, job, base, damage
):
    older = job.checkpoint(1, at_ms=100)
    state = join_url(job.checkpoint(2, at_ms=200), "state")
    fs.delete_file(state)
    if damage == "damaged":
        fs.write(state, b"y" * 100)

    assert find_latest(base, "count", allow_older=True) == older


def test_an_undamaged_newest_snapshot_is_taken_also_when_an_older_one_is_allowed(job, base):
    job.checkpoint(1, at_ms=100)
    newest = job.checkpoint(2, at_ms=200)

    assert find_latest(base, "count", allow_older=True) == newest


def test_a_checkpoint_directory_that_was_moved_is_searched(tmp_path):
    job = Job(open_file_system("file:///"), f"{tmp_path}/here")
    job.checkpoint(1, at_ms=100)
    (tmp_path / "here").rename(tmp_path / "there")

    assert find_latest(f"{tmp_path}/there", "count") == f"file://{tmp_path}/there/{JOB}/chk-1"
