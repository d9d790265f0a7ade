"""Slots on a cluster that is played by the test: who is lost, and when nothing is left."""

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from raystream.cluster.endings import KILL_GRACE_MS, KILL_RETRY_MS, RETIRE_WAIT_MS
from raystream.cluster.vitals import LoopWatch
from raystream.errors import SlotLostError
from tests.unit.cluster.placement_world import BEAT, HEARTBEAT, Cluster


@pytest.fixture
def cluster(monkeypatch):
    return Cluster(monkeypatch)


def test_killed_slot_is_lost_when_its_process_is_dead(cluster):
    (actor,) = cluster.acquire(0)
    cluster.pool.kill(0)
    actor.fall_silent()
    cluster.settle()
    assert (cluster.killed, cluster.told) == ([actor], [])

    actor.die()
    cluster.settle()

    ((slot, error),) = cluster.told
    assert slot == 0
    assert isinstance(error, SlotLostError)


def test_killed_slot_that_did_not_fall_silent_is_lost_only_after_a_grace(cluster):
    """Its heartbeat fails too, because it was killed: that says nothing new."""
    (actor,) = cluster.acquire(0)
    cluster.after(HEARTBEAT.interval_ms)
    cluster.pool.kill(0)
    cluster.after(RETIRE_WAIT_MS)
    assert cluster.killed == [actor]

    actor.die()
    cluster.settle()
    cluster.after(KILL_GRACE_MS - 1)
    assert cluster.told == []
    cluster.after(1)

    assert [slot for slot, _ in cluster.told] == [0]


@pytest.mark.parametrize("answer", [BEAT, ActorUnavailableError("away", None)])
def test_slot_that_answers_though_it_was_killed_is_killed_again(cluster, answer):
    (actor,) = cluster.acquire(0)
    cluster.pool.kill(0)
    actor.fall_silent()
    cluster.settle()
    actor.answer(answer)
    cluster.settle()
    assert cluster.told == []

    cluster.after(KILL_RETRY_MS)

    assert cluster.killed == [actor, actor]


def test_slot_whose_kill_fails_is_not_lost_and_killed_again(cluster):
    (actor,) = cluster.acquire(0)
    cluster.kill_error = OSError("Ray's head is away")
    cluster.pool.kill(0)
    actor.fall_silent()
    cluster.settle()
    assert cluster.told == []

    cluster.kill_error = None
    cluster.after(KILL_RETRY_MS)
    actor.die()
    cluster.settle()

    assert [slot for slot, _ in cluster.told] == [0]


def test_silent_slot_is_given_up_at_once_and_killed_until_it_is_dead(cluster):
    (actor,) = cluster.acquire(0)
    cluster.after(HEARTBEAT.interval_ms)
    cluster.after(HEARTBEAT.timeout_ms)
    assert [slot for slot, _ in cluster.told] == [0]

    cluster.after(RETIRE_WAIT_MS)
    cluster.after(KILL_RETRY_MS)
    assert cluster.killed == [actor, actor]


def test_slot_in_a_user_call_of_a_minute_is_not_taken_for_dead_and_its_stack_is_logged(cluster, caplog):
    (actor,) = cluster.acquire(0)
    watch = LoopWatch(
        cluster.clock, rounds=lambda: 7, waiting=lambda: False, stack=lambda: "in user_function"
    )
    while cluster.clock.now_ms < 60_000:
        cluster.after(HEARTBEAT.interval_ms)
        actor.answer(watch.heartbeat())
        cluster.settle()

    assert HEARTBEAT.timeout_ms < 60_000
    assert (cluster.told, cluster.killed) == ([], [])
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["loop of a slot is held up, in\nin user_function"]


def test_silent_slot_gets_another_process_only_when_nothing_is_left_of_the_one_before(cluster):
    (actor,) = cluster.acquire(0)
    cluster.after(HEARTBEAT.interval_ms)
    cluster.after(HEARTBEAT.timeout_ms)
    cluster.pool.acquire([0])
    cluster.pool.acquire([0])
    cluster.after(RETIRE_WAIT_MS)
    actor.die()
    cluster.settle()
    cluster.after(KILL_GRACE_MS - 1)
    assert cluster.created == 1

    cluster.after(1)

    assert cluster.created == 2


