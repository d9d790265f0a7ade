"""Savepoints of either format hold state of every kind, and restore wherever they say they do."""

import logging
import shutil
from collections import Counter

import pytest

from raystream import JobFailedError, JobStatus, StreamEnvironment
from raystream.connectors.files import FileSink
from raystream.testing import Barrier, Pause, TestSource
from tests.every_state import RULES, add_everything, expected
from tests.published import records, tuples

COUNT = 600
FOR_EVER_MS = 1e9
PATIENCE = "60s"


def numbers(wait_ms):
    """Return two lists of numbers; each waits before its last ones."""
    lists = [range(first, COUNT, 2) for first in range(2)]
    return TestSource(*([*some[:-20], Barrier(), Pause(wait_ms), Barrier(), *some[-20:]] for some in lists))


@pytest.fixture
def submit(tmp_path, local_path):
    """Start the job that has state of every kind."""

    def start(wait_ms, *, backend, **options):
        env = StreamEnvironment(
            runner="local",
            execution_checkpointing_savepoint_dir=str(tmp_path / "savepoints"),
            execution_checkpointing_interval="20ms",
            execution_checkpointing_min_pause="0ms",
            pipeline_auto_watermark_interval="5ms",
            state_backend_type=backend,
            state_backend_rocksdb_localdir=str(local_path),
            **{"parallelism": 2, "execution_checkpointing_dir": str(tmp_path / "checkpoints"), **options},
        )
        stream = add_everything(env, numbers(wait_ms), TestSource(RULES[:3], RULES[3:]))
        stream.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="out")
        return env.submit("everything")

    return start


def stop_in_the_middle(client, wanted):
    """Stop a job that waits before the last numbers; return the savepoint's path on the disk."""
    while client.progress().records_in < COUNT - 40:
        with pytest.raises(TimeoutError):
            client.wait("20ms")
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

    with caplog.at_level(logging.INFO):
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
