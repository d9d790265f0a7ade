"""Snapshots of RocksDB's own files: what they refer to, how they restore, what happens while they are cut."""

import threading
from types import SimpleNamespace

import pytest

from raystream.clock import SystemClock
from raystream.config.options import BackendConfig
from raystream.errors import StateError, StateRestoreError
from raystream.keygroup import groups_of_subtask
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ListStateDescriptor, ValueStateDescriptor
from raystream.state.open_backend import BackendOpener
from raystream.state.rocksdb import RocksDbStore
from raystream.state.rocksdb_cut import StoreCut
from raystream.testing.state_kit import Subtask, at_once, never
from raystream.testing.stored_state import MemorySnapshot

HITS = ValueStateDescriptor("hits", int)
TEXTS = ListStateDescriptor("texts", str)
KEYS = 200


@pytest.fixture
def opener(local_path):
    """Open a subtask, perhaps restored; each has directories of its own."""
    openers = []

    def open_one(restored=(), *, backend="rocksdb", subtask=0, parallelism=1, max_parallelism=16, own=False):
        config = BackendConfig(type=backend, rocksdb_directory=str(local_path / str(len(openers))))
        openers.append(BackendOpener(config, SystemClock()))
        cursor, groups = KeyCursor(), groups_of_subtask(subtask, max_parallelism, parallelism)
        made = Subtask(
            openers[-1].open(groups, max_parallelism, cursor), cursor, max_parallelism, clock=SystemClock()
        )
        made.backend.restore([stored.open(groups, max_parallelism, own=own) for stored in restored])
        made.hits, made.texts = made.backend.value_state(HITS), made.backend.list_state(TEXTS)
        made.groups = groups
        return made

    yield open_one
    for made in openers:
        made.close()


def fill(subtask, keys=range(KEYS), plus=0):
    for key in keys:
        subtask.at(key)
        if subtask.cursor.group in subtask.groups:
            subtask.hits.update(key + plus)
            subtask.texts.add(str(key))


def contents(*subtasks):
    """Return what the subtasks hold; each key is held by one of them."""
    found = {}
    for subtask in subtasks:
        texts = {key: values for _, key, values in subtask.backend.entries("texts")}
        for group, key, hits in subtask.backend.entries("hits"):
            assert group in subtask.groups
            assert key not in found
            found[key] = hits, texts.pop(key)
        assert texts == {}
    return found


EXPECTED = {key: (key, [str(key)]) for key in range(KEYS)}


def freeze(subtask, checkpoint_id):
    snapshot = subtask.backend.freeze(checkpoint_id, incremental=True)
    assert snapshot.advance(never)
    return snapshot


def take(subtask, checkpoint_id, *, completed=True):
    stored = MemorySnapshot.of(freeze(subtask, checkpoint_id))
    if completed:
        subtask.backend.checkpoint_completed(checkpoint_id)
    return stored


def created_by(stored):
    return [file.created_by for file in stored.shared]


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


def test_full_snapshot_between_changes_nothing_of_what_is_known(opener):
    subtask = opener()
    fill(subtask)
    take(subtask, 1)
    savepoint = subtask.backend.freeze(2)
    assert savepoint.advance(never)
    assert MemorySnapshot.of(savepoint).shared == ()
    subtask.backend.checkpoint_completed(2)

    assert created_by(take(subtask, 3)) == [1]


def test_nothing_restored_and_nothing_written_is_a_snapshot_too(opener):
    empty = take(opener(), 1)

    assert empty.shared == ()
    assert contents(opener([empty])) == {}


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
    heap = halves[1].backend.freeze(1, incremental=True)
    assert heap.advance(never)

    assert contents(opener([take(halves[0], 1), MemorySnapshot.of(heap)])) == EXPECTED


def test_snapshot_of_the_heap_becomes_files(opener):
    heap = opener(backend="hashmap")
    fill(heap)
    snapshot = heap.backend.freeze(1, incremental=True)
    assert snapshot.advance(never)
    restored = opener([MemorySnapshot.of(snapshot)], own=True)

    assert contents(restored) == EXPECTED
    assert created_by(take(restored, 2)) == [2]


def test_files_of_another_backend_are_refused(opener, monkeypatch):
    monkeypatch.setattr("raystream.state.rocksdb_incremental.BACKEND", "leveldb")
    subtask = opener()
    fill(subtask)
    stored = take(subtask, 1)
    monkeypatch.undo()

    with pytest.raises(StateRestoreError, match="another backend"):
        opener([stored])


# ---- while it is cut ----


