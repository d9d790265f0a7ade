"""Declarations of a time to live, and what a backend holds of keys that come once."""

import dataclasses
from datetime import timedelta

import pytest

from raystream.errors import StateError
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.ttl import StateTtl, TtlCleanup, TtlUpdate, TtlVisibility, unexpired
from raystream.testing.state_kit import never
from tests.unit.state.test_heap_contract import TestHeapBackend as HeapContract

KEYS = 1_000_000


@pytest.mark.parametrize("ttl", ["1s", 1000, timedelta(seconds=1), "1000 ms"])
def test_time_to_live_is_a_duration_in_any_form(ttl):
    assert StateTtl(ttl) == StateTtl("1s")
    assert StateTtl(ttl).ttl_ms == 1000


def test_options_may_be_given_by_their_names():
    named = StateTtl("1s", update="on-read-and-write", visibility="return-expired-if-not-cleaned-up")
    assert named.update is TtlUpdate.ON_READ_AND_WRITE
    assert named.visibility is TtlVisibility.RETURN_EXPIRED_IF_NOT_CLEANED_UP


@pytest.mark.parametrize(
    "arguments",
    [
        {"ttl": 0},
        {"ttl": "soon"},
        {"ttl": -1},
        {"ttl": None},
        {"ttl": "1s", "update": "never"},
        {"ttl": "1s", "time": "local"},
    ],
    ids=repr,
)
def test_what_is_no_time_to_live_is_refused(arguments):
    with pytest.raises(StateError, match="time to live"):
        StateTtl(**arguments)


@pytest.mark.parametrize("keys", [-1, 1.5, True])
def test_clean_up_of_less_than_no_keys_is_refused(keys):
    with pytest.raises(StateError, match="whole number"):
        TtlCleanup(entries_per_access=keys)


def test_content_of_which_nothing_has_expired_is_left_as_it_is():
    for content in ((10, "a"), [(10, "a")], {"k": (10, "a")}):
        assert unexpired(content, 9) is content
        assert unexpired(content, 10) is None


@pytest.mark.slow
@pytest.mark.parametrize("by", ["accesses", "a snapshot"])
def test_a_million_keys_that_come_once_leave_nothing_behind(by):
    contract = HeapContract()
    subtask = contract.make_subtask(max_parallelism=128)
    descriptor = ValueStateDescriptor("seen", int, ttl=StateTtl(100))
    if by == "a snapshot":
        cleanup = TtlCleanup(entries_per_access=0)
        descriptor = dataclasses.replace(descriptor, ttl=StateTtl(100, cleanup=cleanup))
    state = subtask.backend.value_state(descriptor)
    for n in range(KEYS):
        subtask.at(n)
        state.update(n)
    full = subtask.backend.freeze(1)
    assert full.advance(never)
    assert subtask.backend.held("seen") == full.entries == KEYS
    subtask.clock.now_ms += 100
    subtask.at("late")
    state.update(1)
    if by == "accesses":
        for _ in range(KEYS // descriptor.ttl.cleanup.entries_per_access + 1000):
            state.value()
        assert subtask.backend.held("seen") == 1
    empty = subtask.backend.freeze(2)
    assert empty.advance(never)
    blob = empty.blob()
    assert (empty.entries, subtask.backend.held("seen")) == (1, 1)
    assert sum(map(len, full.blob())) > 1_000_000
    assert sum(map(len, blob)) < 1000
    restored = contract.make_subtask([contract.finish(subtask.backend.freeze(3))], max_parallelism=128)
    restored.backend.value_state(descriptor)
    assert restored.backend.held("seen") == 1
