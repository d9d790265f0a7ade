"""RocksDB on the local disk: its files, its views, its bounds, and its failures."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raystream.config.options import BackendConfig
from raystream.errors import ConfigError, StateError
from raystream.keygroup import KeyGroupRange
from raystream.state import rocksdb_full
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.heap import HeapBackend
from raystream.state.open_backend import local_directory
from raystream.state.rocksdb import COMPACTION_FILES, RocksDbMemory, RocksDbStore, StoreView
from raystream.state.rocksdb_backend import RocksDbBackend
from raystream.state.rocksdb_directory import StoreDirectory
from raystream.testing.harness import OperatorHarness
from raystream.testing.state_kit import never
from raystream.testing.stored_state import MemorySnapshot
from tests.unit.state.rocksdb_subtasks import beside_each_other

GROUPS = KeyGroupRange(0, 16)
HITS = ValueStateDescriptor("hits", int)
TEXTS = ListStateDescriptor("texts", str)
COUNTS = MapStateDescriptor("counts", str, int)


@pytest.fixture
def opener(local_path):
    yield from beside_each_other(local_path)


def finish(snapshot):
    assert snapshot.advance(never)
    return MemorySnapshot.of(snapshot).open(GROUPS, 16)


# ---- store ----


def test_view_shows_what_was_there_when_it_was_taken(local_path):
    store = RocksDbStore(local_path / "db", RocksDbMemory(8 << 20))
    store.write([(b"a", b"1"), (b"b", b"1")])
    view = store.view()
    store.write([(b"a", b"2"), (b"b", None), (b"c", b"2")])
    assert list(view.scan(b"")) == [(b"a", b"1"), (b"b", b"1")]
    assert list(store.scan(b"")) == [(b"a", b"2"), (b"c", b"2")]
    store.close()


def test_store_without_compaction_has_every_file_that_was_flushed(local_path):
    store = RocksDbStore(local_path / "db", RocksDbMemory(8 << 20, threads=False))
    for n in range(3 * COMPACTION_FILES):
        store.write([(b"a", b"%d" % n)])
        store.link_files(local_path / str(n))

    files = [sorted(path.name for path in (local_path / str(n)).glob("*.sst")) for n in (0, n)]
    assert len(files[1]) == 3 * COMPACTION_FILES
    assert files[1][0] == files[0][0]
    assert store.get(b"a") == b"%d" % n
    store.close()


def test_scan_ends_with_its_prefix(local_path):
    store = RocksDbStore(local_path / "db", RocksDbMemory(8 << 20))
    store.write([(b"a1", b""), (b"a2", b""), (b"a3", b""), (b"b", b"")])
    assert [key for key, _ in store.scan(b"a", b"a2")] == [b"a2", b"a3"]
    assert [key for key, _ in store.view().scan(b"a")] == [b"a1", b"a2", b"a3"]
    store.close()


class Searches:
    """An iterator that tells what it searched for."""

    def __init__(self, entries):
        self.entries = entries
        self.searched = []

    def seek(self, key):
        self.searched.append(key)
        self.entries.seek(key)

    def __getattr__(self, name):
        return getattr(self.entries, name)


def test_scans_of_a_view_in_order_search_once_however_much_was_deleted(local_path):
    store = RocksDbStore(local_path / "db", RocksDbMemory(8 << 20))
    keys = [b"a1", b"a2", b"a5", b"a7", b"b1", b"b2"]
    store.write([(key, key) for key in keys])
    store.write([(b"a2", None), (b"a7", None), (b"b1", None)])
    below_a, below_b = Searches(store._db.iter()), Searches(store._db.iter())
    view = StoreView([(b"a", below_a), (b"b", below_b)], local_path)

    found = {prefix: [k for k, _ in view.scan(prefix)] for n in b"0123456789" for prefix in scans(n)}

    assert {prefix: keys for prefix, keys in found.items() if keys} == {
        b"a1": [b"a1"],
        b"a5": [b"a5"],
        b"b2": [b"b2"],
    }
    assert (below_a.searched, below_b.searched) == ([b"a0"], [b"b0"])
    assert [k for k, _ in view.scan(b"a1")] == [b"a1"], "scans may go back, and are repeated"
    assert [k for k, _ in view.scan(b"a1")] == [b"a1"]
    assert [k for k, _ in view.scan(b"a")] == [b"a1", b"a5"]
    store.close()


def scans(digit):
    """Return the prefixes that are scanned for a digit."""
    return b"a" + bytes([digit]), b"b" + bytes([digit])


def test_failure_of_the_disk_names_the_path(local_path):
    path = local_path / "db"
    store = RocksDbStore(path, RocksDbMemory(8 << 20))
    store.close()
    with pytest.raises(StateError) as caught:
        store.write([(b"a", b"1")])
    assert caught.value.context["path"] == str(path)
    assert "localdir" in caught.value.hint


READS = {
    "all": lambda store, _: list(store.scan(b"")),
    "a prefix": lambda store, _: list(store.scan(b"a")),
    "a view": lambda store, _: list(store.view().scan(b"")),
    "each key": lambda store, keys: store.get_many(keys),
}


@pytest.mark.parametrize("read", READS)
def test_block_that_is_damaged_is_an_error_and_no_end_of_the_state(local_path, read):
    store = RocksDbStore(local_path / "db", RocksDbMemory(8 << 20))
    keys = [b"a%06d" % n for n in range(20_000)]
    store.write([(key, os.urandom(50)) for key in keys] + [(b"b", b"")])
    store.link_files(local_path / "linked")
    largest = max((local_path / "linked").glob("*.sst"), key=lambda path: path.stat().st_size)
    with largest.open("r+b") as file:  # It is the file of the store, under another name.
        file.seek(largest.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x40]))

    with pytest.raises(StateError, match="state could not be read") as caught:
        READS[read](store, keys)
    assert "block checksum mismatch" in caught.value.context["cause"]
    store.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from raystream.clock import SystemClock
from raystream.keygroup import KeyGroupRange
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.open_backend import local_directory
from raystream.state.rocksdb import COMPACTION_FILES, RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.errors import ConfigError, StateError

settings = RocksDbSettings(parent=Path(sys.argv[1]), memory=RocksDbMemory(1 << 20), cache_bytes=100_000)
cursor = KeyCursor()
backend = RocksDbBackend(KeyGroupRange(0, 1), 1, cursor, settings=settings, clock=SystemClock())
state = backend.value_state(ValueStateDescriptor("text", str))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
cursor.group = 0
try:
    for n in range(100_000):
        backend.prefetch(())
        cursor.current_key = n
        state.update(str(n) * 100)
except StateError as error:
    print(error.context["path"])
"""


