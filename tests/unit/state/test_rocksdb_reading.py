"""Files of RocksDB are read as chunks, without the program and without loading a value."""

import pytest

from raystream.clock import SystemClock
from raystream.config.options import BackendConfig
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.state.canonical_rows import ChunkRows, joined
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.open_backend import BackendOpener
from raystream.state.rocksdb_reading import StoredTables
from raystream.state.snapshot_files import SnapshotForm
from raystream.state.ttl import StateTtl
from raystream.testing.state_kit import Subtask, encode
from raystream.testing.stored_state import MemorySnapshot

GROUPS = KeyGroupRange(0, 16)
NUMBERS = ListStateDescriptor("numbers", int)
ENTRIES = MapStateDescriptor("entries", str, int)
LIVED = ValueStateDescriptor("lived", str, ttl=StateTtl(100))


class Clock(SystemClock):
    """Says what the test says."""

    now_ms = 1_000

    def wall_ms(self):
        return self.now_ms


@pytest.fixture
def tables(tmp_path):
    """Take an incremental snapshot of a subtask that a function has filled, and open its files."""
    opened = []

    def of(fill, clock=None):
        clock = clock or Clock()
        config = BackendConfig(type="rocksdb", rocksdb_directory=str(tmp_path / "local"))
        opener = BackendOpener(config, clock)
        cursor = KeyCursor()
        subtask = Subtask(opener.open(groups_of_subtask(0, 16, 1), 16, cursor), cursor, clock=clock)
        fill(subtask)
        snapshot = subtask.backend.freeze(1, form=SnapshotForm.INCREMENTAL)
        encode(snapshot)
        stored = MemorySnapshot.of(snapshot)
        opener.close()
        opened.append(StoredTables(stored.open(GROUPS, 16), tmp_path / "copy", lambda: None))
        return opened[-1]

    yield of
    for one in opened:
        one.close()


def rows(tables, **wanted):
    """Return key and value columns of what is read, by state."""
    found = {}
    for info, stored in tables.chunks(**wanted):
        made = ChunkRows(info)
        found.setdefault(info.name, (made.columns, []))[1].append(made.rows(stored.group, stored.chunk).table)
    return {name: joined(columns, parts) for name, (columns, parts) in found.items()}


def test_values_that_msgpack_carries_stand_beside_one_that_it_does_not(tables):
    def fill(subtask):
        numbers = subtask.backend.list_state(NUMBERS)
        entries = subtask.backend.map_state(ENTRIES)
        subtask.at("a")
        numbers.add_all([1, 2**70, 3])
        entries.put_all({"x": 1, "y": 2**70, "z": None})
        subtask.at("b")
        numbers.add(4)

    found = rows(tables(fill))

    numbers = {row["key"]: [] for row in found["numbers"].to_pylist()}
    for row in found["numbers"].to_pylist():
        numbers[row["key"]].append(row["value"] if row["value_pickle"] is None else "pickled")
    assert numbers == {"a": ["pickled"] * 3, "b": [4]}
    assert sorted(found["entries"].column("map_key").to_pylist()) == ["x", "y", "z"]
    assert found["entries"].column("value_pickle").null_count == 0


def test_only_wanted_states_and_key_groups_are_read_in_order_of_these(tables):
    def fill(subtask):
        numbers, entries = subtask.backend.list_state(NUMBERS), subtask.backend.map_state(ENTRIES)
        for key in range(50):
            subtask.at(key)
            numbers.add(key)
            entries.put("x", key)

    opened = tables(fill)

    found = rows(opened, states={"numbers"}, groups={3, 5})
    assert set(found) == {"numbers"}
    assert set(found["numbers"].column("key_group").to_pylist()) == {3, 5}
    everything = rows(opened)["numbers"].column("key_group").to_pylist()
    assert everything == sorted(everything)
    assert len(everything) == 50


def test_what_had_expired_at_the_snapshot_is_left_out(tables):
    clock = Clock()

    def fill(subtask):
        lived = subtask.backend.value_state(LIVED)
        subtask.at("old")
        lived.update("x")
        clock.now_ms += 100
        subtask.at("new")
        lived.update("y")

    found = rows(tables(fill, clock))

    assert found["lived"].column("key").to_pylist() == ["new"]
    assert found["lived"].column("written_ms").to_pylist() == [1_100]
