"""What fails in a slot is reported once, by name, and leaves the slot fit for the next attempt."""

import threading
from typing import ClassVar

import pytest

from raystream import MapFunction
from raystream.errors import (
    ConnectionLostError,
    OutputLostError,
    RaystreamError,
    StateCorruptError,
    UserCodeError,
)
from raystream.runtime import messages as msg
from raystream.state.registry import Verdict
from raystream.testing import Barrier, TestSource
from tests.unit.runtime.slot_world import VisibleSink, World, program, restore_of, word_count

FIRST, SECOND = ["ape", "dog", "ape", "elk"] * 5, ["dog", "ape", "bee"] * 5


@pytest.fixture(autouse=True)
def _nothing_visible():
    VisibleSink.visible.clear()
    VisibleSink.aborted.clear()


def two_scripts(*between):
    return TestSource([*FIRST, *between, *SECOND], [*SECOND, *between, *FIRST])


# ---- what goes wrong --------------------------------------------------------


def parse(line):
    if line == "bad":
        raise ValueError("cannot parse")
    return line


def failing(env):
    lines = env.from_source(TestSource(["fine", "bad"], ["fine"]), uid="lines")
    lines.map(parse, name="parse line", uid="parse").sink_to(VisibleSink(), uid="out")


def test_failing_function_is_reported_with_operator_subtask_and_record():
    world = World(program(failing))
    world.begin()

    failure = world.failure()
    assert isinstance(failure.error, UserCodeError)
    assert failure.slot == 0
    assert failure.retryable
    assert not failure.consequence
    assert failure.error.context["operator"] == "parse line"
    assert failure.error.context["subtask"] == 0
    assert failure.error.context["record"] == "'bad'"
    assert "in parse" in failure.error.context["traceback"]


def test_failed_slot_reports_once_and_takes_the_next_attempt():
    world = World(program(failing))
    world.begin()
    world.send(msg.CommitAtEnd, slots=[0])
    world.trigger(1, slots=[0])
    assert len(world.all(msg.SlotFailed)) == 1
    assert world.all(msg.SnapshotAcked) == []
    assert world.slots[0].next_deadline_ms() is None

    world.send(msg.StopAttempt)
    assert len(world.all(msg.SlotStopped)) == 2
    world.begin()
    assert len(world.all(msg.SlotFailed)) == 1


def test_failed_slot_takes_its_peers_frames_and_they_go_on():
    def build(env):
        words = env.from_source(TestSource(["bad"], FIRST), uid="words")
        parsed = words.key_by(len).process(lambda word, ctx: [parse(word)], uid="parse")
        parsed.sink_to(VisibleSink(), uid="out")

    world = World(program(build, parallelism=2))
    world.begin()

    assert len(world.all(msg.SlotFailed)) == 1
    world.settle()  # Comes to rest, though frames for the failed slot were on their way.


def test_peer_that_is_gone_is_reported_as_a_consequence():
    world = World(word_count(two_scripts(Barrier())))
    world.deploy()
    world.connect()
    world.links[1].close()
    world.tell(msg.Start(attempt=1), slots=[0])
    world.settle(slots=[0])

    failure = world.failure()
    assert failure.slot == 0
    assert isinstance(failure.error, ConnectionLostError)
    assert failure.consequence


def test_probe_that_cannot_be_read_fails_the_slot_for_good():
    world = World(word_count(two_scripts()))
    world.deploy(probe="memory://nowhere/probe")

    assert world.all(msg.SlotDeployed) == []
    assert [failure.slot for failure in world.all(msg.SlotFailed)] == [0, 1]
    assert not any(failure.retryable for failure in world.all(msg.SlotFailed))


def test_probe_that_was_read_before_and_is_gone_fails_only_the_attempt():
    world = World(word_count(two_scripts()))
    world.deploy(probe="memory://nowhere/probe", probe_served=True)

    assert world.all(msg.SlotDeployed) == []
    assert all(failure.retryable for failure in world.all(msg.SlotFailed))
    assert "not shared" in world.all(msg.SlotFailed)[0].error.message


@pytest.mark.parametrize("restoring", [True, False])
def test_unreadable_state_is_damage_of_the_snapshot_only_while_it_is_restored(monkeypatch, restoring):
    def damaged(*arguments):
        raise StateCorruptError("file of the snapshot is missing", path="file:///state")

    world = World(word_count(two_scripts()))
    if restoring:
        monkeypatch.setattr("raystream.runtime.assembly.Assembly.read_restored", damaged)
    else:
        monkeypatch.setattr("raystream.runtime.subtask.Subtask.poll_source", damaged)
    world.deploy()
    world.connect()
    if not restoring:
        world.tell(msg.Start(attempt=1))
        world.settle()

    failures = world.all(msg.SlotFailed)
    assert failures
    assert {failure.damage for failure in failures} == {restoring}
    assert not any(failure.retryable for failure in failures)


def test_snapshots_that_do_not_close_keep_nothing_else_of_an_attempt(monkeypatch, caplog):
    world = World(word_count(two_scripts()))
    world.begin()
    attempt = world.slots[0]._attempt
    closed = []

    def refuse():
        raise RaystreamError("snapshots do not close")

    monkeypatch.setattr(attempt._snapshotter, "close", refuse)
    monkeypatch.setattr(world.links[0], "close", lambda: closed.append("links"))
    world.send(msg.StopAttempt)

    assert (closed, attempt.subtasks) == (["links"], [])
    assert "did not close cleanly" in caplog.text
    assert len(world.all(msg.SlotStopped)) == 2


