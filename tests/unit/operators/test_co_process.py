"""Operators with two inputs: a method for each, one context and one keyed state."""

import pytest

from raystream import (
    CoFlatMapFunction,
    CoMapFunction,
    CoProcessFunction,
    GraphError,
    KeyedCoProcessFunction,
    ListStateDescriptor,
    UserCodeError,
    ValueStateDescriptor,
)
from raystream.errors import ConfigError
from raystream.keygroup import KeyGroupRange
from raystream.operators.co_process import CoProcessOperator, KeyedCoProcessOperator
from raystream.records.batch import RowBatch
from raystream.state.heap import HeapBackend
from raystream.testing import OperatorHarness, Second, check_operator
from raystream.testing.source_run import ManualClock
from tests.unit.operators.running import Run


def first_letter(value):
    return value[0]


class Pair(KeyedCoProcessFunction):
    """Pairs every record of an input with all that its key has had on the other one."""

    def open(self, ctx):
        self.lefts = ctx.get_list_state(ListStateDescriptor("lefts", str))
        self.rights = ctx.get_list_state(ListStateDescriptor("rights", str))

    def process_element1(self, value, ctx):
        self.lefts.add(value)
        for right in self.rights.get():
            yield ctx.current_key, value, right

    def process_element2(self, value, ctx):
        self.rights.add(value)
        if value.endswith("?"):
            ctx.output("questions", value)
        return [(ctx.current_key, left, value) for left in self.lefts.get()]


SCRIPT = [(0, "a1"), (1, "a2"), (1, "b3"), (0, "b4"), (0, "a5"), (1, "a6?"), (0, "c7"), (1, "b8?")]
PAIRS = [
    ("a", "a1", "a2"),
    ("b", "b4", "b3"),
    ("a", "a5", "a2"),
    ("a", "a1", "a6?"),
    ("a", "a5", "a6?"),
    ("b", "b4", "b8?"),
]


def pair_up(harness, *, between=lambda: None):
    for number, value in SCRIPT:
        (harness.process2 if number else harness.process)([value])
        between()


def test_both_inputs_share_the_state_of_a_key_however_a_job_runs_the_function():
    check_operator(
        Pair(),
        [Second(value) if number else value for number, value in SCRIPT],
        PAIRS,
        key=first_letter,
        key2=first_letter,
        side_outputs={"questions": ["a6?", "b8?"]},
    )


def test_shared_state_follows_its_keys_to_another_parallelism():
    parallelisms = iter([3, 1, 2, 4, 2, 1, 3, 2])
    with OperatorHarness(Pair(), key=first_letter, key2=first_letter, parallelism=2) as harness:
        pair_up(harness, between=lambda: harness.restore(harness.snapshot(), next(parallelisms)))

        assert harness.outputs == PAIRS


class Scale(CoMapFunction):
    def map1(self, value):
        return value * 10

    def map2(self, value):
        return int(value)


class Words(CoFlatMapFunction):
    def flat_map1(self, value):
        return value.split()

    def flat_map2(self, value):
        if value is not None:
            yield from value


class Merge(CoProcessFunction):
    def process_element1(self, value, ctx):
        yield "one", value, ctx.current_key

    def process_element2(self, value, ctx):
        return None if value is None else [("two", value, ctx.current_key)]


@pytest.mark.parametrize(
    ("function", "firsts", "seconds", "expected"),
    [
        (Scale(), [1, 2], ["7", "8"], [10, 20, 7, 8]),
        (Words(), ["to be", ""], [["or"], None], ["to", "be", "or"]),
        (Merge(), [1], [2, None], [("one", 1, None), ("two", 2, None)]),
    ],
)
def test_each_input_has_its_method(function, firsts, seconds, expected):
    with OperatorHarness(function) as harness:
        assert harness.process(firsts) + harness.process2(seconds) == expected


class Remember(CoMapFunction):
    def open(self, ctx):
        self.last = ctx.get_state(ValueStateDescriptor("last"))

    def map1(self, value):
        self.last.update(value)
        return value

    def map2(self, value):
        return self.last.value(), value


class RememberAll(CoFlatMapFunction, Remember):
    def flat_map1(self, value):
        return [self.map1(value)]

    def flat_map2(self, value):
        return [self.map2(value)]


