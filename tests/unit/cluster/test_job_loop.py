"""The thread of a job master passes everything on, wakes for deadlines, and owns up to a bug of ours."""

import asyncio
import random
from threading import Event

import pytest

from raystream.api.runner import CancelRequest
from raystream.clock import SystemClock
from raystream.cluster.job_loop import JobLoop
from raystream.cluster.publication import Seen
from raystream.config.load import load_config
from raystream.errors import SlotLostError
from raystream.ids import JobId, JobStatus
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_services import CoordinatorServices, JobSubmission
from raystream.runtime.coordinator_storage import open_storage
from raystream.runtime.thread_pools import CoordinatorThreads
from tests.unit.runtime.coordinator_world import FakeSource, make_plan

PATIENCE_S = 60.0
JOB_ID = JobId("0123456789abcdef" * 2)


class FakePool:
    """Slots that do what a test says; a deadline that is due once, after everything was sent."""

    def __init__(self) -> None:
        self.waiting_for = ""
        self.workers = ()
        self.loop = None
        self.flushed = Event()
        self.sent, self.released = [], False
        self.fault = None
        self.due_ms = None

    def acquire(self, slots):
        if self.fault is not None:
            raise self.fault
        self.waiting_for = "2 of 2 slots"
        self.loop.touch()

    def send(self, slot, command):
        self.sent.append((slot, command))

    def kill(self, slot):
        raise AssertionError("nothing is killed here")

    def release(self, released):
        self.released = True
        released()

    def takes(self, slot, incarnation, batch):
        return incarnation == 1

    def step(self):
        pass

    def flush(self):
        if self.sent:
            self.flushed.set()

    def next_deadline_ms(self):
        return self.due_ms


@pytest.fixture
def started():
    """Start a job of two slots on a pool, and return pool, loop, coordinator and the event of its end."""

    def start(pool: FakePool, **options):
        ended = Event()
        clock = SystemClock()
        loop = pool.loop = JobLoop(clock, ended.set)
        config = load_config({})
        threads = CoordinatorThreads(loop.mailbox)
        services = CoordinatorServices(
            submission=JobSubmission(
                job_id=JOB_ID, name="job", plan=make_plan(FakeSource()), config=config, program=b""
            ),
            storage=open_storage(JOB_ID, config),
            slots=pool,
            clock=clock,
            background=threads.metadata,
            log=threads.log,
            discovery=threads.discovery,
            deletion=threads.deletion,
            rng=random.Random(0),
            **options,
        )
        coordinator = loop.prepare(services, pool)
        loop.start()
        return loop, coordinator, ended

    return start


def first(loop: JobLoop, condition):
    """Return the first published view that fulfils a condition."""

    async def watch():
        seen = Seen(0, None)
        while True:
            update = await loop.publication.update(seen, PATIENCE_S)
            assert update.seen != seen, "no news in time"
            if condition(update.view):
                return update.view
            seen = update.seen

    return asyncio.run(watch())


def test_job_goes_from_its_slots_to_its_end(started):
    pool = FakePool()
    loop, coordinator, ended = started(pool)
    assert first(loop, lambda view: view.waiting_for).waiting_for == "2 of 2 slots"

    pool.waiting_for = ""
    for slot in (0, 1):
        loop.mailbox.post(lambda slot=slot: coordinator.slot_acquired(slot))
    assert pool.flushed.wait(PATIENCE_S)
    assert [type(command) for _, command in pool.sent] == [msg.Deploy, msg.Deploy]
    loop.reported(0, 0, 1, [msg.SlotFailed(attempt=1, slot=0, error=SlotLostError("of a former process"))])
    for slot in (0, 1):
        loop.reported(slot, 1, 1, [msg.SlotDeployed(attempt=1, slot=slot, address="a")])
    for slot in (0, 1):
        loop.reported(slot, 1, 2, [msg.SlotReady(attempt=1, slot=slot)])
    assert first(loop, lambda view: view.status is JobStatus.RUNNING).waiting_for == ""

    loop.requested(CancelRequest("c"))
    for slot in (0, 1):
        loop.reported(slot, 1, 3, [msg.SlotStopped(attempt=1, slot=slot)])
    view = first(loop, lambda view: view.status.terminal)

    assert (view.status, view.error, pool.released) == (JobStatus.CANCELED, None, True)
    assert view.outcome("c").error is None
    assert ended.wait(PATIENCE_S)


def test_job_of_an_earlier_master_is_restarting_and_never_shown_as_new(started):
    loop, _, _ = started(FakePool(), inherits=True)

    assert loop.publication.view.status is JobStatus.RESTARTING
    assert first(loop, lambda view: view.waiting_for).status is JobStatus.RESTARTING
    assert not loop.publication.view.recovering


def test_clients_are_answered_after_the_end(started):
    loop, _, ended = started(FakePool())
    loop.requested(CancelRequest("first"))
    assert ended.wait(PATIENCE_S)

    loop.requested(CancelRequest("second"))

    assert first(loop, lambda view: view.outcome("second")).status is JobStatus.CANCELED


@pytest.mark.parametrize("bug", [AssertionError, SystemExit])
def test_bug_in_the_job_master_fails_the_job_and_gives_the_slots_back(started, bug):
    pool = FakePool()
    pool.fault = bug("an invariant is broken")
    loop, _, ended = started(pool)

    view = first(loop, lambda view: view.status.terminal)

    assert (view.status, view.error.message) == (JobStatus.FAILED, "job master failed")
    assert "an invariant is broken" in view.error.context["cause"]
    assert pool.released
    assert ended.wait(PATIENCE_S)


class SlowPool(FakePool):
    """Slots of which something is left for some time after their release."""

    steps_left = 3

    def __init__(self):
        super().__init__()
        self.gone = Event()

    def release(self, released):
        self.loop.mailbox.post(lambda: 1 / 0)
        self.released, self.due_ms = released, 0.0

    def step(self):
        if self.released:
            self.steps_left -= 1
            self.loop.mailbox.post(self.answered)

    def answered(self):
        if not self.steps_left:
            self.released()
            self.gone.set()


def test_slots_are_seen_to_their_end_after_a_bug_in_the_job_master(started):
    pool = SlowPool()
    pool.fault = AssertionError("an invariant is broken")
    started(pool)

    assert pool.gone.wait(PATIENCE_S), "each is asked to end, then killed, by calls that the loop makes"
