"""A directory that cannot hold checkpoints is found before the first record."""

import os

import pytest

from raystream.errors import ConfigError, StorageError
from raystream.storage.filesystem import join_url
from raystream.storage.layout import JobLayout
from raystream.storage.probe import read_probe, remove_probe, write_probe
from raystream.storage.stores import open_file_system, to_url
from tests.unit.storage.contract import BreakingFileSystem, UnreachableFileSystem
from tests.unit.storage.sample import JOB


@pytest.fixture
def layout(base):
    return JobLayout(base, JOB)


class Unfenced(BreakingFileSystem):
    """A store that overwrites what it should create."""

    def create_exclusive(self, url, data):
        self.inner.write(url, data)
        return True


def test_a_probe_is_written_read_and_removed(fs, layout):
    url = write_probe(fs, layout)
    read_probe(url)
    remove_probe(fs, url)

    assert url.startswith(layout.job_dir)
    assert fs.list_dir(layout.job_dir) == []


def test_a_store_that_cannot_fence_is_refused(fs, layout):
    with pytest.raises(ConfigError, match="only when it is absent") as caught:
        write_probe(Unfenced(fs), layout)
    assert caught.value.context["path"] == layout.base_dir
    assert fs.list_dir(layout.job_dir) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    url = to_url(str(tmp_path))

    with pytest.raises(ConfigError, match="cannot be written") as caught:
        write_probe(open_file_system(url), JobLayout(url, JOB))
    assert "check that the user" in caught.value.hint


def test_a_directory_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    url = to_url(str(tmp_path / "file"))

    with pytest.raises(ConfigError, match="cannot be written") as caught:
        write_probe(open_file_system(url), JobLayout(url, JOB))
    assert caught.value.context["path"] == url
    assert caught.value.hint


def test_a_store_that_refuses_is_a_configuration_error_with_its_cause(layout):
    with pytest.raises(ConfigError, match="cannot be written") as caught:
        write_probe(UnreachableFileSystem(), layout)
    assert caught.value.context == {"path": layout.base_dir, "cause": "planned"}
    assert "execution.checkpointing.dir" in caught.value.hint


def test_a_disk_that_is_not_shared_names_node_and_path(fs, layout, base):
    url = write_probe(fs, layout)
    elsewhere = open_file_system(base)
    elsewhere.delete_file(url)

    with pytest.raises(ConfigError, match="not shared with all nodes") as caught:
        read_probe(url, node="10.0.0.7")
    assert caught.value.context["node"] == "10.0.0.7"
    assert caught.value.context["host"]
    assert caught.value.context["path"] == base
    assert "mounted" in caught.value.hint


def test_a_probe_of_somebody_else_is_not_ours(fs, layout):
    url = write_probe(fs, layout)
    fs.write(url, b"something else")

    with pytest.raises(ConfigError, match="not shared with all nodes"):
        read_probe(url)


def test_a_directory_that_a_node_cannot_read_names_node_and_path(base):
    with pytest.raises(ConfigError, match="not readable from a node") as caught:
        read_probe(join_url(base, JOB, "probe-1"), open_fs=lambda _: UnreachableFileSystem())
    assert {"node", "host", "path", "cause"} == set(caught.value.context)


class Undeletable(BreakingFileSystem):
    """A store that keeps everything."""

    def delete_file(self, url):
        raise StorageError("planned")


def test_a_directory_where_nothing_can_be_deleted_is_refused(fs, layout):
    with pytest.raises(ConfigError, match="cannot be deleted"):
        write_probe(Undeletable(fs), layout)


@pytest.mark.parametrize(
    ("store", "message"),
    [(None, "not shared with all nodes"), (UnreachableFileSystem(), "not readable from a node")],
)
def test_a_directory_that_has_served_before_may_come_back(fs, layout, store, message):
    url = write_probe(fs, layout)
    remove_probe(fs, url)

    with pytest.raises(StorageError, match=message):
        read_probe(url, served=True, open_fs=lambda _: store or fs)
