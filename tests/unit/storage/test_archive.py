"""What a job was is readable after its end."""

import pytest

from raystream.errors import StateCorruptError
from raystream.storage.archive import (
    read_archive,
    read_archives,
    write_archive,
)
from raystream.storage.envelope import seal
from raystream.storage.layout import JobLayout
from tests.unit.storage.sample import JOB, OTHER_JOB, archived


def test_an_archive_comes_back(fs, base):
    write_archive(fs, JobLayout(base, JOB), archived())

    assert read_archive(fs, JobLayout(base, JOB)) == archived()


def test_a_job_without_an_archive_has_none(fs, base):
    assert read_archive(fs, JobLayout(base, JOB)) is None


def test_the_first_archive_of_a_job_stays(fs, base):
    write_archive(fs, JobLayout(base, JOB), archived())
    write_archive(fs, JobLayout(base, JOB), archived(restarts=4))

    assert read_archive(fs, JobLayout(base, JOB)).restarts == 3


def test_all_jobs_that_have_ended_are_listed(fs, base):
    write_archive(fs, JobLayout(base, JOB), archived())
    write_archive(fs, JobLayout(base, OTHER_JOB), archived(OTHER_JOB, last_checkpoint_id=7))
    fs.write(f"{base}/savepoint-012345-0a1b2c3d4e5f/_metadata", b"")
    fs.write(JobLayout(base, "f" * 32).log_entry(1), b"")

    assert read_archives(fs, base) == [archived(), archived(OTHER_JOB, last_checkpoint_id=7)]
    assert read_archives(fs, f"{base}/nothing") == []


def test_archive_of_another_job_is_damage(fs, base):
    write_archive(fs, JobLayout(base, JOB), archived(OTHER_JOB))

    with pytest.raises(StateCorruptError, match="another job's") as caught:
        read_archive(fs, JobLayout(base, JOB))
    assert caught.value.context["path"] == JobLayout(base, JOB).archive_path


@pytest.mark.parametrize("data", [seal("archive", 1, b"{}"), b'{"raystream":'])
def test_a_damaged_archive_is_named(fs, base, data):
    fs.write(JobLayout(base, JOB).archive_path, data)

    with pytest.raises(StateCorruptError) as caught:
        read_archives(fs, base)
    assert caught.value.context["path"] == JobLayout(base, JOB).archive_path
