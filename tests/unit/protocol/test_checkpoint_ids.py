"""No id of a checkpoint is given twice, also not by a job master that does not know that it was replaced."""

import random

import pytest

from raystream.errors import StorageError
from raystream.ids import CheckpointId
from raystream.protocol.checkpoint_commands import FailAttempt, LogNewestId, StartCheckpoint
from raystream.protocol.checkpoint_ids import IDS_AHEAD_MAX, CheckpointIds
from tests.unit.protocol.checkpoint_driver import TIMEOUT_MS, running


def test_ids_go_on_from_the_snapshot_that_the_job_starts_from():
    ids = CheckpointIds()
    ids.begin_above(CheckpointId(7))

    assert [ids.give(), ids.give(), ids.last] == [8, 9, 9]


@pytest.mark.parametrize("seed", range(20))
def test_successor_that_begins_far_above_the_log_never_meets_an_id_of_the_one_before(seed):
    rng = random.Random(seed)
    ids, log, pending = CheckpointIds(), [0], []
    for _ in range(rng.randrange(5_000)):
        if not ids.exhausted and rng.random() < 0.9:
            pending.append(ids.give())
        elif pending:
            log.append(pending.pop(rng.randrange(len(pending))))
            ids.logged(log[-1])
    successor = CheckpointIds()
    successor.begin_above(CheckpointId(max(log) + IDS_AHEAD_MAX))

    while not ids.exhausted:  # The one before goes on, and its appends to the log fail.
        ids.give()
    assert successor.give() > ids.last


def start_until(job, found):
    """Let checkpoints expire until a command of a type comes; return the ids that were started, and it."""
    started = []
    while True:
        for command in job.tick(TIMEOUT_MS):
            if isinstance(command, StartCheckpoint):
                started.append(command.checkpoint_id)
            elif isinstance(command, found):
                return started, command


def test_checkpoints_that_never_complete_do_not_end_an_attempt_whose_log_is_told_of_their_ids():
    job = running()
    expected = 1
    for _ in range(5):
        started, claim = start_until(job, LogNewestId)
        assert started == list(range(expected, claim.checkpoint_id + 1))
        expected = claim.checkpoint_id + 1
        assert job.newest_id_logged(job.now_ms, claim.checkpoint_id, None) == []
    assert expected > 2 * IDS_AHEAD_MAX


def test_no_checkpoint_starts_when_the_ids_are_used_up_before_the_log_answers():
    job = running()
    started, claim = start_until(job, LogNewestId)
    while len(started) < IDS_AHEAD_MAX:
        started += [c.checkpoint_id for c in job.tick(TIMEOUT_MS) if isinstance(c, StartCheckpoint)]

    assert started == list(range(1, IDS_AHEAD_MAX + 1))
    assert job.savepoint("s") == [], "it waits for the answer"
    assert not [c for c in job.tick(TIMEOUT_MS) if isinstance(c, StartCheckpoint)]
    answered = job.newest_id_logged(job.now_ms, claim.checkpoint_id, None)
    assert next(c.checkpoint_id for c in answered if isinstance(c, StartCheckpoint)) == IDS_AHEAD_MAX + 1


def test_attempt_fails_when_the_log_takes_no_entry_and_the_ids_are_used_up():
    job = running()
    refused = StorageError("log does not answer")
    _, claim = start_until(job, LogNewestId)
    assert job.newest_id_logged(job.now_ms, claim.checkpoint_id, refused) == []
    _, claim = start_until(job, LogNewestId)
    for _ in range(IDS_AHEAD_MAX):
        job.tick(TIMEOUT_MS)

    assert job.newest_id_logged(job.now_ms, claim.checkpoint_id, refused) == [FailAttempt(refused)]
    assert job.savepoint("s") == [], "it waits for the next attempt"
    job.attempt_ended(job.now_ms)
    assert [c.checkpoint_id for c in job.start_attempt() if isinstance(c, StartCheckpoint)] == [
        IDS_AHEAD_MAX + 1
    ]