def test_program_that_does_not_load_fails_the_slot():
    world = World(word_count(two_scripts()))
    world.packed = b"not a program"
    world.deploy()

    assert len(world.all(msg.SlotFailed)) == 2
    world.send(msg.StopAttempt)
    assert len(world.all(msg.SlotStopped)) == 2


class Troubled(MapFunction):
    """A map function that fails where it is told to."""

    log: ClassVar[list[str]] = []

    def __init__(self, name, *fails):
        self.name = name
        self.fails = fails

    def open(self, ctx):
        self.note("open")

    def map(self, value):
        return value

    def close(self):
        self.note("close")

    def note(self, event):
        self.log.append(f"{event} {self.name}")
        if event in self.fails:
            raise RuntimeError(f"{self.name} failed to {event}")


def troubled(*functions):
    def build(env):
        stream = env.from_source(TestSource(FIRST), uid="words")
        for function in functions:
            stream = stream.map(function, name=function.name, uid=function.name)
        stream.sink_to(VisibleSink(), uid="out")

    Troubled.log.clear()
    return World(program(build, parallelism=1), slots=1)


def test_function_that_does_not_open_is_named_and_only_what_was_opened_is_closed():
    world = troubled(Troubled("first"), Troubled("second", "open"), Troubled("third"))
    world.deploy()
    world.connect()

    assert world.failure().error.context["operator"] == "second"
    world.send(msg.StopAttempt)
    assert Troubled.log == ["open first", "open second", "close first", "close second"]


def test_function_that_does_not_close_does_not_keep_the_rest_open():
    world = troubled(Troubled("first", "close"), Troubled("second", "close"), Troubled("third"))
    world.begin()
    world.send(msg.StopAttempt)

    assert Troubled.log[3:] == ["close first", "close second", "close third"]
    assert len(world.all(msg.SlotStopped)) == 1
    world.begin()
    assert world.all(msg.SlotFailed) == []


def test_error_that_does_not_pickle_is_reported_in_words():
    class OwnError(RaystreamError):
        """Cannot be found by name."""

    def build(env):
        env.from_source(TestSource(["x"]), uid="words").sink_to(FailingSink(), uid="out")

    FailingSink.error = OwnError("it broke", lock=threading.Lock())
    world = World(program(build, parallelism=1), slots=1)
    world.begin()

    error = world.failure().error
    assert error.message == "it broke"
    assert "lock" in error.context["cause"]


class FailingSink(VisibleSink):
    error: RaystreamError

    def open_writer(self, context):
        return self

    def start(self):
        pass

    def write(self, batch):
        raise self.error

    def abort(self):
        pass

    def close(self):
        pass


# ---- restored state and the program -----------------------------------------


def renamed(source, **options):
    """The word count without its state."""

    def build(env):
        words = env.from_source(source, name="words", uid="words")
        words.key_by(len).process(lambda word, ctx: [word], uid="count").sink_to(VisibleSink(), uid="out")

    return program(build, **options)


def snapshot_of_counts(source):
    world = World(word_count(source))
    world.begin()
    return restore_of(world.trigger(1))


def test_state_that_the_program_does_not_register_is_reported_by_every_slot_before_it_runs():
    source = two_scripts(Barrier())
    world = World(renamed(source))
    world.deploy(restore=snapshot_of_counts(source))
    world.connect()

    missing = [
        (report.slot, state.uid, state.state)
        for report in world.all(msg.SlotReady)
        for state in report.states
        if state.verdict is Verdict.MISSING
    ]
    assert sorted(missing) == [(0, "count", "seen"), (1, "count", "seen")]
    assert sum(state.entries for report in world.all(msg.SlotReady) for state in report.states) > 0


def test_state_that_the_program_does_not_register_is_dropped_on_demand():
    source = two_scripts(Barrier())
    options = {"execution_state_recovery_ignore_unclaimed_state": True}
    world = World(renamed(source, **options))
    world.begin(restore=snapshot_of_counts(source))

    assert world.all(msg.SlotFailed) == []
    operators = [o for slot in world.slots for s in slot._attempt.subtasks for o in s.operators]
    keyed = [o.context.keyed_backend for o in operators if o.context.keyed_backend is not None]
    assert [backend.restored_states() for backend in keyed] == [(), ()]


def test_output_that_is_lost_fails_the_slot_for_good():
    def lose(line):
        raise OutputLostError("pre-committed output is missing")

    class LosingSink(VisibleSink):
        def open_committer(self, context):
            return self

        commit = staticmethod(lose)

    def build(env):
        env.from_source(TestSource(["ape", Barrier()]), uid="in").sink_to(LosingSink(), uid="out")

    world = World(program(build, parallelism=1), slots=1)
    world.begin()
    world.trigger(1)
    world.send(msg.CheckpointCompleted, checkpoint_id=1)
    world.settle()

    failure = world.failure()
    assert isinstance(failure.error, OutputLostError)
    assert not failure.retryable
