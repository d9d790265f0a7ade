"""Whatever clients, slots, storage and time do in whatever order: nothing is lost, doubled or unanswered."""

import random
from functools import partial

import pytest

from raystream.ids import Attempt
from raystream.runtime import messages as msg
from raystream.storage.log_entries import (
    AttemptStarted,
    CheckpointCompletedEntry,
    SavepointCompleted,
    Terminal,
)
from tests.unit.runtime.coordinator_world import INTERVAL_MS, JOB_ID, REFUSED, World

STEPS = 60
WORK = ("append", "write_metadata", "load", "sweep", "delete", "delete_files")
SILENT = (
    msg.TriggerCheckpoint, msg.CheckpointCompleted, msg.CommitAtEnd, msg.Deploy, msg.Connect, msg.StopAttempt,
    "acquire",
)  # fmt: skip
HELD = (*WORK, *SILENT)
LATE = SILENT[1:-1]


def recovers(entry):
    return isinstance(entry, CheckpointCompletedEntry) or (
        isinstance(entry, SavepointCompleted) and entry.stop
    )


class Life:
    """One job, and everything that may happen to it."""

    def __init__(self, seed, path):
        self.rng = random.Random(seed)
        self.asked = []
        self.path = path
        self.world = World(
            path / "checkpoints",
            savepoints=path / "savepoints",
            execution__checkpointing__interval=self.rng.choice(["1s", "1s", "1s", "off"]),
            execution__checkpointing__timeout="2s",
            execution__checkpointing__max_concurrent_checkpoints=self.rng.choice([1, 3]),
            execution__checkpointing__tolerable_failed_checkpoints=self.rng.choice([0, 100]),
            execution__checkpointing__min_pause="0ms",
            restart_strategy__fixed_delay__attempts=1_000,
            task__cancellation__timeout="3s",
        )
        self.entries = []  # Of the log, also those that are pruned.
        append = self.world.storage.log.append
        self.world.storage.log.append = lambda entry: (append(entry), self.entries.append(entry))

    # ---- what may happen -------------------------------------------------------

    def hold(self):
        name = self.rng.choice(HELD)
        (self.world.held if name in WORK else self.world.silent).add(name)

    def release(self):
        self.world.silent.clear()
        self.world.held.clear()
        self.world.settle()
        self.answer_all()

    def answer_all(self):
        """Let slots do what they have put off; nobody waits for ever."""
        world = self.world
        if world.view.waiting_for:
            world.inbox += [partial(world._acquired, slot) for slot in (0, 1) if slot not in world.alive]
        for slot, command in world.sent[-8:]:  # Late and repeated answers change nothing.
            if type(command) in LATE and slot in world.alive:
                world.inbox.append(partial(world._answer, slot, command))
        world.settle()

    def fault(self):
        # What a user has to mend fails the job for good, so that the rest would never happen.
        self.world.faults = {self.rng.choice(WORK): [REFUSED]}

    def pass_time(self):
        self.world.run_for(self.rng.choice([10, 100, INTERVAL_MS]))

    def fail(self):
        if self.rng.random() < 0.5:
            self.world.fail(self.rng.choice([0, 1]))

    def lose(self):
        slot = self.rng.choice([0, 1])
        if slot in self.world.alive and self.rng.random() < 0.5:
            self.world.lose(slot)
            self.world.settle()

    def ack(self):
        newest = max((c.checkpoint_id for c in self.world.commands(msg.TriggerCheckpoint)), default=0)
        if newest:
            attempt = self.world.view.attempt - (self.rng.random() < 0.2)
            self.world.ack(
                self.rng.randint(max(newest - 2, 1), newest),
                self.rng.choice([0, 1]),
                self.rng.choice([0, 1]),
                attempt=Attempt(attempt),
            )
            self.world.settle()

    def decline(self):
        newest = max((c.checkpoint_id for c in self.world.commands(msg.TriggerCheckpoint)), default=0)
        if newest and self.rng.random() < 0.3:
            self.world.decline(newest, 1, 0)
            self.world.settle()

    def ask(self):
        kind = self.rng.choices(["savepoint", "stop", "cancel"], [10, 2, 1])[0]
        self.asked.append(f"{kind}-{len(self.asked)}")
        getattr(self.world, kind)(self.asked[-1])

    def end_input(self):
        if self.world.status == "RUNNING" and self.rng.random() < 0.3:
            self.world.silent |= set(self.rng.sample(SILENT[1:3], self.rng.randint(0, 2)))  # Slow commits.
            self.world.end_input()
            self.fail()

    # ---- a whole life ------------------------------------------------------------

    def live(self):
        self.world.coordinator.start()
        happenings = [
            self.hold, *[self.release] * 2, self.fault, *[self.pass_time] * 4, self.fail, self.lose,
            *[self.ack] * 3, self.decline, self.ask, self.end_input,
        ]  # fmt: skip
        for _ in range(STEPS):
            self.rng.choice(happenings)()
        for _ in range(20):
            self.release()
            self.world.run_for(5_000)
            if self.world.coordinator.finished:
                break
            if self.world.status == "RUNNING":
                self.world.end_input()
        return self.world


def check(life):
    world = life.world
    assert world.coordinator.finished, (world.status, world.view.waiting_for)
    assert sorted(o.request_id for o in world.view.outcomes) == sorted(life.asked)
    assert not list(life.path.glob(f"checkpoints/{JOB_ID}/probe-*"))
    check_recovery(life.entries)
    check_commits(world)
    for outcome in world.view.outcomes:
        if outcome.path:
            world.storage.snapshots.load(outcome.path)


def check_recovery(entries):
    """Every attempt restores the newest checkpoint that the log calls complete; the end is the last entry."""
    newest = None
    for entry in entries:
        if isinstance(entry, AttemptStarted):
            assert entry.restored_checkpoint == newest
        elif recovers(entry):
            newest = entry.checkpoint_id
    if entries:
        assert [isinstance(entry, Terminal) for entry in entries].index(True) == len(entries) - 1


def check_commits(world):
    """Sinks are told of complete checkpoints only, and process nothing once the job only commits."""
    complete = set(world.completed) | {r.checkpoint_id for r in world.view.checkpoints}
    over = False
    for _, command in world.sent:
        match command:
            case msg.CheckpointCompleted(final=final):
                assert command.checkpoint_id in complete
                over = over or final
            case msg.CommitAtEnd():
                over = True
            case msg.Start():
                assert not over, "output is written again"


@pytest.mark.parametrize("seed", range(100))
def test_random_lives_of_a_job_keep_the_promises(seed, tmp_path):
    life = Life(seed, tmp_path)
    life.live()

    check(life)


def test_random_lives_of_a_job_end_in_every_way(tmp_path):
    worlds = [Life(seed, tmp_path / str(seed)).live() for seed in range(40)]

    assert {world.status for world in worlds} >= {"CANCELED", "FINISHED"}
    assert sum(world.view.restarts for world in worlds) > 20
    assert sum(len(world.completed) for world in worlds) > 40