@pytest.mark.parametrize("function", [Remember(), RememberAll()])
def test_co_map_and_co_flat_map_have_the_state_of_their_key_on_keyed_streams(function):
    with OperatorHarness(function, key=first_letter, key2=first_letter, operation=None) as harness:
        harness.process(["a1", "b1"])
        harness.restore(harness.snapshot(), parallelism=2)

        assert sorted(harness.process2(["a2", "b2"])) == [("a1", "a2"), ("b1", "b2")]


def batch(*keys, timestamps=None):
    return RowBatch([f"of {key}" for key in keys], timestamps, list(keys), [1] * len(keys))


def opened(operator, function):
    operator = operator(function)
    backend = HeapBackend(KeyGroupRange(0, 128), 128, operator.cursor, clock=ManualClock())
    run = Run(operator, tags=("questions",), keyed_backend=backend)
    operator.open()
    return run


@pytest.mark.parametrize("operator", [CoProcessOperator, KeyedCoProcessOperator])
@pytest.mark.parametrize("timestamps", [None, [10, 20]])
def test_records_keep_their_timestamps_on_both_inputs(operator, timestamps):
    run = opened(operator, Merge())
    for take in run.operator.inputs:
        take(batch("k", "l", timestamps=timestamps))

    assert [emitted.timestamps for emitted in run.batches] == [timestamps, timestamps]


@pytest.mark.parametrize("number", [0, 1])
def test_error_names_the_record_on_both_inputs(number):
    run = opened(CoProcessOperator, Merge())
    run.operator._function.process_element1 = run.operator._function.process_element2 = lambda *_: 1 / 0

    with pytest.raises(UserCodeError, match="user function raised") as raised:
        run.operator.inputs[number](batch("k"))
    assert raised.value.context["record"] == "'of k'"


@pytest.mark.parametrize(
    ("firsts", "seconds", "types"),
    [
        (["1"], [1], ("str", "number")),
        ([1], [("a", 1)], ("number", "tuple of 2")),
        ([("a", 1)], [("a", 1, 1)], ("tuple of 2", "tuple of 3")),
        ([b"1"], ["1"], ("bytes", "str")),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_keys_that_can_never_meet_are_refused(firsts, seconds, types, turned):
    run = opened(KeyedCoProcessOperator, Merge())
    first, second = run.operator.inputs
    calls = [(first, firsts), (second, seconds)]
    (take, keys), (take_last, last_keys) = reversed(calls) if turned else calls
    take(batch(*keys))

    with pytest.raises(GraphError, match="keys of different types") as raised:
        take_last(batch(*last_keys))
    assert (raised.value.context["first"], raised.value.context["second"]) == types
    assert raised.value.context["operator"] == "the operator"


def test_numbers_of_every_type_may_meet():
    run = opened(KeyedCoProcessOperator, Merge())
    first, second = run.operator.inputs
    first(batch(1, 2.5))
    second(batch(2.5, 1))

    assert len(run.values) == 4


def test_harness_refuses_keys_on_one_input_alone():
    with pytest.raises(ConfigError, match="one input has keys"):
        OperatorHarness(Merge(), key=first_letter)
    with pytest.raises(ConfigError, match="needs a keyed stream"):
        OperatorHarness(Pair())


class Expire(Pair):
    """Forgets a key when the watermark reaches the time of its last record."""

    def process_element1(self, value, ctx):
        ctx.timers.register_event_time(int(value[1:]))
        return super().process_element1(value, ctx)

    def process_element2(self, value, ctx):
        ctx.timers.register_event_time(int(value[1:]))
        return super().process_element2(value, ctx)

    def on_timer(self, timestamp, ctx):
        yield "expired", ctx.current_key, timestamp
        self.lefts.clear()
        self.rights.clear()


def test_timers_of_both_inputs_are_those_of_the_key_and_outlive_a_restore():
    with OperatorHarness(Expire(), key=first_letter, key2=first_letter) as harness:
        harness.process(["a1", "b5"])
        harness.process2(["a3"])
        harness.restore(harness.snapshot(), parallelism=2)

        assert sorted(harness.watermark(4)) == [("expired", "a", 1), ("expired", "a", 3)]
        assert harness.process2(["a9"]) == []
        assert harness.process2(["b9"]) == [("b", "b5", "b9")]
