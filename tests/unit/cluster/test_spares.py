"""A spare takes the slot of a process that is lost on its node, with what that had reserved."""

from dataclasses import replace

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from raystream.cluster import starts
from raystream.cluster.drains import DRAIN_POLL_MS
from raystream.cluster.resources import SlotNeeds
from raystream.cluster.spares import SPARE_LOOK_MS, SPARE_PAUSE_MS_MAX
from tests.unit.cluster.placement_world import BEAT, HEARTBEAT, Cluster


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr(starts, "NodeAffinitySchedulingStrategy", lambda node_id, soft: (node_id, soft))
    return Cluster(monkeypatch, spares=1)


def actors(cluster, name="spare"):
    return [actor for actor in cluster.pool._starts._actor_class.actors if actor.name == name]


def answer(cluster, *spares):
    for spare in spares:
        spare.looks[-1].set_result(None)
    cluster.settle()


def with_spare(cluster, slots=(0,)):
    """Return the processes of slots, and the spare beside them."""
    workers = cluster.acquire(*slots)
    cluster.after(SPARE_LOOK_MS)
    (spare,) = actors(cluster)
    answer(cluster, spare)
    return workers, spare


def lose(cluster, worker):
    """Let a process be killed, and all of it be gone, while its slot is acquired again."""
    cluster.after(1_000)
    worker.die()
    cluster.settle()
    slots = [slot for slot, _ in cluster.told]
    cluster.told.clear()
    cluster.pool.acquire(slots)
    worker.die()
    cluster.settle()


def begin(cluster, spare):
    spare.begun[0].set_result(replace(spare.info, slot=0, pid=8))
    cluster.settle()


def test_slot_that_loses_its_process_gets_the_spare_and_what_was_reserved(cluster):
    (worker,), spare = with_spare(cluster)

    lose(cluster, worker)
    begin(cluster, spare)

    assert cluster.told == [0]
    assert [one.pid for one in cluster.pool.workers] == [8]
    assert (actors(cluster, "slot 0"), cluster.reservations.handed_over) == ([worker], [(1, 2)])
    assert cluster.reservations.released == []


def test_one_spare_serves_any_slot_of_its_node_and_another_one_follows_it(cluster):
    (_, second), spare = with_spare(cluster, (0, 1))

    lose(cluster, second)
    begin(cluster, spare)
    cluster.after(SPARE_LOOK_MS)

    assert cluster.told == [1]
    assert len(actors(cluster)) == 2


def test_spares_are_on_every_node_with_slots_reserve_nothing_and_serve_their_own(cluster):
    first, _ = cluster.acquire(0, 1, nodes=["m", "n"])
    cluster.after(SPARE_LOOK_MS)
    on_m, on_n = actors(cluster)
    answer(cluster, on_m, on_n)
    assert [one.options["scheduling_strategy"] for one in (on_m, on_n)] == [("m", False), ("n", False)]
    assert [one.options["num_cpus"] for one in (on_m, on_n)] == [0, 0]

    lose(cluster, first)

    assert (len(on_m.begun), len(on_n.begun)) == (1, 0)


def test_rest_of_the_spares_stays_while_a_slot_has_no_process(monkeypatch, cluster):
    cluster = Cluster(monkeypatch, spares=2)
    (worker,) = cluster.acquire(0)
    cluster.after(SPARE_LOOK_MS)
    answer(cluster, *actors(cluster))
    lose(cluster, worker)
    cluster.after(SPARE_LOOK_MS)

    assert cluster.killed == []
    assert len(actors(cluster)) == 3


def test_spare_that_is_not_there_yet_is_not_waited_for(cluster):
    (worker,) = cluster.acquire(0)
    cluster.after(SPARE_LOOK_MS)

    lose(cluster, worker)

    assert len(actors(cluster, "slot 0")) == 2
    assert cluster.reservations.released == [1]


def test_slot_whose_spare_went_with_the_node_gets_a_new_process_and_the_job_one_loss(cluster):
    (worker,), spare = with_spare(cluster)

    lose(cluster, worker)
    spare.die()
    cluster.settle()
    spare.die()
    cluster.settle()

    assert cluster.told == []
    _, new = actors(cluster, "slot 0")
    new.begun[0].set_result(new.info)
    cluster.settle()
    assert cluster.told == [0]


def test_spare_that_fails_before_its_slot_is_acquired_again_gives_back_what_was_reserved(cluster):
    (worker,), spare = with_spare(cluster)
    cluster.after(1_000)

    worker.heartbeats[-1].set_exception(ActorDiedError())
    cluster.settle()
    spare.die()
    cluster.settle()
    worker.die()
    cluster.settle()
    cluster.pool.acquire([0])
    spare.die()
    cluster.settle()

    assert len(actors(cluster, "slot 0")) == 2
    assert (cluster.reservations.handed_over, cluster.reservations.released[0]) == ([], 1)


