"""Whatever happens in whatever order, a job has one end, and never two attempts at once."""

import random

import pytest

from raystream.errors import StorageError
from raystream.ids import JobStatus
from raystream.protocol import job_commands as cmd
from raystream.protocol.checkpoint_requests import Purpose
from tests.unit.protocol.job_driver import CRASH, ECHO, HOPELESS, LOST, SLOTS, SUBTASKS, JobDriver

STEPS = 400


class World:
    """Slots, log and storage that answer at random moments, in any order, or fail."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.job = JobDriver(restarts=self.rng.randint(0, 4))
        self.answers = []  # Calls that answer a command, still to come.
        self.held, self.acquiring, self.deployed = set(), set(), set()
        self.settled, self.attempts = True, []
        self.started, self.ended_by = [], []
        self.logged_ends, self.asked, self.resolved = 0, set(), []

    def take(self, commands):
        for command in commands:
            self.execute(command)

    def answer(self, call):
        self.answers.append(call)

    def execute(self, command):  # noqa: C901 - one arm for each command
        assert self.job.status not in ("FAILED", "CANCELED", "FINISHED") or isinstance(
            command, cmd.ResolveCancel | cmd.TakeStopSavepoint
        ), "an ended job does nothing"
        match command:
            case cmd.PrepareAttempt(attempt):
                assert not self.deployed, "an older attempt still runs in a slot"
                assert self.settled
                assert attempt == len(self.attempts) + 1
                self.attempts.append(attempt)
                self.answer(lambda: self.prepared(attempt))
            case cmd.LogAttempt(attempt):
                self.answer(lambda: self.take(self.job.attempt_logged(attempt)))
            case cmd.AcquireSlots(slots):
                assert not self.held & set(slots)
                assert not self.acquiring & set(slots)
                self.acquiring |= set(slots)
                for slot in slots:
                    self.answer(lambda slot=slot: self.acquired(slot))
            case cmd.DeploySlots(attempt, slots):
                self.deploy(attempt, slots)
            case cmd.ConnectSlots(attempt, addresses):
                assert set(addresses) == set(SLOTS)
                for slot in addresses:
                    self.answer(
                        lambda slot=slot: self.report(attempt, self.job.slot_ready, self.job.now_ms, slot)
                    )
            case cmd.StartSlots(attempt):
                self.started.append(attempt)
            case cmd.StopSlots(attempt, slots):
                assert set(slots) <= self.deployed
                for slot in slots:
                    self.answer(lambda slot=slot: self.stopped(attempt, slot))
            case cmd.KillSlot(slot):
                self.answer(lambda: self.lost(slot))
            case cmd.EndCheckpoints():
                self.settled = False
                self.answer(self.settle)
            case cmd.LogEnd(status):
                assert not self.deployed
                assert self.settled
                self.answer(lambda: self.log_end(status))
            case cmd.CleanUp(status):
                assert not self.ended_by, "one end"
                self.ended_by.append(status)
                self.answer(lambda: self.take(self.job.cleaned_up()))
            case cmd.ResolveCancel(request_id):
                self.resolved.append(request_id)

    def deploy(self, attempt, slots):
        assert attempt == self.attempts[-1]
        assert set(slots) == self.held == set(SLOTS)
        self.deployed |= set(slots)
        for slot in slots:
            self.answer(lambda slot=slot: self.report(attempt, self.job.slot_deployed, slot, "a"))

    # ---- answers -----------------------------------------------------------------

    def report(self, attempt, event, *arguments):
        if attempt == self.job.attempt:  # The shell drops what is about another attempt.
            self.take(event(*arguments))

    def prepared(self, attempt):
        if self.rng.random() < 0.1:
            failure = self.rng.choice([CRASH, HOPELESS])
            self.take(self.job.attempt_failed(self.job.now_ms, attempt, failure))
        else:
            self.take(self.job.attempt_prepared(attempt))

    def acquired(self, slot):
        self.acquiring.discard(slot)
        if self.rng.random() < 0.9:
            self.held.add(slot)
            self.take(self.job.slot_acquired(slot))
        else:
            self.take(self.job.lose(slot))

    def stopped(self, attempt, slot):
        if slot in self.deployed and self.rng.random() < 0.9:
            self.deployed.discard(slot)
            self.report(attempt, self.job.slot_stopped, self.job.now_ms, slot)

    def lost(self, slot):
        if slot in self.held:
            self.held.discard(slot)
            self.deployed.discard(slot)
            self.take(self.job.lose(slot, LOST))

    def settle(self):
        self.settled = True
        self.take(self.job.settled())

    def log_end(self, status):
        if self.rng.random() < 0.7:
            self.logged_ends += 1
            assert status is not JobStatus.FINISHED or self.started
            self.take(self.job.end_logged())
        else:
            self.take(self.job.end_not_logged(self.job.now_ms, StorageError("store refused")))

    # ---- what happens by itself ------------------------------------------------------

    def tick(self):
        self.take(self.job.tick(self.rng.choice([1, 100, 300, 1_000])))

    def next_answer(self):
        if self.answers:
            self.answers.pop(self.rng.randrange(len(self.answers)))()

    def fail(self):
        if self.deployed and self.rng.random() < 0.15:
            self.take(self.job.fail(self.rng.choice([CRASH, ECHO, ECHO]), self.rng.choice(SLOTS)))

    def crash(self):
        if self.rng.random() < 0.08:
            self.lost(self.rng.choice(SLOTS))

    def finish(self):
        if self.job.machine.phase.value == "running" and self.rng.random() < 0.3:
            self.take(self.job.checkpoint_completed(self.rng.choice([Purpose.FINAL, Purpose.PERIODIC])))
        if self.job.machine.phase.value == "committing":
            self.take(self.job.commits_done(self.job.now_ms, self.rng.choice(SUBTASKS)))

    def cancel(self):
        if self.rng.random() < 0.02:
            request_id = f"c{len(self.asked)}"
            self.asked.add(request_id)
            self.take(self.job.cancel(request_id))

    def live(self):
        self.take(self.job.job_submitted())
        happenings = [
            *[self.next_answer] * 8, *[self.tick] * 2, self.fail, self.crash, *[self.finish] * 2, self.cancel
        ]  # fmt: skip
        for _ in range(STEPS):
            self.rng.choice(happenings)()
        if not self.ended_by:
            self.asked.add("last")
            self.take(self.job.cancel("last"))
        for _ in range(STEPS):
            self.tick()
            self.next_answer()


@pytest.mark.parametrize("seed", range(400))
def test_random_lives_end_once(seed):
    world = World(seed)
    world.live()

    assert world.job.status in ("FAILED", "CANCELED", "FINISHED")
    assert len(world.ended_by) == 1
    assert world.job.status == world.ended_by[0].value
    assert world.logged_ends <= 1
    assert sorted(world.resolved) == sorted(world.asked), "every request is answered once"
    assert world.started == sorted(set(world.started))
    assert not world.deployed


def test_random_lives_end_in_every_way():
    worlds = [World(seed) for seed in range(120)]
    for world in worlds:
        world.live()

    assert {world.job.status for world in worlds} == {"FAILED", "CANCELED", "FINISHED"}
    assert max(len(world.attempts) for world in worlds) > 3
