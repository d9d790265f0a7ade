"""Restored state that does not fit the program is found for all states at once, before any record."""

from types import SimpleNamespace

import pytest

from raystream import KeyedProcessFunction
from raystream.errors import StateRestoreError
from raystream.runtime.restore import found_states
from raystream.runtime.restored_states import RestoreCheck, RestoredState
from raystream.state.descriptor import ListStateDescriptor, ValueStateDescriptor
from raystream.state.operator_store import OperatorStore
from raystream.state.registry import Verdict
from raystream.testing import OperatorHarness
from raystream.testing.state_kit import ELEMENTS, HITS, TOTAL, register, write
from tests.unit.state.test_heap_contract import TestHeapBackend as HeapContract


def restored_operator(name, *descriptors, subtask=0, parallelism=1, max_parallelism=16):
    """Return the context of an operator whose snapshot had hits, elements and total, one entry each."""
    contract = HeapContract()
    before = contract.make_subtask()
    before.at("k")
    for descriptor in (HITS, ELEMENTS, TOTAL):
        write(register(before.backend, descriptor), 3)
    stored = contract.finish(before.backend.freeze(1))
    after = contract.make_subtask(
        [stored], subtask=subtask, parallelism=parallelism, max_parallelism=max_parallelism
    )
    for descriptor in descriptors:
        register(after.backend, descriptor)
    return SimpleNamespace(
        uid=f"uid-of-{name}", name=name, keyed_backend=after.backend, operator_store=OperatorStore()
    )


def settle_restored(*slots, drop=False, gone=()):
    """Have each slot say what it has found; return the table of what is dropped."""
    check = RestoreCheck(len(slots), drop=drop)
    check.begin(gone)
    found = [found_states(contexts, drop=drop) for contexts in slots]
    said = [check.slot_found(number, states) for number, states in enumerate(found)]
    assert not any(said[:-1])
    return said[-1]


def rows_of(error):
    return [line.split() for line in str(error).splitlines() if line.startswith("  ")]


def test_one_error_lists_every_state_of_every_operator():
    first = restored_operator("first", HITS, ListStateDescriptor("elements", str), TOTAL)
    second = restored_operator("second", HITS, ELEMENTS, ValueStateDescriptor("new", int))
    with pytest.raises(StateRestoreError) as refused:
        settle_restored([first, second])
    heading, *rows = rows_of(refused.value)
    assert heading == ["uid", "operator", "state", "entries", "bytes"]
    assert [(row[0], *row[2:5]) for row in rows] == [
        ("matched", "first", "hits", "1"),
        ("different", "first", "elements", "1"),
        ("matched", "first", "total", "1"),
        ("matched", "second", "hits", "1"),
        ("matched", "second", "elements", "1"),
        ("new", "second", "new", "0"),
        ("missing", "second", "total", "1"),
    ]
    assert "schema was 'int', is 'str'" in str(refused.value)
    assert "migrate" in refused.value.hint
    assert "--allow-non-restored-state" in refused.value.hint


def test_subtasks_of_one_operator_are_one_row_with_their_sum():
    subtasks = [restored_operator("counts", HITS, subtask=n, parallelism=3) for n in range(3)]
    with pytest.raises(StateRestoreError) as refused:
        settle_restored(subtasks[:1], subtasks[1:])
    assert [(row[0], *row[3:5]) for row in rows_of(refused.value)[1:]] == [
        ("matched", "hits", "1"),
        ("missing", "elements", "1"),
        ("missing", "total", "1"),
    ]


@pytest.mark.parametrize("max_parallelism", [3, 8, 16, 24, 128])
def test_every_stored_entry_is_counted_once_under_any_max_parallelism(max_parallelism):
    subtasks = [
        restored_operator("counts", HITS, subtask=n, parallelism=3, max_parallelism=max_parallelism)
        for n in range(3)
    ]
    with pytest.raises(StateRestoreError) as refused:
        settle_restored(subtasks[:2], subtasks[2:])
    with pytest.raises(StateRestoreError) as expected:
        settle_restored([restored_operator("counts", HITS)])
    assert rows_of(refused.value) == rows_of(expected.value)


