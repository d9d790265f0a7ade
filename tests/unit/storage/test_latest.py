"""`-s latest` is the newest snapshot that a log calls complete and that still exists."""

import pytest

from raystream.errors import ConfigError, FencedError, StateCorruptError, StateError, StateRestoreError
from raystream.ids import JobStatus
from raystream.storage.archive import write_archive
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.envelope import seal
from raystream.storage.filesystem import join_url
from raystream.storage.job_log import DurableJobLog
from raystream.storage.latest import find_latest
from raystream.storage.layout import JobLayout, metadata_path
from raystream.storage.log_entries import (
    AttemptStarted,
    CheckpointCompletedEntry,
    SavepointCompleted,
    Terminal,
)
from raystream.storage.snapshots import SnapshotStore
from raystream.storage.stores import open_file_system
from tests.unit.storage import sample
from tests.unit.storage.sample import JOB, OTHER_JOB


class Job:
    """A job that completes snapshots at given times."""

    def __init__(self, fs, base, job_id=JOB, name="count", *, started_ms=0, restored_path=None):
        self.name = name
        self.base = base
        self.job_id = job_id
        self.layout = JobLayout(base, job_id)
        self.store = SnapshotStore(job_id, self.layout)
        self.log = DurableJobLog(fs, self.layout)
        self.log.read()
        self.log.append(
            AttemptStarted(attempt=1, job_name=name, started_ms=started_ms, restored_path=restored_path)
        )

    def _write(self, checkpoint_id, directory, at_ms):
        files, shared = SnapshotFiles(), sample.shared_file(checkpoint_id, b"x" * 100)
        state = files.write_blob(directory, "state", b"x" * 100, inline_bytes_max=0)
        files.write_shared(directory, shared, b"x" * 100)
        metadata = sample.snapshot(
            checkpoint_id,
            (state,),
            job_id=self.job_id,
            name=self.name,
            completed_ms=at_ms,
            shared=(shared,),
        )
        return self.store.write_metadata(directory, metadata)

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
    assert find_latest(base, "count").path is None
    assert find_latest(join_url(base, "nothing"), "count").path is None


def test_the_newest_checkpoint_is_found(job, base):
    job.checkpoint(1, at_ms=100)
    newest = job.checkpoint(2, at_ms=200)

    assert find_latest(base, "count").path == newest


def test_a_savepoint_counts_like_a_checkpoint(job, base):
    job.checkpoint(1, at_ms=100)
    savepoint = job.savepoint(2, at_ms=200)
    assert find_latest(base, "count").path == savepoint

    checkpoint = job.checkpoint(3, at_ms=300)
    assert find_latest(base, "count").path == checkpoint


def test_a_snapshot_without_a_log_entry_is_not_complete(job, base):
    complete = job.checkpoint(1, at_ms=100)
    job.checkpoint(2, at_ms=200, complete=False)

    assert find_latest(base, "count").path == complete


def test_a_newest_snapshot_that_is_gone_is_an_error_unless_an_older_one_is_allowed(job, base):
    older = job.savepoint(1, at_ms=100)
    newest = job.checkpoint(2, at_ms=200)
    job.store.delete(newest)

    with pytest.raises(StateCorruptError, match="not there any more") as caught:
        find_latest(base, "count")
    assert caught.value.context["path"] == metadata_path(newest)
    assert "--allow-older-checkpoint" in caught.value.hint
    assert find_latest(base, "count", allow_older=True).path == older


def test_checkpoint_that_its_own_job_passed_over_is_passed_over_again(job, base):
    older = job.checkpoint(1, at_ms=100)
    job.store.delete(job.checkpoint(2, at_ms=200))
    job.log.append(AttemptStarted(attempt=2, job_name="count", restored_checkpoint=1, passed_over=(2,)))
    assert find_latest(base, "count").path == older

    newer = job.checkpoint(3, at_ms=300)
    assert find_latest(base, "count").path == newer


def test_nothing_readable_is_an_error_also_when_an_older_one_is_allowed(job, base):
    job.store.delete(job.checkpoint(1, at_ms=100))

    with pytest.raises(StateCorruptError, match="not there any more"):
        find_latest(base, "count", allow_older=True)


