"""Slots are packed or spread, by named placement groups that end with the job."""

import pytest
from ray.util.placement_group import placement_group_table

from raystream import JobStatus, SlotSharingGroup
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from tests.ray.conftest import NODE, PATIENCE_S, handle_of, remove_nodes, runs, wait_until
from tests.ray.test_job_master import kill_master

SLOT = SlotSharingGroup("placed", cpus=0, resources={"place": 1})


@pytest.fixture(scope="module")
def two_nodes(ray_cluster):
    nodes = [ray_cluster.add_node(**NODE, resources={"place": 2}) for _ in range(2)]
    ray_cluster.wait_for_nodes()
    yield nodes
    remove_nodes(ray_cluster, nodes)


def groups_of(job_id):
    """Return slot and state of each placement group of a job that is not removed."""
    prefix = f"raystream-{job_id}-"
    groups = [group for group in placement_group_table().values() if group["name"].startswith(prefix)]
    there = [group for group in groups if group["state"] != "REMOVED"]
    return sorted((int(group["name"].removeprefix(prefix).split("-")[0]), group["state"]) for group in there)


@pytest.mark.parametrize(("placement", "nodes"), [("pack", 1), ("spread", 2)])
def test_slots_are_placed_as_configured_in_groups_that_end_with_the_job(
    two_nodes, environment, placement, nodes
):
    env = environment(2, slot_placement=placement)
    source = env.from_source(DatagenSource(lambda index: index, rate=500), slot_sharing_group=SLOT)
    source.key_by(lambda n: n).map(str).sink_to(DiscardSink())
    client = env.submit(placement)
    handle = handle_of(client.job_id)
    wait_until(handle, lambda view: runs(view) and view.last_checkpoint_id)

    assert len({worker.node_id for worker in handle.workers()}) == nodes
    assert groups_of(client.job_id) == [(0, "CREATED"), (1, "CREATED")]
    if placement == "spread":
        kill_master(client.job_id)
        wait_until(handle, lambda view: runs(view) and view.attempt == 2)
        assert groups_of(client.job_id) == [(0, "CREATED"), (1, "CREATED")], "found again by their names"
    client.cancel()

    assert client.wait(PATIENCE_S).status is JobStatus.CANCELED
    assert groups_of(client.job_id) == []
