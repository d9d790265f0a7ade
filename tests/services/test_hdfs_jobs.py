"""Jobs whose checkpoints are on HDFS: servers and slots die, all counts stay exact, nothing is left over."""

import os
import signal
import threading

import pytest

from raystream import JobStatus, StreamEnvironment
from raystream.connectors.files import FileSink
from raystream.state import rocksdb
from raystream.storage.filesystem import join_url
from raystream.storage.hdfs import NativeClient
from raystream.storage.metadata import files_of, shared_files_of
from raystream.storage.snapshots import load_snapshot
from raystream.storage.stores import open_file_system
from raystream.testing import Crash, Pause
from tests.counting_jobs import Count, Rounds
from tests.published import counts_by_key
from tests.ray.conftest import address, ray_cluster  # noqa: F401 - fixtures
from tests.running_job import until

NUMBERS = Rounds(keys=200, rounds=4, lists=2)
FOR_EVER_MS = 1e9
OUTAGE_S = 3.0
PATIENCE = "100s"


class CountOrDie(Count):
    """Kills its process in the first attempt, in the middle of its second upload."""

    def __init__(self, died: str) -> None:
        self.died = died

    def open(self, ctx):
        super().open(ctx)
        if not os.path.exists(self.died):  # noqa: PTH110 - goes to another process
            on_shared_upload(2, self._die)

    def _die(self):
        with open(self.died, "x"):  # noqa: PTH123
            os.kill(os.getpid(), signal.SIGKILL)


def on_shared_upload(number: int, action) -> None:
    """Do something when the first bytes of the n-th shared file of this process are on their way."""
    create, uploads = NativeClient.create, []

    def observed(client, path, pieces, size_bytes):
        def passed_on():
            first = True
            for piece in pieces:
                yield piece[: len(piece) // 2] if first else piece
                if first:
                    uploads.append(path)
                    if len(uploads) == number:
                        action()
                    yield piece[len(piece) // 2 :]
                first = False

        create(client, path, passed_on() if "/shared/" in path else pieces, size_bytes)

    NativeClient.create = observed


def hold_files_back(since: threading.Event, until: threading.Event) -> None:
    """Let no file be begun between two events, so that no later checkpoint meets the outage."""
    create = NativeClient.create

    def patient(client, path, pieces, size_bytes):
        if since.is_set():
            until.wait()
        create(client, path, pieces, size_bytes)

    NativeClient.create = patient


@pytest.fixture(params=["hdfs"])
def base(request, hdfs, tmp_path):
    return f"{hdfs.url_of(request.param)}/{tmp_path.name}"


@pytest.fixture
def submit(base, tmp_path, monkeypatch):
    """Start the counting job on RocksDB; what it patches is undone."""
    monkeypatch.setattr(NativeClient, "create", NativeClient.create)

    def start(source, function=None, *, runner="local", **options):
        env = StreamEnvironment(
            runner=runner,
            parallelism=2,
            state_backend_type="rocksdb",
            state_backend_rocksdb_localdir=str(tmp_path / "local"),
            **{
                "execution_checkpointing_dir": base,
                "execution_checkpointing_savepoint_dir": f"{base}-kept",
                "execution_checkpointing_interval": "100ms",
                "restart_strategy_type": "fixed-delay",
                "restart_strategy_fixed_delay_delay": "1ms",
                **options,
            },
        )
        counts = env.from_source(source, uid="numbers").key_by(lambda key: key)
        counted = counts.process(function or Count(), uid="count")
        counted.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="out")
        return env.submit("counting")

    return start


def files_below(url: str) -> set[str]:
    fs = open_file_system(url)
    files = set()
    for entry in fs.list_dir(url):
        path = join_url(url, entry.name)
        files |= files_below(path) if entry.directory else {path}
    return files


def assert_nothing_is_left(base: str, client) -> None:
    """Besides the log and the archive, every file is one that a complete checkpoint refers to."""
    job = join_url(base, client.job_id)
    expected = {path for path in files_below(join_url(job, "log")) if path.rpartition("/")[2].isdigit()}
    expected |= {join_url(job, "archive"), join_url(job, "graph")}
    for one in client.checkpoints():
        if one.status == "completed" and one.purpose != "savepoint" and one.path:
            directory, metadata = load_snapshot(one.path)
            expected.add(join_url(directory, "_metadata"))
            expected |= {join_url(job, "shared", file.name) for file in shared_files_of(metadata)}
            expected |= {join_url(directory, file.path) for file in files_of(metadata)}
    assert files_below(job) - expected == set()


def completed(client) -> list:
    return [one for one in client.checkpoints() if one.status == "completed"]


def more_completed(client, count: int) -> None:
    """Wait until so many more checkpoints are complete."""
    wanted = max((one.checkpoint_id for one in completed(client)), default=0) + count
    until(client, lambda: any(one.checkpoint_id >= wanted for one in completed(client)))


@pytest.mark.parametrize("base", ["hdfs", "webhdfs"], indirect=True)
def test_job_that_crashes_goes_on_exactly_and_leaves_nothing(submit, base, tmp_path, monkeypatch):
    # A compaction may come with any flush, and writes everything anew.
    monkeypatch.setattr(rocksdb, "COMPACTION_FILES", 1_000)
    client = submit(NUMBERS.source(None, None, None, Crash()))
    result = client.wait(PATIENCE)

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 1)
    assert counts_by_key(tmp_path / "out") == NUMBERS.exact
    assert any(one.uploaded_bytes < one.size_bytes for one in client.checkpoints()), "incremental"
    assert files_below(join_url(base, client.job_id, "shared")) == set()
    assert_nothing_is_left(base, client)


