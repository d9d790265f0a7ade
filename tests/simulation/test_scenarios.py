"""Scenarios with a name, each at every moment at which it may come: every record is there exactly once."""

from collections import Counter

import pytest

from raystream.runtime import messages as msg
from raystream.testing import simulate
from raystream.testing.faults import (
    CancelAndResume,
    CheckpointPhase,
    MasterCrash,
    Rescale,
    RestartCrash,
    SlotCrash,
    SlotKill,
    StopAndResume,
)
from raystream.testing.simulation_marks import Mark, Marks
from tests.simulation import jobs

pytestmark = pytest.mark.simulation

KILLED = SlotKill(at_ms=100, slot=0)
"""After the first checkpoints, when a sink has something to commit again."""


def outcome(*faults):
    """Return what came of one run, in which nothing went wrong."""
    report = simulate(jobs.keyed, seeds=[1], faults=faults, expected=jobs.expected_keyed())
    report.check()
    (row,) = report.rows
    return row


@pytest.mark.parametrize("moment", range(8))
def test_process_that_dies_while_the_job_restarts_costs_one_more_restart(moment):
    row = outcome(KILLED, RestartCrash(attempt=2, moment=moment))

    assert row.attempts == 3
    assert Mark.RESTART_DURING_RESTART in row.marks


@pytest.mark.parametrize("checkpoint_id", [1, 2, 3])
def test_two_restarts_with_no_checkpoint_between(checkpoint_id):
    """The checkpoint of each attempt is the first that it would have had."""
    crashes = [
        SlotCrash(checkpoint_id=checkpoint_id + n, phase=CheckpointPhase.BEFORE_TRIGGER) for n in (0, 1)
    ]

    row = outcome(*crashes)

    assert row.faults == tuple(crashes)
    assert row.attempts == 3


def test_crash_while_a_job_is_stopped_with_a_savepoint():
    reached = Counter()
    for phase in CheckpointPhase:
        for checkpoint_id in (2, 3, 4):
            stop = StopAndResume(at_ms=80, parallelism=1 + checkpoint_id % 3)
            row = outcome(stop, SlotCrash(checkpoint_id=checkpoint_id, phase=phase))
            reached.update(row.marks.keys())

    assert reached[Mark.CRASH_BEFORE_STOP_ENTRY] > 1
    assert reached[Mark.CRASH_AFTER_STOP_ENTRY] > 1


def test_job_that_is_cancelled_while_its_slots_restore_goes_on_from_its_checkpoint(monkeypatch):
    sent, command_sent = Counter(), Marks.command_sent

    def told(marks, slot, command):
        sent[type(command), command.attempt] += 1
        command_sent(marks, slot, command)

    monkeypatch.setattr(Marks, "command_sent", told)
    restoring = 0
    for later_ms in range(20, 120, 4):  # Before, while and after it restores.
        sent.clear()
        row = outcome(KILLED, CancelAndResume(at_ms=KILLED.at_ms + later_ms, parallelism=1 + later_ms % 3))
        assert len(row.faults) == 2
        restoring += sent[msg.Connect, 2] > 0 == sent[msg.Start, 2]

    assert restoring > 1


def test_running_job_is_rescaled_up_and_down():
    row = outcome(Rescale(at_ms=60, parallelism=3), Rescale(at_ms=240, parallelism=1))

    assert row.attempts == 3
    assert row.marks[Mark.RESCALED_RUNNING] > 1


def test_crash_of_a_slot_while_a_job_is_rescaled():
    reached = Counter()
    for phase in CheckpointPhase:
        for checkpoint_id in (1, 2, 3):
            for parallelism in (1, 3):
                crash = SlotCrash(checkpoint_id=checkpoint_id, phase=phase)
                row = outcome(Rescale(at_ms=50, parallelism=parallelism), crash)
                reached.update(row.marks.keys())

    assert reached[Mark.RESCALED_RUNNING] > 10


def test_crash_of_the_job_master_while_a_job_is_rescaled():
    reached = Counter()
    for phase in CheckpointPhase:
        for checkpoint_id in (1, 2, 3):
            crash = MasterCrash(checkpoint_id=checkpoint_id, phase=phase)
            row = outcome(Rescale(at_ms=50, parallelism=3), crash)
            reached.update(row.marks.keys())

    assert reached[Mark.RESCALED_RUNNING] > 5
    assert reached[Mark.MASTER_REPLACED] > 5


@pytest.mark.parametrize("moment", range(0, 12, 2))
def test_crash_during_the_restart_of_a_rescale(moment):
    row = outcome(Rescale(at_ms=50, parallelism=3), RestartCrash(attempt=2, moment=moment))

    assert row.attempts == 3
    assert Mark.RESCALED_RUNNING in row.marks
