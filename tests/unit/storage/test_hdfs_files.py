"""What the HDFS store makes of answers that are lost, late or refused, whichever client it has."""

import itertools
import sys
from collections.abc import Callable

import pytest

from raystream.errors import ConfigError, StorageError
from raystream.storage.filesystem import TEMPORARY_PREFIX
from raystream.storage.hdfs_client import FileStatus, HdfsError, Trouble, java_error
from raystream.storage.hdfs_files import TRIES_MAX, HdfsFileSystem
from raystream.storage.stores import open_file_system, to_url

ENTRY = "hdfs://name-node/log/00000001"


class Disk:
    """A client with files in memory.

    `before` and `after` are called with the name of each operation before it takes effect and before
    it is answered; what they raise is the answer.
    """

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, bytes]] = {}
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None
        self.calls: list[str] = []
        self._numbers = itertools.count()

    def _at(self, moment, operation):
        if moment == "before":
            self.calls.append(operation)
        getattr(self, moment)(operation)

    def status(self, path):
        self._at("before", "status")
        if path not in self.files:
            raise HdfsError(Trouble.MISSING, path)
        number, data = self.files[path]
        return FileStatus(name=path, directory=False, size_bytes=len(data), identity=(number,))

    def list_dir(self, path):
        return []

    def read(self, path, offset, length):
        self._at("before", "read")
        return self.files[path][1]

    def create(self, path, pieces, size_bytes):
        self._at("before", "create")
        self.files[path] = (next(self._numbers), b"".join(pieces))
        self._at("after", "create")

    def rename(self, source, target, *, overwrite):
        self._at("before", "rename")
        if source not in self.files:
            raise HdfsError(Trouble.MISSING, source)
        if target in self.files and not overwrite:
            raise HdfsError(Trouble.TAKEN, target)
        self.files[target] = self.files.pop(source)
        self._at("after", "rename")

    def delete(self, path, *, recursive):
        self._at("before", "delete")
        self.files.pop(path, None)

    @property
    def content(self) -> dict[str, bytes]:
        return {path: data for path, (_, data) in self.files.items()}

    @property
    def temporary(self) -> list[str]:
        return [path for path in self.files if TEMPORARY_PREFIX in path]


class StandingClock:
    """Time that passes only by the pauses between two tries, of which nobody waits for one."""

    def __init__(self) -> None:
        self.now_ms = 0.0

    def monotonic_ms(self) -> float:
        return self.now_ms

    def wall_ms(self) -> int:
        return 0


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def fs(disk):
    clock = StandingClock()

    def wait(seconds):
        clock.now_ms += seconds * 1000

    return HdfsFileSystem(disk, clock=clock, pause=wait)


def silent(operation: str, times: int | None = None):
    """Give no answer to an operation, so many times."""
    left = itertools.count() if times is None else iter(range(times))

    def refuse(asked: str) -> None:
        if asked == operation and next(left, None) is not None:
            raise HdfsError(Trouble.UNREACHABLE, "no answer")

    return refuse


