"""A job that can not start from what it is told to is refused; one that may yet is not."""

import pytest

from raystream.config.load import load_config
from raystream.errors import ConfigError, StateCorruptError, StateRestoreError, StorageError
from raystream.runtime.admission import check_start
from raystream.runtime.coordinator_services import JobSubmission
from raystream.runtime.coordinator_storage import JobStorage
from raystream.storage.job_log import VolatileJobLog
from tests.unit.runtime.coordinator_world import JOB_ID, FakeSource, make_plan


class Snapshots:
    """Looks like a snapshot store; every load ends the same way."""

    def __init__(self, error):
        self.error = error

    def load(self, path):
        raise self.error


def check(path, error=None):
    config = load_config({"execution.state-recovery.path": path})
    submission = JobSubmission(
        job_id=JOB_ID, name="hits", plan=make_plan(FakeSource()), config=config, program=b""
    )
    check_start(submission, JobStorage(snapshots=Snapshots(error), log=VolatileJobLog()))


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
