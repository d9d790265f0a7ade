"""Checkpoints go on when some subtasks have ended, unless that would bring union state twice."""

from dataclasses import replace

import pytest

from raystream.handles import InlineHandle, OperatorSnapshot, OperatorStateHandle, Redistribution
from raystream.ids import CheckpointId, OperatorUid, VertexId
from raystream.protocol.checkpoint_commands import (
    CheckpointFailureReason,
    DeleteCheckpoint,
    FailAttempt,
    NotifyAborted,
    ResolveSavepoint,
    WriteMetadata,
)
from raystream.protocol.checkpoint_pending import partly_ended
from tests.unit.protocol.checkpoint_driver import SUBTASKS, kinds, one, reasons, running, snapshot


def part(subtask, *, ended, mode=Redistribution.UNION, vertex=1, elements=3):
    handle = OperatorStateHandle(
        name="rules", mode=mode, element_count=elements, data=InlineHandle(data=b"rules")
    )
    operator = OperatorSnapshot(uid=OperatorUid("apply"), subtask=subtask, operator=(handle,))
    return replace(snapshot((VertexId(vertex), subtask)), operators=(operator,), ended=ended)


def test_union_state_of_which_only_some_subtasks_have_ended_is_named():
    error = partly_ended([part(0, ended=True), part(1, ended=False)])

    assert error.message == "only some subtasks of an operator with union state have ended"
    assert error.context == {"uid": "apply", "state": "rules"}


@pytest.mark.parametrize(
    "parts",
    [
        [part(0, ended=True), part(1, ended=True)],
        [part(0, ended=False), part(1, ended=False)],
        [part(n, ended=n == 0, mode=Redistribution.SPLIT) for n in range(2)],
        [part(n, ended=n == 0, mode=Redistribution.BROADCAST) for n in range(2)],
        [part(0, ended=True, vertex=1), part(0, ended=False, vertex=2)],
    ],
)
def test_other_state_and_operators_that_ended_as_a_whole_are_no_obstacle(parts):
    assert partly_ended(parts) is None


def two_subtasks_of_one_vertex(monkeypatch, **options):
    both = [(VertexId(1), 0), (VertexId(1), 1)]
    monkeypatch.setattr("tests.unit.protocol.checkpoint_driver.SUBTASKS", both)
    return running(**options)


def acked(job, *parts):
    return [
        command
        for each in parts
        for command in job.snapshot_acked(job.now_ms, job.attempt, CheckpointId(1), each)
    ]


def test_checkpoint_fails_and_is_not_counted(monkeypatch):
    job = two_subtasks_of_one_vertex(monkeypatch, tolerable=0)
    job.tick()
    commands = acked(job, part(0, ended=True), part(1, ended=False))

    assert reasons(commands) == [CheckpointFailureReason.PARTLY_ENDED]
    assert NotifyAborted(1) in commands
    assert DeleteCheckpoint(1) in commands
    assert not {FailAttempt, WriteMetadata} & set(kinds(commands))


def test_client_whose_savepoint_fails_for_it_is_told(monkeypatch):
    job = two_subtasks_of_one_vertex(monkeypatch)
    job.savepoint("s", stop=True)
    commands = acked(job, part(0, ended=True), part(1, ended=False))

    error = one(commands, ResolveSavepoint).error
    assert error.message.startswith("savepoint was aborted, and the job goes on: only some subtasks")
    assert FailAttempt not in kinds(commands)


def test_checkpoint_of_operators_that_ended_as_a_whole_completes():
    job = running()
    job.tick()
    source, sink = (replace(snapshot(subtask), ended=subtask == SUBTASKS[0]) for subtask in SUBTASKS)

    assert kinds(acked(job, source, sink))[-1] is WriteMetadata