def test_slot_whose_process_has_died_gets_another_one_at_once(cluster):
    (actor,) = cluster.acquire(0)
    cluster.after(HEARTBEAT.interval_ms)
    actor.answer(ActorDiedError())
    cluster.settle()
    assert [slot for slot, _ in cluster.told] == [0]
    cluster.pool.acquire([0])
    assert cluster.created == 1

    actor.die()
    cluster.settle()

    assert (cluster.created, cluster.killed) == (2, [])


def test_dismissed_slot_is_ended_without_a_word_and_has_another_process_only_behind_that(cluster):
    kept, dismissed = cluster.acquire(0, 1)

    cluster.pool.dismiss([1, 2])
    cluster.pool.acquire([1])
    dismissed.fall_silent()
    cluster.settle()
    assert cluster.created == 2
    dismissed.die()
    cluster.settle()

    assert cluster.created == 3
    assert [worker.slot for worker in cluster.pool.workers] == [0]
    assert cluster.told == []
    assert cluster.killed == [dismissed]
    assert not kept.retirements


def test_dismissed_slot_that_has_not_started_yet_is_not_waited_for(cluster):
    cluster.acquire(0)
    cluster.pool.acquire([1])
    cluster.pool._shortage.text = "1 of 2 slots"

    cluster.pool.dismiss([1])

    assert cluster.pool.waiting_for == ""
    assert not cluster.pool.takes(1, 2, 1)


def test_slot_that_has_never_answered_is_released_without_a_grace(cluster):
    cluster.pool.acquire([0])
    (actor,) = cluster.pool._starts._actor_class.actors
    cluster.pool.release(lambda: cluster.told.append("released"))
    cluster.settle()
    assert (cluster.killed, actor.retirements, cluster.told) == ([actor], [], [])

    actor.die()
    cluster.settle()

    assert cluster.told == ["released"]


def test_slots_are_released_when_nothing_is_left_of_all_also_of_those_given_up_before(cluster):
    silent, other = cluster.acquire(0, 1)
    for _ in range(2):
        cluster.after(HEARTBEAT.interval_ms)
        other.answer(BEAT)
        cluster.settle()
    cluster.after(HEARTBEAT.timeout_ms - HEARTBEAT.interval_ms)
    assert [slot for slot, _ in cluster.told] == [0]
    cluster.told.clear()

    cluster.pool.release(lambda: cluster.told.append("released"))
    other.fall_silent()
    cluster.settle()
    other.die()
    cluster.settle()
    cluster.after(RETIRE_WAIT_MS)
    silent.die()
    cluster.settle()
    assert cluster.told == []

    cluster.after(KILL_GRACE_MS)
    assert cluster.told == ["released"]


def test_processes_under_a_new_job_master_start_at_once_and_work_after_the_grace_of_those_before(monkeypatch):
    cluster = Cluster(monkeypatch, inherits=True)
    cluster.pool.acquire((0, 1))
    first, second = cluster.pool._starts._actor_class.actors
    first.begun[0].set_result(first.info)
    cluster.after(KILL_GRACE_MS - 1)
    assert cluster.told == []

    cluster.after(1)
    assert cluster.told == [0]

    second.begun[0].set_result(second.info)
    cluster.settle()
    assert cluster.told == [0, 1]


def test_files_of_a_job_under_a_new_job_master_stay_until_the_grace_of_its_processes_is_over(monkeypatch):
    cluster = Cluster(monkeypatch, inherits=True)
    cluster.pool.release(lambda: cluster.told.append("released"))
    cluster.after(KILL_GRACE_MS - 1)
    assert cluster.told == []

    cluster.after(1)

    assert cluster.told == ["released"]


def test_reports_of_processes_under_another_job_master_do_not_count(monkeypatch):
    cluster = Cluster(monkeypatch, first_incarnation=1 << 32)
    cluster.acquire(0)

    assert not cluster.pool.takes(0, 1, 1)
    assert cluster.pool.takes(0, (1 << 32) + 1, 1)


def test_process_whose_room_comes_when_nobody_wants_it_any_more_gives_it_back(cluster):
    answers = []
    cluster.reservations.reserve = lambda wanted, used, reserved: answers.append(reserved)
    cluster.pool.acquire([0])
    cluster.pool.dismiss([0])

    answers[0]({1: "group"})

    assert (cluster.created, cluster.reservations.released) == (0, [1])


def test_slot_for_which_no_room_can_be_asked_for_is_lost(cluster):
    cluster.reservations.reserve = lambda wanted, used, reserved: reserved(OSError("head is away"))
    cluster.pool.acquire([0])

    ((slot, error),) = cluster.told
    assert (slot, error.context["cause"]) == (0, "head is away")
