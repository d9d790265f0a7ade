"""Stores keep their promises, also when the operating system breaks its own."""

import errno
import os
import pickle
import shutil
from pathlib import Path

import pytest

from raystream.connectors.file_listing import local_path
from raystream.connectors.files import FileSink
from raystream.errors import ConfigError, StorageError
from raystream.storage.filesystem import MissingFileError, join_url, split_url
from raystream.storage.stores import open_file_system, to_url
from tests.unit.storage.contract import FileSystemContract


class TestStores(FileSystemContract):
    """Runs the contract against every store that a URL can name."""


@pytest.fixture
def local(tmp_path):
    return open_file_system(to_url(str(tmp_path)))


def test_a_bare_path_is_a_file_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")

    assert to_url("/data/x/") == "file:///data/x"
    assert to_url("file:///data//x/../y") == "file:///data/y"
    assert to_url("x") == f"file://{tmp_path}/x"
    assert to_url("~/x") == "file:///home/someone/x"
    assert to_url("memory:///x/") == "memory://x"


def test_a_bucket_and_a_path_make_a_url_of_an_object_store():
    assert to_url("S3://bucket//a/b/") == "s3://bucket/a/b"
    assert to_url("s3://bucket/") == "s3://bucket"


@pytest.mark.parametrize(
    "url",
    ["s3://someone:secret@bucket/x", "s3://someone:sec/secret@bucket/x", "s3a://someone:sec/secret@bucket/x"],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    with pytest.raises(ConfigError) as caught:
        to_url(url)
    assert caught.value.hint
    assert "secret" not in str(caught.value) + repr(caught.value.context)


def test_making_a_url_of_a_url_changes_nothing():
    for url in ("file:///data/a b", "memory://x/y", "s3://bucket", "s3://bucket/a b/c?"):
        assert to_url(url) == url


def test_url_with_one_slash_is_no_directory_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert to_url("file:/data/x") == "file:///data/x"
    assert to_url("File:/data") == "file:///data"
    assert to_url("c:/data") == f"file://{tmp_path}/c:/data"
    assert to_url("./s3:/bucket") == f"file://{tmp_path}/s3:/bucket"
    for url in ("s3:/bucket/x", "S3:/someone:secret@bucket", "hdfs:/data", "memory:/x"):
        with pytest.raises(ConfigError, match="lacks a slash") as caught:
            to_url(url)
        assert "secret" not in str(caught.value)
        with pytest.raises(ConfigError, match="lacks a slash"):
            FileSink.json_lines(url)
    assert local_path("file:/data/x") == "/data/x"


@pytest.mark.parametrize("path", ["", "ftp://host/x", "s3://", "s3:///x", "s3://b", "s3://bucket/../x"])
def test_a_store_that_is_not_supported_is_a_configuration_error(path):
    with pytest.raises(ConfigError) as caught:
        to_url(path)
    assert caught.value.hint


def test_splitting_undoes_joining():
    assert split_url(join_url("file:///a", "b", "c")) == ("file:///a/b", "c")


def test_an_error_names_path_cause_and_advice(local, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageError) as caught:
        local.write(f"file://{tmp_path}/x", b"1")
    assert caught.value.context == {"path": f"file://{tmp_path}/x", "cause": "No space left on device"}
    assert "free some space" in caught.value.hint
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_a_missing_file_survives_pickling():
    error = pickle.loads(pickle.dumps(MissingFileError("file does not exist", path="x")))

    assert type(error) is MissingFileError
    assert error.context == {"path": "x"}


def test_a_file_in_the_way_of_a_directory_is_a_storage_error(local, tmp_path):
    (tmp_path / "x").write_bytes(b"")
    for attempt, said in ((local.write, "write"), (local.create_exclusive, "create")):
        with pytest.raises(StorageError, match=f"could not {said} file") as caught:
            attempt(f"file://{tmp_path}/x/y", b"1")
        assert not isinstance(caught.value, MissingFileError), "nothing was looked for"
        assert caught.value.context["cause"] == "Not a directory"
        assert "a part of the path is a file" in caught.value.hint


def test_a_claim_that_a_network_disk_has_repeated_is_ours(local, tmp_path, monkeypatch):
    """The answer to the first call was lost; the second one meets what that one has done."""
    link = Path.hardlink_to

    def repeated(path, target):
        link(path, target)
        link(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "hardlink_to", repeated)
        assert local.create_exclusive(f"file://{tmp_path}/entry", b"same")
    assert not local.create_exclusive(f"file://{tmp_path}/entry", b"same")


def test_a_store_without_hard_links_says_what_it_lacks(local, tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(Path, "hardlink_to", refuse)

    with pytest.raises(StorageError, match="hard links"):
        local.create_exclusive(f"file://{tmp_path}/x", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("operation", ["write", "create_exclusive"])
@pytest.mark.parametrize("place", range(8))
def test_a_file_is_whole_or_absent_whatever_call_fails(local, tmp_path, monkeypatch, operation, place):
    """Break the n-th call to the operating system that makes a file durable."""
    calls = iter(range(100))

    def breaking(function):
        def call(*args, **kwargs):
            if next(calls) == place:
                raise OSError(errno.EIO, "planned")
            return function(*args, **kwargs)

        return call

    for owner, name in [
        (os, "fsync"), (Path, "mkdir"), (Path, "open"), (Path, "rename"), (Path, "hardlink_to"),
    ]:  # fmt: skip
        monkeypatch.setattr(owner, name, breaking(getattr(owner, name)))
    url = f"file://{tmp_path}/a/b/file"
    try:
        getattr(local, operation)(url, b"content")
        raised = False
    except StorageError:
        raised = True
    monkeypatch.undo()

    assert raised == (next(calls) == place + 1)
    if not raised or local.exists(url):
        assert local.read(url) == b"content"
    assert list(tmp_path.rglob(".tmp-*")) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name a descriptor")
def test_a_file_whose_directory_is_removed_meanwhile_counts_as_deleted(local, tmp_path, monkeypatch):
    path = tmp_path / "chk-1" / "_metadata"
    path.parent.mkdir()
    path.touch()
    unlink = Path.unlink

    def unlink_with_directory(self, missing_ok=False):
        unlink(self, missing_ok=missing_ok)
        self.parent.rmdir()

    monkeypatch.setattr(Path, "unlink", unlink_with_directory)
    local.delete_file(to_url(str(path)))

    assert not path.parent.exists()


@pytest.mark.parametrize("ahead", ["file", "directory"])
def test_a_directory_goes_with_all_that_is_left_when_part_of_it_is_gone_meanwhile(
    local, tmp_path, monkeypatch, ahead
):
    """Another deletion is one step ahead: it has just removed what this one is about to."""
    directory = tmp_path / "shared"
    for below in (directory, directory / "a", directory / "b"):
        below.mkdir()
        for name in ("1", "2", "3"):
            (below / name).touch()
    delete = {"file": "unlink", "directory": "rmdir"}[ahead]
    real = getattr(os, delete)

    def behind(path, **where):
        real(path, **where)
        real(path, **where)

    monkeypatch.setattr(os, delete, behind)
    local.delete_dir(to_url(str(directory)))

    assert not directory.exists()


def test_a_directory_that_is_gone_as_a_whole_meanwhile_counts_as_deleted(local, tmp_path, monkeypatch):
    directory = tmp_path / "shared"
    (directory / "a" / "b").mkdir(parents=True)
    (directory / "a" / "1").touch()
    (directory / "1").touch()
    real = os.unlink

    def behind(path, **where):
        monkeypatch.undo()
        shutil.rmtree(directory)
        real(path, **where)

    monkeypatch.setattr(os, "unlink", behind)
    local.delete_dir(to_url(str(directory)))

    assert not directory.exists()


@pytest.mark.parametrize("cause", [errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EEXIST])
def test_file_that_its_disk_does_not_link_is_left_to_be_written(local, tmp_path, monkeypatch, cause):
    def refuse(*_args):
        raise OSError(cause, "no")

    (tmp_path / "source").touch()
    monkeypatch.setattr(Path, "hardlink_to", refuse)

    assert not local.link(f"file://{tmp_path}/a/file", tmp_path / "source")


def test_file_whose_link_fails_is_written_and_says_why_that_fails(local, tmp_path):
    (tmp_path / "source").touch()
    (tmp_path / "a").touch()

    assert not local.link(f"file://{tmp_path}/a/file", tmp_path / "source")
    with pytest.raises(StorageError, match="choose another directory") as caught:
        local.write(f"file://{tmp_path}/a/file", b"1")
    assert "a part of the path is a file" in caught.value.hint


def test_link_that_a_network_disk_has_repeated_is_ours(local, tmp_path, monkeypatch):
    real = Path.hardlink_to

    def repeated(self, target):
        real(self, target)
        raise FileExistsError(errno.EEXIST, "taken", str(self))

    (tmp_path / "source").write_bytes(b"content")
    monkeypatch.setattr(Path, "hardlink_to", repeated)

    assert local.link(f"file://{tmp_path}/a/file", tmp_path / "source")
    assert local.read(f"file://{tmp_path}/a/file") == b"content"


def test_link_that_is_not_durable_is_replaced_by_a_copy(local, tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(errno.EIO, "planned")

    source, url = tmp_path / "source", f"file://{tmp_path}/file"
    source.write_bytes(b"content")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert not local.link(url, source)
    local.write(url, b"content")

    assert source.stat().st_nlink == 1
    assert local.read(url) == b"content"


def test_file_in_a_directory_that_gives_another_group_is_no_link(local, tmp_path, monkeypatch):
    source, shared = tmp_path / "source", tmp_path / "shared"
    source.touch()
    shared.mkdir()
    shared.chmod(0o2770)
    assert local.link(f"file://{shared}/of-its-group", source)
    if os.geteuid() != 0:
        pytest.skip("only root may give a directory to any group")

    os.chown(shared, -1, source.stat().st_gid + 1)

    assert not local.link(f"file://{shared}/file", source)


def test_file_in_a_directory_that_gives_access_lists_is_no_link(local, tmp_path, monkeypatch):
    (tmp_path / "source").touch()
    monkeypatch.setattr(os, "getxattr", lambda *_: b"u:someone:r")

    assert not local.link(f"file://{tmp_path}/file", tmp_path / "source")


@pytest.fixture
def synced(monkeypatch):
    """Paths of the files and directories that are synced, in order."""
    paths = []
    real = os.fsync

    def recording(descriptor):
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    return paths


def test_linked_file_and_its_directories_are_synced_in_order(local, tmp_path, synced):
    (tmp_path / "source").touch()
    local.link(f"file://{tmp_path}/a/b/file", tmp_path / "source")

    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b" / "file", tmp_path / "a" / "b"]


def test_files_and_their_directories_are_synced_in_order(local, tmp_path, synced):
    local.create_exclusive(f"file://{tmp_path}/a/b/file", b"1")

    assert [path.parent if path.name.startswith(".tmp-") else path for path in synced] == [
        tmp_path,
        tmp_path / "a",
        tmp_path / "a" / "b",
        tmp_path / "a" / "b",
    ]
    assert synced[2].name.startswith(".tmp-")