@pytest.mark.parametrize("operation", ["create", "rename"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_claim_whose_answer_is_lost_once_is_told_true_once(fs, disk, operation, moment):
    setattr(disk, moment, silent(operation, 1))

    assert fs.create_exclusive(ENTRY, b"same")
    assert not fs.create_exclusive(ENTRY, b"same")
    assert disk.content == {"/log/00000001": b"same"}


def test_a_claim_that_the_client_has_sent_twice_is_ours_though_the_name_is_taken(fs, disk):
    def resent(operation):
        if operation == "rename":
            raise HdfsError(Trouble.TAKEN, "already there")

    disk.after = resent

    assert fs.create_exclusive(ENTRY, b"same")


def test_a_claim_whose_file_was_swept_meanwhile_is_not_told_that_it_has_the_name(fs, disk):
    def sweep_and_claim(operation):
        if operation == "rename":
            disk.files = {"/log/00000001": (99, b"same")}

    disk.before = sweep_and_claim

    assert not fs.create_exclusive(ENTRY, b"same")
    assert disk.files == {"/log/00000001": (99, b"same")}


def test_a_claim_that_is_never_answered_is_neither_won_nor_lost(fs, disk):
    disk.before = silent("rename")

    with pytest.raises(StorageError) as caught:
        fs.create_exclusive(ENTRY, b"same")
    assert caught.value.context == {"path": ENTRY, "cause": "no answer"}
    assert "NameNode" in caught.value.hint

    disk.before = lambda _: None
    assert fs.create_exclusive(ENTRY, b"same")


def test_a_refused_rename_is_an_error_when_nobody_has_the_name(fs, disk):
    def refuse(operation):
        if operation == "rename":
            raise HdfsError(Trouble.TAKEN, "rename was refused")

    disk.before = refuse

    with pytest.raises(StorageError, match="could not create file"):
        fs.create_exclusive(ENTRY, b"1")
    assert disk.files == {}


def test_what_an_upload_has_left_is_deleted_when_a_later_one_is_answered(fs, disk):
    disk.after = silent("create", 2)
    fs.write(ENTRY, b"1")

    assert disk.content == {"/log/00000001": b"1"}


def test_a_name_node_that_is_silent_is_not_asked_to_clean_up(fs, disk):
    disk.after = silent("create")

    with pytest.raises(StorageError):
        fs.write(ENTRY, b"1")
    assert "delete" not in disk.calls


def test_a_name_node_that_has_answered_before_is_waited_for_longer(fs, disk):
    def tries() -> int:
        disk.calls.clear()
        with pytest.raises(StorageError):
            fs.read(ENTRY)
        return len(disk.calls)

    disk.files["/log/00000001"] = (0, b"1")
    disk.before = silent("read")
    at_first = tries()
    disk.before = lambda _: None
    fs.read(ENTRY)
    disk.before = silent("read")

    assert 1 < at_first < tries() < TRIES_MAX


@pytest.mark.parametrize("trouble", [Trouble.DENIED, Trouble.QUOTA, Trouble.DATA_NODE, Trouble.OTHER])
def test_what_does_not_pass_is_not_tried_again_and_leaves_nothing(fs, disk, trouble):
    def refuse(operation):
        if operation == "create":
            raise HdfsError(trouble, "planned")

    disk.after = refuse

    with pytest.raises(StorageError) as caught:
        fs.write(ENTRY, b"1")
    assert disk.calls.count("create") == 1
    assert disk.files == {}
    assert bool(caught.value.hint) == (trouble is not Trouble.OTHER)


def test_data_that_nobody_wants_any_more_leaves_nothing(fs, disk):
    def data():
        yield b"1"
        raise KeyError("planned")

    class Pieces(list):
        def __iter__(self):
            return data()

    with pytest.raises(KeyError):
        fs.write(ENTRY, Pieces())
    assert disk.temporary == []


@pytest.mark.parametrize(
    ("exception", "message", "trouble", "cause"),
    [
        ("java.io.FileNotFoundException", "no /x\n\tat a.b(C.java:1)", Trouble.MISSING, "no /x"),
        ("org.apache.hadoop.security.AccessControlException", "denied", Trouble.DENIED, "denied"),
        ("AccessControlException", "/a (is not a directory)", Trouble.NOT_A_DIRECTORY, None),
        ("SecretManager$InvalidToken", "", Trouble.DENIED, "InvalidToken"),
        ("java.io.IOException", "File /x could only be written to 0 of", Trouble.DATA_NODE, None),
        ("IOException", "could only be written. There are 0 datanode(s) running", Trouble.NO_DATA_NODE, None),
        ("java.io.IOException", "Failed to find datanode, suggest", Trouble.NO_DATA_NODE, None),
        ("DSQuotaExceededException", "The DiskSpace quota", Trouble.QUOTA, None),
        ("RetriableException", "Name node is in safe mode", Trouble.SAFE_MODE, None),
        ("StandbyException", "Operation category WRITE", Trouble.STANDBY, None),
        ("EOFException", "End of File Exception between local host", Trouble.UNREACHABLE, None),
        ("java.lang.OddException", "odd", Trouble.OTHER, "odd"),
    ],
)
def test_exceptions_of_servers_are_told_apart_by_class_and_message(exception, message, trouble, cause):
    error = java_error(exception, message)

    assert error.trouble is trouble
    assert error.cause == cause or cause is None


def test_urls_keep_their_host_and_have_one_form():
    assert to_url("HDFS://Name-Node:8020//a/../b/") == "hdfs://Name-Node:8020/b"
    assert to_url("hdfs:///a") == "hdfs:///a"
    assert to_url("webhdfs://host") == "webhdfs://host"
    for url in ("hdfs://service/a b/ä#?%20", "hdfs:///a", "webhdfs://host:9870/a", "hdfs://h:1"):
        assert to_url(to_url(url)) == to_url(url) == url


@pytest.mark.parametrize(
    "url", ["webhdfs:///a", "hdfs://host:port/a", "webhdfs://host:123456/a", "webhdfs://user:secret@host/a"]
)
def test_a_url_that_names_no_server_is_a_configuration_error(url):
    with pytest.raises(ConfigError) as caught:
        to_url(url)
    assert caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_name_service_that_is_not_configured_is_a_configuration_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    for url in ("hdfs://no-such-service/a", "hdfs:///a"):
        with pytest.raises(ConfigError, match="HDFS is not configured") as caught:
            open_file_system(url)
        assert "HADOOP_CONF_DIR" in caught.value.hint
        assert "(" not in caught.value.context["cause"]


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "hdfs_native", None)

    with pytest.raises(ConfigError) as caught:
        open_file_system("hdfs://not-opened-before/a")
    assert "pip install 'raystream[hdfs]'" in caught.value.hint
