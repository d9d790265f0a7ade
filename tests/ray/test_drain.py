"""A node that gets SIGTERM is left by its slots: a checkpoint, other processes, and nothing lost."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from raystream import JobStatus, KeyedProcessFunction, SlotSharingGroup, ValueStateDescriptor
from raystream.connectors.datagen import SPLITS, DatagenSource
from raystream.connectors.files import FileSink
from raystream.storage.log_entries import AttemptStarted
from tests.checkpointing import ON_REQUEST
from tests.published import records
from tests.ray.conftest import NODE, completed, handle_of, remove_nodes, runs, wait_until
from tests.ray.test_job_master import entries_of

KEYS = 100
GRACE_S = 300
SPOT = {"spot": 2}


class Count(KeyedProcessFunction):
    def open(self, ctx):
        self.count = ctx.get_state(ValueStateDescriptor("count", int, default=0))

    def process_element(self, value, ctx):
        self.count.update(self.count.value() + 1)
        yield ctx.current_key, self.count.value(), value


def assert_counted_exactly_once(directory):
    """Check that every split was read without a gap, and every key counted without one."""
    rows = records(directory)
    numbers = sorted(number for _, _, number in rows)
    assert len(numbers) > SPLITS
    read = Counter(number % SPLITS for number in numbers)
    assert numbers == sorted(split + SPLITS * i for split, n in read.items() for i in range(n))
    of_keys = Counter(number % KEYS for number in numbers)
    counts = sorted((key, count) for key, count, _ in rows)
    assert counts == sorted((key, 1 + i) for key, n in of_keys.items() for i in range(n))


@pytest.fixture
def spot_node(ray_cluster):
    """Start a node as `ray start` does, in a process of its own, and end what is left of it."""
    process = subprocess.Popen(
        [
            Path(sys.executable).parent / "ray", "start", "--block",
            f"--address={ray_cluster.address}", "--num-cpus=1", '--resources={"spot": 2}',
            f"--object-store-memory={NODE['object_store_memory']}", "--disable-usage-stats",
        ],
        env={**os.environ, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(GRACE_S)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def other_node(ray_cluster):
    """Put another such node beside it when a test wants it."""
    nodes = []

    def add():
        nodes.append(ray_cluster.add_node(**NODE, resources=SPOT))
        return nodes[0].node_id

    yield add
    remove_nodes(ray_cluster, nodes)


def test_sigterm_to_a_node_with_slots_leads_to_a_checkpoint_a_move_and_no_loss(
    environment, tmp_path, request, other_node
):
    group = SlotSharingGroup("spot", cpus=0, resources={"spot": 1})
    env = environment(2, **ON_REQUEST)
    source = DatagenSource(lambda index: index, rate=500)
    numbers = env.from_source(source, uid="numbers", slot_sharing_group=group)
    numbers.key_by(lambda n: n % KEYS).process(Count(), uid="count").sink_to(
        FileSink.json_lines(tmp_path / "out"), uid="out"
    )
    client = env.submit("node drains")  # Its master is on the first node, where no other one is yet.
    handle = handle_of(client.job_id)
    first = request.getfixturevalue("spot_node")
    wait_until(handle, runs)
    left = {worker.node_id for worker in handle.workers()}

    os.kill(first.pid, signal.SIGTERM)
    view = wait_until(handle, lambda view: "spot" in view.waiting_for)
    assert (view.status, completed(view)) == (JobStatus.RUNNING, 0), "without another place it runs on"
    other = other_node()
    wait_until(handle, lambda view: runs(view) and view.attempt == 2)
    moved = {worker.node_id for worker in handle.workers()}
    first.wait(GRACE_S)  # Long before it is ended by force: nothing runs there any more.
    client.stop(str(tmp_path / "savepoints"))
    client.wait()

    assert (len(left), moved) == (1, {other})
    assert_counted_exactly_once(tmp_path / "out")
    move = handle.view().checkpoints[0]
    assert (move.purpose, move.status) == ("rescale", "completed")
    started = [entry for entry in entries_of(tmp_path, client.job_id) if isinstance(entry, AttemptStarted)]
    assert [entry.restored_checkpoint for entry in started] == [None, move.checkpoint_id]
