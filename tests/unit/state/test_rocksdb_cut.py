"""What happens to the RocksDB backend while the files of a snapshot are being linked, or cannot be."""

import gc
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from raystream.errors import StateError
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.rocksdb import RocksDbMemory, RocksDbStore
from raystream.state.rocksdb_cut import StoreCut
from raystream.state.rocksdb_directory import StoreDirectory
from raystream.state.rocksdb_snapshot import HELD_WARN_MS
from raystream.state.snapshot_files import SnapshotForm
from raystream.state.ttl import StateTtl
from raystream.testing.source_run import ManualClock
from raystream.testing.state_kit import at_once, encode, never
from raystream.testing.stored_state import MemorySnapshot
from tests.unit.state.rocksdb_subtasks import (
    EXPECTED,
    contents,
    fill,
    freeze,
    join_removals,
    subtasks_in,
    take,
)


@pytest.fixture
def opener(local_path):
    yield from subtasks_in(local_path)


class Gate:
    """Lets the files of a store be linked when it is told to, and notes what happens."""

    def __init__(self, monkeypatch):
        self.events = []
        self.took = lambda: None
        self.open = threading.Event()
        link, write, wait = RocksDbStore.link_files, RocksDbStore.write, StoreCut.wait

        def link_files(store, path):
            assert self.open.wait(60)
            link(store, path)
            self.took()
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
    newer = cutting.subtask.backend.freeze(2, form=SnapshotForm.INCREMENTAL)
    assert not newer.advance(at_once)
    assert cutting.gate.events == []

    cutting.gate.open.set()
    encode(newer)
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
    join_removals()

    assert cutting.gate.events == ["linked"]
    assert list(local_path.rglob("files-*")) == []
    with pytest.raises(StateError, match="gone"):
        cut.files()


@pytest.mark.parametrize("end", ["snapshot", "backend"])
def test_links_are_removed_by_another_thread_and_nothing_is_left(opener, local_path, monkeypatch, end):
    removed_by, may_remove = [], threading.Event()
    remove = shutil.rmtree

    def slowly(path, **options):
        if threading.current_thread().name == "rocksdb-cut-removal":
            assert may_remove.wait(60)
        removed_by.append((path.name[:5], threading.current_thread().name))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", slowly)
    subtask = opener()
    fill(subtask)
    snapshot = freeze(subtask, 1)
    assert len(snapshot.files()) == 1
    snapshot.discard()
    if end == "backend":
        subtask.backend.close()
        assert [path for path in local_path.rglob("*") if path.is_file()] == []
    may_remove.set()
    join_removals()

    assert ("files", "rocksdb-cut-removal") in removed_by
    assert list(local_path.rglob("files-*")) == []


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


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from raystream.clock import SystemClock
from raystream.errors import StateError
from raystream.keygroup import KeyGroupRange
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.state.snapshot_files import SnapshotForm

settings = RocksDbSettings(parent=Path(sys.argv[1]), memory=RocksDbMemory(8 << 20), cache_bytes=10 << 20)
cursor = KeyCursor()
backend = RocksDbBackend(KeyGroupRange(0, 1), 1, cursor, settings=settings, clock=SystemClock())
state = backend.value_state(ValueStateDescriptor("text", str))
cursor.group = 0
for cursor.current_key in range(2_000):
    state.update(str(cursor.current_key) * 100)
backend.write_out()
snapshot = backend.freeze(1, form=SnapshotForm.INCREMENTAL)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
assert snapshot.advance(lambda: False)
try:
    snapshot.files()
except StateError as error:
    print(error.context["path"])
snapshot.discard()
state.update("new")
try:
    backend.write_out()
except StateError as error:
    print(error.context["path"])