def test_full_disk_fails_the_next_batch_with_the_path(local_path):
    # A limit on the size of files stands for the size of the disk; it needs a process of its own.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(local_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(local_path / "raystream-state-"))


# ---- directory ----


def test_two_users_of_a_node_have_a_directory_each_unless_one_is_configured(monkeypatch):
    mine = local_directory(BackendConfig())
    monkeypatch.setattr(os, "getuid", lambda: 4_711)

    assert local_directory(BackendConfig()) != mine
    assert local_directory(BackendConfig(rocksdb_directory="/disk")) == Path("/disk")


def test_nobody_else_on_the_node_reads_the_directory(local_path):
    directory = StoreDirectory(local_path)

    assert directory.path.stat().st_mode & 0o077 == 0
    directory.remove()


def test_directory_of_a_process_that_has_ended_is_removed(local_path):
    program = (
        "import os, sys; from pathlib import Path\n"
        "from raystream.state.rocksdb_directory import StoreDirectory\n"
        "made = StoreDirectory(Path(sys.argv[1])); (made.path / 'file').touch(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", program, str(local_path)], check=False)
    (left,) = (path for path in local_path.iterdir() if path.is_dir())
    directory = StoreDirectory(local_path)
    assert not left.exists()
    assert {path for path in local_path.iterdir() if path.is_dir()} == {directory.path}
    directory.remove()
    assert list(local_path.iterdir()) == []


def test_directory_in_use_is_left_alone(local_path):
    first, second = StoreDirectory(local_path), StoreDirectory(local_path)
    assert first.path.is_dir()
    assert first.path != second.path
    first.remove()
    first.remove()
    assert second.path.is_dir()
    second.remove()


def test_directory_that_cannot_be_made_is_an_error_with_its_path(local_path):
    (local_path / "file").touch()
    with pytest.raises(StateError) as caught:
        StoreDirectory(local_path / "file")
    assert caught.value.context["path"] == str(local_path / "file")


# ---- bounds ----


def test_dirty_values_are_written_before_they_exceed_their_bound(opener):
    subtask = opener(cache_bytes=40_000)
    state = subtask.backend.value_state(HITS)
    (table,) = subtask.backend._all
    held = []
    for n in range(5_000):
        subtask.backend.prefetch([n])
        subtask.at(n)
        state.update(n)
        held.append((table.dirty_bytes, len(table) + len(table.old)))
    assert max(dirty for dirty, _ in held) < 20_500
    assert max(count for _, count in held) < 300
    subtask.backend.prefetch(range(5_000))
    for n in range(5_000):
        subtask.at(n)
        assert state.value() == n


