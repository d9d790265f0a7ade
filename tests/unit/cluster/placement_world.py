"""A pool of slots on a cluster that is played by the test, for the tests of the pool."""

from concurrent.futures import Future
from dataclasses import replace

import ray
from ray.exceptions import ActorDiedError

from raystream.cluster import _ray_compat as compat
from raystream.cluster.placement import RaySlotPool
from raystream.cluster.resources import SlotNeeds
from raystream.cluster.vitals import Heartbeat
from raystream.cluster.worker import WorkerInfo
from raystream.config.options import HeartbeatConfig
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
    """An actor; `heartbeats` and `retirements` are the calls that wait for an answer."""

    def __init__(self, name, options):
        self.name, self.options = name, options
        self.begun, self.heartbeats, self.delivered, self.retirements = [], [], [], []
        self.looks = []
        self.ready = FakeMethod(self.looks)
        self.begin = FakeMethod(self.begun)
        self.heartbeat = FakeMethod(self.heartbeats)
        self.deliver = FakeMethod(self.delivered)
        self.retire = FakeMethod(self.retirements)
        slot = int(name.removeprefix("slot ")) if name.startswith("slot ") else None
        self.info = WorkerInfo(slot=slot, node_ip="10.0.0.1", node_id="n", pid=7)

    def answer(self, result):
        _answer(self.heartbeats, result)

    def fall_silent(self):
        _answer(self.retirements, True)

    def die(self):
        """Have Ray say that it is dead."""
        _answer([*self.begun, *self.heartbeats, *self.retirements, *self.looks], ActorDiedError())


def _answer(calls, result):
    for waiting in calls:
        if not waiting.done():
            if isinstance(result, Exception):
                waiting.set_exception(result)
            else:
                waiting.set_result(result)


class FakeClass:
    def __init__(self):
        self.actors = []

    def options(self, **options):
        self.given = options
        return self

    def remote(self, job_id, name, master):
        self.actors.append(FakeActor(name, self.given))
        return self.actors[-1]


class FakeReservations:
    """Has room for everything at once."""

    def __init__(self):
        self.reserved, self.released, self.handed_over = [], [], []
        self.closed = False

    def reserve(self, wanted, used, reserved):
        self.reserved += [one.incarnation for one in wanted]
        reserved({})

    def placed(self):
        return frozenset()

    def release(self, incarnation):
        self.released.append(incarnation)

    def hand_over(self, incarnation, heir):
        self.handed_over.append((incarnation, heir))

    def close(self, closed=lambda: None):
        self.closed = True
        closed()


class Cluster:
    """A pool, the actors it has made, and what the coordinator is told."""

    def __init__(self, monkeypatch, **options):
        self.killed, self.told = [], []
        self.kill_error = None
        monkeypatch.setattr(ray, "kill", self._kill)
        self.clock, self.mailbox = ManualClock(), Mailbox(lambda: None)
        self.reservations, self.draining = FakeReservations(), {}
        monkeypatch.setattr(compat, "draining_nodes", lambda: self.draining)
        self.pool = RaySlotPool(
            job_id="ab" * 16,
            master=None,
            needs=lambda slot: SlotNeeds(group="default", amounts={"CPU": 1.0}),
            reservations=self.reservations,
            **{"spares": 0, **options},
            heartbeat=HEARTBEAT,
            clock=self.clock,
            mailbox=self.mailbox,
            changed=lambda: None,
        )
        self.pool._starts._actor_class = FakeClass()
        self.pool._endings._background = self.pool._drains._background = self
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

    def slots_leave(self, slots):
        self.told.append(("leave", *slots))

    def acquire(self, *slots, nodes=()):
        """Start slots, on the node `n` or on these, and return their actors."""
        self.pool.acquire(slots)
        actors = self.pool._starts._actor_class.actors[-len(slots) :]
        for actor, node_id in zip(actors, nodes or ["n"] * len(slots), strict=True):
            actor.info = replace(actor.info, node_id=node_id)
            actor.begun[0].set_result(actor.info)
        self.settle()
        self.told.clear()
        return actors

    @property
    def created(self):
        return len(self.pool._starts._actor_class.actors)

    def settle(self):
        while self.mailbox.run_pending():
            pass

    def after(self, ms):
        self.clock.now_ms += ms
        self.pool.step()
        self.settle()
