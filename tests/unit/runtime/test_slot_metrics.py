"""What slots report of their subtasks: counts of each operator, watermarks, sizes, user metrics."""

import pytest

from raystream import KeyedProcessFunction, ValueStateDescriptor, WatermarkStrategy
from raystream.metrics import catalogue
from raystream.runtime import messages as msg
from raystream.testing import Pause, TestSource
from tests.unit.runtime.slot_world import VisibleSink, World, program

TestSource.__test__ = False
WORDS = ["ape", "bear", "cat", "asp", "bat", "", "cow"]


class Measured(KeyedProcessFunction):
    """Counts words with state, and by `ctx.metrics`."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))
        self.words = ctx.metrics.counter("words")
        self.lengths = ctx.metrics.histogram("length")

    def process_element(self, value, ctx):
        self.words.inc()
        self.lengths.update(len(value))
        self.seen.update(self.seen.value() + 1)
        ctx.output("long", value)
        yield value
        yield value


class Same(KeyedProcessFunction):
    """Emits what it gets."""

    def process_element(self, value, ctx):
        yield value


def first(word):
    return word[0]


def build(env):
    words = env.from_source(TestSource(WORDS, []), name="words", uid="words")
    some = words.filter(bool, name="some", uid="some")
    counted = some.map(str.upper, name="upper", uid="upper")
    counted = counted.key_by(first).process(Measured(), name="count", uid="count")
    counted.sink_to(VisibleSink(), name="out", uid="out")
    counted.get_side_output("long").sink_to(VisibleSink(), name="long", uid="long")


def latest(world):
    """Return the last metrics of each operator, over all subtasks: values by key, added up."""
    newest = {report.slot: report for report in world.all(msg.Progress)}
    totals = {}
    for report in newest.values():
        for subtask in report.subtasks:
            for operator in subtask.operators:
                values = totals.setdefault(operator.uid, {})
                for key, value in (operator.values | operator.user).items():
                    values[key] = values.get(key, 0.0) + value
    return totals


@pytest.fixture
def world():
    world = World(program(build))
    world.begin()
    return world


def test_every_operator_of_a_chain_has_its_own_counts(world):
    world.clock.now_ms += 1000
    world.settle()

    counts = {
        uid: (values[catalogue.NUM_RECORDS_IN], values[catalogue.NUM_RECORDS_OUT])
        for uid, values in latest(world).items()
    }

    assert counts == {
        "words": (7, 7), "some": (7, 6), "upper": (6, 6), "count": (6, 18), "out": (12, 12), "long": (6, 6),
    }  # fmt: skip


def test_times_of_a_chain_stand_at_its_head_and_make_a_second(world):
    world.clock.now_ms += 1000
    world.settle()

    times = (catalogue.BUSY_TIME, catalogue.BACK_PRESSURED_TIME, catalogue.IDLE_TIME)
    for report in world.all(msg.Progress):
        for subtask in report.subtasks:
            assert sum(subtask.operators[0].values[key] for key in times) == pytest.approx(1000)
            assert not any(key in one.values for one in subtask.operators[1:] for key in times)


def test_user_metrics_are_reported_and_begin_at_zero_in_the_next_attempt(world):
    world.clock.now_ms += 1000
    world.settle()
    assert latest(world)["count"]["words"] == 6
    assert latest(world)["count"]["length_count"] == 6

    world.begin()
    world.clock.now_ms += 1000
    world.settle()
    assert latest(world)["count"]["words"] == 6


def test_size_of_state_is_that_of_the_last_snapshot(world):
    assert catalogue.STATE_SIZE not in latest(world)["count"]
    world.trigger(1)
    world.clock.now_ms += 1000
    world.settle()

    assert latest(world)["count"][catalogue.STATE_SIZE] > 0
    assert latest(world)["upper"][catalogue.STATE_SIZE] == 0


def test_watermarks_are_those_that_entered_and_left():
    def timed(env):
        strategy = WatermarkStrategy.for_bounded_out_of_orderness(5).with_timestamp_assigner(int)
        times = env.from_source(TestSource([100, 300, Pause(60_000)]), name="times", uid="times")
        late = times.assign_timestamps_and_watermarks(strategy, name="late", uid="late")
        late.key_by(str).process(Same(), name="same", uid="same").sink_to(VisibleSink(), uid="out")

    world = World(program(timed, parallelism=1), slots=1)
    world.begin()
    world.clock.now_ms += 1000
    world.settle()
    world.clock.now_ms += 1000
    world.settle()
    times, late, same = (latest(world)[uid] for uid in ("times", "late", "same"))

    assert catalogue.INPUT_WATERMARK not in times
    assert catalogue.INPUT_WATERMARK not in late, "before the first one there is none"
    assert late[catalogue.OUTPUT_WATERMARK] == same[catalogue.INPUT_WATERMARK] == 294