def test_of_several_jobs_with_the_name_the_one_that_started_last_counts(fs, job, base):
    job.checkpoint(9, at_ms=900)
    newest = Job(fs, base, OTHER_JOB, started_ms=1).checkpoint(1, at_ms=200)

    assert find_latest(base, "count").path == newest


def test_job_that_went_on_from_another_one_counts_whatever_the_clocks_said(fs, base):
    first = Job(fs, base, started_ms=9_000)
    restored = first.checkpoint(4, at_ms=9_100)
    second = Job(fs, base, OTHER_JOB, started_ms=1_000, restored_path=restored)

    assert find_latest(base, "count").path == restored, "the second one has completed nothing yet"
    newest = second.checkpoint(5, at_ms=1_100)
    assert find_latest(base, "count").path == newest


def test_job_that_has_finished_is_not_repeated_from_an_ancestor_of_it(fs, base):
    restored = Job(fs, base).checkpoint(4, at_ms=100)
    second = Job(fs, base, OTHER_JOB, restored_path=restored)
    second.store.delete(second.checkpoint(5, at_ms=200))
    second.log.append(Terminal(status=JobStatus.FINISHED))

    assert find_latest(base, "count").path is None


def test_job_that_runs_is_not_gone_on_from(fs, job, base):
    job.checkpoint(1, at_ms=100)

    with pytest.raises(ConfigError, match="still runs") as caught:
        find_latest(base, "count", alive=lambda job_id: job_id == JOB)
    assert caught.value.context["job"] == JOB
    job.log.append(Terminal(status=JobStatus.CANCELED))
    assert find_latest(base, "count", alive=lambda job_id: True).path.endswith("chk-1")


def test_job_that_was_taken_over_completes_nothing_any_more(job, base):
    path = job.checkpoint(1, at_ms=100)

    assert find_latest(base, "count").take_over()

    with pytest.raises(FencedError):
        job.checkpoint(2, at_ms=200)
    again = find_latest(base, "count")
    assert (again.path, again.take_over()) == (path, True)


def test_job_that_has_completed_nothing_is_taken_over_by_a_new_start(job, base):
    latest = find_latest(base, "count")

    assert (latest.path, latest.take_over()) == (None, True)
    with pytest.raises(FencedError):
        job.checkpoint(1, at_ms=100)


def test_job_that_has_completed_something_since_is_looked_at_again(job, base):
    job.checkpoint(1, at_ms=100)
    latest = find_latest(base, "count")
    newest = job.checkpoint(2, at_ms=200)

    assert not latest.take_over()
    assert find_latest(base, "count").path == newest


def test_jobs_of_other_names_do_not_count(fs, job, base):
    mine = job.checkpoint(1, at_ms=100)
    Job(fs, base, OTHER_JOB, name="other").checkpoint(1, at_ms=200)

    assert find_latest(base, "count").path == mine
    assert find_latest(base, "nobody").path is None


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

    assert find_latest(base, "count", allow_older=True).path == older


