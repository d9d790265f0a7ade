"""What user functions get from their context: reducing and aggregating state, and state that expires."""

from raystream import (
    AggregatingStateDescriptor,
    KeyedProcessFunction,
    ListStateDescriptor,
    ReducingStateDescriptor,
    StateTtl,
    StreamEnvironment,
    ValueStateDescriptor,
)
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
