"""Checkpoints on RocksDB upload new files, refer to known ones, and leave nothing when dropped."""

import threading
from collections import deque
from types import SimpleNamespace

import pytest

from raystream.clock import SystemClock
from raystream.errors import StateError
from raystream.records.elements import SnapshotKind
from raystream.runtime import upload
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.rocksdb import RocksDbMemory, RocksDbStore
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from tests.unit.runtime.test_snapshotter import (
    GROUPS,
    AbortingFiles,
    Pieces,
    Stateful,
    World,
    files_in,
    filled,
)
from tests.unit.state.rocksdb_subtasks import join_removals


@pytest.fixture
def operator(tmp_path):
    """An operator with numbers in RocksDB."""
    operator = Stateful(keyed=False)
    settings = RocksDbSettings(parent=tmp_path / "local", memory=RocksDbMemory(8 << 20), cache_bytes=1 << 20)
    backend = RocksDbBackend(GROUPS, 128, operator.cursor, settings=settings, clock=SystemClock())
    operator.state = backend.value_state(ValueStateDescriptor("n", int))
    operator.context = SimpleNamespace(keyed_backend=backend)
    for key in range(500):
        operator.put(key, key)
    yield operator
    backend.close()


@pytest.fixture
def job(tmp_path):
    return tmp_path / "job"


def take(world, job, checkpoint_id, **options):
    directory = (job / f"chk-{checkpoint_id}").as_uri()
    world.take(checkpoint_id, **{"directory": directory, **options})


def acked(world, checkpoint_id):
    """Return the keyed state that was acknowledged for a checkpoint."""
    (handle,) = dict(world.acks)[checkpoint_id].operators[0].keyed
    return handle


def completed(world, checkpoint_id):
    world.operators[0].context.keyed_backend.checkpoint_completed(checkpoint_id)


def test_new_files_are_uploaded_and_known_ones_referred_to(operator, job):
    world = World(operator)
    take(world, job, 1)
    world.finish()
    (first,) = acked(world, 1).shared
    assert (first.created_by, first.name.startswith("c1-a3-v4-s0-")) == (1, True)
    completed(world, 1)
    operator.put(7, -1)
    take(world, job, 2)
    world.finish()

    assert acked(world, 2).entries is None
    assert [file.created_by for file in acked(world, 2).shared] == [1, 2]
    assert acked(world, 2).shared[0] == first
    assert sorted(path.name for path in (job / "shared").iterdir()) == sorted(
        file.name for file in acked(world, 2).shared
    )
    assert [path.stat().st_size for path in (job / "shared").iterdir() if path.name == first.name] == [
        first.size_bytes
    ]


@pytest.mark.parametrize(
    ("configured", "options"),
    [
        pytest.param(True, {"kind": SnapshotKind.SAVEPOINT}, id="savepoint"),
        pytest.param(True, {"directory": ""}, id="storage jobmanager"),
        pytest.param(False, {}, id="switched off"),
    ],
)
def test_snapshot_that_must_stand_alone_is_full(operator, job, configured, options):
    world = World(operator, incremental=configured)
    for checkpoint_id in (1, 2):
        take(world, job, checkpoint_id, **options)
        world.finish()
        completed(world, checkpoint_id)

        assert acked(world, checkpoint_id).shared == ()
        assert acked(world, checkpoint_id).entries == 500
    assert not (job / "shared").exists()


class AbortingSharedFiles(AbortingFiles):
    """Counts the pieces of shared files too, which lie on another disk than the store."""

    def link_shared(self, directory, file, source):
        return False

    def write_shared(self, directory, file, data):
        super().write_shared(directory, file, Pieces(data, self))


def uploading(operator, job, *, abort_at=None):
    files = AbortingSharedFiles(abort_at)
    world = files.world = World(operator, files=files, inline_bytes_max=0)
    take(world, job, 1)
    while world.snapshotter.advance():
        pass
    return world


def test_upload_that_is_dropped_at_any_moment_leaves_no_shared_file(operator, tmp_path, monkeypatch):
    monkeypatch.setattr(upload, "PIECE_BYTES", 2_000)
    whole = uploading(operator, tmp_path / "whole")
    whole.background.run_all()
    assert len(files_in(tmp_path / "whole")) == 2
    pieces = whole.snapshotter._files.pieces
    assert pieces > 5

    for moment in range(1, pieces + 1):
        world = uploading(operator, tmp_path / str(moment), abort_at=moment)
        world.background.run_all()

        assert world.acks == world.failures == []
        assert files_in(tmp_path / str(moment)) == []
        assert world.snapshotter._files.pieces == moment, "nothing more is written"


