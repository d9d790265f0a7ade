"""Whatever happens in whatever order, a checkpoint completes once and for a reason."""

import random

import pytest

from raystream.ids import Attempt, CheckpointId, JobStatus
from raystream.protocol.checkpoint_commands import (
    CommitAtEnd,
    ConfirmSettled,
    DeleteCheckpoint,
    FailAttempt,
    LogCompletion,
    NotifyCompleted,
    RecordCompletion,
    RecordFailure,
    ResolveSavepoint,
    StartCheckpoint,
    WriteMetadata,
)
from tests.unit.protocol.checkpoint_driver import DECLINED, REFUSED, SUBTASKS, Driver

STEPS = 150


class World:
    """Executes commands at random moments, and keeps its own books on what may happen."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.job = Driver(
            max_concurrent=self.rng.randint(1, 3),
            num_retained=self.rng.randint(1, 3),
            tolerable=self.rng.randint(0, 3),
            min_pause_ms=self.rng.choice([0, 50]),
        )
        self.runs = self.ended = self.over = False
        self.purposes = {}
        self.acked = {}
        self.writing, self.written, self.logging, self.logged = [], set(), [], []
        self.completed, self.failed, self.deleted = set(), set(), set()
        self.asked, self.answered = set(), []

    def take(self, commands):
        for command in commands:
            self.check(command)

    def check(self, command):
        match command:
            case StartCheckpoint(checkpoint_id, purpose):
                assert self.runs, "nothing starts outside of an attempt"
                assert not self.over, "nothing starts when the job only commits"
                assert checkpoint_id not in self.purposes
                self.purposes[checkpoint_id] = purpose
                self.acked[checkpoint_id] = set()
            case WriteMetadata(checkpoint_id, snapshots):
                assert [(s.vertex, s.subtask) for s in snapshots] == SUBTASKS
                self.writing.append(checkpoint_id)
            case LogCompletion(checkpoint_id):
                assert checkpoint_id in self.written
                assert not self.logging, "one entry at a time"
                self.logging.append(checkpoint_id)
            case RecordCompletion(checkpoint_id, purpose):
                assert self.acked[checkpoint_id] == set(SUBTASKS)
                assert checkpoint_id in self.written
                assert checkpoint_id in self.logged
                assert checkpoint_id not in self.completed | self.failed
                self.completed.add(checkpoint_id)
                self.over = self.over or purpose.ends_job
            case RecordFailure(checkpoint_id):
                assert checkpoint_id not in self.completed | self.failed
                self.failed.add(checkpoint_id)
            case NotifyCompleted(checkpoint_id):
                assert self.runs
                assert checkpoint_id in self.completed
                assert self.purposes[checkpoint_id].recovers
            case DeleteCheckpoint(checkpoint_id):
                complete = checkpoint_id in self.completed
                assert not (complete and self.purposes[checkpoint_id].savepoint)
                assert self.ended or checkpoint_id != self.job.machine.recovery_point
                self.deleted.add(checkpoint_id)
            case ResolveSavepoint(request_id, checkpoint_id, error):
                assert (checkpoint_id is None) != (error is None)
                assert checkpoint_id is None or checkpoint_id in self.completed
                self.answered.append(request_id)
            case ConfirmSettled():
                assert not self.runs
                assert not self.logging
                assert self.purposes.keys() == self.completed | self.failed
            case FailAttempt():
                self.end_attempt()
            case CommitAtEnd():
                raise AssertionError("checkpointing is on")

    # ---- events ----------------------------------------------------------------

    def start_attempt(self):
        if not self.runs and not self.logging:
            self.runs, self.over = True, False
            self.take(self.job.start_attempt())

    def end_attempt(self):
        if self.runs:
            self.runs = False
            self.take(self.job.attempt_ended(self.job.now_ms))

    def tick(self):
        self.take(self.job.tick(self.rng.choice([1, 30, 100, 900])))

    def ack(self):
        if self.purposes:
            checkpoint_id = self.rng.choice(list(self.purposes)[-4:])
            subtask = self.rng.choice(SUBTASKS)
            foreign = self.rng.random() < 0.1
            if not foreign and self.runs and checkpoint_id not in self.completed | self.failed:
                self.acked[checkpoint_id].add(subtask)
            attempt = Attempt(self.job.attempt + 1) if foreign else None
            self.take(self.job.ack(checkpoint_id, subtask, attempt=attempt))

    def decline(self):
        if self.purposes and self.rng.random() < 0.3:
            self.take(self.job.decline(self.rng.choice(list(self.purposes)[-3:]), DECLINED))

    def answer_write(self):
        if self.writing:
            checkpoint_id = self.writing.pop(self.rng.randrange(len(self.writing)))
            if self.rng.random() < 0.8:
                self.written.add(checkpoint_id)
                late = checkpoint_id in self.failed
                commands = self.job.written(checkpoint_id)
                assert not late or commands == [DeleteCheckpoint(checkpoint_id)]
                self.take(commands)
            else:
                self.take(self.job.metadata_failed(self.job.now_ms, checkpoint_id, REFUSED))

    def answer_log(self):
        if self.logging:
            checkpoint_id = self.logging.pop()
            if self.rng.random() < 0.8:
                recovering = [c for c in self.logged if self.purposes[c].recovers]
                if self.purposes[checkpoint_id].recovers and recovering:
                    assert checkpoint_id > recovering[-1], "entries are in the order of completion"
                self.logged.append(checkpoint_id)
                self.take(self.job.logged(checkpoint_id))
            else:
                self.take(self.job.completion_not_logged(self.job.now_ms, checkpoint_id, REFUSED))

    def savepoint(self):
        if self.rng.random() < 0.3:
            request_id = f"r{len(self.asked)}"
            self.asked.add(request_id)
            self.take(self.job.savepoint(request_id, stop=self.rng.random() < 0.3))

    def input_ended(self):
        if self.runs and not self.over and self.rng.random() < 0.2:
            self.take(self.job.input_ended(self.job.now_ms))

    def crash(self):
        if self.rng.random() < 0.15:
            self.end_attempt()

    # ---- a whole life ------------------------------------------------------------

    def live(self):
        self.start_attempt()
        events = [
            self.tick,
            *[self.ack] * 6,
            self.decline,
            *[self.answer_write] * 3,
            *[self.answer_log] * 3,
            self.savepoint,
            self.input_ended,
            self.crash,
            self.start_attempt,
        ]
        for _ in range(STEPS):
            self.rng.choice(events)()
        self.end_attempt()
        while self.logging:
            self.answer_log()
        self.ended = True
        retained = set(self.job.machine.retained)
        assert retained <= self.completed - self.deleted
        self.take(self.job.job_ended(JobStatus.FINISHED))
        while self.writing:
            self.answer_write()


@pytest.mark.parametrize("seed", range(300))
def test_random_lives_keep_the_promises(seed):
    world = World(seed)
    world.live()

    assert sorted(world.answered) == sorted(world.asked), "every request is answered once"
    assert world.purposes.keys() == world.completed | world.failed
    kept = {i for i in world.completed if not world.purposes[i].savepoint}
    assert kept <= world.deleted, "a finished job leaves no checkpoint"


def test_random_lives_are_not_boring():
    worlds = [World(seed) for seed in range(40)]
    for world in worlds:
        world.live()

    assert sum(len(world.completed) for world in worlds) > 40
    assert sum(len(world.failed) for world in worlds) > 40
    assert any(world.purposes[CheckpointId(i)].ends_job for world in worlds for i in world.completed)
