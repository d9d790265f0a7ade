"""Streams are given their event time at the source or behind it."""

import pytest

from raystream import GraphError, StreamEnvironment, WatermarkStrategy
from raystream.graph.chaining import plan_job
from tests.unit.api.fakes import FakeRunner, FakeSink, FakeSource
from tests.unit.graph.nodes import chains, edges

STRATEGY = WatermarkStrategy.for_monotonous_timestamps()


@pytest.fixture
def env():
    return StreamEnvironment(runner=FakeRunner(), parallelism=2)


def planned(env):
    return plan_job(env._graph, parallelism=2)


@pytest.mark.parametrize("chain", ["always", "never"])
def test_watermarks_of_a_source_are_made_where_its_splits_are_known(env, chain):
    source = env.from_source(FakeSource(), watermarks=STRATEGY, name="in", parallelism=3, chain=chain)
    source.key_by(len).map(len).sink_to(FakeSink(), name="out")

    assert chains(planned(env)) == [["in"], ["map(len)", "out"]]
    assert planned(env).vertices[0].operators[0].factory.arguments == (STRATEGY, 200)
    assert edges(planned(env)) == [("in", None, "map(len)", "hash")]


def test_stream_may_be_given_watermarks_behind_other_operators(env):
    lines = env.from_source(FakeSource(), name="in")
    stamped = lines.map(len).assign_timestamps_and_watermarks(STRATEGY, name="by length")
    stamped.sink_to(FakeSink(), name="out")

    assert chains(planned(env)) == [["in", "map(len)", "by length", "out"]]


def test_interval_of_the_watermarks_is_configured():
    env = StreamEnvironment(runner=FakeRunner(), pipeline_auto_watermark_interval="50ms")
    env.from_source(FakeSource()).assign_timestamps_and_watermarks(STRATEGY)
    default = StreamEnvironment(runner=FakeRunner())

    assert planned(env).vertices[0].operators[1].factory.arguments == (50,)
    assert default.config.pipeline.auto_watermark_interval_ms == 200


@pytest.mark.parametrize("strategy", [WatermarkStrategy, "monotonous", len])
def test_something_else_than_a_strategy_is_refused(env, strategy):
    with pytest.raises(GraphError, match="not given as a strategy"):
        env.from_source(FakeSource(), watermarks=strategy)
    with pytest.raises(GraphError, match="not given as a strategy"):
        env.from_source(FakeSource()).assign_timestamps_and_watermarks(strategy)
