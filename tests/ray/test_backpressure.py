"""A sink that takes nothing holds up its source, in little memory, and loses nothing.

What it costs in CPU is measured by `benchmarks/back_pressure.py`.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raystream import JobStatus
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink
from tests.published import counts_by_key, one_to_n
from tests.ray.conftest import PATIENCE_S, handle_of

RECORDS = 300_000
PATHS = [f"/{number:0100}" for number in range(500)]
"""Long ones: what is on its way between two slots is bounded in bytes."""
BLOCKED_S = 5.0
RSS_GROWTH_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class BlockingSink:
    """The file sink, whose subtask 0 stops at a record until somebody opens the gate.

    Args:
        gate: a named pipe.  Whoever opens it for writing waits until the sink has stopped.
    """

    inner: FileSink
    gate: Path
    after: int

    def open_writer(self, context):
        writer = self.inner.open_writer(context)
        return BlockingWriter(writer, self.gate, self.after) if context.subtask == 0 else writer

    def open_committer(self, context):
        return self.inner.open_committer(context)


@dataclass
class BlockingWriter:
    """A writer that blocks once."""

    inner: Any
    gate: Path
    left: int

    def write(self, batch):
        before, self.left = self.left, self.left - len(batch.values)
        if before > 0 >= self.left:
            self.gate.read_bytes()
        self.inner.write(batch)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def gate(tmp_path):
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def test_blocked_sink_holds_up_the_source_and_costs_little_memory(environment, tmp_path, gate):
    env = environment(2)
    (
        env.from_source(DatagenSource(lambda n: (PATHS[n % len(PATHS)], 1), count=RECORDS), uid="source")
        .key_by(lambda pair: pair[0])
        .sum(1, uid="count")
        .sink_to(BlockingSink(FileSink.json_lines(tmp_path / "out"), gate, after=5_000), uid="sink")
    )
    client = env.submit("blocked")
    handle = handle_of(client.job_id)

    with gate.open("wb"):  # Waits for the sink to stop.
        pids = [worker.pid for worker in handle.workers()]
        before = [resident_bytes(pid) for pid in pids]
        with suppress(TimeoutError):
            for _ in handle.watch(BLOCKED_S):
                pass
        read = handle.view().records_in
        after = [resident_bytes(pid) for pid in pids]
    result = client.wait(PATIENCE_S)

    for old, new in zip(before, after, strict=True):
        assert new - old < RSS_GROWTH_BYTES_MAX
    assert read < RECORDS // 2, "the source was not held up"
    assert (result.status, result.restarts) == (JobStatus.FINISHED, 0)
    assert counts_by_key(tmp_path / "out") == one_to_n(PATHS * (RECORDS // len(PATHS)))
