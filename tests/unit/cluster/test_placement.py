"""Slots on a cluster that is played by the test: who is lost, and when nothing is left."""

from concurrent.futures import Future

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError

from raystream.cluster.endings import KILL_RETRY_MS
from raystream.cluster.placement import RaySlotPool
from raystream.cluster.vitals import Heartbeat
from raystream.cluster.worker import WorkerInfo
from raystream.config.options import HeartbeatConfig
from raystream.errors import SlotLostError
from raystream.runtime.mailbox import Mailbox
from raystream.testing.source_run import ManualClock

HEARTBEAT = HeartbeatConfig()
BEAT = Heartbeat(rounds=1, held_ms=0.0, stack="", memory_bytes=0)


class FakeRef:
    """The answer to a call; None until the test gives one."""

    def __init__(self, answers):
        self._answer = Future()
        answers.append(self._answer)

    def future(self):
        return self._answer


class FakeMethod:
    def __init__(self, answers):
        self.answers = answers

    def remote(self, *arguments):
        return FakeRef(self.answers)


class FakeActor:
    """An actor; `heartbeats` are the calls that wait for an answer."""

    def __init__(self, slot):
        self.described, self.heartbeats, self.delivered = [], [], []
        self.describe = FakeMethod(self.described)
        self.heartbeat = FakeMethod(self.heartbeats)
        self.deliver = FakeMethod(self.delivered)
        self.info = WorkerInfo(slot=slot, node_ip="10.0.0.1", node_id="n", pid=7)

    def answer(self, result):
        for waiting in self.heartbeats:
            if not waiting.done():
                if isinstance(result, Exception):
                    waiting.set_exception(result)
                else:
                    waiting.set_result(result)


class FakeClass:
    def __init__(self):
        self.actors = []

    def options(self, **_):
        return self

    def remote(self, job_id, slot, incarnation, master):
        self.actors.append(FakeActor(slot))
        return self.actors[-1]


class Cluster:
    """A pool, the actors it has made, and what the coordinator is told."""

    def __init__(self, monkeypatch):
        self.killed, self.told = [], []
        self.kill_error = None
        monkeypatch.setattr(ray, "kill", self._kill)
        self.clock, self.mailbox = ManualClock(), Mailbox(lambda: None)
        self.pool = RaySlotPool(
            job_id="ab" * 16,
            master=None,
            cpus=1.0,
            heartbeat=HEARTBEAT,
            clock=self.clock,
            mailbox=self.mailbox,
            changed=lambda: None,
        )
        self.pool._actor_class = FakeClass()
        self.pool._endings._background = self
        self.pool.attach(self)

    def submit(self, work, done):
        try:
            done(work())
        except OSError as error:
            done(error)

    def _kill(self, actor):
        self.killed.append(actor)
        if self.kill_error is not None:
            raise self.kill_error

    def slot_acquired(self, slot):
        self.told.append(slot)

    def slot_lost(self, slot, error):
        self.told.append((slot, error))

    def acquire(self, *slots):
        self.pool.acquire(slots)
        actors = self.pool._actor_class.actors[-len(slots) :]
        for actor in actors:
            actor.described[0].set_result(actor.info)
        self.settle()
        self.told.clear()
        return actors

    def settle(self):
        while self.mailbox.run_pending():
            pass

    def after(self, ms):
        self.clock.now_ms += ms
        self.pool.step()
        self.settle()


@pytest.fixture
def cluster(monkeypatch):
    return Cluster(monkeypatch)


def test_killed_slot_is_lost_when_its_process_is_dead(cluster):
    (actor,) = cluster.acquire(0)
    cluster.pool.kill(0)
    cluster.settle()
    assert (cluster.killed, cluster.told) == ([actor], [])

    actor.answer(ActorDiedError())
    cluster.settle()

    ((slot, error),) = cluster.told
    assert slot == 0
    assert isinstance(error, SlotLostError)


@pytest.mark.parametrize("answer", [BEAT, ActorUnavailableError("away", None)])
def test_slot_that_answers_though_it_was_killed_is_killed_again(cluster, answer):
    (actor,) = cluster.acquire(0)
    cluster.pool.kill(0)
    actor.answer(answer)
    cluster.settle()
    assert cluster.told == []

    cluster.after(KILL_RETRY_MS)

    assert cluster.killed == [actor, actor]


def test_slot_whose_kill_fails_is_not_lost_and_killed_again(cluster):
    (actor,) = cluster.acquire(0)
    cluster.kill_error = OSError("Ray's head is away")
    cluster.pool.kill(0)
    cluster.settle()
    assert cluster.told == []

    cluster.kill_error = None
    cluster.after(KILL_RETRY_MS)
    actor.answer(ActorDiedError())
    cluster.settle()

    assert [slot for slot, _ in cluster.told] == [0]


def test_silent_slot_is_given_up_at_once_and_killed_until_it_is_dead(cluster):
    (actor,) = cluster.acquire(0)
    cluster.after(HEARTBEAT.interval_ms)
    cluster.after(HEARTBEAT.timeout_ms)
    assert [slot for slot, _ in cluster.told] == [0]

    cluster.after(KILL_RETRY_MS)
    assert cluster.killed == [actor, actor]


def test_slots_are_released_when_all_processes_are_dead_also_those_given_up_before(cluster):
    silent, other = cluster.acquire(0, 1)
    for _ in range(2):
        cluster.after(HEARTBEAT.interval_ms)
        other.answer(BEAT)
        cluster.settle()
    cluster.after(HEARTBEAT.timeout_ms - HEARTBEAT.interval_ms)
    assert [slot for slot, _ in cluster.told] == [0]
    cluster.told.clear()

    cluster.pool.release(lambda: cluster.told.append("released"))
    other.answer(ActorDiedError())
    cluster.settle()
    assert cluster.told == []

    silent.answer(ActorDiedError())
    cluster.settle()
    assert cluster.told == ["released"]
