"""A job that is drained on the local runner ends as if its sources had."""

import pytest

from raystream import JobStatus, StreamEnvironment
from raystream.connectors.datagen import DatagenSource
from raystream.errors import CheckpointError
from raystream.runtime.local_cluster import LocalRunner
from tests.held_source import HeldSource
from tests.published import records
from tests.timed_jobs import add_reminders, expected


def submit(tmp_path, source, *, backend="hashmap"):
    env = StreamEnvironment(
        runner="local",
        parallelism=2,
        execution_checkpointing_dir=str(tmp_path / "checkpoints"),
        execution_checkpointing_interval="20ms",
        execution_checkpointing_min_pause="0ms",
        pipeline_auto_watermark_interval="5ms",
        restart_strategy_type="none",
        state_backend_type=backend,
    )
    add_reminders(env, source, tmp_path / "out")
    client = env.submit("remind")
    LocalRunner().attach(client.job_id)._board.wait_until(
        lambda view: any(record.status == "completed" for record in view.checkpoints), 30
    )
    return client


def published(tmp_path):
    return sorted(records(tmp_path / "out"), key=repr)


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_drain_of_an_endless_job_fires_every_timer_and_publishes_it(tmp_path, backend):
    client = submit(tmp_path, DatagenSource(lambda index: index, rate=4_000), backend=backend)
    path = client.stop(str(tmp_path / "savepoints"), drain=True)
    result = client.wait(30)

    assert "/savepoints/savepoint-" in path
    assert result.status is JobStatus.FINISHED
    values = [record for record in published(tmp_path) if isinstance(record, int)]
    assert len(values) == result.records_in
    assert published(tmp_path) == expected(values)


def test_job_without_restarts_goes_on_when_its_drain_fails(tmp_path, go):
    (tmp_path / "file").write_text("no directory")
    client = submit(tmp_path, HeldSource(DatagenSource(lambda index: index, count=4_000), go))

    with pytest.raises(CheckpointError, match="savepoint was aborted, and the job goes on"):
        client.stop(str(tmp_path / "file"), drain=True)
    go.touch()
    result = client.wait(30)

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 0)
    assert published(tmp_path) == expected(range(4_000)), "no timer has fired early, or twice"
