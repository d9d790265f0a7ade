"""Snapshots of RocksDB's own files: what they refer to, and how they restore."""

import pytest

from raystream.errors import StateError, StateRestoreError
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.snapshot_files import SnapshotForm
from raystream.state.ttl import StateTtl
from raystream.testing.state_kit import encode, never
from raystream.testing.stored_state import MemorySnapshot
from tests.unit.state import rocksdb_subtasks
from tests.unit.state.rocksdb_subtasks import (
    EXPECTED,
    KEYS,
    contents,
    created_by,
    fill,
    freeze,
    subtasks_in,
    take,
)


@pytest.fixture
def opener(local_path):
    yield from subtasks_in(local_path)


# ---- what a snapshot refers to ----


def test_second_checkpoint_writes_only_what_is_new(opener):
    subtask = opener()
    fill(subtask)
    first = take(subtask, 1)
    fill(subtask, [7], plus=1)
    second = take(subtask, 2)

    assert created_by(first) == [1]
    assert created_by(second) == [1, 2]
    assert second.shared[0] == first.shared[0]
    assert second.shared[1].size_bytes < first.shared[0].size_bytes
    assert contents(opener([second])) == EXPECTED | {7: (8, ["7", "7"])}
    assert contents(opener([first])) == EXPECTED


def test_checkpoint_without_changes_writes_no_file(opener):
    subtask = opener()
    fill(subtask)
    first, second = take(subtask, 1), take(subtask, 2)

    assert second.shared == first.shared


def test_file_of_a_checkpoint_that_never_completed_is_stored_anew(opener):
    subtask = opener()
    fill(subtask)
    take(subtask, 1, completed=False)

    assert created_by(take(subtask, 2)) == [2]


@pytest.mark.parametrize("form", [SnapshotForm.FULL, SnapshotForm.NATIVE])
def test_savepoint_between_changes_nothing_of_what_is_known(opener, form):
    subtask = opener()
    fill(subtask)
    take(subtask, 1)
    savepoint = subtask.backend.freeze(2, form=form)
    encode(savepoint)
    stored = MemorySnapshot.of(savepoint)
    subtask.backend.checkpoint_completed(2)

    assert created_by(take(subtask, 3)) == [1]
    assert contents(opener([stored])) == EXPECTED


def test_native_snapshot_refers_to_no_file_of_a_checkpoint(opener):
    subtask = opener()
    fill(subtask)
    take(subtask, 1)
    fill(subtask, [7], plus=1)
    native = subtask.backend.freeze(2, form=SnapshotForm.NATIVE)
    encode(native)

    assert [file.shared for file in native.files()] == [None, None]


def test_nothing_restored_and_nothing_written_is_a_snapshot_too(opener):
    empty = take(opener(), 1)

    assert empty.shared == ()
    assert contents(opener([empty])) == {}


# ---- values of another type than declared ----


def test_value_that_was_overwritten_is_looked_for_once(opener):
    subtask = opener()
    fill(subtask)
    subtask.at(0)
    subtask.hits.update("not an int")
    with pytest.raises(StateError, match="declared type"):
        freeze(subtask, 1)
    still_there = freeze(subtask, 2)
    with pytest.raises(StateError, match="declared type"):
        still_there.files()
    subtask.hits.update(0)
    assert contents(opener([take(subtask, 3)])) == EXPECTED

    assert freeze(subtask, 4)._suspect is None
    subtask.hits.update("again")
    with pytest.raises(StateError, match="declared type"):
        freeze(subtask, 5)


def test_value_of_a_newer_snapshot_is_still_found_when_the_older_one_has_none(opener):
    subtask = opener()
    fill(subtask)
    older = subtask.backend.freeze(1, form=SnapshotForm.INCREMENTAL)
    subtask.at(0)
    subtask.hits.update(["not an int"])
    newer = subtask.backend.freeze(2, form=SnapshotForm.INCREMENTAL)
    assert subtask.hits.value() == ["not an int"]  # What is handed out is encoded.

    assert older.advance(never)
    assert contents(opener([MemorySnapshot.of(older)])) == EXPECTED
    encode(newer)
    with pytest.raises(StateError, match="declared type"):
        newer.files()


# ---- restores ----


def test_restore_of_an_own_checkpoint_uses_its_files_and_the_next_one_refers_to_them(opener):
    subtask = opener()
    fill(subtask)
    first = take(subtask, 1)
    restored = opener([first], own=True)
    assert contents(restored) == EXPECTED
    fill(restored, [KEYS])
    second = take(restored, 2)

    assert created_by(second) == [1, 2]
    assert contents(opener([second])) == EXPECTED | {KEYS: (KEYS, [str(KEYS)])}


def test_first_checkpoint_after_a_restore_of_another_job_refers_to_nothing(opener):
    subtask = opener()
    fill(subtask)
    restored = opener([take(subtask, 1)])

    assert created_by(take(restored, 2)) == [2]
    assert created_by(take(restored, 3)) == [2]