def test_heir_that_does_not_answer_is_given_up_and_costs_nothing_more(cluster):
    (worker,), spare = with_spare(cluster)

    lose(cluster, worker)
    assert cluster.pool.waiting_for == ""
    cluster.after(HEARTBEAT.timeout_ms)
    spare.die()
    cluster.settle()

    assert cluster.told == []
    assert len(actors(cluster, "slot 0")) == 2
    assert cluster.reservations.released == [2], "what it was given by the one before"


def test_slot_that_is_given_up_gives_up_the_spare_that_stands_by_for_it(cluster):
    (worker,), spare = with_spare(cluster)
    cluster.after(1_000)
    worker.die()
    cluster.settle()

    cluster.pool.dismiss([0])
    worker.die()
    spare.die()
    cluster.settle()

    assert cluster.pool._standbys == {}
    assert (cluster.reservations.handed_over, sorted(cluster.reservations.released)) == ([], [1, 2])


def test_spare_that_is_lost_is_replaced(cluster):
    _, spare = with_spare(cluster)

    cluster.after(SPARE_LOOK_MS)
    spare.die()
    cluster.settle()
    cluster.after(SPARE_LOOK_MS)

    assert len(actors(cluster)) == 2


def test_node_on_which_spares_die_gets_them_ever_more_seldom(cluster):
    (worker,) = cluster.acquire(0)
    for _ in range(1_000):
        cluster.after(SPARE_LOOK_MS)
        worker.answer(BEAT)
        actors(cluster)[-1].die()
        cluster.settle()

    assert 10 <= len(actors(cluster)) <= 20
    assert cluster.pool._spares._pauses["n"].length_ms == SPARE_PAUSE_MS_MAX


def test_spare_is_asked_once_at_a_time_is_not_taken_in_doubt_and_given_up_when_silent(cluster):
    _, spare = with_spare(cluster)
    for _ in range(3):
        cluster.after(SPARE_LOOK_MS)
    assert len(spare.looks) == 2
    assert cluster.pool._spares.take("n", SlotNeeds(group="default", amounts={})) is None

    cluster.after(HEARTBEAT.timeout_ms)

    assert cluster.killed == [spare]


def test_process_that_can_not_be_reached_leaves_its_slot_to_a_new_one(cluster):
    (worker,), spare = with_spare(cluster)
    cluster.pool.send(0, "command")
    cluster.pool.flush()
    worker.delivered[0].set_exception(ActorUnavailableError("away", None))
    cluster.settle()

    assert [slot for slot, _ in cluster.told] == [0]
    assert spare.begun == []


def test_process_that_falls_silent_leaves_its_slot_to_a_new_one_since_its_node_may_be_away(cluster):
    _, spare = with_spare(cluster)
    cluster.after(1_000)
    cluster.after(30_000)

    assert [slot for slot, _ in cluster.told] == [0]
    assert spare.begun == []


def test_no_spare_stays_on_a_node_that_is_about_to_go(cluster):
    _, spare = with_spare(cluster)

    cluster.draining = {"n": 0}
    cluster.after(DRAIN_POLL_MS)
    cluster.after(SPARE_LOOK_MS)

    assert cluster.killed == [spare]
    assert len(actors(cluster)) == 1


def test_slot_with_a_gpu_or_several_cpus_gets_a_process_of_its_own(cluster):
    cluster.pool._needs = lambda slot: SlotNeeds(group="gpu", amounts={"CPU": 1.0, "GPU": 1.0})
    _, spare = with_spare(cluster)

    many = SlotNeeds(group="default", amounts={"CPU": 4.0})
    assert cluster.pool._spares.take("n", cluster.pool._needs(0)) is None
    assert cluster.pool._spares.take("n", many) is None, "its libraries use one thread"
    assert cluster.pool._spares.take("n", SlotNeeds(group="default", amounts={"CPU": 1.0})) is spare


def test_spares_end_with_the_slots(cluster):
    (worker,), spare = with_spare(cluster)
    released = []

    cluster.pool.release(lambda: released.append(True))
    worker.fall_silent()
    worker.die()
    cluster.settle()
    assert (cluster.killed, released) == ([spare, worker], [])
    worker.die()
    spare.die()
    cluster.settle()

    assert released == [True]
    cluster.after(SPARE_LOOK_MS)
    assert len(actors(cluster)) == 1


def test_no_spare_is_kept_unless_asked_for(monkeypatch):
    cluster = Cluster(monkeypatch)
    cluster.acquire(0)
    cluster.after(SPARE_LOOK_MS)

    assert cluster.created == 1
