"""Jobs with checkpoints in a store that breaks: exact results, whole checkpoints, nothing left over."""

import pytest

from raystream import JobStatus, StreamEnvironment
from raystream.connectors.files import FileSink
from raystream.storage import s3
from raystream.storage.metadata import files_of, shared_files_of
from raystream.storage.snapshots import load_snapshot
from raystream.testing import Crash, Pause, TestSource
from tests.counting_jobs import Count, Rounds
from tests.published import counts_by_key
from tests.running_job import until
from tests.services.servers import ACCESS_KEY, SECRET_KEY

NUMBERS = Rounds(keys=200, rounds=6, lists=4)
PATIENCE = "120s"
FOR_EVER_MS = 1e9
OUTAGE = "15s"


@pytest.fixture
def store(faulty, monkeypatch):
    """The store that breaks; every file of state goes in parts."""
    monkeypatch.setattr(s3, "PUT_BYTES_MAX", 1_000)
    return faulty


@pytest.fixture
def submit(base, tmp_path):
    """Start the counting job on RocksDB, with checkpoints in the store."""

    def start(items: TestSource, *, parallelism: int = 2, **options):
        env = StreamEnvironment(
            runner="local",
            parallelism=parallelism,
            state_backend_type="rocksdb",
            state_backend_rocksdb_localdir=str(tmp_path / "local"),
            execution_checkpointing_dir=base,
            execution_checkpointing_interval="20ms",
            execution_checkpointing_min_pause="0ms",
            execution_checkpointing_tolerable_failed_checkpoints=1_000,
            restart_strategy_type="fixed-delay",
            restart_strategy_fixed_delay_attempts=1_000,
            restart_strategy_fixed_delay_delay="100ms",
            **options,
        )
        counts = env.from_source(items, uid="numbers").key_by(lambda key: key).process(Count(), uid="count")
        counts.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="out")
        return env.submit("counting")

    return start


def completed(client, at_least: int) -> list:
    """Return the complete checkpoints, when there are so many."""

    def done():
        return [one for one in client.checkpoints() if one.status == "completed"]

    until(client, lambda: len(done()) >= at_least)
    return done()


def assert_nothing_is_left(store, bucket, *snapshots: str) -> None:
    """Assert that the bucket has what these snapshots refer to and the traces of jobs, and nothing else."""
    needed = set()
    for directory in snapshots:
        _, metadata = load_snapshot(directory)
        names = [file.path for file in files_of(metadata)]
        key = directory.removeprefix(f"s3://{bucket}/")
        needed |= {f"{key}/{name}" for name in ["_metadata", *names]}
        needed |= {f"{key.rpartition('/')[0]}/shared/{file.name}" for file in shared_files_of(metadata)}
    traces = {key for key in store.keys(bucket) if key.endswith("/archive") or key.split("/")[-2] == "log"}

    assert set(store.keys(bucket)) - traces == needed
    assert store.unfinished(bucket) == []


BREAKS = {
    "refusals": [{"match": ".", "kind": "refuse", "times": 8, "skip": 3}],
    "lost answers": [
        {
            "match": f"{method} .*{what}",
            "kind": "lose",
            "status": 500,
            "code": "InternalError",
            "times": times,
        }
        for method, what, times in [
            ("PUT", "/log/", 4),
            ("PUT", "_metadata", 2),
            ("POST", "uploads", 3),
            ("POST", "uploadId", 3),
            ("PUT", "partNumber", 3),
            ("DELETE", "", 3),
        ]
    ],
    "broken connections": [{"match": ".", "kind": "hang-up", "times": 10, "skip": 3}],
    "delays": [{"match": "PUT|POST", "kind": "delay", "seconds": 2.0, "times": 4}],
}


@pytest.mark.parametrize("breaks", BREAKS.values(), ids=BREAKS)
def test_a_job_outlasts_what_passes_by_and_a_crash(submit, store, bucket, tmp_path, breaks):
    store.faults(*breaks)
    client = submit(NUMBERS.source(None, None, None, None, Crash()))
    result = client.wait(PATIENCE)

    assert result.status is JobStatus.FINISHED
    assert result.restarts >= 1
    assert counts_by_key(tmp_path / "out") == NUMBERS.exact
    assert_nothing_is_left(store, bucket)


def test_a_job_outlasts_an_outage(submit, store, bucket, tmp_path):
    client = submit(NUMBERS.source(None, None, None, Pause(1_000)))
    before = len(completed(client, 2))
    store.faults({"match": ".", "kind": "refuse"})
    with pytest.raises(TimeoutError):
        client.wait(OUTAGE)
    store.faults()
    completed(client, before + 1)

    assert client.wait(PATIENCE).status is JobStatus.FINISHED
    assert counts_by_key(tmp_path / "out") == NUMBERS.exact
    assert_nothing_is_left(store, bucket)


def test_cancelled_job_goes_on_from_its_latest_checkpoint(submit, store, bucket, tmp_path):
    first = submit(NUMBERS.source(None, None, None, Pause(FOR_EVER_MS)))
    completed(first, 3)
    store.faults({"match": "PUT", "kind": "lose", "status": 500, "code": "InternalError", "times": 3})
    completed(first, 5)
    first.cancel()
    first.wait(PATIENCE)
    newest = completed(first, 1)[-1].path
    assert_nothing_is_left(store, bucket, newest)

    numbers = NUMBERS.source(None, None, None, Pause(0))
    second = submit(numbers, parallelism=3, execution_state_recovery_path="latest")
    assert second.wait(PATIENCE).status is JobStatus.FINISHED
    assert counts_by_key(tmp_path / "out") == NUMBERS.exact
    assert_nothing_is_left(store, bucket, newest)


def test_no_secret_is_in_what_a_job_stores(submit, store, bucket):
    client = submit(NUMBERS.source(None, None, None, Pause(FOR_EVER_MS)))
    completed(client, 3)
    stored = {key: _content(store, bucket, key) for key in store.keys(bucket)}
    client.cancel()
    client.wait(PATIENCE)
    stored |= {key: _content(store, bucket, key) for key in store.keys(bucket)}

    assert {"graph", "_metadata", "archive"} < {key.rpartition("/")[2] for key in stored}
    assert not [key for key, content in stored.items() if SECRET_KEY.encode() in content]
    assert not [key for key, content in stored.items() if ACCESS_KEY.encode() in content]


def _content(store, bucket, key) -> bytes:
    try:
        return store.client.get_object(Bucket=bucket, Key=key)["Body"].read()
    except store.client.exceptions.NoSuchKey:
        return b""  # Deleted since it was listed.


def test_stopped_job_goes_on_from_its_savepoint(submit, store, bucket, tmp_path):
    first = submit(NUMBERS.source(None, None, None, Pause(FOR_EVER_MS)))
    completed(first, 2)
    savepoint = first.stop(f"s3://{bucket}/savepoints")
    first.wait(PATIENCE)
    assert savepoint.startswith(f"s3://{bucket}/savepoints/savepoint-")
    assert_nothing_is_left(store, bucket, savepoint)

    second = submit(NUMBERS.source(None, None, None, Pause(0)), execution_state_recovery_path=savepoint)
    assert second.wait(PATIENCE).status is JobStatus.FINISHED
    assert counts_by_key(tmp_path / "out") == NUMBERS.exact
    assert_nothing_is_left(store, bucket, savepoint)
