"""Key groups are owned in contiguous runs that cover everything and differ by at most one."""

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import ConfigError
from raystream.keygroup import (
    KEY_GROUPS_MAX,
    KeyGroupRange,
    check_parallelism,
    default_max_parallelism,
    groups_of_subtask,
    routing_table,
    subtask_of_group,
)


@pytest.mark.parametrize(
    ("max_parallelism", "parallelism", "bounds"),
    [
        (13, 4, [0, 4, 7, 10, 13]),
        (10, 3, [0, 4, 7, 10]),
        (128, 3, [0, 43, 86, 128]),
        (1, 1, [0, 1]),
        (4, 4, [0, 1, 2, 3, 4]),
    ],
)
def test_ranges_are_those_of_the_worked_examples(max_parallelism, parallelism, bounds):
    ranges = [groups_of_subtask(i, max_parallelism, parallelism) for i in range(parallelism)]

    assert ranges == [KeyGroupRange(*pair) for pair in itertools.pairwise(bounds)]


def test_rescaling_from_three_to_five_reads_the_overlaps_of_the_worked_example():
    new = groups_of_subtask(1, 128, 5)

    assert [new.intersect(groups_of_subtask(i, 128, 3)) for i in range(3)] == [
        KeyGroupRange(26, 43),
        KeyGroupRange(43, 52),
        None,
    ]


@given(st.integers(1, 400).flatmap(lambda m: st.tuples(st.just(m), st.integers(1, m))))
def test_every_group_has_one_owner_and_runs_differ_by_at_most_one(shape):
    max_parallelism, parallelism = shape
    ranges = [groups_of_subtask(i, max_parallelism, parallelism) for i in range(parallelism)]

    assert [g for owned in ranges for g in owned] == list(range(max_parallelism))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
    table = routing_table(max_parallelism, parallelism)
    assert all(table[g] == i for i, owned in enumerate(ranges) for g in owned)
    assert table == [subtask_of_group(g, max_parallelism, parallelism) for g in range(max_parallelism)]


def test_the_largest_job_gives_every_subtask_one_group():
    assert routing_table(KEY_GROUPS_MAX, KEY_GROUPS_MAX) == list(range(KEY_GROUPS_MAX))


@pytest.mark.parametrize(
    ("parallelism", "expected"),
    [(1, 128), (64, 128), (85, 128), (86, 256), (128, 256), (170, 256), (1000, 2048), (32768, 32768)],
)
def test_default_max_parallelism_leaves_room_to_grow(parallelism, expected):
    assert default_max_parallelism(parallelism) == expected


@pytest.mark.parametrize("parallelism", range(1, 2000, 37))
def test_default_max_parallelism_is_accepted(parallelism):
    check_parallelism(parallelism, default_max_parallelism(parallelism))


@pytest.mark.parametrize(
    ("parallelism", "max_parallelism", "message"),
    [
        (0, 128, "parallelism is below 1"),
        (-1, 128, "parallelism is below 1"),
        (129, 128, "parallelism is above max parallelism"),
        (1, 32769, "max parallelism is above the limit"),
        (1, 0, "max parallelism is below 1"),
    ],
)
def test_a_job_that_cannot_be_laid_out_is_refused_with_advice(parallelism, max_parallelism, message):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        check_parallelism(parallelism, max_parallelism)

    assert caught.value.hint


@pytest.mark.parametrize(("parallelism", "max_parallelism"), [(1, 1), (128, 128), (1, 32768), (32768, 32768)])
def test_the_bounds_themselves_are_accepted(parallelism, max_parallelism):
    check_parallelism(parallelism, max_parallelism)


@given(*[st.tuples(st.integers(0, 30), st.integers(1, 10))] * 2)
def test_a_range_behaves_like_the_set_of_its_groups(one, other):
    a, b = (KeyGroupRange(start, start + size) for start, size in (one, other))

    common = a.intersect(b)
    assert set(common or ()) == set(a) & set(b)
    assert common == b.intersect(a)
    assert [g for g in range(50) if g in a] == list(a)
    assert len(a) == len(list(a))


def test_a_range_is_never_empty():
    with pytest.raises(AssertionError):
        KeyGroupRange(3, 3)


def test_a_range_is_a_value_that_travels():
    groups = KeyGroupRange(3, 7)

    assert pickle.loads(pickle.dumps(groups)) == groups
    assert len({groups, KeyGroupRange(3, 7)}) == 1
