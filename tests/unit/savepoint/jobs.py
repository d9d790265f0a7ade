"""A job with every kind of state, and snapshots of it of every kind."""

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from raystream import (
    AggregatingStateDescriptor,
    CheckpointedFunction,
    JobFailedError,
    KeyedProcessFunction,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    StateTtl,
    StreamEnvironment,
    ValueStateDescriptor,
)
from raystream.connectors.basic import DiscardSink
from raystream.testing import Barrier, Pause, TestSource

UID = "visits"
KEYS = 40
BOMB = Path(tempfile.gettempdir()) / f"raystream-state-bomb-{os.getpid()}"
"""File that the pickled values make when somebody loads them."""


@dataclass
class Visit:
    """A record."""

    path: str
    seconds: float = 0.0


class Bomb:
    """A value whose pickle makes a file when it is loaded."""

    def __reduce__(self):
        return _explode, ()


def _explode():
    BOMB.touch()
    return Bomb()


class Total:
    """Sums up; the accumulator is a list."""

    def create_accumulator(self):
        return [0, 0]

    def add(self, value, accumulator):
        return [accumulator[0] + 1, accumulator[1] + value]

    def get_result(self, accumulator):
        return accumulator[1] / accumulator[0]

    def merge(self, first, second):
        return [first[0] + second[0], first[1] + second[1]]


class EveryState(KeyedProcessFunction, CheckpointedFunction):
    """Keeps something of each kind; each key is seen once."""

    def open(self, ctx):
        self.hits = ctx.get_state(ValueStateDescriptor("hits", int, default=0))
        self.paths = ctx.get_list_state(ListStateDescriptor("paths", Visit))
        self.days = ctx.get_map_state(MapStateDescriptor("by day/hour", str, float))
        self.longest = ctx.get_reducing_state(ReducingStateDescriptor("longest", max, int))
        self.total = ctx.get_aggregating_state(AggregatingStateDescriptor("total", Total(), list[int]))
        self.bomb = ctx.get_state(ValueStateDescriptor("bomb"))
        self.lived = ctx.get_state(ValueStateDescriptor("lived", str, ttl=StateTtl(timedelta(days=30))))
        ctx.get_state(ValueStateDescriptor("never", int))

    def initialize_state(self, ctx):
        self.positions = ctx.get_list_state(ListStateDescriptor("positions", int))
        self.all = ctx.get_union_list_state(ListStateDescriptor("all", str))
        self.rules = ctx.get_broadcast_state(MapStateDescriptor("rules", str, int))
        self.raw = ctx.get_raw_state("raw")
        self.subtask = ctx.subtask_index

    def snapshot_state(self, ctx):
        self.positions.update([self.subtask, self.subtask + 10])
        self.all.update([f"of {self.subtask}"])
        self.rules.put("limit", 7)
        self.raw.update([b"\0raw"])

    def process_element(self, value, ctx):
        assert value >= 0, "the job ends here"
        self.hits.update(value)
        self.paths.add_all([Visit(f"/{value}", value / 2), Visit("/")])
        self.days.put_all({"monday": float(value), "tuesday": 0.5})
        self.longest.add(value)
        self.total.add(value)
        self.bomb.update(Bomb())
        self.lived.update("x" * (1 + value % 3))
        ctx.timers.register_event_time(10**15 + value)
        yield value

    def on_timer(self, timestamp, ctx):
        return ()


def key_of(value):
    """Return keys of a part of which JSON and UTF-8 know nothing."""
    return ("k", value, b"\xff") if value else "\udc80"


@functools.cache
def snapshot(kind: str, keys: int = KEYS, max_parallelism: int = 16, function: type = EveryState) -> str:
    """Return the directory of a snapshot of the job, in which each key was seen once.

    Args:
        kind: `heap` or `rocksdb` for a checkpoint, `native` or `canonical` for a savepoint.
        keys: the keys are of the numbers below.
        max_parallelism: of the operator.
        function: of the operator.
    """
    directory = Path(tempfile.mkdtemp(prefix="raystream-tests-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    options = {
        "execution.runner": "local",
        "execution.checkpointing.dir": str(directory / "checkpoints"),
        "execution.checkpointing.interval": "10ms",
        "execution.checkpointing.data-inline-threshold": "0kb",
        "state.backend.type": "rocksdb" if kind == "rocksdb" else "hashmap",
        "restart-strategy.type": "none",
        "state.backend.rocksdb.localdir": str(directory / "local"),
    }
    # At the second barrier there is a checkpoint, for there is only one at a time; a job that fails keeps it.
    numbers, source = TestSource([*range(keys), Barrier(), Barrier(), -1]), "source"
    savepoint = kind in ("native", "canonical")
    if savepoint:
        numbers, source = TestSource([Pause(3_600_000)]), "silent"
        options["execution.state-recovery.path"] = snapshot("heap", keys, max_parallelism, function)
        options["execution.state-recovery.ignore-unclaimed-state"] = "true"
    env = StreamEnvironment(options, parallelism=2)
    (
        env.from_source(numbers, name="numbers", uid=source)
        .key_by(key_of)
        .process(function(), name="count visits", uid=UID, max_parallelism=max_parallelism)
        .sink_to(DiscardSink(), name="nowhere", uid="sink")
    )
    if savepoint:
        client = env.submit("every state")
        path = client.savepoint(str(directory / "savepoints"), format=kind).removeprefix("file://")
        client.cancel()
        return path
    with contextlib.suppress(JobFailedError):
        env.execute("every state")
    return str(max(directory.glob("checkpoints/*/chk-*/_metadata")).parent)


def copied(path: str, to: Path) -> tuple[str, list[Path]]:
    """Return a copy of a snapshot that may be damaged, and its files with state of the operator."""
    place = Path(path)
    copy = to / "job" / place.name
    shutil.copytree(place, copy)
    if (shared := place.parent / "shared").exists():
        shutil.copytree(shared, copy.parent / "shared")
    files = [file for file in copy.parent.rglob("*") if file.is_file()]
    return str(copy), [file for file in files if UID in str(file.relative_to(to))]
