"""A record on which user code raises goes aside with all that is known of it; all others come through."""

import pytest

from raystream import (
    BroadcastProcessFunction,
    CheckpointedFunction,
    CoFlatMapFunction,
    FilterFunction,
    FlatMapFunction,
    KeyedCoProcessFunction,
    KeyedProcessFunction,
    ListStateDescriptor,
    MapFunction,
    MapStateDescriptor,
    ProcessFunction,
    StateError,
    UserCodeError,
    ValueStateDescriptor,
)
from raystream.testing import OperatorHarness

VALUES = [3, 0, 4, 0, 0, 6]
SIZES = [1, 2, 4, 100]


def inverse(value):
    return 12 // value


def harness_of(function, **arguments):
    return OperatorHarness(function, on_error="dead-letter", **arguments)


def in_batches(harness, values, size, *, timestamped=False):
    for first in range(0, len(values), size):
        batch = values[first : first + size]
        harness.process(batch, timestamps=range(first, first + len(batch)) if timestamped else None)


def dead(harness):
    return [letter.value for letter in harness.dead_letters]


class Inverse(MapFunction):
    def map(self, value):
        return 12 // value


class Whole(FilterFunction):
    def filter(self, value):
        return 12 % value == 0


class Down(FlatMapFunction):
    """Emits a number and what comes of it; raises behind the first for 0."""

    def flat_map(self, value):
        yield value
        yield 12 // value


class Process(ProcessFunction):
    def process_element(self, value, ctx):
        yield value
        ctx.output("seen", value)
        yield 12 // value


