"""Stored state reaches the new subtasks whole: nothing lost, nothing doubled, evenly."""

import itertools
import random
from collections import Counter

import pytest

from raystream.errors import StateCorruptError
from raystream.handles import (
    ChannelSlice,
    ChannelStage,
    ChannelStateHandle,
    InlineHandle,
    KeyedStateHandle,
    OperatorStateHandle,
    Redistribution,
)
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.protocol.redistribution import (
    ElementSlice,
    KeyGroupLayout,
    deal_in_flight,
    holding,
    redistribute,
)
from raystream.testing.state_rows import row

SPLIT, UNION, BROADCAST = Redistribution.SPLIT, Redistribution.UNION, Redistribution.BROADCAST


def stored(label, count, *, name="s", mode=SPLIT):
    return OperatorStateHandle(
        name=name, mode=mode, element_count=count, data=InlineHandle(data=label.encode())
    )


def elements(slices):
    """Name every element by its handle's label and its position: `A0`."""
    return [f"{part.handle.data.data.decode()}{i}" for part in slices for i in range(part.start, part.stop)]


def rescaled(old, parallelism):
    assignment = redistribute(old, parallelism)
    assert list(assignment) == list(range(parallelism))
    return [elements(slices) for slices in assignment.values()]


# ---- even split --------------------------------------------------------------


@row("operator.split-runs")
def test_two_and_two_elements_over_three_subtasks():
    assert rescaled([[stored("A", 2)], [stored("B", 2)]], 3) == [["A0", "A1"], ["B0"], ["B1"]]


@row("operator.split-runs")
def test_two_and_two_elements_on_one_subtask_keep_their_order():
    assert rescaled([[stored("A", 2)], [stored("B", 2)]], 1) == [["A0", "A1", "B0", "B1"]]


@row("operator.split-same")
def test_handles_stay_where_they_are_when_the_parallelism_does():
    assert rescaled([[stored("A", 2)], [stored("B", 2)]], 2) == [["A0", "A1"], ["B0", "B1"]]
    assert rescaled([[stored("A", 5)], []], 2) == [["A0", "A1", "A2", "A3", "A4"], []]


def test_ten_and_ten_elements_over_three_subtasks_are_seven_seven_six():
    assert [len(run) for run in rescaled([[stored("A", 10)], [stored("B", 10)]], 3)] == [7, 7, 6]


def test_one_element_over_four_subtasks_is_on_the_first():
    assert rescaled([[stored("A", 1)]], 4) == [["A0"], [], [], []]


@row("operator.split-names")
def test_a_second_name_starts_where_the_first_one_gave_no_extra():
    old = [[stored("s", 4, name="s"), stored("t", 4, name="t")]]

    assert rescaled(old, 3) == [["s0", "s1", "t3"], ["s2", "t0", "t1"], ["s3", "t2"]]


def test_the_order_in_which_names_are_stored_makes_no_difference():
    s, t = stored("s", 4, name="s"), stored("t", 4, name="t")

    assert redistribute([[t, s]], 3) == redistribute([[s, t]], 3)


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_empty_state_gives_no_slices(parallelism):
    assert redistribute([[stored("A", 0)], [stored("B", 0)]], parallelism) == {
        i: [] for i in range(parallelism)
    }


def test_a_slice_says_which_elements_of_which_handle():
    a, b = stored("A", 3), stored("B", 1)

    assert redistribute([[a], [b], []], 2) == {
        0: [ElementSlice(handle=a, start=0, stop=2)],
        1: [ElementSlice(handle=a, start=2, stop=3), ElementSlice(handle=b, start=0, stop=1)],
    }


@pytest.mark.parametrize("seed", range(200))
def test_split_elements_are_neither_lost_nor_doubled_and_spread_evenly(seed):
    rng = random.Random(seed)
    old_parallelism, parallelism = rng.randint(1, 8), rng.randint(1, 8)
    names = [f"n{i}" for i in range(rng.randint(1, 4))]
    old = [
        [stored(f"{name}-{i}-", rng.randrange(9), name=name) for name in names if rng.random() < 0.8]
        for i in range(old_parallelism)
    ]
    new = redistribute(old, parallelism)

    all_old = [
        e
        for handles in old
        for h in handles
        for e in elements([ElementSlice(handle=h, start=0, stop=h.element_count)])
    ]
    all_new = [e for slices in new.values() for e in elements(slices)]
    assert Counter(all_new) == Counter(all_old)
    assert all(part.start < part.stop for slices in new.values() for part in slices)
    if parallelism == old_parallelism:
        assert [elements(slices) for slices in new.values()] == [
            [e for h in sorted(handles, key=lambda h: h.name) for e in elements(redistribute([[h]], 1)[0])]
            for handles in old
        ]
        return
    totals = [sum(part.stop - part.start for part in slices) for slices in new.values()]
    assert max(totals) - min(totals) <= 1
    for name in names:
        runs = [elements([p for p in slices if p.handle.name == name]) for slices in new.values()]
        assert max(map(len, runs)) - min(map(len, runs)) <= 1
        in_order = [e for e in all_old if e.startswith(f"{name}-")]
        assert all(run == in_order[in_order.index(run[0]) :][: len(run)] for run in runs if run)


