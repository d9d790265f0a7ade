"""No id of a checkpoint is given twice, also not by a job master that does not know that it was replaced."""

import random

import pytest

from raystream.ids import CheckpointId
from raystream.protocol.checkpoint_commands import FailAttempt, StartCheckpoint
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


def test_attempt_fails_when_its_ids_are_used_up_and_the_next_one_has_new_ones():
    job = running()
    started, failures = [], []
    while not failures:
        for command in job.tick(TIMEOUT_MS):
            started += [command.checkpoint_id] if isinstance(command, StartCheckpoint) else []
            failures += [command] if isinstance(command, FailAttempt) else []

    assert started == list(range(1, IDS_AHEAD_MAX + 1))
    assert f"{IDS_AHEAD_MAX} checkpoints in a row" in failures[0].error.message
    assert job.savepoint("s") == [], "it waits for the next attempt"
    job.attempt_ended(job.now_ms)
    assert [c.checkpoint_id for c in job.start_attempt() if isinstance(c, StartCheckpoint)] == [
        IDS_AHEAD_MAX + 1
    ]