class Keyed(KeyedProcessFunction):
    process_element = Process.process_element


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("copy_records", [False, True])
@pytest.mark.parametrize("timestamped", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        (inverse, "map", None, [4, 3, 2]),
        (Inverse(), None, None, [4, 3, 2]),
        (Inverse(), None, str, [4, 3, 2]),
        (lambda value: 12 % value == 0, "filter", None, [3, 4, 6]),
        (Whole(), None, None, [3, 4, 6]),
        (Whole(), None, str, [3, 4, 6]),
        (lambda value: [value, 12 // value], "flat_map", None, [3, 4, 4, 3, 6, 2]),
        (Down(), None, None, [3, 4, 4, 3, 6, 2]),
        (Down(), None, str, [3, 4, 4, 3, 6, 2]),
        (Process(), None, None, [3, 4, 4, 3, 6, 2]),
        (Keyed(), None, str, [3, 4, 4, 3, 6, 2]),
        (lambda value, _: [12 // value], "process", None, [4, 3, 2]),
    ],
)
def test_all_but_the_records_that_fail_come_through_in_order(case, size, copy_records, timestamped):
    function, operation, key, expected = case
    with harness_of(function, operation=operation, key=key, copy_records=copy_records) as harness:
        in_batches(harness, VALUES, size, timestamped=timestamped)

        assert harness.outputs == expected
        assert dead(harness) == [0, 0, 0]
        assert [letter.timestamp for letter in harness.dead_letters] == (
            [1, 3, 4] if timestamped else [None] * 3
        )
        assert {letter.key for letter in harness.dead_letters} == {key and "0"}
        if harness.side_outputs:
            assert harness.side_outputs == {"seen": [3, 4, 6]}


def test_letter_says_what_was_raised_where_and_about_what():
    with harness_of(Keyed(), key=str, parallelism=3) as harness:
        harness.process([5, 0], timestamps=[70, 80])
        (letter,) = harness.dead_letters
        (other,) = [subtask for subtask in range(3) if subtask == letter.subtask]

    assert (letter.value, letter.error_type, letter.message) == (
        0, "ZeroDivisionError", "integer division or modulo by zero",
    )  # fmt: skip
    assert (letter.operator, letter.key, letter.timestamp, letter.input) == ("Keyed", "0", 80, 0)
    assert other == letter.subtask
    assert letter.uid
    assert letter.traceback.startswith("Traceback")
    assert "yield 12 // value" in letter.traceback
    assert "raystream/operators" not in letter.traceback


@pytest.mark.parametrize("size", SIZES)
def test_timestamps_stay_with_their_records(size):
    class Stamps(ProcessFunction):
        def process_element(self, value, ctx):
            yield value, ctx.timestamp

    seen = []
    for function, operation in ((inverse, "map"), (lambda value: [12 // value] * 2, "flat_map")):
        with harness_of(function, operation=operation) as harness:
            emitted = []
            harness._subtasks[0].operator.emit = emitted.append
            in_batches(harness, VALUES, size, timestamped=True)
            seen.append([stamp for batch in emitted for stamp in batch.timestamps])
    assert seen == [[0, 2, 5], [0, 0, 2, 2, 5, 5]]


# ---- state ------------------------------------------------------------------


class Seen(KeyedProcessFunction):
    """Counts in state before it raises for negative numbers."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        if value < 0:
            raise ValueError("negative")
        yield ctx.current_key, self.seen.value()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_state_that_was_changed_before_the_error_stays_changed_and_survives_a_restore(size, backend):
    values = [1, -1, 1, 2, -2, -2, 2]
    with harness_of(Seen(), key=abs, backend=backend) as harness:
        in_batches(harness, values, size)
        harness.restore(harness.snapshot(), parallelism=2)
        harness.process([1, 2])

        assert sorted(harness.outputs) == [(1, 1), (1, 3), (1, 4), (2, 1), (2, 4), (2, 5)]
        assert sorted(dead(harness)) == [-2, -2, -1]


def test_operator_state_is_changed_once_by_a_record_that_others_fail_around():
    class Sum(MapFunction, CheckpointedFunction):
        def initialize_state(self, ctx):
            self.stored = ctx.get_list_state(ListStateDescriptor("sum", int))
            self.sum = sum(self.stored.get())

        def snapshot_state(self, ctx):
            self.stored.update([self.sum])

        def map(self, value):
            self.sum += value
            return 12 // value

    with harness_of(Sum()) as harness:
        harness.process(VALUES)
        harness.restore(harness.snapshot())
        harness.process([1, 0])
        snapshot = harness.snapshot()

    with harness_of(Sum()) as harness:
        harness.restore(snapshot)
        (subtask,) = harness._subtasks
        assert subtask.operator._function.sum == sum(VALUES) + 1


# ---- two inputs -------------------------------------------------------------


def test_letter_tells_through_which_input_its_record_came():
    class Both(KeyedCoProcessFunction):
        def process_element1(self, value, ctx):
            yield 12 // value

        process_element2 = process_element1

    class BothMapped(CoFlatMapFunction):
        def flat_map1(self, value):
            return [12 // value]

        flat_map2 = flat_map1

    for function, keys in ((Both(), {"key": str, "key2": str}), (BothMapped(), {})):
        with harness_of(function, **keys) as harness:
            harness.process([1, 0])
            harness.process2([0, 2])

            assert harness.outputs == [12, 6]
            assert [(letter.value, letter.input) for letter in harness.dead_letters] == [(0, 0), (0, 1)]


def test_broadcast_record_that_fails_comes_from_every_subtask_and_leaves_their_states_alike():
    rules = MapStateDescriptor("rules", str, int)

    class Rule(BroadcastProcessFunction):
        def process_element(self, value, ctx):
            yield value // ctx.get_broadcast_state(rules).get("by", 1)

        def process_broadcast_element(self, value, ctx):
            ctx.get_broadcast_state(rules).put("by", value)
            ctx.output("by", 12 // value)

    with harness_of(Rule(), broadcast=[rules], parallelism=2) as harness:
        harness.process2([2])
        harness.process([10, 20])
        harness.process2([0])
        harness.process([10, 20])

        assert sorted(harness.outputs) == [5, 10]
        assert harness.side_outputs == {"by": [6, 6]}
        letters = [(letter.value, letter.input, letter.subtask) for letter in harness.dead_letters]
        assert letters[:2] == [(0, 1, 0), (0, 1, 1)]
        assert letters[2:] == [(10, 0, 1), (20, 0, 1)]


# ---- what makes no letter ---------------------------------------------------


class Stop(BaseException):
    """As `KeyboardInterrupt` and `SystemExit` are."""


def engine_failed():
    raise StateError("disk is full")


def wrapped():
    try:
        engine_failed()
    except StateError as error:
        raise ValueError("could not count") from error


def stopped():
    raise Stop


def out_of_memory():
    raise MemoryError


@pytest.mark.parametrize("failure", [engine_failed, wrapped, stopped, out_of_memory])
@pytest.mark.parametrize("operation", ["map", "filter", "flat_map", "process"])
def test_what_is_not_about_the_record_fails_the_job(failure, operation):
    def function(value, *_):
        return failure() if value == 2 else [value]

    with (
        harness_of(function, operation=operation) as harness,
        pytest.raises(UserCodeError, match="user function raised") as caught,
    ):
        harness.process([1, 2, 3])

    assert caught.value.context["record"] == "2"
    assert harness.dead_letters == []


def test_key_that_the_function_makes_for_its_state_is_about_the_record():
    class Keys(KeyedProcessFunction):
        def open(self, ctx):
            self.keys = ctx.get_map_state(MapStateDescriptor("keys", float, int))

        def process_element(self, value, ctx):
            self.keys.put(value, 1)
            yield value

    with harness_of(Keys(), key=str) as harness:
        harness.process([1.0, float("nan"), 2.0])

        assert harness.outputs == [1.0, 2.0]
        assert [letter.error_type for letter in harness.dead_letters] == ["KeyTypeError"]


def test_stop_iteration_of_the_function_is_an_error_of_its_record():
    for operation in ("map", "filter", "flat_map"):
        with harness_of(lambda value: [next(iter(range(value)))], operation=operation) as harness:
            harness.process([1, 0, 2])
            assert [letter.error_type for letter in harness.dead_letters] == ["StopIteration"]
            assert len(harness.outputs) == 2


def test_error_whose_message_raises_makes_a_letter_all_the_same():
    class OddError(Exception):
        def __str__(self):
            raise ValueError

    def odd(value):
        raise OddError

    with harness_of(odd) as harness:
        harness.process([1])
        (letter,) = harness.dead_letters
    assert (letter.error_type, letter.message) == ("OddError", "<message that raised ValueError>")


def test_timer_that_raises_fails_the_job():
    class Late(KeyedProcessFunction):
        def process_element(self, value, ctx):
            ctx.timers.register_event_time(10)

        def on_timer(self, timestamp, ctx):
            raise ValueError("late")

    with harness_of(Late(), key=str) as harness:
        harness.process([1], timestamps=[1])
        with pytest.raises(UserCodeError, match="on a timer"):
            harness.watermark(10)


def test_without_dead_letters_the_record_fails_the_job():
    with OperatorHarness(inverse) as harness, pytest.raises(UserCodeError, match="record='0'"):
        harness.process([1, 0])


def test_first_letter_of_a_subtask_is_logged_and_no_other_one(caplog):
    with harness_of(inverse) as harness:
        harness.process(VALUES)
    assert [record.message for record in caplog.records] == [
        "record goes to the dead letters, the first one of this subtask"
    ]