def test_snapshot_that_stores_all_anew_refers_to_nothing_and_is_what_later_ones_refer_to(opener):
    subtask = opener()
    fill(subtask)
    assert created_by(take(subtask, 1)) == [1]
    fill(subtask, [KEYS])

    anew = MemorySnapshot.of(freeze(subtask, 2, SnapshotForm.ANEW))
    subtask.backend.checkpoint_completed(2)
    assert created_by(anew) == [2, 2]
    assert contents(opener([anew])) == EXPECTED | {KEYS: (KEYS, [str(KEYS)])}
    fill(subtask, [KEYS + 1])
    assert created_by(take(subtask, 3)) == [2, 2, 3]


def test_snapshot_behind_one_that_stores_all_anew_and_is_pending_refers_to_nothing_either(opener):
    """Else it would refer to files that are deleted as soon as the one between is complete."""
    subtask = opener()
    fill(subtask)
    take(subtask, 1)
    MemorySnapshot.of(freeze(subtask, 2, SnapshotForm.ANEW))

    assert created_by(take(subtask, 3)) == [3]


@pytest.mark.parametrize("own", [True, False])
def test_half_of_the_key_groups_is_cut_out_of_the_files(opener, own):
    subtask = opener()
    fill(subtask)
    first = take(subtask, 1)
    halves = [opener([first], subtask=n, parallelism=2, own=own) for n in range(2)]
    assert contents(*halves) == EXPECTED
    later = [take(half, 2) for half in halves]

    assert all((1 in created_by(half)) == own for half in later)
    assert contents(*(opener([half], subtask=n, parallelism=2) for n, half in enumerate(later))) == EXPECTED
    assert contents(opener(later)) == EXPECTED


@pytest.mark.parametrize("parallelism", [1, 2, 4, 5])
def test_several_snapshots_restore_at_any_parallelism(opener, parallelism):
    thirds = [opener(subtask=n, parallelism=3) for n in range(3)]
    for third in thirds:
        fill(third)
    stored = [take(third, 1) for third in thirds]
    restored = [opener(stored, subtask=n, parallelism=parallelism) for n in range(parallelism)]

    assert contents(*restored) == EXPECTED
    again = [take(subtask, 2) for subtask in restored]
    assert contents(opener(again)) == EXPECTED


@pytest.mark.parametrize("max_parallelism", [3, 128])
def test_other_max_parallelism_deals_keys_out_anew(opener, max_parallelism):
    subtask = opener()
    fill(subtask)
    first = take(subtask, 1)
    restored = [
        opener([first], subtask=n, parallelism=2, max_parallelism=max_parallelism, own=True) for n in range(2)
    ]

    assert contents(*restored) == EXPECTED
    assert all(set(created_by(take(half, 2))) == {2} for half in restored)


def test_files_and_chunks_restore_together(opener):
    halves = [opener(subtask=0, parallelism=2), opener(subtask=1, parallelism=2, backend="hashmap")]
    for half in halves:
        fill(half)
    heap = halves[1].backend.freeze(1, form=SnapshotForm.INCREMENTAL)
    assert heap.advance(never)

    assert contents(opener([take(halves[0], 1), MemorySnapshot.of(heap)])) == EXPECTED


def test_snapshot_of_the_heap_becomes_files(opener):
    heap = opener(backend="hashmap")
    fill(heap)
    snapshot = heap.backend.freeze(1, form=SnapshotForm.INCREMENTAL)
    assert snapshot.advance(never)
    restored = opener([MemorySnapshot.of(snapshot)], own=True)

    assert contents(restored) == EXPECTED
    assert created_by(take(restored, 2)) == [2]


def test_log_tells_of_a_state_that_is_rewritten_how_many_keys_it_had(opener, caplog, monkeypatch):
    subtask = opener()
    fill(subtask)
    stored = take(subtask, 1)
    monkeypatch.setattr(rocksdb_subtasks, "HITS", ValueStateDescriptor("hits", int, ttl=StateTtl("1h")))
    with caplog.at_level("INFO", logger="raystream.state.rocksdb_rewrite"):
        restored = opener([stored])

    begun, done = (record for record in caplog.records if record.name == "raystream.state.rocksdb_rewrite")
    assert (begun.state, done.state, done.entries) == ("hits", "hits", KEYS)
    assert done.took_ms >= 0
    assert contents(restored) == EXPECTED


def test_files_of_another_backend_are_refused(opener, monkeypatch):
    monkeypatch.setattr("raystream.state.rocksdb_incremental.BACKEND", "leveldb")
    subtask = opener()
    fill(subtask)
    stored = take(subtask, 1)
    monkeypatch.undo()

    with pytest.raises(StateRestoreError, match="another backend"):
        opener([stored])
