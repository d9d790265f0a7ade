"""Slots leave a node that drains: other processes stand by, which the slots have when they are acquired."""

from dataclasses import replace

import pytest
from ray.exceptions import ActorDiedError

from raystream.cluster.drains import DRAIN_POLL_MS
from raystream.cluster.endings import RETIRE_WAIT_MS
from tests.unit.cluster.placement_world import HEARTBEAT, Cluster


@pytest.fixture
def cluster(monkeypatch):
    return Cluster(monkeypatch)


def drain(cluster, **nodes):
    cluster.draining = nodes
    cluster.after(DRAIN_POLL_MS)


def start_standby(cluster, node_id="elsewhere"):
    """Let the process that was made last be there, on some node."""
    standby = cluster.pool._starts._actor_class.actors[-1]
    standby.begun[0].set_result(replace(standby.info, node_id=node_id))
    cluster.settle()
    return standby


def test_slots_leave_a_node_that_drains_when_other_processes_stand_by(cluster):
    cluster.acquire(0)
    drain(cluster, n=0)
    assert (cluster.created, cluster.told) == (2, []), "it has to be there first"
    start_standby(cluster)
    cluster.after(DRAIN_POLL_MS)

    assert cluster.told == [("leave", 0)]
    assert [worker.node_id for worker in cluster.pool.workers] == ["n"], "the slot still works where it was"
    assert cluster.created == 2


def test_slot_that_is_given_up_and_acquired_again_takes_the_process_that_stands_by(cluster):
    (leaving,) = cluster.acquire(0)
    drain(cluster, n=0)
    start_standby(cluster)

    cluster.pool.dismiss([0], again=[0])
    cluster.pool.acquire([0])
    leaving.fall_silent()
    cluster.settle()
    assert cluster.told == [], "something may be left of the one before"
    leaving.die()
    cluster.settle()

    assert cluster.told == [0]
    assert [worker.node_id for worker in cluster.pool.workers] == ["elsewhere"]
    assert (cluster.created, cluster.reservations.released) == (2, [1])
    assert cluster.pool._shortage.look_ms is None, "nothing is missing"


def test_process_stands_by_on_while_its_slot_has_none_however_often_ray_is_asked(cluster):
    (leaving,) = cluster.acquire(0)
    drain(cluster, n=0)
    standby = start_standby(cluster)

    cluster.pool.dismiss([0], again=[0])
    cluster.after(DRAIN_POLL_MS)
    cluster.pool.acquire([0])
    leaving.fall_silent()
    cluster.settle()
    leaving.die()
    cluster.settle()

    assert (cluster.told, cluster.killed, standby.retirements) == ([0], [leaving], [])
    assert [worker.node_id for worker in cluster.pool.workers] == ["elsewhere"]


def test_process_stands_by_no_more_once_its_slot_has_one_that_stays(cluster):
    cluster.acquire(0)
    drain(cluster, n=0)
    standby = start_standby(cluster)

    drain(cluster)

    assert len(standby.retirements) == 1


def test_process_that_stands_by_for_a_slot_that_the_job_has_given_up_for_good_ends(cluster):
    cluster.acquire(0, 1)
    drain(cluster, n=0)
    standbys = cluster.pool._starts._actor_class.actors[2:]

    cluster.pool.dismiss([0, 1], again=[0])
    cluster.settle()

    assert cluster.killed == [standbys[1]], "it has never answered, so that it has nothing to end"


def test_slot_that_dies_before_its_checkpoint_takes_the_process_that_stands_by(cluster):
    (leaving,) = cluster.acquire(0)
    drain(cluster, n=0)
    cluster.after(HEARTBEAT.interval_ms)
    leaving.die()
    cluster.settle()
    assert [slot for slot, _ in cluster.told] == [0]

    cluster.pool.acquire([0])
    leaving.die()
    cluster.settle()
    start_standby(cluster)

    assert cluster.told[1:] == [0]
    assert cluster.created == 2


def test_process_that_stands_by_on_a_node_that_drains_too_is_replaced(cluster):
    cluster.acquire(0)
    drain(cluster, n=0)
    standby = start_standby(cluster, "late")
    drain(cluster, n=0, late=0)
    standby.fall_silent()
    cluster.settle()
    assert (cluster.killed, cluster.told) == ([standby], [])

    standby.die()
    cluster.settle()
    cluster.after(DRAIN_POLL_MS)
    start_standby(cluster)
    cluster.after(DRAIN_POLL_MS)

    assert cluster.told == [("leave", 0)]


def test_process_that_stands_by_and_is_lost_is_replaced_and_costs_no_attempt(cluster):
    cluster.acquire(0)
    drain(cluster, n=0)
    standby = cluster.pool._starts._actor_class.actors[-1]
    standby.begun[0].set_exception(ActorDiedError())
    standby.die()
    cluster.settle()
    assert cluster.told == []

    cluster.after(RETIRE_WAIT_MS)
    standby.die()
    cluster.settle()
    cluster.after(DRAIN_POLL_MS)
    assert cluster.created == 3


def test_process_that_stands_by_and_dies_later_is_replaced_and_costs_no_attempt(cluster):
    cluster.acquire(0)
    drain(cluster, n=0)
    standby = start_standby(cluster)

    cluster.after(HEARTBEAT.interval_ms)
    standby.die()
    cluster.settle()
    standby.die()
    cluster.settle()
    cluster.after(DRAIN_POLL_MS)

    assert [one for one in cluster.told if one != ("leave", 0)] == []
    assert cluster.created == 3


def test_nobody_asks_which_nodes_drain_once_the_slots_are_given_back(cluster):
    cluster.acquire(0)
    asked = []
    cluster.submit = lambda work, done: asked.append(done)
    cluster.after(DRAIN_POLL_MS)
    cluster.pool.release(lambda: None)

    (answered,) = asked
    answered({"n": 0})

    assert cluster.pool._drains.next_ms is None
    assert cluster.created == 1
