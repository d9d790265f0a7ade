"""What differs between two snapshots is counted by state, whatever their backends and key groups are."""

import pytest

from raystream import KeyedProcessFunction, MapStateDescriptor, ValueStateDescriptor
from raystream.savepoint.difference import differences
from raystream.savepoint.snapshot import SnapshotReader
from tests.unit.savepoint.jobs import KEYS, UID, EveryState, key_of, snapshot


class Changed(EveryState):
    """Has other hits for even numbers, and another declaration."""

    def open(self, ctx):
        super().open(ctx)
        self.extra = ctx.get_map_state(MapStateDescriptor("extra", str, int))
        ctx.get_state(ValueStateDescriptor("longer", int))

    def process_element(self, value, ctx):
        yield from super().process_element(value, ctx)
        if value % 2 == 0:
            self.hits.update(value + 1)
        self.extra.put("a", 1)


class Redeclared(KeyedProcessFunction):
    def open(self, ctx):
        ctx.get_state(ValueStateDescriptor("hits", str))

    def process_element(self, value, ctx):
        assert value >= 0


def compared(first, second, keys_max=0):
    with SnapshotReader(first) as before, SnapshotReader(second) as after:
        return {one.state: one for one in differences(before, after, keys_max=keys_max) if one.uid == UID}


@pytest.mark.parametrize("other", ["heap", "rocksdb", "native", "canonical"])
def test_snapshots_of_the_same_state_do_not_differ(other):
    found = compared(snapshot("heap"), snapshot(other))

    assert [name for name, one in found.items() if not one.same] == []
    assert found["hits"].unchanged == KEYS
    assert found["rules"].unchanged == 1
    assert found["positions"].unchanged == 4


@pytest.mark.parametrize("other", ["heap", "rocksdb"])
def test_entries_that_changed_are_counted_and_some_told(other):
    found = compared(snapshot("heap"), snapshot(other, function=Changed), keys_max=3)

    hits = found["hits"]
    assert (hits.added, hits.removed, hits.changed, hits.unchanged) == (0, 0, KEYS // 2, KEYS // 2)
    assert len(hits.keys) == 3
    assert {what for what, _ in hits.keys} == {"changed"}
    assert {key for _, key in hits.keys} <= {key_of(n) for n in range(0, KEYS, 2)}
    assert found["paths"].same
    assert found["extra"].before is None
    assert found["extra"].added == KEYS


def test_keys_of_one_snapshot_alone_are_added_or_removed():
    less, more = snapshot("heap"), snapshot("rocksdb", KEYS + 5)

    grown, shrunk = compared(less, more, keys_max=9), compared(more, less, keys_max=9)

    assert (grown["hits"].added, grown["hits"].removed) == (5, 0)
    assert (shrunk["hits"].added, shrunk["hits"].removed) == (0, 5)
    assert {key for _, key in grown["hits"].keys} == {key_of(n) for n in range(KEYS, KEYS + 5)}
    assert sorted(grown["paths"].keys, key=repr) == sorted(grown["hits"].keys, key=repr)


@pytest.mark.parametrize("other", ["heap", "rocksdb", "canonical"])
@pytest.mark.parametrize("max_parallelism", [8, 12, 7])
def test_other_key_groups_make_no_difference(other, max_parallelism):
    found = compared(snapshot("heap"), snapshot(other, KEYS, max_parallelism))

    assert [name for name, one in found.items() if not one.same] == []
    assert found["hits"].unchanged == KEYS


def test_changed_declaration_is_told():
    found = compared(snapshot("heap"), snapshot("heap", function=Redeclared))

    assert found["hits"].declaration == {"schema": ("int", "str")}
    assert not found["hits"].same
    assert found["paths"].after is None
    assert found["paths"].removed == KEYS
