"""Slots take the room that a cluster has, on all its nodes, and say when there is none."""

import pytest
import ray

from raystream import JobStatus
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from tests.ray.conftest import NODE, PATIENCE_S, handle_of, remove_nodes, runs, wait_until

SECOND_NODE_IP = "127.0.0.2"


@pytest.fixture
def two_nodes(ray_cluster):
    """Put a second node beside the first, with an address of its own."""
    node = ray_cluster.add_node(**NODE, node_ip_address=SECOND_NODE_IP)
    ray_cluster.wait_for_nodes()
    yield ray_cluster
    remove_nodes(ray_cluster, [node])


def test_slots_on_two_nodes_reach_each_other_at_the_nodes_own_addresses(two_nodes, environment):
    env = environment(2, slot_cpus=1)
    source = DatagenSource(lambda index: index, rate=1000)
    env.from_source(source, uid="source").key_by(lambda n: n % 10).map(str).sink_to(DiscardSink())
    client = env.submit("two nodes")
    handle = handle_of(client.job_id)

    wait_until(handle, lambda view: runs(view) and view.last_checkpoint_id)
    workers = handle.workers()
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    client.cancel()

    assert client.wait(PATIENCE_S).status is JobStatus.CANCELED
    assert [worker.node_ip for worker in workers] == [addresses[worker.node_id] for worker in workers]
    assert {worker.node_ip for worker in workers} == {two_nodes.head_node.node_ip_address, SECOND_NODE_IP}


def test_job_that_waits_for_cpus_says_what_is_missing_and_can_be_cancelled(environment):
    env = environment(3, slot_cpus=1)
    env.from_source(DatagenSource(lambda index: index)).sink_to(DiscardSink())
    client = env.submit("too big")

    view = wait_until(handle_of(client.job_id), lambda view: "cluster has" in view.waiting_for)

    assert view.waiting_for == (
        "2 of 3 slots with 1 CPU each: the cluster has 1 CPU on 1 node, room for 1 slot in all; "
        "add nodes, or lower the parallelism or slot.cpus"
    )
    client.cancel()
    assert client.wait(PATIENCE_S).status is JobStatus.CANCELED
