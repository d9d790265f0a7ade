"""A backend that is closed while it is restored: nothing goes on for long, and nothing is left."""

import threading

import pytest

from raystream.clock import SystemClock
from raystream.config.options import BackendConfig
from raystream.errors import StateError
from raystream.keygroup import groups_of_subtask
from raystream.state import rocksdb_restore
from raystream.state.cursor import KeyCursor
from raystream.state.last_use import LastUse
from raystream.state.open_backend import BackendOpener
from raystream.state.rocksdb import RocksDbStore
from raystream.testing.state_kit import never
from raystream.testing.stored_state import MemorySnapshot
from tests.unit.state.rocksdb_subtasks import KEYS, fill, subtasks_in, take

BACKENDS = ["rocksdb", "hashmap"]


@pytest.fixture
def open_stores(monkeypatch):
    """Paths of the stores that are open."""
    paths = []
    opened, close = RocksDbStore.__init__, RocksDbStore.close

    def counted(store, path, *args, **kwargs):
        opened(store, path, *args, **kwargs)
        paths.append(path)

    def closed(store):
        close(store)
        paths.remove(store._path)

    monkeypatch.setattr(RocksDbStore, "__init__", counted)
    monkeypatch.setattr(RocksDbStore, "close", closed)
    return paths


@pytest.fixture
def world(local_path, open_stores):
    """What opens subtasks, where others keep their state, and which stores are open."""
    for opener in subtasks_in(local_path / "stored"):
        yield opener, local_path / "local", open_stores


def chunks_of(subtask):
    snapshot = subtask.backend.freeze(1)
    assert snapshot.advance(never)
    return MemorySnapshot.of(snapshot)


def stored_in(kind, opener):
    """Return snapshots that a restore at parallelism 1 takes in another way each, and its max parallelism."""
    halves = [opener(subtask=n, parallelism=2) for n in range(2)]
    for half in halves:
        fill(half)
    if kind == "chunks":
        return [chunks_of(half) for half in halves], 16
    return [take(half, 1) for half in halves], 16 if kind == "files" else 8


def new_backend(local, backend, max_parallelism):
    config = BackendConfig(type=backend, rocksdb_directory=str(local))
    groups = groups_of_subtask(0, max_parallelism, 1)
    return BackendOpener(config, SystemClock()).open(groups, max_parallelism, KeyCursor()), groups


@pytest.fixture
def steps(monkeypatch):
    """A place to say at which step of a restore the backend is closed."""
    monkeypatch.setattr(rocksdb_restore, "WRITE_ITEMS", 20)
    check, steps = LastUse.check, Steps()

    def counted(use):
        if use is not steps.use:
            check(use)
            return
        steps.taken += 1
        if steps.taken == steps.close_at:
            steps.backend.close()
            steps.backend.close()
        assert steps.taken <= steps.close_at, "the restore went on"
        check(use)

    monkeypatch.setattr(LastUse, "check", counted)
    return steps


class Steps:
    taken = close_at = 0
    backend = use = None

    def restore(self, backend, snapshots):
        """Return whether a backend was restored before it came to be closed."""
        self.taken, self.backend, self.use = 0, backend, backend._use
        self.close_at += 1
        try:
            backend.restore(snapshots)
        except StateError as error:
            if "was closed" not in str(error):
                raise
            return False
        return self.taken < self.close_at


@pytest.mark.parametrize(
    ("kind", "backend"),
    [("files", "rocksdb"), ("other groups", "rocksdb"), ("chunks", "rocksdb"), ("chunks", "hashmap")],
)
def test_close_at_any_step_of_a_restore_ends_it_and_leaves_nothing(kind, backend, world, steps):
    opener, local, open_stores = world
    stored, max_parallelism = stored_in(kind, opener)
    before, restored = list(open_stores), False
    while not restored:
        made, groups = new_backend(local, backend, max_parallelism)
        restored = steps.restore(made, (one.open(groups, max_parallelism) for one in stored))
        if restored:
            made.close()
        assert open_stores == before
        assert not local.exists() or list(local.iterdir()) == []
    assert steps.close_at > (4 if backend == "hashmap" else KEYS // 20)


@pytest.mark.parametrize("kind", ["files", "chunks"])
def test_close_does_not_wait_for_a_restore_that_reads_and_the_restore_removes_the_directory(kind, world):
    opener, local, open_stores = world
    stored, max_parallelism = stored_in(kind, opener)
    before = list(open_stores)
    made, groups = new_backend(local, "rocksdb", max_parallelism)
    reads, closed, outcome = threading.Event(), threading.Event(), []

    def snapshots():
        for one in stored:
            yield one.open(groups, max_parallelism)
        reads.set()
        closed.wait()

    def restore():
        try:
            made.restore(snapshots())
        except StateError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=restore)
    thread.start()
    reads.wait()
    made.close()
    assert len(list(local.iterdir())) == 2, "the directory and its lock are those of the restore"
    closed.set()
    thread.join()

    assert "was closed" in outcome[0]
    assert list(local.iterdir()) == []
    assert open_stores == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_closed_backend_is_not_restored(backend, local_path):
    made, _ = new_backend(local_path / "local", backend, 16)
    made.close()

    with pytest.raises(StateError, match="was closed"):
        made.restore([])
    assert backend == "hashmap" or list((local_path / "local").iterdir()) == []
