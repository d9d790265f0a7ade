"""State of every kind on the local runner, with a crash behind a checkpoint and one within."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from raystream import JobStatus, StreamEnvironment
from raystream.connectors.files import FileSink
from raystream.testing import Barrier, Crash, TestSource
from tests.every_state import RULES, add_everything, expected
from tests.published import records, tuples

COUNT = 600


@dataclass(frozen=True)
class SinkThatFailsOnce:
    """The file sink; in attempt 2 one subtask fails while its checkpoint is under way."""

    inner: FileSink

    def open_writer(self, context):
        writer = self.inner.open_writer(context)
        fails = (context.attempt, context.subtask) == (2, 1)
        return FailingWriter(writer) if fails else writer

    def open_committer(self, context):
        return self.inner.open_committer(context)


@dataclass
class FailingWriter:
    """A writer that lets the first checkpoint pass and fails in the second."""

    inner: Any
    checkpoints: int = 0

    def prepare_commit(self, checkpoint_id):
        self.checkpoints += 1
        if self.checkpoints == 2:
            raise OSError("disk of the sink has failed")
        return self.inner.prepare_commit(checkpoint_id)

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_every_key_of_every_kind_and_every_timer_is_there_after_crashes(backend, tmp_path, local_path):
    half = COUNT // 2
    even, odd = range(0, COUNT, 2), range(1, COUNT, 2)
    env = StreamEnvironment(
        runner="local",
        parallelism=2,
        execution_checkpointing_dir=str(tmp_path / "checkpoints"),
        execution_checkpointing_interval="20ms",
        execution_checkpointing_min_pause="0ms",
        pipeline_auto_watermark_interval="5ms",
        state_backend_type=backend,
        state_backend_rocksdb_localdir=str(local_path),
        restart_strategy_type="fixed-delay",
        restart_strategy_fixed_delay_attempts=5,
        restart_strategy_fixed_delay_delay="1ms",
    )
    source = TestSource(
        [*even[: half // 2], Barrier(), *even[half // 2 : -20], Crash(), Barrier(), Barrier(), *even[-20:]],
        [*odd[: half // 2], Barrier(), *odd[half // 2 : -20], Barrier(), Barrier(), *odd[-20:]],
    )
    stream = add_everything(env, source, TestSource(RULES[:3], RULES[3:]))
    stream.sink_to(SinkThatFailsOnce(FileSink.json_lines(str(tmp_path / "out"))), uid="out")

    result = env.execute("everything")

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 2)
    assert Counter(map(tuples, records(tmp_path / "out"))) == Counter(expected(COUNT))
    assert list(local_path.iterdir()) == []
