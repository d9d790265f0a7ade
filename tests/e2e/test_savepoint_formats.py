"""Savepoints of either format hold state of every kind, and restore wherever they say they do."""

import logging
import shutil
from collections import Counter
from pathlib import Path

import pytest

from raystream import JobFailedError, JobStatus, StreamEnvironment
from raystream.connectors.files import FileSink
from raystream.storage.filesystem import join_url
from raystream.storage.metadata import shared_files_of
from raystream.storage.snapshots import load_snapshot
from raystream.storage.stores import open_file_system
from raystream.testing import Barrier, Pause, TestSource
from tests.checkpointing import ON_REQUEST
from tests.every_state import RULES, add_everything, expected
from tests.published import records, tuples
from tests.running_job import until

COUNT = 600
FOR_EVER_MS = 1e9
PATIENCE = "60s"


def numbers(wait_ms):
    """Return two lists of numbers; each waits before its last ones."""
    lists = [range(first, COUNT, 2) for first in range(2)]
    return TestSource(*([*some[:-20], Barrier(), Pause(wait_ms), Barrier(), *some[-20:]] for some in lists))


@pytest.fixture
def other_store():
    """Copy a directory into another store, and return its URL there."""
    url = "memory://another-store"

    def copy(directory):
        for path in directory.rglob("*"):
            if path.is_file():
                name = path.relative_to(directory.parent).as_posix()
                open_file_system(url).write(join_url(url, name), path.read_bytes())
        return join_url(url, directory.name)

    yield copy
    open_file_system(url).delete_dir(url)


@pytest.fixture
def submit(tmp_path, local_path):
    """Start the job that has state of every kind."""

    def start(wait_ms, *, backend, **options):
        env = StreamEnvironment(
            runner="local",
            pipeline_auto_watermark_interval="5ms",
            state_backend_type=backend,
            state_backend_rocksdb_localdir=str(local_path),
            **{
                "parallelism": 2,
                "execution_checkpointing_interval": "20ms",
                "execution_checkpointing_min_pause": "0ms",
                "execution_checkpointing_dir": str(tmp_path / "checkpoints"),
                "execution_checkpointing_savepoint_dir": str(tmp_path / "savepoints"),
                **options,
            },
        )
        stream = add_everything(env, numbers(wait_ms), TestSource(RULES[:3], RULES[3:]))
        stream.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="out")
        return env.submit("everything")

    return start


def until_it_waits(client):
    """Return when a job has come to the wait before the last numbers."""
    until(client, lambda: client.progress().records_in >= COUNT - 40)


def completed(client):
    """Return where the complete checkpoints of a job are, oldest first."""
    return [one.path for one in client.checkpoints() if one.status == "completed"]


def stop_in_the_middle(client, wanted):
    """Stop a job that waits before the last numbers; return the savepoint's path on the disk."""
    until_it_waits(client)
    path = client.stop(format=wanted)
    assert client.wait(PATIENCE).status is JobStatus.FINISHED
    return path.removeprefix("file://")


@pytest.mark.parametrize(
    "formats",
    [
        ("canonical", "hashmap", "rocksdb"),
        ("canonical", "rocksdb", "hashmap"),
        ("native", "hashmap", "hashmap"),
        ("native", "rocksdb", "rocksdb"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"parallelism": 3}, {"pipeline_max_parallelism": 7}], ids=str)
def test_moved_savepoint_has_every_key_of_every_state(submit, tmp_path, caplog, formats, options):
    wanted, before, after = formats
    savepoint = stop_in_the_middle(submit(FOR_EVER_MS, backend=before), wanted)
    shutil.rmtree(tmp_path / "checkpoints")
    moved = shutil.move(savepoint, tmp_path / "elsewhere")

    with caplog.at_level(logging.INFO, logger="raystream"):
        job = submit(0, backend=after, execution_state_recovery_path=str(moved), **options)
        assert job.wait(PATIENCE).status is JobStatus.FINISHED
    assert Counter(map(tuples, records(tmp_path / "out"))) == Counter(expected(COUNT))
    moved_keys = [record for record in caplog.records if "moved to other key groups" in record.message]
    assert bool(moved_keys) == ("pipeline_max_parallelism" in options), "the cost is told"


