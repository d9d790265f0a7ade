"""Function objects of map, flat_map and filter keep state for each key of a keyed stream."""

import pytest

from raystream import FilterFunction, FlatMapFunction, MapFunction, ValueStateDescriptor
from raystream.clock import SystemClock
from raystream.errors import UserCodeError
from raystream.keygroup import KeyGroupRange
from raystream.operators.keyed_map import KeyedFilterOperator, KeyedFlatMapOperator, KeyedMapOperator
from raystream.records.batch import RowBatch
from raystream.state.heap import HeapBackend
from raystream.testing import OperatorHarness, check_operator
from tests.unit.operators.running import Run

WORDS = ["apple", "bee", "avocado", "bird", "cat", "ant"] * 3


class Seen:
    """Counts the records of each key."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def next(self):
        self.seen.update(self.seen.value() + 1)
        return self.seen.value()


class Number(Seen, MapFunction):
    def map(self, value):
        return value, self.next()


class Repeat(Seen, FlatMapFunction):
    def flat_map(self, value):
        return [value] * (times - 1) if (times := self.next()) > 1 else None


class FirstOfKey(Seen, FilterFunction):
    def filter(self, value):
        return self.next() == 1


def first_letter(word):
    return word[0]


def numbered(words):
    seen = {}
    for word in words:
        seen[word[0]] = seen.get(word[0], 0) + 1
        yield word, seen[word[0]]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Number(), list(numbered(WORDS))),
        (Repeat(), [word for word, number in numbered(WORDS) for _ in range(number - 1)]),
        (FirstOfKey(), ["apple", "bee", "cat"]),
    ],
)
def test_state_belongs_to_the_key_of_the_record_however_a_job_runs_it(function, expected):
    check_operator(function, WORDS, expected, key=first_letter)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (KeyedMapOperator(Number()), [(("a", 1), 10), (("b", 1), 20), (("a", 2), 30)]),
        (KeyedFlatMapOperator(Repeat()), [("a", 30)]),
        (KeyedFilterOperator(FirstOfKey()), [("a", 10), ("b", 20)]),
    ],
)
def test_result_has_the_timestamp_of_its_record(operator, expected):
    backend = HeapBackend(KeyGroupRange(0, 128), 128, operator.cursor, clock=SystemClock())
    running = Run(operator, keyed_backend=backend)
    operator.open()
    operator.process(RowBatch(list("aba"), [10, 20, 30], list("aba"), [1, 2, 1]))

    (timestamps,) = running.timestamps
    assert list(zip(running.values, timestamps, strict=True)) == expected


def test_plain_callable_on_a_keyed_stream_needs_no_state_and_is_called_all_the_same():
    check_operator(str.upper, WORDS, [word.upper() for word in WORDS], key=first_letter, operation="map")


@pytest.mark.parametrize("error", [ValueError("no good"), StopIteration()])
def test_error_names_the_record(error):
    class Broken(MapFunction):
        def map(self, value):
            if value == "bird":
                raise error
            return value

    with OperatorHarness(Broken(), key=first_letter) as harness, pytest.raises(UserCodeError) as raised:
        harness.process(WORDS)

    assert raised.value.context["record"] == "'bird'"
