"""Of all jobs one has a claimed snapshot, and deletes it with what nobody else needs."""

import pytest

from raystream.errors import StateCorruptError, StateRestoreError, StorageError
from raystream.ids import Attempt, JobStatus
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.claims import SnapshotClaims, claimed_by
from raystream.storage.disposal import dispose_snapshot
from raystream.storage.filesystem import MissingFileError, join_url
from raystream.storage.job_log import DurableJobLog
from raystream.storage.layout import JobLayout, claim_path, metadata_path
from raystream.storage.log_entries import AttemptStarted, Terminal
from raystream.storage.snapshots import SnapshotStore, load_snapshot
from raystream.storage.stores import open_file_system
from tests.unit.storage import sample
from tests.unit.storage.sample import JOB, OTHER_JOB

FILES = SnapshotFiles()
THIRD_JOB = "77777777777777777777777777777777"
NAMED = "savepoint-012345-0a1b2c3d4e5f"


def savepoint(base, name=NAMED):
    """Write a savepoint with a file; return what a claim takes."""
    directory = join_url(base, name)
    part = sample.named_file("count-hits/hits/part-0.parquet", b"parquet")
    FILES.write_file(directory, part.file, b"parquet")
    SnapshotStore(JOB).write_metadata(directory, sample.snapshot(4, files=(part,)))
    return load_snapshot(directory)


@pytest.fixture
def claims():
    return SnapshotClaims(OTHER_JOB)


def test_one_job_has_a_snapshot_and_another_is_told_which(base, claims):
    taken = savepoint(base)
    claims.claim(*taken)
    claims.claim(*taken)

    with pytest.raises(StateRestoreError, match="claimed by another job") as caught:
        SnapshotClaims(THIRD_JOB).claim(*taken)
    assert caught.value.context["job"] == OTHER_JOB
    assert caught.value.context["claim"] == claim_path(taken[0])
    assert load_snapshot(taken[0]) == taken


def test_job_that_lives_again_still_has_its_claim(base, claims):
    taken = savepoint(base)
    claims.claim(*taken)
    again = SnapshotClaims(OTHER_JOB)
    again.claim(*taken)
    again.delete(*taken)

    with pytest.raises(StateRestoreError, match="does not exist"):
        load_snapshot(taken[0])


def test_snapshot_that_was_given_back_may_be_claimed_by_another(base, claims):
    taken = savepoint(base)
    claims.claim(*taken)
    claims.release(taken[0])
    assert claimed_by(taken[0]) is None

    SnapshotClaims(THIRD_JOB).claim(*taken)
    claims.delete(*taken)
    claims.release(taken[0])
    assert claimed_by(taken[0]) == THIRD_JOB
    assert load_snapshot(taken[0]) == taken


@pytest.mark.parametrize("name", [NAMED, "backup"])
def test_snapshot_is_deleted_whatever_its_directory_is_called(base, fs, claims, name):
    taken = savepoint(base, name)
    claims.claim(*taken)
    claims.delete(*taken)
    claims.delete(*taken)

    assert not fs.exists(taken[0])


def test_files_that_somebody_else_put_into_a_renamed_directory_stay(base, fs, claims):
    taken = savepoint(base, "backup")
    fs.write(join_url(taken[0], "notes"), b"1")
    claims.claim(*taken)
    claims.delete(*taken)

    assert [entry.name for entry in fs.list_dir(taken[0])] == ["notes"]


def test_snapshot_that_its_last_owner_has_deleted_is_not_claimed(base, fs, claims):
    taken = savepoint(base)
    fs.delete_dir(taken[0])

    with pytest.raises(StateRestoreError, match="does not exist any more"):
        claims.claim(*taken)
    assert not fs.exists(claim_path(taken[0]))


def test_damaged_claim_is_named(base, fs, claims):
    taken = savepoint(base)
    claims.claim(*taken)
    content = fs.read(claim_path(taken[0]))
    fs.write(claim_path(taken[0]), content.replace(b"fedc", b"fedd"))

    with pytest.raises(StateCorruptError, match="claim file is damaged") as caught:
        SnapshotClaims(THIRD_JOB).claim(*taken)
    assert caught.value.context["path"] == claim_path(taken[0])


def test_snapshot_that_a_job_has_claimed_is_not_disposed_of(base, claims):
    taken = savepoint(base)
    claims.claim(*taken)

    with pytest.raises(StateRestoreError, match="a job has claimed it") as caught:
        dispose_snapshot(taken[0])
    assert caught.value.context["job"] == OTHER_JOB
    assert load_snapshot(taken[0]) == taken


def test_job_that_claims_a_snapshot_while_a_user_disposes_of_it_keeps_it(base, claims):
    """It comes between the look at the claim and the deletion."""

    class Late:
        def __init__(self, fs):
            self.fs = fs

        def __getattr__(self, name):
            return getattr(self.fs, name)

        def read(self, url):
            try:
                return self.fs.read(url)
            except MissingFileError:
                claims.claim(*taken)
                raise

    taken = savepoint(base)
    with pytest.raises(StateRestoreError, match="claimed by another job") as caught:
        dispose_snapshot(taken[0], open_fs=lambda url: Late(open_file_system(url)))
    assert caught.value.context["job"] == OTHER_JOB
    assert load_snapshot(taken[0]) == taken


