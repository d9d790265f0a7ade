"""What user functions get from their context: reducing and aggregating state, and state that expires."""

import pytest

from raystream import (
    AggregatingStateDescriptor,
    KeyedProcessFunction,
    ListStateDescriptor,
    ReducingStateDescriptor,
    StateTtl,
    StreamEnvironment,
    ValueStateDescriptor,
)
from raystream.records.elements import WATERMARK_MAX_MS
from raystream.testing import OperatorHarness
from raystream.testing.state_kit import Mean, add


def by_name(value):
    return value[0]


class Statistics(KeyedProcessFunction):
    def open(self, ctx):
        self.total = ctx.get_reducing_state(ReducingStateDescriptor("total", add, int))
        self.mean = ctx.get_aggregating_state(AggregatingStateDescriptor("mean", Mean(), list[int]))

    def process_element(self, value, ctx):
        self.total.add(value[1])
        self.mean.add(value[1])
        yield ctx.current_key, self.total.get(), self.mean.get()


class Recent(KeyedProcessFunction):
    def open(self, ctx):
        ttl = StateTtl("100ms")
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0, ttl=ttl))
        self.values = ctx.get_list_state(ListStateDescriptor("values", int, ttl=ttl))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        self.values.add(value[1])
        yield ctx.current_key, self.seen.value(), self.values.get()


class Session(KeyedProcessFunction):
    """Emits what a key has had in the 100 ms before its timer, which is set for 60 ms after each record."""

    def open(self, ctx):
        ttl = StateTtl("100ms", time="event-time")
        self.values = ctx.get_list_state(ListStateDescriptor("values", int, ttl=ttl))

    def process_element(self, value, ctx):
        self.values.add(value[1])
        ctx.timers.register_event_time(value[1] + 60)

    def on_timer(self, timestamp, ctx):
        yield timestamp, self.values.get()


def test_reducing_and_aggregating_state_survive_a_rescale():
    with OperatorHarness(Statistics(), key=by_name, parallelism=2) as harness:
        harness.process([("a", 1), ("b", 10), ("a", 4)])
        harness.restore(harness.snapshot(), parallelism=3)
        harness.process([("a", 4), ("b", 20)])
        assert sorted(harness.outputs) == [
            ("a", 1, 1.0),
            ("a", 5, 2.5),
            ("a", 9, 3.0),
            ("b", 10, 10.0),
            ("b", 30, 15.0),
        ]


def test_state_expires_in_processing_time_also_across_a_restore():
    with OperatorHarness(Recent(), key=by_name) as harness:
        harness.processing_time(10_000)
        harness.process([("a", 1)])
        harness.processing_time(10_060)
        harness.process([("a", 2)])
        harness.restore(harness.snapshot(), parallelism=2)
        harness.processing_time(10_120)
        harness.process([("a", 3)])
        harness.processing_time(10_220)
        harness.process([("a", 4)])
    assert harness.outputs == [
        ("a", 1, [1]),
        ("a", 2, [1, 2]),
        ("a", 3, [2, 3]),  # The count was renewed when 2 was written, the element 1 was not.
        ("a", 1, [4]),
    ]


def test_job_uses_reducing_and_aggregating_state():
    stream = StreamEnvironment(runner="local").from_collection([("a", 1), ("a", 3)]).key_by(by_name)
    assert stream.process(Statistics()).execute_and_collect() == [("a", 1, 1.0), ("a", 4, 2.0)]


@pytest.mark.parametrize("step_ms", [1, 50, 10**9])
def test_state_expires_in_event_time_alike_however_far_watermarks_are_apart(step_ms):
    """Also when all timers fire by the last watermark, as at the end of the input."""
    with OperatorHarness(Session(), key=by_name) as harness:
        times = [0, 50, 99, 400]
        harness.process([("a", time) for time in times], timestamps=times)
        for watermark in range(0, 500, step_ms):
            harness.watermark(watermark)
            harness.processing_time(10_000 + watermark)
        harness.watermark(WATERMARK_MAX_MS)
    assert harness.outputs == [
        (60, [0, 50, 99, 400]),
        (110, [50, 99, 400]),
        (159, [99, 400]),
        (460, [400]),
    ]


def test_event_time_of_state_goes_on_across_a_restore_to_another_parallelism():
    with OperatorHarness(Session(), key=by_name) as harness:
        harness.process([("a", 0), ("a", 50)], timestamps=[0, 50])
        harness.watermark(59)
        harness.restore(harness.snapshot(), parallelism=3)
        assert harness.watermark(120) == [(60, [0, 50]), (110, [50])]


def test_processing_timer_finds_state_by_the_watermark_and_not_by_its_own_time():
    class Later(Session):
        def process_element(self, value, ctx):
            self.values.add(value[1])
            ctx.timers.register_processing_time(20_000)

    with OperatorHarness(Later(), key=by_name) as harness:
        harness.process([("a", 0), ("a", 50)], timestamps=[0, 50])
        harness.watermark(100)
        assert harness.processing_time(20_000) == [(20_000, [50])]
