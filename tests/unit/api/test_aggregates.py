"""A sum adds one field and keeps the rest of the first record; records are never changed."""

import copy
import dataclasses
from typing import NamedTuple

import msgspec
import pytest

from raystream.api.aggregates import SumField


class Pair(NamedTuple):
    word: str
    n: int


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    word: str
    n: int


class Hit(msgspec.Struct, frozen=True):
    word: str
    n: int


class Plain:
    def __init__(self, word, n):
        self.word, self.n = word, n

    __hash__ = None

    def __eq__(self, other):
        return vars(self) == vars(other)


@pytest.mark.parametrize(
    ("field", "first", "second", "total"),
    [
        (None, 2, 40, 42),
        (None, 0.5, 1, 1.5),
        (1, ("a", 2), ("b", 40), ("a", 42)),
        (-1, ["a", 2], ["b", 40], ["a", 42]),
        (1, Pair("a", 2), Pair("b", 40), Pair("a", 42)),
        ("n", Pair("a", 2), Pair("b", 40), Pair("a", 42)),
        ("n", Point("a", 2), Point("b", 40), Point("a", 42)),
        ("n", Hit("a", 2), Hit("b", 40), Hit("a", 42)),
        ("n", Plain("a", 2), Plain("b", 40), Plain("a", 42)),
        ("n", {"w": "a", "n": 2}, {"w": "b", "n": 40}, {"w": "a", "n": 42}),
        (7, {7: 2}, {7: 40}, {7: 42}),
        (0, ([1],), ([2],), ([1, 2],)),
    ],
)
def test_field_is_summed_and_both_records_stay_as_they_were(field, first, second, total):
    before = copy.deepcopy((first, second))

    result = SumField(field)(first, second)

    assert result == total
    assert type(result) is type(first)
    assert (first, second) == before


def test_named_tuple_keeps_its_type():
    assert isinstance(SumField(1)(Pair("a", 1), Pair("a", 1)), Pair)


@pytest.mark.parametrize(("field", "record"), [("n", ("a", 1)), (1, 41), ("hits", Hit("a", 1))])
def test_record_without_the_field_is_an_error_that_says_what_to_write(field, record):
    with pytest.raises(TypeError, match=r"give the index of a tuple's field"):
        SumField(field)(record, record)
