"""A slot's process is killed at the worst moments, and still every record counts exactly once."""

import os
import random
import signal
from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from raystream import JobStatus
from raystream.connectors.files import FileSink
from raystream.operators.output_names import JOB_DIGITS
from tests.access_logs import (
    Expected,
    add_count,
    assert_counted_exactly_once,
    lines_of,
    unfinished,
)
from tests.held_source import HeldSource
from tests.ray.conftest import PATIENCE_S, handle_of, wait_until

BARRIERS_MAX = 50
"""Barriers after which an attempt ends for which too few records were left."""


class Moment(Enum):
    """When a process is killed, besides the number of records that it must have written."""

    AT_ONCE = "at once: at the latest at the first barrier, so that no checkpoint is complete"
    PENDING = "at the next barrier: its checkpoint is pending, and this subtask has not taken part"
    PUBLISHED = "when a checkpoint of this attempt is complete and its output visible"


@dataclass(frozen=True)
class Kill:
    """The end of one attempt: SIGKILL for the process of a subtask."""

    subtask: int
    records: int
    moment: Moment


@dataclass(frozen=True)
class KillingSink:
    """The file sink, with a process that is killed in some attempts.

    The process does it to itself, since nobody else could do it at an exact record.
    """

    inner: FileSink
    kills: dict[int, Kill] = field(hash=False)
    """By the number of the attempt."""

    def open_writer(self, context):
        kill = self.kills.get(context.attempt)
        writer = self.inner.open_writer(context)
        if kill is None or kill.subtask != context.subtask:
            return writer
        visible = f"part-*-{context.job_id[:JOB_DIGITS]}-*-{context.attempt}-*"
        return KillingWriter(writer, kill, Path(self.inner.directory), visible)

    def open_committer(self, context):
        return self.inner.open_committer(context)


@dataclass
class KillingWriter:
    """A writer that ends its process."""

    inner: Any
    kill: Kill
    directory: Path
    visible: str
    """Pattern of the files that this attempt has published."""
    written: int = 0
    barriers: int = 0

    def write(self, batch):
        self.inner.write(batch)
        self.written += len(batch.values)
        self._die_at(Moment.AT_ONCE, Moment.PUBLISHED)

    def prepare_commit(self, checkpoint_id):
        self.barriers += 1
        if self.kill.moment is Moment.AT_ONCE or self.barriers == BARRIERS_MAX:
            os.kill(os.getpid(), signal.SIGKILL)
        self._die_at(Moment.PENDING, Moment.PUBLISHED)
        return self.inner.prepare_commit(checkpoint_id)

    def _die_at(self, *moments: Moment) -> None:
        due = self.kill.moment in moments and self.written >= self.kill.records
        if due and (self.kill.moment is not Moment.PUBLISHED or any(self.directory.glob(self.visible))):
            os.kill(os.getpid(), signal.SIGKILL)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def kills(seed: int) -> dict[int, Kill]:
    """Return how each attempt but the last ends."""
    rng = random.Random(seed)
    return {
        1: Kill(rng.randrange(2), rng.randrange(1, 500), Moment.AT_ONCE),  # Before the first checkpoint.
        2: Kill(rng.randrange(2), rng.randrange(1, 3_000), Moment.PENDING),
        3: Kill(rng.randrange(2), rng.randrange(2_000, 5_000), Moment.PUBLISHED),
        4: Kill(rng.randrange(2), rng.randrange(2_000, 5_000), Moment.PUBLISHED),
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_log_is_counted_exactly_once_whenever_a_slot_is_killed(environment, tmp_path, go, seed):
    log, out, expected = tmp_path / "mixed.log", tmp_path / "out", Expected()
    expected.append_to(log, lines=120_000, seed=seed)
    interval = "200ms"
    env = environment(
        2, execution_checkpointing_interval=interval, execution_checkpointing_min_pause=interval
    )
    sink = KillingSink(FileSink.json_lines(out), kills(seed))
    add_count(env, HeldSource(lines_of(log), go), out, sink=sink)

    client = env.submit("killed at the worst moments")
    handle = handle_of(client.job_id)
    seen = {}

    def completed_from(view, attempt):
        """Return how many checkpoints are complete of this attempt and later ones."""
        seen.update((one.checkpoint_id, one) for one in view.checkpoints)
        return sum(one.status == "completed" and one.attempt >= attempt for one in seen.values())

    for attempt in (2, 3, 4, 5):
        wait_until(handle, lambda view, n=attempt: completed_from(view, n) >= 1)
        assert [name for number, name in unfinished(out) if number < attempt] == [], "left by dead attempts"
    wait_until(handle, lambda view: completed_from(view, 5) >= 3)
    assert any(out.glob(f"part-sink-{client.job_id[:JOB_DIGITS]}-*-5-*")), (
        "two checkpoints later it must be visible"
    )
    go.touch()
    result = client.wait(PATIENCE_S)

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 4)
    assert_counted_exactly_once(out, expected)
    ends = defaultdict(list)
    for number in sorted(seen):
        ends[seen[number].attempt].append(seen[number].status)
    assert "completed" not in ends[1]
    assert ends[2][-1] == "failed"
    assert "completed" in ends[3]
    assert "completed" in ends[4]