def test_number_that_one_subtask_does_not_know_is_left_out():
    def of(subtask_entries):
        return RestoredState(
            verdict=Verdict.MISSING, uid="u", operator="o", state="s", entries=subtask_entries, size_bytes=7
        )

    check = RestoreCheck(3, drop=True)
    check.begin(())
    check.slot_found(0, [of(5)])
    check.slot_found(1, [of(None)])
    assert check.slot_found(2, [of(0)]).splitlines()[1].split() == ["missing", "u", "o", "s", "21"]


def test_one_error_lists_the_operators_of_all_slots_and_those_that_are_gone():
    gone = RestoredState(
        verdict=Verdict.MISSING, uid="uid-of-sum", operator="sum", state="sums, marks", size_bytes=70
    )
    one = restored_operator("one", HITS, ELEMENTS, TOTAL)
    two = restored_operator("two", HITS, ELEMENTS, ValueStateDescriptor("totals", int))
    new = SimpleNamespace(
        uid="uid-of-sums",
        name="sums",
        keyed_backend=HeapContract().make_subtask().backend,
        operator_store=OperatorStore(),
    )
    register(new.keyed_backend, HITS)
    with pytest.raises(StateRestoreError) as refused:
        settle_restored([one], [two], [new], gone=[gone])
    assert [(row[0], row[2], row[3], *row[6:]) for row in rows_of(refused.value)[1:]] == [
        ("matched", "one", "hits"),
        ("matched", "one", "elements"),
        ("matched", "one", "total"),
        ("matched", "two", "hits"),
        ("matched", "two", "elements"),
        ("new", "two", "totals"),
        ("missing", "two", "total", "renamed", "to", "'totals'?"),
        ("new", "sums", "hits"),
        ("missing", "sum", "sums,", "renamed", "to", "'uid-of-sums'?"),
    ]


def test_order_in_which_slots_answer_does_not_change_the_table():
    texts = set()
    for order in ([0, 1], [1, 0]):
        found = [found_states([restored_operator(name, HITS)], drop=False) for name in ("a", "b")]
        check = RestoreCheck(2, drop=False)
        check.begin(())
        assert check.slot_found(order[0], found[order[0]]) == ""
        with pytest.raises(StateRestoreError) as refused:
            check.slot_found(order[1], found[order[1]])
        texts.add(str(refused.value))
    assert len(texts) == 1


def test_missing_state_is_dropped_when_the_user_allows_it():
    context = restored_operator("counts", HITS)
    dropped = settle_restored([context], drop=True)
    assert [match.name for match in context.keyed_backend.restored_states()] == ["hits"]
    assert [tuple(line.split()[:4]) for line in dropped.splitlines()[1:]] == [
        ("matched", "uid-of-counts", "counts", "hits"),
        ("missing", "uid-of-counts", "counts", "elements"),
        ("missing", "uid-of-counts", "counts", "total"),
    ]


def test_state_that_is_different_is_never_dropped():
    context = restored_operator("counts", HITS, ELEMENTS, ValueStateDescriptor("total", int))
    with pytest.raises(StateRestoreError, match="kind was 'reducing', is 'value'"):
        settle_restored([context], drop=True)


def test_everything_that_fits_is_settled_in_silence():
    assert settle_restored([restored_operator("counts", HITS, ELEMENTS, TOTAL)]) == ""


def test_function_that_declares_its_state_differently_is_refused_when_it_is_restored():
    class Count(KeyedProcessFunction):
        def __init__(self, value_type):
            self.value_type = value_type

        def open(self, ctx):
            self.state = ctx.get_state(ValueStateDescriptor("n", self.value_type))

        def process_element(self, value, ctx):
            self.state.update(value)

    with OperatorHarness(Count(int), key=abs) as harness:
        harness.process([1])
        snapshot = harness.snapshot()
    with (
        OperatorHarness(Count(str), key=abs) as other,
        pytest.raises(StateRestoreError, match="schema was 'int', is 'str'"),
    ):
        other.restore(snapshot)
