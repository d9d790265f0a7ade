"""`on_error="dead-letter"`: what a program may say, and what becomes of the records on the local runner."""

import json
from collections import Counter

import pytest

from raystream import (
    DeadLetter,
    GraphError,
    JobFailedError,
    JobStatus,
    KeyedProcessFunction,
    StreamEnvironment,
    ValueStateDescriptor,
    WatermarkStrategy,
)
from raystream.connectors.files import FileSink
from raystream.testing import Barrier, Crash, TestSource
from tests.published import records
from tests.unit.api.fakes import FakeRunner, FakeSink, FakeSource

TEXTS = ["1", "two", "3", "four", "5"]


@pytest.fixture
def env():
    return StreamEnvironment(runner="local")


def texts(env):
    return env.from_collection(TEXTS, uid="texts")


# ---- what may be said -------------------------------------------------------


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda s: s.map(int, on_error="ignore"), "none of its words"),
        (lambda s: s.sink_to(FakeSink(), on_error="dead-letter"), "without a function"),
        (lambda s: s.print(on_error="dead-letter"), "without a function"),
        (
            lambda s: s.assign_timestamps_and_watermarks(
                WatermarkStrategy.for_monotonous_timestamps(), on_error="dead-letter"
            ),
            "without a function",
        ),
        (lambda s: s.dead_letters(), "makes none"),
        (lambda s: s.map(int).dead_letters(), "makes none"),
        (lambda s: s.map(int, on_error="dead-letter").rebalance().dead_letters(), "makes none"),
        (lambda s: s.map(int, on_error="dead-letter").filter(bool).dead_letters(), "makes none"),
        (lambda s: s.process(lambda v, _: [v]).get_side_output("_dead-letters"), "reserved"),
        (lambda s: s._environment.dead_letters(), "makes none"),
    ],
)
def test_what_makes_no_dead_letters_is_refused(env, declare, message):
    with pytest.raises(GraphError, match=message) as caught:
        declare(texts(env))

    assert caught.value.hint


def test_source_has_no_dead_letters(env):
    with pytest.raises(GraphError, match="without a function"):
        env.from_source(FakeSource(), on_error="dead-letter")


def test_dead_letters_without_a_sink_are_refused_at_submission():
    env = StreamEnvironment(runner=FakeRunner())
    numbers = texts(env).map(int, name="parse", on_error="dead-letter")
    numbers.filter(bool, name="true", on_error="dead-letter").sink_to(FakeSink())
    numbers.dead_letters().sink_to(FakeSink())

    with pytest.raises(GraphError, match="dead letters have no sink") as caught:
        env.submit()

    assert caught.value.context == {"operator": "true"}
    assert "env.dead_letters()" in caught.value.hint


def test_record_fails_the_job_by_default(env):
    texts(env).map(int, uid="parse").print()

    with pytest.raises(JobFailedError, match="two"):
        env.execute()


# ---- what becomes of the records --------------------------------------------


def test_letters_of_one_operator_are_its_own(env):
    parsed = texts(env).map(int, uid="parse", on_error="dead-letter")
    inverse = parsed.map(lambda value: 1 // (value - 3), uid="inverse", on_error="dead-letter")
    inverse.print()
    parsed.dead_letters().print()

    letters = inverse.dead_letters().execute_and_collect()

    assert [(type(letter), letter.value, letter.uid) for letter in letters] == [(DeadLetter, 3, "inverse")]


def test_letters_of_all_operators_come_together_and_are_counted(env, tmp_path):
    parsed = texts(env).map(int, uid="parse", on_error="dead-letter")
    parsed.filter(lambda value: 1 // (value - 3), uid="inverse", on_error="dead-letter").print()
    dead = env.dead_letters()
    dead.sink_to(FileSink.json_lines(tmp_path))

    result = env.execute()

    assert (result.status, result.dead_letters) == (JobStatus.FINISHED, 3)
    assert Counter((letter["uid"], letter["value"]) for letter in records(tmp_path)) == {
        ("parse", "two"): 1, ("parse", "four"): 1, ("inverse", 3): 1,
    }  # fmt: skip


@pytest.mark.parametrize("operation", ["reduce", "sum"])
def test_record_that_a_reduction_cannot_take_leaves_the_state_as_it_was(env, operation):
    keyed = env.from_collection([1, "x", 2]).key_by(lambda _: "one")
    reduced = (
        keyed.reduce(lambda a, b: a + b, on_error="dead-letter")
        if operation == "reduce"
        else keyed.sum(on_error="dead-letter")
    )
    reduced.dead_letters().print()

    assert reduced.execute_and_collect() == [1, 3]


class Count(KeyedProcessFunction):
    """Counts what its key has had, and fails for every third record."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        seen = self.seen.value() + 1
        self.seen.update(seen)
        yield ctx.current_key, seen
        if seen % 3 == 0:
            raise ValueError(f"{ctx.current_key} for the {seen}th time")


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_every_record_comes_once_alive_or_dead_over_a_crash(tmp_path, parallelism):
    env = StreamEnvironment(
        runner="local",
        parallelism=parallelism,
        execution_checkpointing_dir=str(tmp_path / "checkpoints"),
        execution_checkpointing_interval="10ms",
        execution_checkpointing_min_pause="0ms",
        restart_strategy_type="fixed-delay",
        restart_strategy_fixed_delay_delay="1ms",
    )
    keys = [f"key {n % 4}" for n in range(120)]
    parts = [keys[n::3] for n in range(3)]
    source = TestSource(*([Barrier(), *part[:20], Crash(), *part[20:], Barrier()] for part in parts))
    counts = (
        env.from_source(source, uid="keys")
        .key_by(str)
        .process(Count(), name="count", uid="count", on_error="dead-letter")
    )
    counts.sink_to(FileSink.json_lines(tmp_path / "alive"), uid="alive")
    counts.dead_letters().sink_to(FileSink.json_lines(tmp_path / "dead"), uid="dead")

    result = env.submit("counts").wait("60s")

    assert (result.status, result.restarts >= 1) == (JobStatus.FINISHED, True)
    wanted = [(f"key {n}", seen) for n in range(4) for seen in range(1, 31)]
    assert sorted(map(tuple, records(tmp_path / "alive"))) == [one for one in wanted if one[1] % 3]
    letters = records(tmp_path / "dead")
    assert sorted((letter["key"], letter["message"]) for letter in letters) == sorted(
        (key, f"{key} for the {seen}th time") for key, seen in wanted if seen % 3 == 0
    )
    assert {(letter["operator"], letter["uid"], letter["error_type"]) for letter in letters} == {
        ("count", "count", "ValueError")
    }
    assert result.dead_letters >= len(letters), json.dumps(letters[:1])