class AbortingLinks(AbortingFiles):
    """Aborts checkpoint 1 as soon as its first shared file is linked."""

    def link_shared(self, directory, file, source):
        assert super().link_shared(directory, file, source)
        self.world.snapshotter.abort(1)
        return True


def test_upload_that_is_dropped_behind_a_link_leaves_no_shared_file(operator, job):
    files = AbortingLinks(None)
    world = files.world = World(operator, files=files, inline_bytes_max=0)
    take(world, job, 1)
    world.finish()

    assert world.acks == world.failures == []
    assert files_in(job) == []


def test_file_of_state_is_linked_on_its_own_disk(operator, job):
    world = World(operator)
    take(world, job, 1)
    world.finish()

    (stored,) = files_in(job / "shared")
    assert stored.stat().st_nlink > 1
    (file,) = acked(world, 1).shared
    assert b"".join(world.snapshotter._files.read_shared((job / "chk-1").as_uri(), file))


def test_upload_that_is_dropped_when_it_is_written_deletes_its_own_shared_files_only(operator, job):
    world = World(operator, inline_bytes_max=0)
    take(world, job, 1)
    world.finish()
    completed(world, 1)
    (first,) = acked(world, 1).shared
    operator.put(7, -1)
    take(world, job, 2)
    while world.snapshotter.advance():
        pass
    work, done = world.background.waiting.popleft()
    stored = work()
    assert len(files_in(job / "shared")) == 2

    world.snapshotter.abort(2)
    done(stored)
    world.background.run_all()

    assert [path.name for path in files_in(job / "shared")] == [first.name]
    assert not files_in(job / "chk-2")
    take(world, job, 3)
    world.finish()
    assert [file.created_by for file in acked(world, 3).shared] == [1, 3]


def test_full_local_disk_fails_its_checkpoint_once_and_no_other(operator, job, monkeypatch):
    def full(store, path):
        raise StateError("state could not be written", path=str(path), cause="No space left on device")

    world = World(operator)
    with monkeypatch.context() as patch:
        patch.setattr(RocksDbStore, "link_files", full)
        take(world, job, 1)
        world.finish()
    ((checkpoint_id, _, _, error),) = world.failures
    assert checkpoint_id == 1
    assert "No space left" in str(error)
    assert files_in(job) == []

    take(world, job, 2)
    world.finish()
    assert [file.created_by for file in acked(world, 2).shared] == [2]
    assert len(world.failures) == 1


@pytest.fixture
def may_link(operator, monkeypatch):
    """Lets local files be linked when it is set."""
    event, link = threading.Event(), RocksDbStore.link_files

    def link_files(store, path):
        assert event.wait(60)
        link(store, path)

    monkeypatch.setattr(RocksDbStore, "link_files", link_files)
    yield event
    event.set()


def test_snapshot_of_another_subtask_goes_on_while_local_files_are_made(operator, job, may_link):
    world = World(operator)
    take(world, job, 1)
    take(world, job, 2)
    take(world, job, 2, subtask=1, operators=[filled(count=10)])
    advances = [world.snapshotter.advance() for _ in range(300)]

    assert advances == sorted(advances, reverse=True)
    assert not advances[-1]
    assert world.snapshotter.encoding
    first_upload, wait, other_upload = world.background.waiting
    world.background.waiting = deque([other_upload])
    world.background.run_all()
    assert [(checkpoint_id, acked.subtask) for checkpoint_id, acked in world.acks] == [(2, 1)]

    may_link.set()
    world.background.waiting = deque([wait])
    world.background.run_all()
    assert world.snapshotter.advance()
    assert not world.snapshotter.encoding
    world.background.waiting.append(first_upload)
    world.finish()
    assert len(world.acks) == 3


def test_links_to_local_files_go_with_their_snapshot(operator, job, tmp_path):
    world = World(operator)
    for checkpoint_id in (1, 2, 3):
        take(world, job, checkpoint_id)
    world.snapshotter.abort(2)
    world.finish()
    join_removals()

    assert sorted(checkpoint_id for checkpoint_id, _ in world.acks) == [1, 3]
    assert [path.name for path in (tmp_path / "local").glob("*/*")] == ["db"]