# ---- union and broadcast -----------------------------------------------------


@row("operator.union")
@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_union_gives_every_element_to_every_subtask(parallelism):
    old = [[stored("A", 2, mode=UNION)], [stored("B", 1, mode=UNION)]]

    assert rescaled(old, parallelism) == [["A0", "A1", "B0"]] * parallelism


@row("operator.broadcast-copy")
def test_broadcast_gives_each_subtask_one_copy():
    old = [[stored("A", 1, mode=BROADCAST)], [stored("B", 1, mode=BROADCAST)]]

    assert rescaled(old, 5) == [["A0"], ["B0"], ["A0"], ["B0"], ["A0"]]
    assert rescaled(old, 1) == [["A0"]]


@row("operator.broadcast-missing")
def test_a_missing_broadcast_copy_comes_from_a_subtask_that_has_it():
    assert rescaled([[], [stored("B", 2, mode=BROADCAST)]], 3) == [["B0", "B1"]] * 3


def test_union_and_broadcast_do_not_move_the_start_of_split_names():
    others = [stored("u", 1, name="a", mode=UNION), stored("b", 1, name="b", mode=BROADCAST)]
    split = [stored("s", 4, name="s"), stored("t", 4, name="t")]

    for subtask, slices in redistribute([[*others, *split]], 3).items():
        assert slices[2:] == redistribute([split], 3)[subtask]


def test_one_name_with_two_modes_is_corrupt():
    with pytest.raises(StateCorruptError, match="several modes") as caught:
        redistribute([[stored("A", 1)], [stored("B", 1, mode=UNION)]], 3)
    assert caught.value.context == {"state": "s", "modes": ["split", "union"]}


# ---- keyed state -------------------------------------------------------------


def keyed(start, stop):
    return KeyedStateHandle(groups=KeyGroupRange(start, stop), entries=1, data=InlineHandle(data=b""))


def same(handles, groups, max_parallelism=128):
    return holding(handles, groups, stored_max_parallelism=max_parallelism, max_parallelism=max_parallelism)


@row("keyed.overlap")
def test_a_new_subtask_reads_the_overlapping_handles_of_the_worked_example():
    old = [keyed(g.start, g.stop) for g in (groups_of_subtask(i, 128, 3) for i in range(3))]

    assert same(old, groups_of_subtask(1, 128, 5)) == old[:2]
    assert same(old, groups_of_subtask(0, 128, 5)) == old[:1]


@row("keyed.overlap")
def test_stored_ranges_may_be_any():
    old = [keyed(60, 128), keyed(0, 1), keyed(1, 60)]

    assert same(old, KeyGroupRange(0, 60)) == [old[1], old[2]]
    assert same([], KeyGroupRange(0, 60)) == []


@pytest.mark.parametrize("seed", range(50))
def test_every_stored_group_is_read_by_exactly_its_new_owner(seed):
    rng = random.Random(seed)
    max_parallelism = rng.randint(1, 64)
    cuts = sorted({0, max_parallelism, *(rng.randrange(max_parallelism + 1) for _ in range(4))})
    old = [keyed(start, stop) for start, stop in itertools.pairwise(cuts)]
    parallelism = rng.randint(1, max_parallelism)
    read = Counter(
        group
        for i in range(parallelism)
        for owned in [groups_of_subtask(i, max_parallelism, parallelism)]
        for handle in same(old, owned, max_parallelism)
        for group in handle.groups.intersect(owned)
    )

    assert read == Counter(range(max_parallelism))


@pytest.mark.parametrize(
    ("stored", "wanted", "parallelism"), [(128, 256, 3), (256, 128, 3), (12, 18, 4), (7, 5, 2)]
)
def test_another_number_of_groups_reads_every_handle_that_can_hold_a_key_and_no_other(
    stored, wanted, parallelism
):
    old = [keyed(g.start, g.stop) for g in (groups_of_subtask(i, stored, 5) for i in range(5))]
    for subtask in range(parallelism):
        own = groups_of_subtask(subtask, wanted, parallelism)
        # Every pair of groups that a key can have occurs among the hashes below the product.
        hashes = (h for h in range(stored * wanted) if h % wanted in own)
        reachable = {h % stored for h in hashes}
        expected = [handle for handle in old if reachable & set(handle.groups)]

        assert holding(old, own, stored_max_parallelism=stored, max_parallelism=wanted) == expected


# ---- records in flight -----------------------------------------------------------


