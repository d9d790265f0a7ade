"""The local disk of RocksDB state: full for a while, and shared with others that live or have died."""

import logging
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from raystream import JobStatus, KeyedProcessFunction, MapFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.files import FileSink
from raystream.state.rocksdb_directory import StoreDirectory
from raystream.testing import Barrier, TestSource
from tests.published import records, tuples

DISK = "6m"
VALUE_CHARACTERS = 20_000
KEYS = 600


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs root and the right to mount")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


class Fill(KeyedProcessFunction):
    """Keeps a large value for each key; in attempt 2 the disk has been given more room."""

    def __init__(self, disk):
        self.disk = disk

    def open(self, ctx):
        if ctx.attempt == 2:
            subprocess.run(["mount", "-o", "remount,size=200m", str(self.disk)], check=True)
        self.text = ctx.get_state(ValueStateDescriptor("text", str))

    def process_element(self, key, ctx):
        before = self.text.value()
        self.text.update(random.Random(key).randbytes(VALUE_CHARACTERS // 2).hex())  # Hardly compresses.
        yield key, 0 if before is None else len(before)


def test_full_disk_fails_the_attempt_with_its_path_and_the_job_recovers_with_the_space(
    tmp_path, small_disk, caplog
):
    keys = range(KEYS)
    env = StreamEnvironment(
        runner="local",
        parallelism=2,
        execution_checkpointing_dir=str(tmp_path / "checkpoints"),
        execution_checkpointing_interval="20ms",
        execution_checkpointing_min_pause="0ms",
        state_backend_type="rocksdb",
        state_backend_rocksdb_localdir=str(small_disk / "local"),
        state_backend_rocksdb_memory_managed_size="1mb",
        state_backend_rocksdb_cache_size="0b",
        restart_strategy_type="fixed-delay",
        restart_strategy_fixed_delay_attempts=3,
        restart_strategy_fixed_delay_delay="1ms",
    )
    source = TestSource([*keys[:50], Barrier(), *keys[50:], Barrier(), *keys])
    filled = env.from_source(source, uid="keys").key_by(lambda key: key).process(Fill(small_disk), uid="fill")
    filled.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="out")

    with caplog.at_level(logging.WARNING, logger="raystream"):
        result = env.execute("fill")

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 1)
    assert str(small_disk / "local") in caplog.text
    expected = [*((key, 0) for key in keys), *((key, VALUE_CHARACTERS) for key in keys)]
    assert Counter(map(tuples, records(tmp_path / "out"))) == Counter(expected)
    assert list((small_disk / "local").iterdir()) == []


# ---- neighbours ----


LIVES_ON = """
import sys
from pathlib import Path
from raystream.state.rocksdb_directory import StoreDirectory
made = StoreDirectory(Path(sys.argv[1]))
(made.path / "file").touch()
print(made.path, flush=True)
sys.stdin.read()
"""


def test_jobs_of_two_processes_share_a_directory_and_what_a_dead_one_left_is_removed(local_path):
    with subprocess.Popen(
        [sys.executable, "-c", LIVES_ON, str(local_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        theirs = Path(other.stdout.readline().strip())
        first, ours = run_beside(local_path)
        assert first == {theirs, *ours}, "a process that lives keeps its own"
        assert (theirs / "file").exists()
        other.kill()
    assert theirs.exists(), "nobody was there to remove it"

    second, ours = run_beside(local_path)

    assert second == ours
    assert list(local_path.iterdir()) == []


def run_beside(parent):
    """Make directories as a job does; return those that are there meanwhile, and which of them are ours."""
    made = [StoreDirectory(parent) for _ in range(2)]
    there = {path for path in parent.iterdir() if path.is_dir()}
    for directory in made:
        directory.remove()
    return there, {directory.path for directory in made}


class Hits(MapFunction):
    """Counts the records of each key."""

    def open(self, ctx):
        self.hits = ctx.get_state(ValueStateDescriptor("hits", int, default=0))

    def map(self, key):
        self.hits.update(self.hits.value() + 1)
        return key, self.hits.value()


@pytest.mark.parametrize("backends", [("rocksdb", "rocksdb"), ("rocksdb", "hashmap")], ids="-".join)
def test_two_jobs_on_one_node_do_not_see_each_other(tmp_path, local_path, backends):
    handles = []
    for number, backend in enumerate(backends):
        env = StreamEnvironment(
            runner="local",
            parallelism=2,
            execution_checkpointing_dir=str(tmp_path / f"checkpoints {number}"),
            execution_checkpointing_interval="20ms",
            state_backend_type=backend,
            state_backend_rocksdb_localdir=str(local_path),
            state_backend_rocksdb_cache_size="0b",
        )
        source = TestSource([*range(100), Barrier(), *range(100)], [*range(100), Barrier(), *range(number)])
        counted = env.from_source(source, uid="keys").key_by(lambda key: key).map(Hits(), uid="hits")
        counted.sink_to(FileSink.json_lines(str(tmp_path / f"out {number}")), uid="out")
        handles.append(env.submit(f"job {number}"))

    assert [handle.wait(60).status for handle in handles] == [JobStatus.FINISHED] * 2

    for number in range(2):
        hits = Counter(map(tuples, records(tmp_path / f"out {number}")))
        assert hits == Counter((key, hit) for key in range(100) for hit in range(1, 4 + (key < number)))
    assert list(local_path.iterdir()) == []
