"""A job that restarts reads its state from the copies on the local disk, and leaves none when it ends."""

import logging
import os
from contextlib import suppress
from pathlib import Path

import pytest

from raystream import KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.files import FileSink
from raystream.runtime import slot
from raystream.storage.local_copies import LocalCopies
from raystream.testing.sources import Barrier, Crash, TestSource
from tests.published import records

KEYS = 200
SCRIPT = [*range(KEYS), Barrier(), *range(KEYS), Barrier(), Crash(), *range(KEYS)]
"""The second checkpoint begins when the first one is complete: the crash has something to go back to."""


class Count(KeyedProcessFunction):
    def open(self, ctx):
        self.count = ctx.get_state(ValueStateDescriptor("count", int, default=0))

    def process_element(self, value, ctx):
        self.count.update(self.count.value() + 1)
        yield value, self.count.value()


@pytest.fixture
def run(tmp_path, local_path, monkeypatch, caplog):
    """Runs a job that crashes once; returns what its slots say of the restore."""
    caplog.set_level(logging.INFO, logger="raystream")
    monkeypatch.setattr(slot, "on_another_disk", lambda store, parent: True)

    def run(backend, **options):
        env = StreamEnvironment(
            runner="local",
            parallelism=2,
            execution_checkpointing_interval="50ms",
            execution_checkpointing_dir=str(tmp_path / "checkpoints"),
            execution_checkpointing_data_inline_threshold=0,
            state_backend_type=backend,
            state_backend_rocksdb_localdir=str(local_path / "local"),
            restart_strategy_type="fixed-delay",
            restart_strategy_fixed_delay_delay=0,
            **options,
        )
        numbers = env.from_source(TestSource(SCRIPT), uid="numbers")
        counts = numbers.key_by(lambda value: value).process(Count(), uid="count")
        counts.sink_to(FileSink.json_lines(tmp_path / "out"), uid="sink")
        result = env.execute("counts")

        assert result.restarts == 1
        assert sorted(records(tmp_path / "out")) == sorted([k, n] for k in range(KEYS) for n in (1, 2, 3))
        return [record for record in caplog.records if record.message == "state was read back"]

    return run


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_a_restart_reads_only_the_local_copies(run, local_path, backend):
    restores = run(backend)

    assert len(restores) == 2
    assert all(record.from_local_copies_bytes > 0 for record in restores)
    assert [record.from_store_bytes for record in restores] == [0, 0]
    assert [path.name for path in (local_path / "local").glob("raystream-copies-*")] == []


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_a_restart_reads_the_store_when_it_is_switched_off(run, local_path, backend):
    restores = run(backend, execution_checkpointing_local_backup_enabled=False)

    assert [record.from_local_copies_bytes for record in restores] == [0, 0]
    assert all(record.from_store_bytes > 0 for record in restores)
    assert not list((local_path).glob("*/raystream-copies-*"))


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_copies_that_are_damaged_cost_only_the_time_to_read_the_store(run, local_path, monkeypatch, backend):
    began = LocalCopies.attempt_began

    def damaged(copies, checkpoint_id):
        # A copy that is superfluous by now may go at any time, and its directory: which stops `Path.glob`.
        copied = (Path(parent, name) for parent, _, names in os.walk(local_path) for name in names)
        for path in (path for path in copied if path.match("raystream-copies-*/chk-*/*")):
            with suppress(FileNotFoundError):
                data = path.read_bytes()
                path.unlink()  # It may be a link to a file in use.
                path.write_bytes(data[:-1])
        began(copies, checkpoint_id)

    monkeypatch.setattr(LocalCopies, "attempt_began", damaged)
    restores = run(backend)

    assert [record.from_local_copies_bytes for record in restores] == [0, 0]
    assert all(record.from_store_bytes > 0 for record in restores)


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_copies_of_the_newest_checkpoint_are_all_that_is_kept(run, local_path, monkeypatch, backend):
    """Whatever a slot copies, only what is not complete yet is beside it when the next one is complete."""
    completed, seen = LocalCopies.checkpoint_completed, []

    def looked_at(copies, checkpoint_id):
        completed(copies, checkpoint_id)
        names = [path.name for path in local_path.glob("*/raystream-copies-*/chk-*")]
        seen.append([name for name in names if int(name[4:]) < checkpoint_id])

    monkeypatch.setattr(LocalCopies, "checkpoint_completed", looked_at)
    run(backend)

    assert seen
    assert not any(seen)
