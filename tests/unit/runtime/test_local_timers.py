"""Timers of whole jobs on the local runner: each fires once, through crashes, restores and rescales."""

import pytest

from raystream import JobStatus, StreamEnvironment, WatermarkStrategy
from raystream.connectors.datagen import DatagenSource
from raystream.runtime.local_cluster import LocalRunner
from raystream.testing import Barrier, Crash, TestSource, Watermark
from tests.held_source import HeldSource
from tests.published import records
from tests.timed_jobs import add_reminders, expected

STAMPED = WatermarkStrategy.no_watermarks().with_timestamp_assigner(lambda value: value)


def environment(tmp_path, *, parallelism=2, **options):
    return StreamEnvironment(
        runner="local",
        parallelism=parallelism,
        execution_checkpointing_dir=str(tmp_path / "checkpoints"),
        execution_checkpointing_savepoint_dir=str(tmp_path / "savepoints"),
        execution_checkpointing_interval="20ms",
        execution_checkpointing_min_pause="0ms",
        pipeline_auto_watermark_interval="5ms",
        **options,
    )


def published(tmp_path):
    return sorted(records(tmp_path / "out"), key=repr)


def has_checkpoint_of_records(view):
    return view.records_in and any(record.status == "completed" for record in view.checkpoints)


@pytest.mark.parametrize(("parallelism", "backend"), [(1, "hashmap"), (3, "hashmap"), (2, "rocksdb")])
def test_every_timer_fires_once_when_the_job_crashes_with_some_fired_and_some_pending(
    tmp_path, parallelism, backend
):
    even, odd = range(0, 400, 2), range(1, 400, 2)
    source = TestSource(
        [*even[:100], Watermark(90), Barrier(), Watermark(150), *even[100:], Crash(), Watermark(300)],
        [*odd[:100], Watermark(80), Barrier(), *odd[100:], Watermark(250)],
    )
    env = environment(
        tmp_path,
        parallelism=parallelism,
        state_backend_type=backend,
        restart_strategy_type="fixed-delay",
        restart_strategy_fixed_delay_delay="1ms",
    )
    add_reminders(env, source, tmp_path / "out", STAMPED)
    result = env.execute("remind")

    assert result.restarts == 1
    assert published(tmp_path) == expected(range(400))


def test_every_timer_fires_once_at_parallelism_1_then_2_then_3_then_1(tmp_path, go):
    source = HeldSource(DatagenSource(lambda index: index, count=4_000), go, records=1)
    path, read = None, 0
    for parallelism in (1, 2, 3):
        env = environment(tmp_path, parallelism=parallelism, execution_state_recovery_path=path or "none")
        add_reminders(env, source, tmp_path / "out")
        client = env.submit("remind")
        LocalRunner().attach(client.job_id)._board.wait_until(has_checkpoint_of_records, 30)
        path = client.stop()
        read += client.wait(30).records_in
    assert 0 < read < 4_000
    go.touch()

    env = environment(tmp_path, parallelism=1, execution_state_recovery_path=path)
    add_reminders(env, source, tmp_path / "out")
    assert env.execute("remind").status is JobStatus.FINISHED
    assert published(tmp_path) == expected(range(4_000))
