"""Whoever wants a job to stop gets the path of the one savepoint with which it does."""

import pytest

from raystream.errors import CheckpointError
from raystream.handles import SavepointFormat
from raystream.ids import CheckpointId, JobStatus
from raystream.protocol.checkpoint_commands import ResolveSavepoint, StartCheckpoint
from raystream.protocol.checkpoint_requests import SAVEPOINTS_WAITING_MAX, Purpose
from tests.unit.protocol.checkpoint_driver import Driver, one, running


def answers(commands):
    return [command for command in commands if isinstance(command, ResolveSavepoint)]


@pytest.mark.parametrize(("first", "second"), [("", ""), ("file:///sp", "file:///sp"), ("file:///sp", "")])
def test_second_stop_that_asks_for_the_same_gets_the_savepoint_of_the_first(first, second):
    job = running()
    assert job.savepoint("one", stop=True, base=first) == [StartCheckpoint(1, Purpose.STOP, first)]
    assert job.savepoint("two", stop=True, base=second) == []

    assert answers(job.complete(1)) == [
        ResolveSavepoint("one", CheckpointId(1), None),
        ResolveSavepoint("two", CheckpointId(1), None),
    ]


def test_stop_that_comes_when_the_savepoint_is_complete_gets_it_too():
    job = running()
    job.savepoint("one", stop=True)
    job.complete(1)

    assert job.savepoint("while it commits", stop=True) == [
        ResolveSavepoint("while it commits", CheckpointId(1), None)
    ]
    job.attempt_ended(job.now_ms)
    job.job_ended(JobStatus.FINISHED)
    assert job.savepoint("late", stop=True) == [ResolveSavepoint("late", CheckpointId(1), None)]
    assert one(job.savepoint("no stop"), ResolveSavepoint).error is not None


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("first", ["", "file:///here"])
def test_stop_in_another_directory_is_refused_and_told_which_one_it_is(first, complete):
    job = running()
    job.savepoint("one", stop=True, base=first)
    if complete:
        job.complete(1)

    (answer,) = job.savepoint("two", stop=True, base="file:///there")

    assert answer.checkpoint_id is None
    assert isinstance(answer.error, CheckpointError)
    assert answer.error.context["directory"] == (first or "the configured one")


def test_stop_in_another_format_is_told_that_of_the_first_one():
    job = running()
    job.savepoint("one", stop=True, wanted=SavepointFormat.NATIVE)

    (answer,) = job.savepoint("two", stop=True)
    assert "another format" in answer.error.message
    assert answer.error.context["format"] == "native"
    assert job.savepoint("three", stop=True, wanted=SavepointFormat.NATIVE) == []


def test_savepoint_is_started_in_the_format_that_was_asked_for():
    job = running()

    assert job.savepoint("one", wanted=SavepointFormat.NATIVE) == [
        StartCheckpoint(1, Purpose.SAVEPOINT, "", SavepointFormat.NATIVE)
    ]


def test_stop_that_fails_fails_for_all_who_wait_and_the_next_one_is_a_first_one():
    job = running()
    for name in ("one", "two"):
        job.savepoint(name, stop=True)

    failed = answers(job.decline(1))
    assert [(answer.request_id, answer.checkpoint_id) for answer in failed] == [("one", None), ("two", None)]
    assert failed[0].error == failed[1].error
    assert StartCheckpoint(2, Purpose.STOP, "file:///there") in job.savepoint(
        "three", stop=True, base="file:///there"
    )


def test_stops_that_wait_for_the_job_to_run_are_answered_when_it_ends_before():
    job = Driver()
    for name in ("one", "two"):
        job.savepoint(name, stop=True)

    assert [answer.request_id for answer in answers(job.job_ended(JobStatus.CANCELED))] == ["one", "two"]


def test_only_so_many_wait_for_one_stop():
    job = running()
    for number in range(SAVEPOINTS_WAITING_MAX + 1):
        assert answers(job.savepoint(f"stop {number}", stop=True)) == []

    assert "too many" in one(job.savepoint("one more", stop=True), ResolveSavepoint).error.message


def test_savepoints_are_each_their_own():
    job = running()

    assert job.savepoint("one") == [StartCheckpoint(1, Purpose.SAVEPOINT, "")]
    assert job.savepoint("two") == [StartCheckpoint(2, Purpose.SAVEPOINT, "")]
    assert answers(job.complete(1)) == [ResolveSavepoint("one", CheckpointId(1), None)]
