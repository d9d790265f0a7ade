"""The operator harness runs functions as a job does, and finds what a job would break on."""

import threading

import pytest

from raystream import (
    FilterFunction,
    FlatMapFunction,
    KeyedProcessFunction,
    ListStateDescriptor,
    MapFunction,
    MapStateDescriptor,
    ProcessFunction,
    ReduceFunction,
    ValueStateDescriptor,
)
from raystream.errors import ConfigError, StateError, StateRestoreError, UserCodeError
from raystream.testing.check import check_operator
from raystream.testing.harness import OperatorHarness


class Count(KeyedProcessFunction):
    """Has every kind of state."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))
        self.values = ctx.get_list_state(ListStateDescriptor("values", str))
        self.lengths = ctx.get_map_state(MapStateDescriptor("lengths", int, int))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        self.values.add(value)
        self.lengths[len(value)] = self.lengths.get(len(value), 0) + 1
        if len(value) > 5:
            ctx.output("long", value)
        yield ctx.current_key, self.seen.value(), "".join(self.values.get()), sorted(self.lengths.items())


def first_letter(word):
    return word[0]


WORDS = ["alpha", "beta", "avocado", "bee", "a", "c", "cabbage", "b", "ab", "cd", "ef", "gh"] * 3


def counted(words):
    seen, out = {}, []
    for word in words:
        mine = seen.setdefault(word[0], [])
        mine.append(word)
        lengths = [len(w) for w in mine]
        counts = sorted((n, lengths.count(n)) for n in set(lengths))
        out.append((word[0], len(mine), "".join(mine), counts))
    return out


# ---- single steps -----------------------------------------------------------


def test_state_goes_on_after_a_restore():
    with OperatorHarness(Count(), key=first_letter) as harness:
        assert harness.process(WORDS[:5]) == counted(WORDS)[:5]
        harness.restore(harness.snapshot())
        assert harness.process(WORDS[5:]) == counted(WORDS)[5:]

        assert harness.outputs == counted(WORDS)
        assert harness.side_outputs == {"long": ["avocado", "cabbage"] * 3}


def test_restore_of_an_older_snapshot_forgets_what_came_after_it():
    with OperatorHarness(Count(), key=first_letter) as harness:
        harness.process(["a"])
        snapshot = harness.snapshot()
        harness.process(["ab", "abc"])
        harness.restore(snapshot)

        assert [seen for _, seen, *_ in harness.process(["a"])] == [2]


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (3, 5), (5, 128), (128, 2)])
def test_state_is_found_at_another_parallelism(before, after):
    with OperatorHarness(Count(), key=first_letter, parallelism=before) as harness:
        harness.process(WORDS[:20])
        harness.restore(harness.snapshot(), parallelism=after)
        harness.process(WORDS[20:])

        assert harness.parallelism == after
        assert sorted(harness.outputs) == sorted(counted(WORDS))


def test_records_of_one_key_stay_in_order_at_any_parallelism():
    with OperatorHarness(Count(), key=first_letter, parallelism=7) as harness:
        harness.process(WORDS)

        for letter in "abc":
            mine = [seen for key, seen, *_ in harness.outputs if key == letter]
            assert mine == list(range(1, len(mine) + 1))


def test_snapshot_shows_the_state_at_its_beginning():
    with OperatorHarness(Count(), key=first_letter) as harness:
        harness.process(["a"])
        in_progress = harness.begin_snapshot()
        harness.process(["a", "b"])
        harness.restore(in_progress.finish())

        assert [(key, seen) for key, seen, *_ in harness.process(["a", "b"])] == [("a", 2), ("b", 1)]


def test_current_key_is_the_canonical_one():
    class Keys(KeyedProcessFunction):
        def process_element(self, value, ctx):
            return [(ctx.current_key, type(ctx.current_key))]

    with OperatorHarness(Keys(), key=lambda value: value) as harness:
        assert harness.process([True, 1.0]) == [(1, int), (1, int)]


def test_every_subtask_has_its_own_copy_of_the_function():
    class Remember(MapFunction):
        def open(self, ctx):
            self.values = []
            self.subtask = ctx.subtask_index

        def map(self, value):
            self.values.append(value)
            return self.subtask, list(self.values)

    function = Remember()
    with OperatorHarness(function, parallelism=2) as harness:
        harness.process("a")
        harness.process("b")

        assert harness.process("c") == [(0, ["a", "c"])]
        assert not hasattr(function, "values")


def test_function_is_told_its_place_in_the_job():
    class Place(MapFunction):
        def open(self, ctx):
            self.place = ctx.subtask_index, ctx.parallelism, ctx.max_parallelism, ctx.attempt

        def map(self, value):
            return self.place

    with OperatorHarness(Place(), parallelism=3, max_parallelism=10) as harness:
        harness.process([1])
        harness.restore(harness.snapshot(), parallelism=2)
        harness.process([1])

        assert harness.outputs == [(0, 3, 10, 1), (0, 2, 10, 2)]


def test_function_is_closed_once():
    with OperatorHarness(Closing(), parallelism=2) as harness:
        CLOSED.clear()
        harness.close()

    assert CLOSED == [0, 1]


CLOSED: list[int] = []


class Closing(MapFunction):
    def open(self, ctx):
        self.subtask = ctx.subtask_index

    def map(self, value):
        return value

    def close(self):
        CLOSED.append(self.subtask)


def test_records_are_copied_when_they_are_emitted_on_demand():
    record = [1]
    with OperatorHarness(lambda value: value, copy_records=True) as harness:
        (copied,) = harness.process([record])
    with OperatorHarness(lambda value: value) as harness:
        (same,) = harness.process([record])

    assert copied == record
    assert copied is not record
    assert same is record


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"function": Count()}, "pass key="),
        ({"function": max, "operation": "reduce"}, "pass key="),
        ({"function": max, "key": str}, "operation="),
        ({"function": str, "parallelism": 0}, "parallelism"),
        ({"function": str, "parallelism": 11, "max_parallelism": 10}, "parallelism"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, hint):
    with pytest.raises(ConfigError) as refused:
        OperatorHarness(**arguments)

    assert hint in refused.value.hint


def test_function_that_cannot_be_copied_is_refused():
    lock = threading.Lock()

    with pytest.raises(ConfigError, match="cannot be copied") as refused:
        OperatorHarness(lambda value: lock and value)

    assert "lock" in refused.value.context["cause"]


def test_state_that_the_function_no_longer_registers_is_refused():
    with OperatorHarness(Count(), key=first_letter) as harness:
        harness.process(["a"])
        snapshot = harness.snapshot()
    with (
        OperatorHarness(lambda a, b: a + b, key=first_letter, operation="reduce") as other,
        pytest.raises(StateRestoreError, match="does not register") as refused,
    ):
        other.restore(snapshot)

    missing = [line.split()[3] for line in str(refused.value).splitlines() if "missing  " in line]
    assert sorted(missing) == ["lengths", "seen", "values"]


def test_keyed_state_without_a_key_is_refused():
    class Stateful(MapFunction):
        def open(self, ctx):
            ctx.get_state(ValueStateDescriptor("n", int))

        def map(self, value):
            return value

    with pytest.raises(StateError, match="keyed state needs a keyed stream"):
        OperatorHarness(Stateful())


def test_value_of_another_type_than_declared_fails_the_snapshot():
    class Wrong(KeyedProcessFunction):
        def open(self, ctx):
            self.state = ctx.get_state(ValueStateDescriptor("n", int))

        def process_element(self, value, ctx):
            self.state.update(value)

    with OperatorHarness(Wrong(), key=str) as harness:
        harness.process(["text"])
        with pytest.raises(StateError):
            harness.snapshot()


# ---- every way to run -------------------------------------------------------


def test_right_functions_pass_in_every_way():
    check_operator(str.upper, WORDS, [w.upper() for w in WORDS])
    check_operator(
        Count(), WORDS, counted(WORDS), key=first_letter, side_outputs={"long": ["avocado", "cabbage"] * 3}
    )
    check_operator(lambda v, ctx: [v, v], [1, 2], [1, 1, 2, 2], operation="process")
    check_operator(lambda v: v > 1, [1, 2, 3], [2, 3], operation="filter")


def test_reduce_passes_in_every_way():
    check_operator(max, [3, 2, 1, 8, 5], [3, 2, 3, 8, 5], key=lambda v: v % 2, operation="reduce")


def test_state_may_be_changed_in_place_while_a_snapshot_is_in_progress():
    check_operator(InPlace(), "abacab", [2, 3, 2], key=str)


class Latest(KeyedProcessFunction):
    """Emits, by timers at the end of the input, what came last for each key."""

    def open(self, ctx):
        self.latest = ctx.get_state(ValueStateDescriptor("latest", int))

    def process_element(self, value, ctx):
        self.latest.update(value)
        ctx.timers.register_event_time(1 << 60)

    def on_timer(self, timestamp, ctx):
        yield self.latest.value()


def test_timers_fire_at_the_end_of_the_input_in_every_way():
    check_operator(Latest(), [1, 2, 3, 5, 4], [5, 4], key=lambda v: v % 2)

    with pytest.raises(AssertionError, match="of the last timers differ"):
        check_operator(Latest(), [1, 2, 3], [3, 4], key=lambda v: v % 2)


def test_function_without_input_passes():
    check_operator(str, [], [])


class Forgetful(KeyedProcessFunction):
    """Keeps its count in itself."""

    def __init__(self):
        self.counts = {}

    def process_element(self, value, ctx):
        self.counts[value] = self.counts.get(value, 0) + 1
        yield self.counts[value]


class InPlace(KeyedProcessFunction):
    """Changes a value of the state in place and puts it back."""

    def open(self, ctx):
        self.state = ctx.get_state(ValueStateDescriptor("values", list))

    def process_element(self, value, ctx):
        values = self.state.value()
        if values is None:
            self.state.update([value])
            return
        values.append(value)
        self.state.update(values)
        yield len(values)


class Reusing(ProcessFunction):
    """Emits one list again and again."""

    def __init__(self):
        self.out = []

    def process_element(self, value, ctx):
        self.out.append(value)
        yield self.out


class Marking(MapFunction):
    """Changes its input."""

    def map(self, value):
        value.append("seen")
        return tuple(value)


@pytest.mark.parametrize(
    ("function", "values", "expected", "key", "complaint"),
    [
        (Forgetful(), ["a"] * 3, [1, 2, 3], str, "restored"),
        (Reusing(), [1, 2], [[1], [1, 2]], None, "after it had emitted it"),
        (Marking(), [["a"], ["b"]], [("a", "seen"), ("b", "seen")], None, "changed a record"),
        (Count(), ["a"], [("a", 1, "a", [(1, 1)]), "more"], first_letter, "of 2"),
        (Count(), ["alphabet"], [("a", 1, "alphabet", [(8, 1)])], first_letter, "side outputs 'long'"),
    ],
    ids=["state in the function", "output reused", "input changed", "too little", "side output"],
)
def test_wrong_function_is_found(function, values, expected, key, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_operator(function, values, expected, key=key)


def test_error_of_the_function_is_not_hidden():
    with pytest.raises(UserCodeError, match="ZeroDivisionError"):
        check_operator(lambda v: 1 // v, [1, 0], [1, 0])


# ---- which operator a function gets -----------------------------------------


class Double(FlatMapFunction):
    def flat_map(self, value):
        return [value, value]


class Odd(FilterFunction):
    def filter(self, value):
        return value % 2


class Sum(ReduceFunction):
    def reduce(self, first, second):
        return first + second


@pytest.mark.parametrize(
    ("function", "key", "expected"),
    [
        (Double(), None, [1, 1, 2, 2, 3, 3]),
        (Odd(), None, [1, 3]),
        (Sum(), bool, [1, 3, 6]),
        (str, None, ["1", "2", "3"]),
    ],
)
def test_function_class_says_what_it_is_for(function, key, expected):
    with OperatorHarness(function, key=key) as harness:
        assert harness.process([1, 2, 3]) == expected
