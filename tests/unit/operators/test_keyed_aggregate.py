"""`aggregate` on a keyed stream emits the result of its key after each record."""

import pytest

from raystream import AggregateFunction, StreamEnvironment
from raystream.errors import GraphError
from raystream.testing import OperatorHarness


class Mean(AggregateFunction):
    def open(self, ctx):
        self.opened = ctx.uid

    def create_accumulator(self):
        return [0, 0]

    def add(self, value, accumulator):
        assert self.opened
        accumulator[0] += value[1]
        accumulator[1] += 1
        return accumulator

    def get_result(self, accumulator):
        return accumulator[0] / accumulator[1]

    def merge(self, first, second):
        return [first[0] + second[0], first[1] + second[1]]


def test_each_record_is_followed_by_the_result_of_its_key_also_across_a_rescale():
    with OperatorHarness(Mean(), key=lambda value: value[0], parallelism=2) as harness:
        harness.process([("a", 1), ("b", 5), ("a", 3)])
        assert sorted(harness.outputs) == [1.0, 2.0, 5.0]
        harness.restore(harness.snapshot(), parallelism=3)
        harness.outputs.clear()
        harness.process([("a", 5)])
        assert harness.outputs == [3.0]


def test_plain_function_cannot_aggregate():
    stream = StreamEnvironment(runner="local").from_collection([1]).key_by(abs)
    with pytest.raises(GraphError, match="AggregateFunction"):
        stream.aggregate(max)


def test_job_aggregates():
    stream = StreamEnvironment(runner="local").from_collection([("a", 1), ("a", 3)]).key_by(lambda v: v[0])
    assert stream.aggregate(Mean()).execute_and_collect() == [1.0, 2.0]
