"""Snapshots of small jobs whose files are damaged in turn, and what a job says that starts from them."""

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from raystream import (
    CheckpointedFunction,
    JobFailedError,
    KeyedProcessFunction,
    ListStateDescriptor,
    StreamEnvironment,
    ValueStateDescriptor,
)
from raystream.errors import RaystreamError
from raystream.testing import Barrier, Pause, TestSource

KEYS = list(range(24))
FOR_EVER_MS = 1e9
PATIENCE = "20s"
SCRIPT = [*KEYS, Barrier(), *KEYS, Barrier(), Pause(FOR_EVER_MS)]


class Count(KeyedProcessFunction, CheckpointedFunction):
    """Counts each key, and remembers in operator state what it has seen; states are typed and pickled."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))
        self.last = ctx.get_state(ValueStateDescriptor("last"))

    def initialize_state(self, ctx):
        self.stored = ctx.get_list_state(ListStateDescriptor("all", int))
        self.all = self.stored.get()

    def snapshot_state(self, ctx):
        self.stored.update(self.all)

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        self.last.update((value, "text"))
        self.all.append(value)
        yield value, self.seen.value()


class LinesSink:
    """Appends lines to a file for each attempt and subtask; commits nothing."""

    transactional = False

    def __init__(self, directory):
        self.directory = str(directory)

    def open_committer(self, context):
        return None

    def open_writer(self, context):
        return _LinesWriter(Path(self.directory) / f"part-{context.attempt}-{context.subtask}")


class _LinesWriter:
    def __init__(self, path):
        self.path = path
        path.parent.mkdir(exist_ok=True)

    def write(self, batch):
        with self.path.open("a") as file:
            file.writelines(json.dumps(value) + "\n" for value in batch.values)

    def prepare_commit(self, checkpoint_id):
        return []

    def start(self):
        pass

    sync = abort = close = start

    def keep(self, committables):
        pass


@dataclass(frozen=True)
class Place:
    """Where a job keeps things."""

    path: Path
    backend: str

    def environment(self, **options):
        return StreamEnvironment(
            runner="local",
            parallelism=1,
            state_backend_type=self.backend,
            state_backend_rocksdb_localdir=str(self.path / "local"),
            execution_checkpointing_dir=str(self.path / "checkpoints"),
            execution_checkpointing_savepoint_dir=str(self.path / "savepoints"),
            execution_checkpointing_interval="10ms",
            execution_checkpointing_min_pause="0ms",
            execution_checkpointing_num_retained=2,
            execution_checkpointing_data_inline_threshold="0b",
            restart_strategy_type="none",
            **options,
        )

    def submit(self, script, **options):
        env = self.environment(**options)
        counts = env.from_source(TestSource(script), uid="numbers").key_by(lambda key: key)
        counts.process(Count(), name="count", uid="count").sink_to(LinesSink(self.path / "out"), uid="out")
        return env.submit("counting")

    def snapshot(self, kind):
        """Return the directory of a snapshot with both rounds of keys in it."""
        client = self.submit(SCRIPT)
        while sum(one.status == "completed" for one in client.checkpoints()) < 3:
            with contextlib.suppress(TimeoutError):
                client.wait("5ms")
        if kind == "checkpoint":
            client.cancel()
            client.wait(PATIENCE)
            path = [one.path for one in client.checkpoints() if one.status == "completed"][-1]
        else:
            path = client.stop(format=kind)
            client.wait(PATIENCE)
        return Path(path.removeprefix("file://"))

    def restored(self, snapshot):
        """Return what a job publishes that starts from a snapshot and gets each key once more."""
        shutil.rmtree(self.path / "out", ignore_errors=True)
        client = self.submit([*SCRIPT[:-1], *KEYS], execution_state_recovery_path=str(snapshot))
        client.wait(PATIENCE)
        lines = (self.path / "out").glob("part-*")
        return sorted(json.loads(line)[1] for path in lines for line in path.read_text().splitlines())

    def refusal(self, snapshot):
        """Return the error with which a job ends that starts from a snapshot; it has published nothing."""
        shutil.rmtree(self.path / "out", ignore_errors=True)
        with pytest.raises(RaystreamError) as caught:
            self.submit([*SCRIPT[:-1], *KEYS], execution_state_recovery_path=str(snapshot)).wait(PATIENCE)
        assert not list((self.path / "out").glob("*")), "something was processed"
        return caught.value.__cause__ if isinstance(caught.value, JobFailedError) else caught.value