@pytest.mark.parametrize("which", ["own", "shared"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_newest_snapshot_of_which_a_file_is_missing_or_damaged_is_passed_over_when_that_is_allowed(
    fs, job, base, damage, which
):
    older = job.checkpoint(1, at_ms=100)
    state = join_url(job.checkpoint(2, at_ms=200), "state")
    if which == "shared":
        state = join_url(job.layout.shared_dir, sample.shared_file(2, b"x" * 100).name)
    fs.delete_file(state)
    if damage == "damaged":
        fs.write(state, b"y" * 100)

    assert find_latest(base, "count", allow_older=True).path == older


@pytest.mark.parametrize(
    "content", [b"", bytes(500), b"\xff{"], ids=["emptied", "zero-filled", "first byte flipped"]
)
def test_a_metadata_file_without_likeness_to_one_is_damage_where_the_log_knows_a_snapshot(
    fs, job, base, content
):
    older = job.checkpoint(1, at_ms=100)
    newest = job.checkpoint(2, at_ms=200)
    fs.write(metadata_path(newest), content)

    with pytest.raises(StateCorruptError, match="snapshot file is damaged") as caught:
        find_latest(base, "count")
    assert caught.value.context["path"] == metadata_path(newest)
    assert "--allow-older-checkpoint" in caught.value.hint
    assert find_latest(base, "count", allow_older=True).path == older


def test_a_newest_snapshot_of_a_newer_format_is_never_passed_over(fs, job, base):
    job.checkpoint(1, at_ms=100)
    fs.write(metadata_path(job.checkpoint(2, at_ms=200)), seal("snapshot", 99, b"{}"))

    for allow_older in (False, True):
        with pytest.raises(StateRestoreError, match="newer format"):
            find_latest(base, "count", allow_older=allow_older)


def damage_log(fs, job, content=b"{}"):
    """Overwrite the newest entry of a job's log; return its URL."""
    [*_, entry] = fs.list_dir(job.layout.log_dir)
    url = join_url(job.layout.log_dir, entry.name)
    fs.write(url, content)
    return url


@pytest.mark.parametrize("content", [b"", b"{}", b'{"raystream":'], ids=["emptied", "foreign", "cut"])
def test_a_damaged_log_of_a_job_that_may_have_the_name_is_named_and_passed_over_when_that_is_allowed(
    fs, job, base, content
):
    mine = job.checkpoint(1, at_ms=100)
    url = damage_log(fs, Job(fs, base, OTHER_JOB), content)

    with pytest.raises(StateError) as caught:
        find_latest(base, "count")
    assert caught.value.context["path"] == url
    assert "--allow-older-checkpoint" in caught.value.hint
    assert find_latest(base, "count", allow_older=True).path == mine


def test_a_log_that_has_lost_its_first_entry_is_damage_and_not_another_job(fs, job, base):
    location = job.checkpoint(1, at_ms=1_000)
    fs.delete_file(job.layout.log_entry(1))
    fs.delete_file(metadata_path(location))  # So that nothing tells the name.

    with pytest.raises(StateCorruptError, match="lost the entries of its attempts"):
        find_latest(base, "count")


@pytest.mark.parametrize("told_by", ["snapshot", "archive"])
def test_a_damaged_log_of_a_job_that_is_known_to_have_another_name_does_not_matter(fs, job, base, told_by):
    mine = job.checkpoint(1, at_ms=100)
    other = Job(fs, base, OTHER_JOB, name="other")
    if told_by == "snapshot":
        other.checkpoint(1, at_ms=200)
    else:
        write_archive(fs, other.layout, sample.archived(OTHER_JOB, name="other"))
    damage_log(fs, other)

    assert find_latest(base, "count").path == mine


def test_a_damaged_snapshot_of_a_job_that_is_known_to_have_another_name_does_not_matter(fs, job, base):
    mine = job.checkpoint(1, at_ms=100)
    other = Job(fs, base, OTHER_JOB, name="other")
    other.checkpoint(1, at_ms=200)
    fs.write(metadata_path(other.checkpoint(2, at_ms=300)), b"")

    assert find_latest(base, "count").path == mine


def test_files_are_read_only_from_the_newest_snapshot_to_the_first_that_is_whole(job, base, fs, monkeypatch):
    job.checkpoint(1, at_ms=100)
    whole = job.checkpoint(2, at_ms=200)
    damaged = job.checkpoint(3, at_ms=300)
    fs.delete_file(join_url(damaged, "state"))
    read = []
    read_file = SnapshotFiles.read_file

    def recording(files, directory, file):
        read.append(directory)
        return read_file(files, directory, file)

    monkeypatch.setattr(SnapshotFiles, "read_file", recording)

    assert find_latest(base, "count", allow_older=True).path == whole
    assert read == [damaged, whole]


def test_an_undamaged_newest_snapshot_is_taken_also_when_an_older_one_is_allowed(job, base):
    job.checkpoint(1, at_ms=100)
    newest = job.checkpoint(2, at_ms=200)

    assert find_latest(base, "count", allow_older=True).path == newest


def test_a_checkpoint_directory_that_was_moved_is_searched(tmp_path):
    job = Job(open_file_system("file:///"), f"{tmp_path}/here")
    job.checkpoint(1, at_ms=100)
    (tmp_path / "here").rename(tmp_path / "there")

    assert find_latest(f"{tmp_path}/there", "count").path == f"file://{tmp_path}/there/{JOB}/chk-1"
