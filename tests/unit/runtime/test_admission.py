"""A job that can not start from what it is told to is refused; one that may yet is not."""

from dataclasses import replace

import pytest

from raystream.config.load import load_config
from raystream.errors import ConfigError, StateCorruptError, StateRestoreError, StorageError
from raystream.ids import JobStatus
from raystream.runtime.admission import admit
from raystream.runtime.coordinator_services import JobSubmission
from raystream.runtime.coordinator_storage import JobStorage, open_storage
from raystream.storage.claims import SnapshotClaims
from raystream.storage.job_log import VolatileJobLog
from raystream.storage.local import LocalFileSystem
from tests.unit.runtime.coordinator_world import INTERVAL_MS, JOB_ID, FakeSource, make_plan, running


class Snapshots:
    """Looks like a snapshot store; every load ends the same way."""

    def __init__(self, error):
        self.error = error

    def load(self, path):
        raise self.error


def submission_of(path, **settings):
    config = load_config({"execution.state-recovery.path": path, **settings})
    return JobSubmission(job_id=JOB_ID, name="hits", plan=make_plan(FakeSource()), config=config, program=b"")


def check(path, error=None):
    submission = submission_of(path)
    admitted = admit(
        submission,
        JobStorage(snapshots=Snapshots(error), claims=SnapshotClaims(JOB_ID), log=VolatileJobLog()),
    )
    assert admitted == submission


@pytest.mark.parametrize("error", [StateRestoreError("nothing there"), StateCorruptError("damaged")])
def test_snapshot_that_can_never_be_read_refuses_the_job(error):
    with pytest.raises(type(error)):
        check("/savepoints/one", error)


def test_latest_without_a_checkpoint_directory_refuses_the_job():
    with pytest.raises(ConfigError, match="no checkpoint directory to look in"):
        check("latest")


def test_store_that_does_not_answer_now_is_left_to_the_job_which_tries_again(caplog):
    check("/savepoints/one", StorageError("try later"))

    assert caplog.messages == ["snapshot to start from could not be read yet"]


def test_job_that_starts_anew_reads_nothing():
    check(None, AssertionError("nothing is to be read"))


def test_checkpoint_directory_that_cannot_be_used_refuses_the_job_before_its_log_is_read(tmp_path):
    (tmp_path / "checkpoints").write_text("a file stands where the directory should be")
    settings = {
        "execution.checkpointing.interval": "1s",
        "execution.checkpointing.dir": str(tmp_path / "checkpoints"),
    }
    submission = submission_of(None, **settings)

    with pytest.raises(ConfigError, match="checkpoints"):
        admit(submission, open_storage(JOB_ID, submission.config))


# ---- latest ------------------------------------------------------------------------


def admitted_path(directory):
    """Return what a job starts from that asks for the latest snapshot in a checkpoint directory."""
    submission = submission_of("latest", **{"execution.checkpointing.dir": str(directory)})
    return admit(submission, open_storage(JOB_ID, submission.config)).config.recovery.path


def test_latest_becomes_the_path_of_the_newest_snapshot_of_the_jobs_name(tmp_path):
    world = running(tmp_path / "old", savepoints=tmp_path)
    world.run_for(3 * INTERVAL_MS)
    world.stop()

    assert admitted_path(tmp_path / "old") == world.view.outcome("stop").path


def test_latest_of_a_job_that_is_out_of_reach_keeps_it_from_going_on(tmp_path):
    world = running(tmp_path / "old").run_for(2 * INTERVAL_MS)
    entries = world.log_entries

    path = admitted_path(tmp_path / "old")

    assert path.endswith(f"chk-{world.view.last_checkpoint_id}")
    assert world.run_for(INTERVAL_MS).view.abandoned
    assert world.log_entries[: len(entries)] == entries
    assert world.log_entries[-1].status is JobStatus.FAILED


def test_program_that_does_not_fit_the_latest_snapshot_leaves_its_job_alone(tmp_path):
    world = running(tmp_path / "old").run_for(2 * INTERVAL_MS)
    submission = submission_of("latest", **{"execution.checkpointing.dir": str(tmp_path / "old")})
    submission = replace(submission, plan=make_plan(FakeSource(), count_uid="other"))

    with pytest.raises(StateRestoreError):
        admit(submission, open_storage(JOB_ID, submission.config))

    assert not world.run_for(2 * INTERVAL_MS).view.abandoned


def test_latest_becomes_nothing_where_there_is_no_snapshot(tmp_path):
    assert admitted_path(tmp_path) is None


def test_store_that_does_not_tell_the_latest_snapshot_refuses_the_job(tmp_path, monkeypatch):
    """Looked for later, it could be a snapshot that the job itself has taken."""

    def list_dir(fs, url):
        raise StorageError("try later")

    monkeypatch.setattr(LocalFileSystem, "list_dir", list_dir)

    with pytest.raises(StorageError, match="try later"):
        admitted_path(tmp_path)
