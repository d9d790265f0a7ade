"""A new process on the node of a killed one reads the copies that it has left."""

import os
import signal
from pathlib import Path

import pytest

from raystream import KeyedProcessFunction, ValueStateDescriptor
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink
from raystream.storage.local_copies import on_another_disk
from tests.held_source import HeldSource
from tests.published import counts_by_key, one_to_n
from tests.ray.conftest import PATIENCE_S, handle_of, wait_until

COUNT, KEYS = 12_000, 100


class CountAndDie(KeyedProcessFunction):
    """Counts; its second subtask destroys, in the first attempt, every stored checkpoint and its process."""

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints

    def open(self, ctx):
        self.count = ctx.get_state(ValueStateDescriptor("count", int, default=0))
        self.dies = (ctx.attempt, ctx.subtask_index) == (1, 1)

    def process_element(self, value, ctx):
        if self.dies and any(self.checkpoints.glob("*/chk-*/_metadata")):
            for path in self.checkpoints.glob("*/*/c[1-9]*-a1-*"):
                path.write_bytes(b"lost")
            os.kill(os.getpid(), signal.SIGKILL)
        self.count.update(self.count.value() + 1)
        yield ctx.current_key, self.count.value()


def test_state_comes_from_the_local_disk_when_a_slot_is_killed(environment, tmp_path, go, local_path):
    """The store has lost its content, so that nothing else could have been read."""
    checkpoints = tmp_path / "checkpoints"
    if not on_another_disk(f"file://{checkpoints}", local_path):
        pytest.skip("there is only one disk")
    env = environment(
        2,
        execution_checkpointing_interval="300ms",
        execution_checkpointing_data_inline_threshold=0,
        state_backend_type="rocksdb",
        state_backend_rocksdb_localdir=str(local_path / "local"),
    )
    source = HeldSource(DatagenSource(lambda i: i % KEYS, count=COUNT), go, records=2)
    counts = (
        env.from_source(source, uid="numbers")
        .key_by(lambda key: key)
        .process(CountAndDie(checkpoints), uid="count")
    )
    counts.sink_to(FileSink.json_lines(tmp_path / "out"), uid="sink")

    client = env.submit("local recovery")
    wait_until(handle_of(client.job_id), lambda view: view.restarts == 1)
    go.touch()
    result = client.wait(PATIENCE_S)

    assert result.restarts == 1
    assert counts_by_key(tmp_path / "out") == one_to_n(i % KEYS for i in range(COUNT))
    assert list((local_path / "local").glob("raystream-copies-*")) == []