def test_values_of_a_batch_are_read_with_one_call(opener, monkeypatch):
    subtask = opener(cache_bytes=40_000)
    state = subtask.backend.value_state(HITS)
    for n in range(2_000):
        subtask.at(n)
        state.update(state.value() or n)
    monkeypatch.setattr(RocksDbStore, "get", lambda *_: pytest.fail("read one by one"))
    subtask.backend.prefetch(range(50))
    for n in range(50):
        subtask.at(n)
        assert state.value() == n


def test_adding_to_a_list_or_putting_into_a_map_reads_nothing(opener, monkeypatch):
    subtask = opener()
    texts, counts = subtask.backend.list_state(TEXTS), subtask.backend.map_state(COUNTS)
    for method in ("get", "get_many", "scan"):
        monkeypatch.setattr(RocksDbStore, method, lambda *_: pytest.fail("read"))
    subtask.at("k")
    for n in range(10):
        texts.add(str(n))
        counts.put(str(n), n)
        subtask.backend.write_out()
    monkeypatch.undo()
    assert texts.get() == [str(n) for n in range(10)]
    assert dict(counts.items()) == {str(n): n for n in range(10)}


# ---- snapshots ----


@pytest.mark.parametrize("spill_bytes", [1, 1 << 30])
@pytest.mark.parametrize(("source", "target"), [("rocksdb", "hashmap"), ("hashmap", "rocksdb")])
def test_snapshot_of_one_backend_restores_in_the_other(opener, monkeypatch, source, target, spill_bytes):
    monkeypatch.setattr(rocksdb_full, "SPILL_BYTES", spill_bytes)
    written = opener(source)
    states = [make(written.backend) for make in MAKERS]
    for n in range(300):
        written.at(n)
        states[0].update(n)
        states[1].update([str(n), "é" * n])
        states[2].put_all({"a": n, "b": None})
    snapshot = written.backend.freeze(1)
    restored = opener(target)
    restored.backend.restore([finish(snapshot)])
    states = [make(restored.backend) for make in MAKERS]
    assert snapshot.entries == 900
    for n in range(300):
        restored.at(n)
        found = states[0].value(), states[1].get(), dict(states[2].items())
        assert found == (n, [str(n), "é" * n], {"a": n, "b": None})


MAKERS = (lambda b: b.value_state(HITS), lambda b: b.list_state(TEXTS), lambda b: b.map_state(COUNTS))


def test_snapshot_of_a_closed_backend_ends_with_an_error(opener):
    subtask = opener()
    state = subtask.backend.value_state(HITS)
    for n in range(5_000):
        subtask.at(n)
        state.update(n)
    snapshot = subtask.backend.freeze(1)
    assert snapshot.advance(never)
    subtask.backend.close()
    with pytest.raises(StateError, match="closed"):
        snapshot.blob()


def test_local_disk_that_is_full_fails_the_snapshot_with_its_path(opener, monkeypatch):
    monkeypatch.setattr(rocksdb_full, "SPILL_BYTES", 1)
    subtask = opener()
    subtask.at("k")
    subtask.backend.value_state(HITS).update(1)
    snapshot = subtask.backend.freeze(1)
    assert snapshot.advance(never)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StateError, match="local disk") as caught:
        snapshot.blob()
    assert "blob-" in caught.value.context["path"]


# ---- as configured ----


def test_configuration_chooses_the_backend(opener):
    assert isinstance(opener("hashmap").backend, HeapBackend)
    assert isinstance(opener("rocksdb").backend, RocksDbBackend)


def test_backend_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="expected hashmap or rocksdb"):
        OperatorHarness(str, backend="disk")


def test_harness_runs_on_either_backend():
    outputs = []
    for backend in ("hashmap", "rocksdb"):
        with OperatorHarness(
            lambda a, b: (a[0], a[1] + b[1]), key=lambda r: r[0], operation="reduce", backend=backend
        ) as harness:
            harness.process([("a", 1), ("b", 1), ("a", 2)])
            harness.restore(harness.snapshot(), parallelism=2)
            outputs.append(harness.process([("a", 3), ("b", 1)]))
    assert sorted(outputs[0]) == sorted(outputs[1]) == [("a", 6), ("b", 2)]