@pytest.mark.parametrize("state", ["runs", "has ended", "left no log"])
def test_checkpoint_is_disposed_of_unless_its_job_runs(base, fs, state):
    layout = JobLayout(base, JOB)
    directory = layout.checkpoint_dir(3)
    SnapshotStore(JOB, layout).write_metadata(directory, sample.snapshot(3))
    if state != "left no log":
        log = DurableJobLog(fs, layout)
        log.read()
        log.append(AttemptStarted(attempt=Attempt(1), job_name="count", started_ms=1))
        if state == "has ended":
            log.append(Terminal(status=JobStatus.FAILED))

    if state == "runs":
        with pytest.raises(StateRestoreError, match="has not ended"):
            dispose_snapshot(directory)
    else:
        dispose_snapshot(directory)
    assert fs.exists(directory) == (state == "runs")


def test_disposal_that_the_store_refuses_says_what_to_do_with_the_rest(base):
    class Refusing:
        def __init__(self, fs):
            self.fs = fs

        def __getattr__(self, name):
            return getattr(self.fs, name)

        def delete_file(self, url):
            if url.endswith(".parquet"):
                raise StorageError("could not delete file", path=url)
            self.fs.delete_file(url)

    directory, _ = savepoint(base)
    with pytest.raises(StorageError, match="could not delete file") as caught:
        dispose_snapshot(directory, open_fs=lambda url: Refusing(open_file_system(url)))
    assert caught.value.context["snapshot"] == directory
    assert "delete its directory" in caught.value.hint


def test_checkpoint_that_a_running_job_may_restore_is_not_claimed(base, fs, claims):
    layout = JobLayout(base, JOB)
    directory = layout.checkpoint_dir(3)
    SnapshotStore(JOB, layout).write_metadata(directory, sample.snapshot(3))
    log = DurableJobLog(fs, layout)
    log.read()
    log.append(AttemptStarted(attempt=Attempt(1), job_name="count", started_ms=1))
    taken = load_snapshot(directory)

    with pytest.raises(StateRestoreError, match="may need its files") as caught:
        claims.claim(*taken)
    assert caught.value.context["job"] == JOB
    assert claimed_by(directory) is None

    log.append(Terminal(status=JobStatus.FAILED))
    claims.claim(*taken)
    assert claimed_by(directory) == OTHER_JOB


# ---- incremental checkpoints ----


class IncrementalJob:
    """A job with checkpoints 3 and 4; each has a file of its own, and they share one."""

    def __init__(self, fs, base):
        self.fs, self.layout = fs, JobLayout(base, JOB)
        store = SnapshotStore(JOB, self.layout)
        for number, contents in ((3, (b"old", b"both")), (4, (b"both", b"new"))):
            directory = store.checkpoint_directory(number)
            shared = tuple(sample.shared_file(3, content, local=content.decode()) for content in contents)
            for file, content in zip(shared, contents, strict=True):
                if content != b"both" or number == 3:
                    FILES.write_shared(directory, file, content)
            store.write_metadata(directory, sample.snapshot(number, shared=shared))
        self.log = DurableJobLog(fs, self.layout)
        self.log.read()
        self.log.append(AttemptStarted(attempt=Attempt(1), job_name="count", started_ms=1))

    def end(self):
        self.log.append(Terminal(status=JobStatus.CANCELED))

    def load(self, number):
        return load_snapshot(self.layout.checkpoint_dir(number))

    @property
    def there(self):
        directory = self.layout.shared_dir
        return sorted(
            self.fs.read(join_url(directory, entry.name)).decode() for entry in self.fs.list_dir(directory)
        )


@pytest.fixture
def job(fs, base):
    return IncrementalJob(fs, base)


def test_checkpoint_whose_files_a_running_job_may_need_is_not_claimed(job, claims):
    with pytest.raises(StateRestoreError, match="may need its files") as caught:
        claims.claim(*job.load(4))
    assert "no-claim" in caught.value.hint
    assert claimed_by(job.layout.checkpoint_dir(4)) is None


def test_files_that_other_checkpoints_need_stay_and_the_last_owner_deletes_them(job, claims):
    job.end()
    third, fourth = job.load(3), job.load(4)
    claims.claim(*fourth)
    claims.delete(*fourth)
    assert job.there == ["both", "old"]
    assert job.load(3) == third

    claims.claim(*third)
    claims.delete(*third)
    assert job.there == []


def test_nothing_shared_is_deleted_when_it_cannot_be_told_what_another_checkpoint_needs(job, claims, fs):
    job.end()
    fs.write(metadata_path(job.layout.checkpoint_dir(3)), b"damaged")
    fourth = job.load(4)
    claims.claim(*fourth)
    claims.delete(*fourth)

    assert job.there == ["both", "new", "old"]
    assert not fs.exists(fourth[0])


def test_checkpoint_that_was_taken_out_of_its_job_directory_is_not_claimed(job, claims, fs, base):
    job.end()
    directory = join_url(base, "elsewhere/chk-4")
    fs.write(metadata_path(directory), fs.read(metadata_path(job.layout.checkpoint_dir(4))))

    with pytest.raises(StateRestoreError, match="may need its files"):
        claims.claim(*load_snapshot(directory))
