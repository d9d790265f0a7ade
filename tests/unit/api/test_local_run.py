"""Programs written against the public API give the right records on the local runner."""

import operator
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from raystream import (
    JobFailedError,
    JobStatus,
    KeyedProcessFunction,
    ListStateDescriptor,
    MapFunction,
    OutputTag,
    ProcessFunction,
    StreamEnvironment,
    ValueStateDescriptor,
)
from raystream.connectors.datagen import DatagenSource

ROOT = Path(__file__).resolve().parents[3]

ODD = OutputTag("odd")


class Halve(ProcessFunction):
    def process_element(self, value, ctx):
        if value % 2:
            ctx.output(ODD, value)
        else:
            yield value // 2


class Numbered(KeyedProcessFunction):
    def open(self, ctx):
        self.count = ctx.get_state(ValueStateDescriptor("count", int, default=0))
        self.seen = ctx.get_list_state(ListStateDescriptor("seen", str))

    def process_element(self, value, ctx):
        self.count.update(self.count.value() + 1)
        self.seen.add(value)
        return [(ctx.current_key, self.count.value(), list(self.seen.get()))]


class NumberOfKey(MapFunction):
    def open(self, ctx):
        self.count = ctx.get_state(ValueStateDescriptor("count", int, default=0))

    def map(self, value):
        self.count.update(self.count.value() + 1)
        return value, self.count.value()


class Offset(MapFunction):
    def __init__(self, offset):
        self.offset = offset

    def open(self, ctx):
        self.offset += ctx.max_parallelism

    def map(self, value):
        return value + self.offset


@pytest.fixture(params=[1, 3])
def env(request):
    return StreamEnvironment(runner="local", parallelism=request.param)


def test_collection_comes_back_in_order(env):
    assert env.from_collection(range(2000)).execute_and_collect() == list(range(2000))


def test_map_flat_map_and_filter(env):
    lines = env.from_collection(["to be", "or", "not to be"])

    words = lines.flat_map(str.split).filter(lambda word: word != "or").map(str.upper)

    assert Counter(words.execute_and_collect()) == Counter(["TO", "BE", "NOT", "TO", "BE"])


def test_keyed_state_is_that_of_the_key(env):
    words = env.from_collection(["ab", "ac", "b", "ad"]).key_by(lambda word: word[0])

    assert sorted(words.process(Numbered()).execute_and_collect()) == [
        ("a", 1, ["ab"]),
        ("a", 2, ["ab", "ac"]),
        ("a", 3, ["ab", "ac", "ad"]),
        ("b", 1, ["b"]),
    ]


def test_map_of_a_function_object_on_a_keyed_stream_has_the_state_of_the_key(env):
    words = env.from_collection(["ab", "ac", "b", "ad"]).key_by(lambda word: word[0])

    numbered = words.map(NumberOfKey()).execute_and_collect()

    assert sorted(numbered) == [("ab", 1), ("ac", 2), ("ad", 3), ("b", 1)]


def test_sum_and_reduce_are_running(env):
    pairs = env.from_collection([("a", 1), ("b", 5), ("a", 2)]).key_by(operator.itemgetter(0))

    assert sorted(pairs.sum(1).execute_and_collect()) == [("a", 1), ("a", 3), ("b", 5)]

    numbers = env.from_collection([3, 1, 4, 1, 5]).key_by(lambda number: 0)
    assert numbers.reduce(max).execute_and_collect() == [3, 3, 4, 4, 5]


def test_side_output_and_main_output_go_their_ways(env):
    halves = env.from_collection(range(6)).process(Halve())

    assert sorted(halves.get_side_output(ODD).execute_and_collect()) == [1, 3, 5]


def test_union_brings_all_records_together(env):
    first, second = env.from_collection([1, 2]), env.from_collection([3])

    assert sorted(first.union(second.map(lambda n: 10 * n), first).execute_and_collect()) == [1, 1, 2, 2, 30]


def test_rebalance_loses_nothing(env):
    assert sorted(env.from_collection(range(100)).rebalance().map(abs).execute_and_collect()) == list(
        range(100)
    )


def test_one_function_object_in_two_operators_is_two_functions(env):
    offset = Offset(1)

    assert env.from_collection([0]).map(offset).map(offset).execute_and_collect() == [2 * (1 + 128)]
    assert offset.offset == 1


def test_endless_stream_is_cut_at_the_limit(env):
    numbers = env.from_source(DatagenSource(lambda index: index)).execute_and_collect(limit=5)

    assert len(set(numbers)) == 5


def test_printed_records_appear_on_the_standard_output(capsys):
    env = StreamEnvironment(runner="local")
    env.from_collection(["a", "b"]).print()

    assert env.execute().status is JobStatus.FINISHED
    assert capsys.readouterr().out == "0> a\n0> b\n"


def test_failing_function_is_named_with_its_record(env):
    env.from_collection([2, 1, 0]).map(lambda n: 1 / n, name="inverse").print()

    with pytest.raises(JobFailedError) as raised:
        env.execute("division")

    context = raised.value.context
    assert (context["operator"], context["record"]) == ("inverse", "0")
    assert 'map(lambda n: 1 / n, name="inverse")' in context["traceback"]


def test_word_count_counts_every_word(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be\nTo be!\n")
    command = [sys.executable, "jobs/word_count.py", "--runner", "local", str(text)]

    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )

    counts = [eval(line.partition("> ")[2]) for line in done.stdout.splitlines()]
    assert sorted(counts) == sorted(
        [("to", 1), ("to", 2), ("to", 3), ("be", 1), ("be", 2), ("be", 3), ("or", 1), ("not", 1)]
    )