def in_flight(stage, *, keyed, batches):
    """Return a handle; `batches` has the number of batches of each (sender, receiver)."""
    slices = tuple(
        ChannelSlice(sender=sender, receiver=receiver, offset=0, size_bytes=1, batches=count)
        for (sender, receiver), count in batches.items()
    )
    return ChannelStateHandle(
        target="op", input=0, stage=stage, keyed=keyed, records=1, slices=slices, data=InlineHandle(data=b"x")
    )


def dealt(handles, old, new, *, max_parallelism=8, new_max=8, only_first=False):
    """Return what each new subtask reads: stage, channel and run of batches."""
    runs = deal_in_flight(
        handles,
        KeyGroupLayout(max_parallelism=max_parallelism, parallelism=old),
        KeyGroupLayout(max_parallelism=new_max, parallelism=new),
        only_first=only_first,
    )
    assert len(runs) == new
    return [
        [(run.handle.stage.value, run.slice.sender, run.slice.receiver, run.start, run.stop) for run in own]
        for own in runs
    ]


def test_records_in_flight_stay_where_they_are_and_come_in_the_order_of_their_channel():
    output = in_flight(ChannelStage.OUTPUT, keyed=False, batches={(0, 0): 2, (0, 1): 1})
    taken = in_flight(ChannelStage.TAKEN, keyed=False, batches={(1, 1): 1})
    waiting = in_flight(ChannelStage.INPUT, keyed=False, batches={(0, 1): 3})

    assert dealt([output, waiting, taken], 2, 2) == [
        [("output", 0, 0, 0, 2)],
        [("taken", 1, 1, 0, 1), ("input", 0, 1, 0, 3), ("output", 0, 1, 0, 1)],
    ]


def test_records_in_flight_without_keys_are_dealt_evenly_at_another_parallelism():
    waiting = in_flight(ChannelStage.INPUT, keyed=False, batches={(0, 0): 5, (1, 0): 2})

    assert dealt([waiting], 1, 3) == [
        [("input", 0, 0, 0, 3)],
        [("input", 0, 0, 3, 5)],
        [("input", 1, 0, 0, 2)],
    ]
    assert dealt([waiting], 3, 1) == [[("input", 0, 0, 0, 5), ("input", 1, 0, 0, 2)]]


def test_global_records_in_flight_stay_with_the_first_subtask():
    waiting = in_flight(ChannelStage.INPUT, keyed=False, batches={(0, 0): 2, (1, 0): 2})

    assert dealt([waiting], 2, 3, only_first=True) == [[("input", 0, 0, 0, 2), ("input", 1, 0, 0, 2)], [], []]


def test_records_in_flight_with_keys_are_read_by_who_owns_some_of_their_key_groups():
    waiting = in_flight(ChannelStage.INPUT, keyed=True, batches={(0, 0): 1, (0, 1): 1, (0, 2): 1})

    # Of 8 groups: 0-2, 3-5, 6-7; then 0-3, 4-7.
    assert [[run[2] for run in own] for own in dealt([waiting], 3, 2)] == [[0, 1], [1, 2]]
    assert [[run[2] for run in own] for own in dealt([waiting], 3, 3)] == [[0], [1], [2]]


def test_records_in_flight_are_read_by_all_that_may_own_them_under_another_max_parallelism():
    waiting = in_flight(ChannelStage.INPUT, keyed=True, batches={(0, 0): 1, (0, 1): 1})

    assert [[run[2] for run in own] for own in dealt([waiting], 2, 2, new_max=9)] == [[0, 1], [0, 1]]


@pytest.mark.parametrize("seed", range(100))
def test_every_batch_in_flight_without_keys_goes_to_one_subtask_in_the_order_of_its_channel(seed):
    rng = random.Random(seed)
    old, new = rng.randint(1, 4), rng.randint(1, 4)
    handles = [
        in_flight(
            rng.choice(list(ChannelStage)),
            keyed=False,
            batches={(s, r): rng.randint(1, 4) for s in range(2) for r in range(old) if rng.random() < 0.7},
        )
        for _ in range(rng.randint(0, 3))
    ]
    runs = deal_in_flight(
        handles,
        KeyGroupLayout(max_parallelism=8, parallelism=old),
        KeyGroupLayout(max_parallelism=8, parallelism=new),
        only_first=False,
    )
    read = Counter((id(run.slice), n) for own in runs for run in own for n in range(run.start, run.stop))
    assert read == Counter(
        (id(part), n) for handle in handles for part in handle.slices for n in range(part.batches)
    )
    order = {
        id(part): n
        for n, part in enumerate(
            part
            for handle in sorted(handles, key=lambda handle: list(ChannelStage).index(handle.stage))
            for part in handle.slices
        )
    }
    for own in runs:
        assert [order[id(run.slice)] for run in own] == sorted(order[id(run.slice)] for run in own)
    if old != new:
        sizes = [sum(run.stop - run.start for run in own) for own in runs]
        assert max(sizes) - min(sizes) <= 1
