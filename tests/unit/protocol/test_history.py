"""A machine's history says what happened, and never holds on to what was in it."""

from raystream.errors import StorageError
from raystream.handles import InlineHandle
from raystream.protocol.checkpoint_commands import CheckpointFailureReason as Reason
from raystream.protocol.checkpoint_commands import RecordCompletion, RecordFailure, WriteMetadata
from raystream.protocol.checkpoint_requests import Purpose
from raystream.protocol.history import HISTORY_LENGTH_MAX, History, brief


def test_steps_name_event_argument_and_commands():
    history = History()
    commands = [RecordCompletion(3, Purpose.PERIODIC)]

    assert history.done("time_passed", 5, commands) is commands
    history.done("job_submitted", None, [])
    assert history.broken("no", phase="x").context == {
        "phase": "x",
        "history": [
            "time_passed 5 -> RecordCompletion(3, periodic)",
            "job_submitted None -> nothing",
        ],
    }


def test_only_the_last_steps_are_kept():
    history = History()
    for number in range(HISTORY_LENGTH_MAX + 5):
        history.done("event", number, [])

    steps = history.broken("no").context["history"]
    assert len(steps) == HISTORY_LENGTH_MAX
    assert steps[0].startswith("event 5 ")


def test_what_may_be_large_is_left_out():
    data = InlineHandle(data=b"x" * 1_000_000)

    assert brief(data) == "InlineHandle()"
    assert brief(WriteMetadata(1, (data,) * 100)) == "WriteMetadata(1)"
    assert brief({"a": data}) == "dict"
    failure = RecordFailure(1, Reason.DECLINED, StorageError("store refused", blob=b"x" * 100))
    assert brief(failure) == "RecordFailure(1, declined, StorageError('store refused'))"