backend.close()
"""


def test_disk_that_is_full_fails_the_snapshot_and_then_the_next_write(local_path):
    # A limit on the size of files stands for the size of the disk; it needs a process of its own.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(local_path)], capture_output=True, text=True, check=True
    )
    snapshot, write = done.stdout.splitlines()
    assert snapshot.startswith(str(local_path / "raystream-state-"))
    assert write == snapshot
    assert list(local_path.iterdir()) == []


def test_directory_of_links_that_cannot_be_made_names_its_path(opener):
    subtask = opener()
    fill(subtask)
    taken = subtask.backend._origin.directory.path / "files-1"
    taken.mkdir()

    with pytest.raises(StateError, match="could not be written") as caught:
        freeze(subtask, 1).files()
    assert caught.value.context["path"].startswith(str(subtask.backend._origin.directory.path))
    assert contents(opener([take(subtask, 2)])) == EXPECTED


def test_directory_of_a_store_that_nobody_closes_goes_when_its_files_are_linked(local_path, monkeypatch):
    linking, go_on = threading.Event(), threading.Event()
    link_files = RocksDbStore.link_files

    def slow(self, path):
        linking.set()
        assert go_on.wait(30)
        link_files(self, path)

    monkeypatch.setattr(RocksDbStore, "link_files", slow)
    directory = StoreDirectory(local_path)
    cut = StoreCut(
        RocksDbStore(directory.path / "db", RocksDbMemory(8 << 20)), directory.path / "files", keeps=directory
    )
    assert linking.wait(30)
    threads = [thread for thread in threading.enumerate() if thread.name == "rocksdb-cut"]

    del directory, cut
    gc.collect()
    go_on.set()
    for thread in threads:
        thread.join()
    gc.collect()

    assert list(local_path.iterdir()) == []


# ---- nothing newer than the barrier gets into a snapshot ----


def overlapping(cutting):
    """Take two more snapshots with an element between them and read the list, as nothing may be written."""
    subtask = cutting.subtask
    subtask.at(0)
    subtask.texts.add("late")
    full = subtask.backend.freeze(2)
    assert subtask.texts.get() == ["0", "late"]
    subtask.texts.add("later")
    incremental = subtask.backend.freeze(3, form=SnapshotForm.INCREMENTAL)
    assert subtask.texts.get() == ["0", "late", "later"]
    return full, incremental


def test_list_that_is_read_while_the_files_are_linked_is_not_in_the_snapshot(cutting, opener):
    newer = overlapping(cutting)
    assert "written" not in cutting.gate.events

    cutting.gate.open.set()
    first = MemorySnapshot.of(cutting.snapshot)
    assert contents(opener([first])) == EXPECTED
    for snapshot, texts in zip(newer, (["0", "late"], ["0", "late", "later"]), strict=True):
        encode(snapshot)
        assert contents(opener([MemorySnapshot.of(snapshot)])) == EXPECTED | {0: (0, texts)}


def test_list_that_is_read_between_two_snapshots_that_are_not_cut_is_in_the_newer_one(opener):
    subtask = opener()
    fill(subtask)
    first = subtask.backend.freeze(1)
    subtask.at(0)
    subtask.texts.add("late")
    second = subtask.backend.freeze(2)
    assert subtask.texts.get() == ["0", "late"]

    assert second.advance(never)
    assert first.advance(never)
    assert contents(opener([MemorySnapshot.of(first)])) == EXPECTED
    assert contents(opener([MemorySnapshot.of(second)])) == EXPECTED | {0: (0, ["0", "late"])}


def test_writes_beyond_the_bounds_wait_for_the_files_and_are_not_in_the_snapshot(cutting, opener):
    backend = cutting.subtask.backend
    backend._dirty_bytes = backend._cache_bytes = 0
    fill(cutting.subtask, plus=1)
    backend.prefetch([1])

    assert cutting.gate.events[:3] == ["waits", "linked", "written"]
    assert contents(opener([MemorySnapshot.of(cutting.snapshot)])) == EXPECTED


@pytest.mark.parametrize("took_ms", [HELD_WARN_MS, HELD_WARN_MS + 1])
def test_time_that_the_input_was_held_is_counted_and_told_when_it_was_long(cutting, caplog, took_ms):
    backend, clock = cutting.subtask.backend, ManualClock()
    backend._origin.clock = clock
    cutting.gate.took = lambda: clock.__setattr__("now_ms", clock.now_ms + took_ms)
    backend._dirty_bytes = backend._cache_bytes = 0
    fill(cutting.subtask, plus=1)
    backend.prefetch([1])
    fill(cutting.subtask, plus=2)
    backend.prefetch([1])

    assert backend._origin.held_ms == took_ms
    told = [record for record in caplog.records if "input was held" in record.getMessage()]
    path = str(backend._origin.directory.path)
    assert [record.path for record in told] == [path] * (took_ms > HELD_WARN_MS)
    assert all("cache-size" in record.hint for record in told)


WRITES = {
    "write": lambda store: store.write([(b"key", b"value")]),
    "delete_range": lambda store: store.delete_range(b"", b"\xff"),
    "take_in": lambda store: store.take_in([(b"key", b"value")], store._path / "new.sst"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_store_refuses_to_be_written_while_its_files_are_linked(cutting, opener, write):
    store = cutting.subtask.backend._store
    with pytest.raises(StateError, match="while the files of a snapshot were made"):
        write(store)

    cutting.gate.open.set()
    assert contents(opener([MemorySnapshot.of(cutting.snapshot)])) == EXPECTED
    write(store)


def test_state_that_is_rewritten_while_the_files_are_linked_waits_for_them(opener, monkeypatch):
    subtask = opener()
    fill(subtask)
    subtask.backend.value_state(ValueStateDescriptor("another", int)).update(7)
    restored = opener([take(subtask, 1)])
    gate = Gate(monkeypatch)
    snapshot = freeze(restored, 2)
    restored.backend.value_state(ValueStateDescriptor("another", int, ttl=StateTtl("1h")))
    assert gate.events[:2] == ["waits", "linked"]

    assert contents(opener([MemorySnapshot.of(snapshot)])) == EXPECTED