def test_data_node_that_dies_during_a_checkpoint_fails_that_one_and_the_job_goes_on(
    submit, hdfs, base, tmp_path
):
    died, back = threading.Event(), threading.Event()

    def die():
        hdfs.kill_data_node()
        died.set()
        back.wait()

    client = submit(NUMBERS.source(None, None, None, Pause(FOR_EVER_MS)))
    on_shared_upload(2, die)
    hold_files_back(died, back)
    until(client, died.is_set)
    hdfs.start_data_node()
    back.set()
    until(client, lambda: any("could not write file" in one.failure for one in client.checkpoints()))
    more_completed(client, 2)
    assert len([one for one in client.checkpoints() if one.status == "failed"]) == 1
    client.cancel()
    client.wait(PATIENCE)

    assert client.progress().restarts == 0
    assert_nothing_is_left(base, client)


def test_name_node_that_pauses_for_seconds_fails_nothing(submit, hdfs, base, tmp_path):
    client = submit(NUMBERS.source(None, None, None, Pause(OUTAGE_S * 1000)))
    more_completed(client, 1)
    hdfs.pause_name_node()
    threading.Timer(OUTAGE_S, hdfs.continue_name_node).start()
    result = client.wait(PATIENCE)

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 0)
    assert [one for one in client.checkpoints() if one.status == "failed"] == []
    assert counts_by_key(tmp_path / "out") == NUMBERS.exact
    assert_nothing_is_left(base, client)


@pytest.mark.parametrize("base", ["hdfs", "webhdfs"], indirect=True)
def test_job_goes_on_from_a_savepoint_and_from_its_latest_checkpoint(submit, base, tmp_path):
    first = submit(NUMBERS.source(None, Pause(FOR_EVER_MS), None))
    more_completed(first, 2)
    savepoint = first.stop()
    assert savepoint.startswith(f"{base}-kept/savepoint-")

    second = submit(
        NUMBERS.source(None, Pause(0), Pause(FOR_EVER_MS)), execution_state_recovery_path=savepoint
    )
    more_completed(second, 2)
    second.cancel()
    second.wait(PATIENCE)
    assert_nothing_is_left(base, second)

    source = NUMBERS.source(None, Pause(0), Pause(0))
    third = submit(source, execution_state_recovery_path="latest")
    assert third.wait(PATIENCE).status is JobStatus.FINISHED
    assert counts_by_key(tmp_path / "out") == NUMBERS.exact
    assert_nothing_is_left(base, third)


@pytest.mark.ray
@pytest.mark.usefixtures("address")
def test_worker_that_is_killed_in_the_middle_of_an_upload_leaves_nothing(submit, base, tmp_path):
    client = submit(
        NUMBERS.source(None, None, None, Pause(500)),
        CountOrDie(str(tmp_path / "died")),
        runner="ray",
        slot_cpus=0,
    )
    result = client.wait(PATIENCE)

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 1)
    assert counts_by_key(tmp_path / "out") == NUMBERS.exact
    assert files_below(join_url(base, client.job_id, "shared")) == set()
    assert_nothing_is_left(base, client)
