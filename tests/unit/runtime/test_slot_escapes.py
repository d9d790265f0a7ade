"""What user code raises and is no `Exception` fails the attempt by name, like any other error."""

import asyncio
import sys
from functools import partial

import pytest

from raystream import JobFailedError, MapFunction, StreamEnvironment
from raystream.errors import UserCodeError
from raystream.runtime import messages as msg
from raystream.runtime.slot import Slot
from raystream.testing import Barrier, TestSource
from tests.unit.runtime.slot_world import VisibleSink, World, program

WORDS = ["fine", "bad"]


class PanicException(BaseException):
    """What an extension module written in Rust raises."""


ESCAPES = [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, PanicException]


@pytest.fixture(autouse=True)
def _nothing_visible():
    VisibleSink.visible.clear()
    VisibleSink.aborted.clear()


def raise_on_bad(error, value):
    if value == "bad":
        raise error("from user code")
    return value


def yield_on_bad(error, value):
    yield raise_on_bad(error, value)


class Guarded(MapFunction):
    """Raises in the method that it is told to."""

    def __init__(self, error, where):
        self.error, self.where = error, where

    def open(self, ctx):
        self.reached("open")

    def map(self, value):
        return value

    def close(self):
        self.reached("close")

    def reached(self, where):
        if where == self.where:
            raise self.error("from user code")


class EndingSink(VisibleSink):
    """Raises in the method that it is told to."""

    def __init__(self, error, where):
        self.error, self.where = error, where

    def open_writer(self, context):
        return _Ending(super().open_writer(context), self.error, self.where)

    def open_committer(self, context):
        return _Ending(super().open_committer(context), self.error, self.where)


class _Ending:
    def __init__(self, inner, error, where):
        self._inner, self._error, self._where = inner, error, where

    def __getattr__(self, name):
        if name == self._where:
            raise self._error("from user code")
        return getattr(self._inner, name)


def run(change):
    """Run a job of one slot whose stream a function changes; return its world."""

    def build(env):
        change(env.from_source(TestSource([*WORDS, Barrier()]), uid="words"))

    world = World(program(build, parallelism=1), slots=1)
    world.deploy()
    world.connect()
    world.send(msg.Start)
    return world


def assert_failed(world, error, *, operator, record=None):
    failure = world.failure()
    assert isinstance(failure.error, UserCodeError)
    assert failure.retryable
    context = failure.error.context
    assert (context["operator"], context["subtask"]) == (operator, 0)
    assert context["cause"] == f"{error.__name__}: from user code"
    assert record is None or context["record"] == record
    world.send(msg.StopAttempt)
    assert len(world.all(msg.SlotStopped)) == 1, "the slot lives on"


@pytest.mark.parametrize("error", ESCAPES)
def test_map_that_escapes_is_reported_with_operator_subtask_and_record(error):
    world = run(
        lambda words: words.map(partial(raise_on_bad, error), name="parse", uid="m").sink_to(
            VisibleSink(), uid="o"
        )
    )

    assert_failed(world, error, operator="parse", record="'bad'")


@pytest.mark.parametrize("error", ESCAPES)
def test_generator_that_escapes_is_reported_with_operator_subtask_and_record(error):
    world = run(
        lambda words: words.flat_map(partial(yield_on_bad, error), name="split", uid="m").sink_to(
            VisibleSink(), uid="o"
        )
    )

    assert_failed(world, error, operator="split", record="'bad'")


@pytest.mark.parametrize("error", ESCAPES)
def test_open_that_escapes_is_reported_with_its_operator(error):
    world = run(
        lambda words: words.map(Guarded(error, "open"), name="model", uid="m").sink_to(VisibleSink(), uid="o")
    )

    assert_failed(world, error, operator="model")


@pytest.mark.parametrize("where", ["start", "write", "prepare_commit"])
def test_sink_that_escapes_fails_the_attempt(where):
    world = run(lambda words: words.sink_to(EndingSink(SystemExit, where), name="out", uid="o"))
    world.trigger(1)

    assert len(world.all(msg.SlotFailed)) == 1


@pytest.mark.parametrize("error", ESCAPES)
def test_commit_that_escapes_in_its_thread_is_reported_with_its_operator(error):
    world = run(lambda words: words.sink_to(EndingSink(error, "commit"), name="out", uid="o"))
    world.trigger(1)
    world.send(msg.CheckpointCompleted, checkpoint_id=1)

    assert_failed(world, error, operator="out")
    assert VisibleSink.visible == []


def test_close_that_escapes_leaves_the_slot_fit_for_the_next_attempt():
    world = run(
        lambda words: words.map(Guarded(SystemExit, "close"), uid="m").sink_to(VisibleSink(), uid="o")
    )
    world.send(msg.StopAttempt)
    assert len(world.all(msg.SlotStopped)) == 1

    world.begin()
    assert world.all(msg.SlotFailed) == []


def test_message_that_can_not_be_made_does_not_hide_the_error():
    class MuteError(ValueError):
        def __str__(self):
            raise SystemExit

    def mute(word):
        raise MuteError

    world = run(lambda words: words.map(mute, name="mute", uid="m").sink_to(VisibleSink(), uid="o"))

    assert world.failure().error.context["operator"] == "mute"
    assert world.failure().error.context["cause"] == "MuteError whose message raised SystemExit"


@pytest.mark.parametrize("error", ESCAPES)
def test_loop_goes_on_whatever_a_round_raises(error, monkeypatch):
    """`Slot.run` in a thread of its own would otherwise end without a word, and the job hang for ever."""
    world = run(lambda words: words.sink_to(VisibleSink(), uid="o"))
    slot: Slot = world.slots[0]

    def escape():
        raise error

    monkeypatch.setattr(slot._attempt, "round", escape)
    slot.deliver(msg.StopAttempt(attempt=2))  # Of another attempt: the round follows it.
    assert slot.step()
    slot.close()
    slot.run()

    assert world.failure().error.context["cause"].startswith(error.__name__)


# ---- whole jobs ---------------------------------------------------------------


def leave(value):
    sys.exit("enough")


def test_local_job_whose_code_exits_fails_and_does_not_hang():
    env = StreamEnvironment(runner="local", parallelism=2)
    env.from_collection(range(10), uid="in").map(leave, name="leave", uid="m").print()

    with pytest.raises(JobFailedError) as caught:
        env.execute("leave")

    assert "SystemExit: enough" in str(caught.value.__cause__)
