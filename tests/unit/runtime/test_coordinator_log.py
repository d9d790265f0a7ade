"""Entries reach the job log one after the other, and whoever asked learns the truth."""

from collections import deque

import pytest

from raystream.errors import FencedError, ProtocolError, StateCorruptError, StorageError
from raystream.ids import Attempt, CheckpointId
from raystream.runtime.coordinator_log import DOUBT_TRIES_MAX, LogWriter
from raystream.storage.job_log import StaleLogError, VolatileJobLog
from raystream.storage.log_entries import AttemptStarted, CheckpointCompletedEntry

STARTED = AttemptStarted(attempt=Attempt(1))
COMPLETE = CheckpointCompletedEntry(checkpoint_id=CheckpointId(1), directory="chk-1", attempt=Attempt(1))
REFUSED = StorageError("store refused")


class Log(VolatileJobLog):
    """A log that raises what it is told to, before or after it has appended."""

    def __init__(self):
        super().__init__()
        self.before, self.after, self.reads = deque(), deque(), 0

    def read(self):
        self.reads += 1
        return super().read()

    def append(self, entry):
        if self.before:
            raise self.before.popleft()
        super().append(entry)
        if self.after:
            raise self.after.popleft()


class World:
    def __init__(self):
        self.log, self.work, self.waits, self.answers, self.conflicts = Log(), deque(), [], [], []
        self.writer = LogWriter(self.log, self, later=self.later, conflicted=self.conflicts.append)

    def submit(self, work, done):
        assert not self.work, "one thread at a time"
        self.work.append((work, done))

    def later(self, delay_ms, call):
        self.waits.append(delay_ms)
        call()

    def append(self, entry):
        self.writer.append(entry, lambda error: self.answers.append((entry, error)))

    def run(self):
        while self.work:
            work, done = self.work.popleft()
            try:
                result = work()
            except Exception as error:
                result = error
            done(result)


def test_entries_are_appended_in_order_and_the_log_is_not_read_again():
    world = World()
    world.append(STARTED)
    world.append(COMPLETE)
    world.run()

    assert world.log.reads == 0
    assert world.log.read() == [STARTED, COMPLETE]
    assert world.answers == [(STARTED, None), (COMPLETE, None)]


def test_entry_that_is_not_in_the_log_is_answered_with_the_error_and_the_next_one_follows():
    world = World()
    world.log.before.append(REFUSED)
    world.append(STARTED)
    world.append(COMPLETE)
    world.run()

    assert world.answers == [(STARTED, REFUSED), (COMPLETE, None)]


def test_entry_of_unknown_outcome_is_looked_up():
    world = World()
    world.append(STARTED)
    world.run()
    world.log.after.append(StaleLogError("who knows"))
    world.append(COMPLETE)
    world.run()

    assert world.log.read() == [STARTED, COMPLETE]
    assert world.answers[-1] == (COMPLETE, None)


@pytest.mark.parametrize(
    "error", [OSError("interrupted"), ProtocolError("not read"), StateCorruptError("damaged")]
)
@pytest.mark.parametrize("after", [True, False])
def test_append_that_ends_with_any_other_error_is_in_doubt_and_looked_up(error, after):
    world = World()
    world.append(STARTED)
    world.run()
    (world.log.after if after else world.log.before).append(error)
    world.append(COMPLETE)
    world.run()

    assert world.log.read() == [STARTED, COMPLETE]
    assert world.answers == [(STARTED, None), (COMPLETE, None)]


def raise_(error):
    raise error


def test_prune_that_fails_in_any_way_is_not_repeated():
    world = World()
    world.append(STARTED)
    world.log.prune_checkpoints = lambda keep: raise_(OSError("interrupted"))
    world.writer.prune([])
    world.append(COMPLETE)
    world.run()

    assert world.waits == []
    assert world.answers == [(STARTED, None), (COMPLETE, None)]


def test_silent_log_is_asked_a_number_of_times_and_then_nothing_more_is_written():
    world = World()
    world.log.before.extend(StaleLogError("who knows") for _ in range(DOUBT_TRIES_MAX + 1))
    world.append(STARTED)
    world.append(COMPLETE)
    world.run()
    world.append(COMPLETE)

    assert len(world.waits) == DOUBT_TRIES_MAX
    assert world.answers == []
    assert len(world.conflicts) == 1
    assert not world.work


def test_log_of_somebody_else_is_a_conflict():
    world = World()
    fenced = FencedError("a newer attempt owns the job log")
    world.log.before.append(fenced)
    world.append(STARTED)
    world.run()

    assert world.conflicts == [fenced]
    assert world.answers == []


def test_entries_are_pruned_in_turn():
    world = World()
    world.append(STARTED)
    world.append(COMPLETE)
    world.writer.prune([])
    world.run()

    assert world.log.read() == [STARTED]
