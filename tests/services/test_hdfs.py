"""What HDFS does that disks do not: claims by rename, rights, quotas, safe mode, servers that are away."""

import os
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from raystream.errors import StorageError
from raystream.ids import JobId
from raystream.storage.filesystem import join_url
from raystream.storage.hdfs import NativeClient
from raystream.storage.hdfs_client import PIECE_BYTES, TOKEN_VARIABLE, USER_VARIABLE
from raystream.storage.hdfs_files import HdfsFileSystem
from raystream.storage.job_log import DurableJobLog
from raystream.storage.layout import JobLayout
from raystream.storage.log_entries import AttemptStarted
from raystream.storage.stores import open_file_system
from raystream.storage.webhdfs import WebHdfsClient
from tests.services.processes import seen_around_a_child

RACES = {"hdfs": 1_000, "webhdfs": 100}
"""A DataNode that speaks HTTP needs a twentieth of a second for a file."""
RACES_AT_A_TIME = 40
LARGE_BYTES = 6 * PIECE_BYTES + 1
SOON_S = 1.0


@pytest.fixture(params=["hdfs", "webhdfs"])
def scheme(request):
    return request.param


@pytest.fixture
def base(hdfs, scheme, tmp_path):
    """URL of an empty directory, for each client."""
    return f"{hdfs.url_of(scheme)}/{tmp_path.name}"


@pytest.fixture
def fs(base):
    return open_file_system(base)


@pytest.fixture
def impatient(hdfs, tmp_path):
    """For each client a store of its own that soon gives up, and an empty directory."""
    clients = NativeClient(hdfs.url_of("hdfs")), WebHdfsClient(hdfs.url_of("webhdfs").partition("://")[2])
    bases = [f"{hdfs.url_of(scheme)}/{tmp_path.name}-{scheme}" for scheme in ("hdfs", "webhdfs")]
    stores = [HdfsFileSystem(client, first_patience_s=SOON_S, patience_s=SOON_S) for client in clients]
    return list(zip(stores, bases, strict=True))


def refused(call) -> StorageError:
    """Return the error of a call; its cause and its advice are one line each."""
    with pytest.raises(StorageError) as caught:
        call()
    error = caught.value
    assert error.context["cause"]
    assert error.hint
    assert "\n" not in error.context["cause"] + error.hint
    return error


