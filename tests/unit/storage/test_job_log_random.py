"""Whatever the order in which job masters begin, write and prune, one of them owns the log."""

import itertools
import random

import pytest

from raystream.errors import FencedError
from raystream.storage.job_log import DurableJobLog, StaleLogError
from raystream.storage.layout import JobLayout
from raystream.storage.log_entries import AttemptStarted, CheckpointCompletedEntry
from raystream.storage.stores import open_file_system
from tests.unit.storage.sample import JOB


@pytest.mark.parametrize("seed", range(60))
def test_no_interleaving_of_attempts_lets_two_own_the_log(memory_base, seed):
    """Masters read, start attempts, complete checkpoints and prune in a random order.

    Whenever a master completes a checkpoint it must know of every entry before it: its own
    attempt is then the newest in the log, and everything that was complete at its start is
    what it started from.
    """
    rng = random.Random(seed)
    fs, layout = open_file_system(memory_base), JobLayout(memory_base, JOB)
    checkpoint_ids = itertools.count(1)
    masters: list[dict] = []
    history: list[tuple[str, int, int | None]] = []
    for _ in range(120):
        if len(masters) < 2 or (rng.random() < 0.1 and len(masters) < 5):
            masters.append({"log": DurableJobLog(fs, layout), "view": None, "attempt": 0})
        master = rng.choice(masters)
        try:
            act(rng, master, checkpoint_ids, history)
        except StaleLogError:
            master["view"] = None
        except FencedError:
            masters.remove(master)

    newest_attempt, newest_checkpoint = 0, None
    for event, attempt, checkpoint in history:
        if event == "started":
            assert attempt > newest_attempt
            assert checkpoint == newest_checkpoint
            newest_attempt = attempt
        else:
            assert attempt == newest_attempt
            newest_checkpoint = checkpoint
    assert newest_attempt > 1


def act(rng, master, checkpoint_ids, history):
    """Let one master take its next step; `history` gets what it believes to have done."""
    log = master["log"]
    if master["view"] is None:
        master["view"] = log.read()
        return
    if not master["attempt"]:
        view = master["view"]
        attempt = max((entry.attempt for entry in view), default=0) + 1
        restored = max(
            (e.checkpoint_id for e in view if isinstance(e, CheckpointCompletedEntry)), default=None
        )
        log.append(AttemptStarted(attempt=attempt, restored_checkpoint=restored))
        history.append(("started", attempt, restored))
        master["attempt"] = attempt
    elif rng.random() < 0.7:
        checkpoint_id = next(checkpoint_ids)
        directory = f"file:///x/chk-{checkpoint_id}"
        log.append(
            CheckpointCompletedEntry(
                checkpoint_id=checkpoint_id, directory=directory, attempt=master["attempt"]
            )
        )
        history.append(("completed", master["attempt"], checkpoint_id))
        master["newest"] = checkpoint_id
    elif "newest" in master:
        log.prune_checkpoints(keep={master["newest"]})