def test_native_savepoint_of_rocksdb_is_refused_by_the_heap_before_anything_is_processed(submit, tmp_path):
    savepoint = stop_in_the_middle(submit(FOR_EVER_MS, backend="rocksdb"), "native")
    before = sorted(map(repr, records(tmp_path / "out")))

    with pytest.raises(JobFailedError, match="files of another state backend") as caught:
        submit(0, backend="hashmap", execution_state_recovery_path=savepoint).wait(PATIENCE)
    assert "canonical savepoint" in caught.value.hint
    assert sorted(map(repr, records(tmp_path / "out"))) == before


def test_native_savepoint_does_not_need_a_checkpoint_directory(submit, tmp_path):
    options = {"execution_checkpointing_dir": "none"}
    savepoint = stop_in_the_middle(submit(FOR_EVER_MS, backend="rocksdb", **options), "native")

    job = submit(0, backend="rocksdb", execution_state_recovery_path=savepoint, **options)
    assert job.wait(PATIENCE).status is JobStatus.FINISHED
    assert Counter(map(tuples, records(tmp_path / "out"))) == Counter(expected(COUNT))


@pytest.mark.parametrize("wanted", ["canonical", "native"])
def test_savepoint_that_was_copied_into_another_store_restores_there(submit, tmp_path, other_store, wanted):
    savepoint = stop_in_the_middle(submit(FOR_EVER_MS, backend="rocksdb"), wanted)
    copied = other_store(Path(savepoint))
    shutil.rmtree(tmp_path / "savepoints")

    job = submit(0, backend="rocksdb", execution_state_recovery_path=copied)
    assert job.wait(PATIENCE).status is JobStatus.FINISHED
    assert Counter(map(tuples, records(tmp_path / "out"))) == Counter(expected(COUNT))


def test_incremental_checkpoint_restores_from_a_copy_of_its_jobs_directory_in_another_store(
    submit, tmp_path, other_store
):
    client = submit(FOR_EVER_MS, backend="rocksdb")
    until_it_waits(client)
    older = client.checkpoints()[-1].checkpoint_id
    until(client, lambda: completed(client) and client.checkpoints()[-1].checkpoint_id >= older + 3)
    client.cancel()
    client.wait(PATIENCE)
    checkpoint = completed(client)[-1]
    assert shared_files_of(load_snapshot(checkpoint)[1])
    copied = other_store(tmp_path / "checkpoints" / client.job_id)
    shutil.rmtree(tmp_path / "checkpoints")

    path = f"{copied}/{checkpoint.rpartition('/')[2]}"
    job = submit(0, backend="rocksdb", execution_state_recovery_path=path)
    assert job.wait(PATIENCE).status is JobStatus.FINISHED
    assert Counter(map(tuples, records(tmp_path / "out"))) == Counter(expected(COUNT))


def test_savepoint_that_a_job_has_claimed_is_refused_to_others_and_given_back(submit, tmp_path):
    savepoint = Path(stop_in_the_middle(submit(FOR_EVER_MS, backend="rocksdb"), "canonical"))
    options = {
        "backend": "hashmap",
        "execution_state_recovery_path": str(savepoint),
        "execution_state_recovery_claim_mode": "claim",
    }
    first = submit(FOR_EVER_MS, **ON_REQUEST, **options)
    first.wait_until(frozenset({JobStatus.RUNNING}), 60.0, lambda *_: None)

    with pytest.raises(JobFailedError, match="claimed by another job") as caught:
        submit(0, **options).wait(PATIENCE)
    assert caught.value.context["job"] == first.job_id
    first.cancel()
    first.wait(PATIENCE)
    assert savepoint.exists()

    assert submit(0, **options).wait(PATIENCE).status is JobStatus.FINISHED
    assert not savepoint.exists()
    assert Counter(map(tuples, records(tmp_path / "out"))) == Counter(expected(COUNT))