@contextmanager
def as_user(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv(USER_VARIABLE, name)
        yield


def test_of_two_job_masters_one_gets_each_of_a_thousand_entries_of_the_log(fs, base, scheme):
    """Both write the same bytes, so that these do not tell whose entry it is."""
    races = RACES[scheme]

    def claim(number: int) -> int:
        won = []
        start = threading.Barrier(2)

        def master() -> None:
            start.wait()
            won.append(fs.create_exclusive(join_url(base, f"log/{number:08d}"), b"attempt"))

        both = [threading.Thread(target=master) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        return sum(won)

    with ThreadPoolExecutor(RACES_AT_A_TIME) as pool:
        assert list(pool.map(claim, range(races))) == [1] * races
    names = [entry.name for entry in fs.list_dir(join_url(base, "log"))]
    assert names == [f"{number:08d}" for number in range(races)]


def test_a_job_master_that_was_replaced_is_told_by_the_log(fs, base):
    layout = JobLayout(base, JobId("a" * 32))
    old, new = DurableJobLog(fs, layout), DurableJobLog(fs, layout)
    for log in (old, new):
        assert log.read() == []
    new.append(AttemptStarted(attempt=2))

    with pytest.raises(StorageError, match="a newer attempt owns the job log"):
        old.append(AttemptStarted(attempt=1))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_uses_the_store_on_its_own(fs, base, method):
    fs.write(join_url(base, "file"), b"1")

    assert seen_around_a_child(join_url(base, "file"), method) == "True True True"


def test_a_large_file_goes_and_comes_in_pieces(fs, base):
    piece = os.urandom(1 << 10) * (PIECE_BYTES >> 10)
    url = join_url(base, "large")

    class Large(list):
        def __iter__(self):
            yield from [piece] * (LARGE_BYTES // PIECE_BYTES)
            yield piece[: LARGE_BYTES % PIECE_BYTES]

    tracemalloc.start()
    fs.write(url, Large())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 2 * PIECE_BYTES
    assert fs.list_dir(base)[0].size_bytes == LARGE_BYTES
    assert fs.read_range(url, PIECE_BYTES - 2, PIECE_BYTES) == piece[-2:] + piece[:-2]
    assert fs.read(url) == piece * (LARGE_BYTES // PIECE_BYTES) + piece[: LARGE_BYTES % PIECE_BYTES]


def test_a_user_without_the_right_is_told_so(hdfs, base, scheme, monkeypatch):
    with as_user("somebody", monkeypatch):
        fs = open_file_system(base)
        error = refused(lambda: fs.write(join_url(base, "file"), b"1"))
        deletion = refused(lambda: fs.delete_file(f"{hdfs.url_of(scheme)}/ready"))

    assert "user=somebody" in error.context["cause"]
    assert "HADOOP_USER_NAME" in error.hint
    assert "user=somebody" in deletion.context["cause"]


def test_files_belong_to_the_user_that_the_environment_names(hdfs, base, monkeypatch):
    directory = "/" + base.rpartition("/")[2]
    hdfs.rest("PUT", directory, "MKDIRS")
    hdfs.rest("PUT", directory, "SETPERMISSION", permission="777")
    with as_user("somebody", monkeypatch):
        open_file_system(base).write(join_url(base, "file"), b"1")

    assert hdfs.rest("GET", f"{directory}/file", "GETFILESTATUS")["FileStatus"]["owner"] == "somebody"


def test_a_delegation_token_stands_for_its_owner_and_is_in_no_message(hdfs, monkeypatch):
    base = f"{hdfs.url_of('webhdfs')}/token"
    monkeypatch.setenv(TOKEN_VARIABLE, "SECRETTOKEN")

    error = refused(lambda: open_file_system(base).write(join_url(base, "file"), b"1"))
    assert "SECRETTOKEN" not in str(error) + repr(error.__cause__)


def test_a_name_node_in_safe_mode_is_waited_for_and_then_named(hdfs, impatient):
    hdfs.admin("-safemode", "enter")
    try:
        errors = [
            refused(lambda fs=fs, base=base: fs.write(join_url(base, "file"), b"1")) for fs, base in impatient
        ]
    finally:
        hdfs.admin("-safemode", "leave")

    for error, (fs, base) in zip(errors, impatient, strict=True):
        assert "safe mode" in error.context["cause"]
        assert "safe mode" in error.hint
        fs.write(join_url(base, "file"), b"1")


@pytest.mark.parametrize(("kind", "amount"), [("namespacequota", 3), ("storagespacequota", 1 << 20)])
def test_a_quota_that_is_used_up_is_named_and_nothing_is_left(hdfs, fs, base, kind, amount):
    fs.write(join_url(base, "dir/file"), b"1")
    hdfs.rest("PUT", "/" + base.rpartition("/")[2], "SETQUOTA", **{kind: str(amount)})

    error = refused(lambda: fs.write(join_url(base, "other"), b"1"))
    assert "quota" in error.context["cause"]
    assert "quota" in error.hint
    assert [entry.name for entry in fs.list_dir(base)] == ["dir"]


def test_without_a_data_node_nothing_is_written_or_left_until_it_is_back(hdfs, impatient):
    for fs, base in impatient:
        fs.write(join_url(base, "file"), b"1")
    hdfs.kill_data_node()
    try:
        for fs, base in impatient:
            written = refused(lambda fs=fs, base=base: fs.write(join_url(base, "other"), b"1"))
            read = refused(lambda fs=fs, base=base: fs.read(join_url(base, "file")))
            assert "DataNodes" in written.hint
            assert "DataNodes" in read.hint
            assert [entry.name for entry in fs.list_dir(base)] == ["file"]
    finally:
        hdfs.start_data_node()

    for fs, base in impatient:
        fs.write(join_url(base, "other"), b"1")
        assert fs.read(join_url(base, "file")) == b"1"


def test_a_name_node_that_pauses_is_waited_for(hdfs, fs, base):
    fs.write(join_url(base, "file"), b"1")  # From now on the store is patient.
    hdfs.pause_name_node()
    threading.Timer(SOON_S, hdfs.continue_name_node).start()

    assert fs.create_exclusive(join_url(base, "entry"), b"1")
    assert [entry.name for entry in fs.list_dir(base)] == ["entry", "file"]


def test_a_name_node_that_starts_again_is_waited_for(hdfs, tmp_path):
    bases = [f"{hdfs.url_of(scheme)}/{tmp_path.name}-{scheme}" for scheme in ("webhdfs", "hdfs")]
    for base in bases:
        open_file_system(base).write(join_url(base, "file"), b"1")
    hdfs.kill_name_node()
    hdfs.start_name_node()

    for base in bases:
        fs = open_file_system(base)
        assert fs.create_exclusive(join_url(base, "entry"), b"1")
        assert fs.read(join_url(base, "file")) == b"1"
        assert [entry.name for entry in fs.list_dir(base)] == ["entry", "file"]


def test_a_name_service_is_found_in_the_configuration(hdfs, tmp_path, monkeypatch):
    """Its first NameNode is away, as after a fail-over."""
    hdfs.configure_service("name-service", tmp_path)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    for base in ("hdfs://name-service/service", "hdfs:///service"):
        fs = open_file_system(base)
        fs.write(join_url(base, f"file-{len(base)}"), b"1")

    direct = f"{hdfs.url_of('hdfs')}/service"
    assert len(open_file_system(direct).list_dir(direct)) == 2
