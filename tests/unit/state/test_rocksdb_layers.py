"""What changed of state on RocksDB: when it is written, and how it is found until then."""

import pytest

from raystream.errors import StateError
from raystream.keygroup import KeyGroupRange
from raystream.state import rocksdb_tables
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.rocksdb import RocksDbStore
from raystream.testing.state_kit import never
from raystream.testing.stored_state import MemorySnapshot
from tests.unit.state.rocksdb_subtasks import beside_each_other

GROUPS = KeyGroupRange(0, 16)
HITS = ValueStateDescriptor("hits", int)
TEXTS = ListStateDescriptor("texts", str)
COUNTS = MapStateDescriptor("counts", str, int)
MAKERS = (lambda b: b.value_state(HITS), lambda b: b.list_state(TEXTS), lambda b: b.map_state(COUNTS))


@pytest.fixture
def opener(local_path):
    yield from beside_each_other(local_path)


def finish(snapshot):
    assert snapshot.advance(never)
    return MemorySnapshot.of(snapshot).open(GROUPS, 16)


def test_key_that_changes_all_the_time_is_written_at_barriers_only(opener, monkeypatch):
    subtask = opener(cache_bytes=40_000)
    state = subtask.backend.value_state(HITS)
    (table,) = subtask.backend._all
    hot = table.stored_keys.one("hot")
    written = record_writes(monkeypatch)
    for n in range(2_000):
        subtask.backend.prefetch(["hot", n])
        for key in ("hot", n):
            subtask.at(key)
            state.update(n)
    assert hot not in written
    assert len(written) > 1_500  # Of the other keys, most of which went cold.
    assert subtask.backend.freeze(1).advance(never)
    assert written.count(hot) == 1


def test_key_that_went_cold_is_written_once(opener, monkeypatch):
    subtask = opener(cache_bytes=40_000)
    state = subtask.backend.value_state(HITS)
    written = record_writes(monkeypatch)
    for n in range(2_000):
        subtask.backend.prefetch([n])
        subtask.at(n)
        state.update(n)
    subtask.backend.write_out()
    assert len(written) == len(set(written)) == 2_000


def test_what_is_not_written_yet_is_found_without_reading(opener, monkeypatch):
    subtask = opener()
    makers = [make(subtask.backend) for make in MAKERS]
    subtask.at("k")
    makers[0].update(1)
    makers[1].update(["a"])
    makers[2].put("a", 1)
    for method in ("get", "get_many", "scan"):
        monkeypatch.setattr(RocksDbStore, method, lambda *_: pytest.fail("read"))
    for _ in range(2):
        for table in subtask.backend._all:
            table.rotate()  # The second time nothing is left in the cache.
    subtask.backend.prefetch(["k"])
    assert (makers[0].value(), makers[1].get(), makers[2].get("a")) == (1, ["a"], 1)


def test_large_values_count_by_their_size(opener):
    subtask = opener(cache_bytes=1 << 20)
    state = subtask.backend.value_state(ValueStateDescriptor("text", str))
    (table,) = subtask.backend._all
    held = []
    for n in range(500):
        subtask.backend.prefetch([n])
        held.append(sum(len(text) for layer in table._layers() for text in layer.changes.values()))
        subtask.at(n)
        state.update("x" * 10_000)
    assert max(held) <= (1 << 20) // 2


def test_list_that_was_empty_when_it_was_read_shows_what_is_written_later(opener):
    subtask = opener()
    texts = subtask.backend.list_state(TEXTS)
    subtask.at("k")
    assert texts.get() == []
    texts.add("a")
    subtask.backend.write_out()
    assert texts.get() == ["a"]
    texts.add("b")
    assert texts.get() == ["a", "b"]


def test_list_can_be_read_while_it_is_half_written(opener, monkeypatch):
    monkeypatch.setattr(rocksdb_tables, "STEP_KEYS", 1)
    subtask = opener()
    texts = subtask.backend.list_state(TEXTS)
    for key in ("a", "b"):
        subtask.at(key)
        texts.update([key])
    snapshot = subtask.backend.freeze(1)
    for key in ("a", "b"):
        subtask.at(key)
        texts.add("after")
    assert not snapshot.advance(lambda: True)
    for key in ("a", "b"):
        subtask.at(key)
        assert texts.get() == [key, "after"]


def test_list_that_is_read_shows_what_begins_to_cool_meanwhile(opener, monkeypatch):
    monkeypatch.setattr(rocksdb_tables, "MISSES_MAX", 1)
    subtask = opener(cache_bytes=1_500)
    texts = subtask.backend.list_state(TEXTS)
    (table,) = subtask.backend._all
    subtask.at("k")
    texts.add_all(["a", "b", "c"])
    assert texts.get() == ["a", "b", "c"]
    assert table.cooling is not None
    assert texts.get() == ["a", "b", "c"]


def test_what_is_added_to_one_key_is_written_in_parts(opener, monkeypatch):
    subtask = opener()
    texts, counts = subtask.backend.list_state(TEXTS), subtask.backend.map_state(COUNTS)
    subtask.at("k")
    counts.put("old", 0)
    subtask.backend.write_out()
    counts.clear()
    for n in range(3_000):
        texts.add(str(n))
        counts.put(str(n), n)
    sizes = []
    write = RocksDbStore.write

    def recording(store, changes):
        changes = list(changes)
        sizes.append(len(changes))
        write(store, changes)

    monkeypatch.setattr(RocksDbStore, "write", recording)
    snapshot = subtask.backend.freeze(1)
    while not snapshot.advance(lambda: True):
        assert texts.get() == [str(n) for n in range(3_000)]
    assert max(sizes) <= 300
    for table in subtask.backend._all:
        table.rotate()
        table.rotate()
    assert texts.get() == [str(n) for n in range(3_000)]
    assert dict(counts.items()) == {str(n): n for n in range(3_000)}


def test_what_could_not_be_written_is_written_by_the_next_try(opener, monkeypatch):
    subtask = opener()
    states = [make(subtask.backend) for make in MAKERS]
    for n in range(10):
        subtask.at(n)
        states[0].update(n)
        states[1].update([str(n)])
        states[2].put("a", n)
    snapshot = subtask.backend.freeze(1)

    def failing(*_):
        raise StateError("disk failed")

    with monkeypatch.context() as patched:
        patched.setattr(RocksDbStore, "write", failing)
        with pytest.raises(StateError, match="disk failed"):
            snapshot.advance(never)
    restored = opener()
    restored.backend.restore([finish(snapshot)])
    states = [make(restored.backend) for make in MAKERS]
    for n in range(10):
        restored.at(n)
        assert (states[0].value(), states[1].get(), states[2].get("a")) == (n, [str(n)], n)


def record_writes(monkeypatch):
    """Return a list that gets the stored key of everything that is written."""
    written = []
    write = RocksDbStore.write

    def recording(store, changes):
        changes = list(changes)
        written.extend(key for key, _ in changes)
        write(store, changes)

    monkeypatch.setattr(RocksDbStore, "write", recording)
    return written


def test_freezing_moves_nothing(opener):
    subtask = opener()
    for make in MAKERS:
        make(subtask.backend)
    subtask.at("k")
    MAKERS[0](subtask.backend).update(1)
    MAKERS[1](subtask.backend).add("a")
    MAKERS[2](subtask.backend).put("a", 1)
    changes = [table.dirty for table in subtask.backend._all]
    subtask.backend.freeze(1)
    for table, frozen in zip(subtask.backend._all, changes, strict=True):
        assert table.frozen[-1].changes is frozen
        assert not table.dirty