class Gate:
    """Lets the files of a store be linked when it is told to, and notes what happens."""

    def __init__(self, monkeypatch):
        self.events = []
        self.open = threading.Event()
        link, write, wait = RocksDbStore.link_files, RocksDbStore.write, StoreCut.wait

        def link_files(store, path):
            assert self.open.wait(60)
            link(store, path)
            self.events.append("linked")

        def written(store, changes):
            self.events.append("written")
            write(store, changes)

        def waited(cut, timeout_s=None):
            if timeout_s is None:  # Somebody waits for as long as it takes.
                self.events.append("waits")
                self.open.set()
            return wait(cut, timeout_s)

        monkeypatch.setattr(RocksDbStore, "link_files", link_files)
        monkeypatch.setattr(RocksDbStore, "write", written)
        monkeypatch.setattr(StoreCut, "wait", waited)


@pytest.fixture
def cutting(opener, monkeypatch):
    """A subtask whose files are being linked for a snapshot."""
    subtask = opener()
    fill(subtask)
    subtask.backend.write_out()
    gate = Gate(monkeypatch)
    yield SimpleNamespace(subtask=subtask, gate=gate, snapshot=freeze(subtask, 1))
    gate.open.set()


def test_write_waits_until_the_files_are_there(cutting, opener):
    fill(cutting.subtask, [0], plus=1)
    cutting.subtask.backend.write_out()

    assert cutting.gate.events[:3] == ["waits", "linked", "written"]
    assert contents(opener([MemorySnapshot.of(cutting.snapshot)])) == EXPECTED


def test_bounds_are_kept_without_a_wait_while_there_is_room(cutting):
    cutting.subtask.backend._dirty_bytes = 0
    fill(cutting.subtask, [0], plus=1)
    cutting.subtask.backend.prefetch([1])
    assert cutting.gate.events == []

    cutting.gate.open.set()
    assert len(cutting.snapshot.files()) == 1  # Waits for them, as an upload does.
    cutting.subtask.backend.prefetch([1])
    assert "written" in cutting.gate.events


def test_newer_snapshot_waits_for_the_files_of_the_older_one(cutting, opener):
    fill(cutting.subtask, [0], plus=1)
    newer = cutting.subtask.backend.freeze(2, incremental=True)
    assert not newer.advance(at_once)
    assert cutting.gate.events == []

    cutting.gate.open.set()
    assert newer.advance(never)
    first, second = MemorySnapshot.of(cutting.snapshot), MemorySnapshot.of(newer)
    assert contents(opener([first])) == EXPECTED
    assert contents(opener([second])) == EXPECTED | {0: (1, ["0", "0"])}


def test_backend_that_is_closed_meanwhile_waits_and_leaves_no_file(cutting, local_path):
    cutting.subtask.backend.close()

    assert cutting.gate.events == ["waits", "linked"]
    with pytest.raises(StateError, match="closed"):
        cutting.snapshot.files()
    assert [path for path in local_path.rglob("*") if path.is_file()] == []


def test_snapshot_that_is_discarded_meanwhile_leaves_no_file(cutting, local_path):
    (cut,) = [cutting.snapshot._files]
    cutting.snapshot.discard()
    cutting.snapshot.discard()
    cutting.gate.open.set()
    for thread in threading.enumerate():
        if thread.name == "rocksdb-cut-removal":
            thread.join()

    assert cutting.gate.events == ["linked"]
    assert list(local_path.rglob("files-*")) == []
    with pytest.raises(StateError, match="gone"):
        cut.files()


@pytest.mark.parametrize("read", ["files", "blob"])
def test_failure_of_the_disk_is_an_error_of_the_snapshot_and_the_backend_goes_on(
    opener, local_path, monkeypatch, read
):
    subtask = opener()
    fill(subtask)

    def full(store, path):
        raise StateError("state could not be written", path=str(path), cause="No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RocksDbStore, "link_files", full)
        snapshot = freeze(subtask, 1)
        with pytest.raises(StateError, match="No space left") as caught:
            getattr(snapshot, read)()
    assert caught.value.context["path"].startswith(str(local_path))
    snapshot.discard()

    fill(subtask, [0], plus=1)
    assert contents(opener([take(subtask, 2)])) == EXPECTED | {0: (1, ["0", "0"])}


def test_directory_of_links_that_cannot_be_made_names_its_path(opener):
    subtask = opener()
    fill(subtask)
    taken = subtask.backend._origin.directory / "files-1"
    taken.mkdir()

    with pytest.raises(StateError, match="could not be written") as caught:
        freeze(subtask, 1).files()
    assert caught.value.context["path"].startswith(str(subtask.backend._origin.directory))
    assert contents(opener([take(subtask, 2)])) == EXPECTED
