"""A node that dies while the slots restore costs another restart, on the nodes that are left."""

import os
import signal
from pathlib import Path
from threading import Event

import pytest

from raystream import JobStatus, KeyedProcessFunction, ValueStateDescriptor
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink
from tests.published import counts_by_key, one_to_n
from tests.ray.conftest import NODE, PATIENCE_S, handle_of, remove_nodes, wait_until
from tests.running_job import until

COUNT, KEYS = 6_000, 100


class CountHeldUpInRestore(KeyedProcessFunction):
    """Counts; in its second attempt it is not open before it may be."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks

    def open(self, ctx):
        self.count = ctx.get_state(ValueStateDescriptor("count", int, default=0))
        if ctx.attempt == 2:
            (self.marks / f"restores-{ctx.subtask_index}").touch()
            while not (self.marks / "go-on").exists():
                Event().wait(0.05)

    def process_element(self, value, ctx):
        self.count.update(self.count.value() + 1)
        yield ctx.current_key, self.count.value()


@pytest.fixture
def more_nodes(ray_cluster):
    """Put two nodes beside the first when a test wants them, and take away what is left of them."""
    nodes = []

    def add():
        nodes.extend(ray_cluster.add_node(**NODE) for _ in range(2))
        return nodes

    yield add
    remove_nodes(ray_cluster, nodes)


def test_node_that_dies_while_the_slots_restore_costs_no_record(
    ray_cluster, more_nodes, environment, tmp_path
):
    env = environment(2, slot_cpus=1)
    source = DatagenSource(lambda index: index, rate=1_000, count=COUNT)
    counts = env.from_source(source, uid="numbers").key_by(lambda n: n % KEYS)
    counts.process(CountHeldUpInRestore(tmp_path), uid="count").sink_to(
        FileSink.json_lines(tmp_path / "out"), uid="out"
    )
    client = env.submit("node lost in restore")  # Its master is on the first node, where no other one is yet.
    nodes = more_nodes()
    handle = handle_of(client.job_id)
    wait_until(handle, lambda view: view.last_checkpoint_id)

    os.kill(handle.workers()[0].pid, signal.SIGKILL)
    until(client, lambda: len([*tmp_path.glob("restores-*")]) >= 2)
    used = {worker.node_id for worker in handle.workers()}
    lost = next(node for node in nodes if node.node_id in used)
    ray_cluster.remove_node(lost, allow_graceful=False)
    (tmp_path / "go-on").touch()
    result = client.wait(PATIENCE_S)

    assert result.status is JobStatus.FINISHED
    assert result.restarts >= 2
    assert counts_by_key(tmp_path / "out") == one_to_n(i % KEYS for i in range(COUNT))
