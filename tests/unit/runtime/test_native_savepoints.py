"""A native savepoint has all files of its backend in its own directory; what is dropped leaves nothing."""

import pytest

from raystream.clock import SystemClock
from raystream.config.options import BackendConfig
from raystream.errors import StateCorruptError, StateRestoreError
from raystream.handles import FileHandle, SavepointFormat
from raystream.keygroup import KeyGroupRange
from raystream.records.elements import SnapshotKind
from raystream.runtime import upload
from raystream.runtime.messages import OperatorRestore
from raystream.runtime.restore import KeyedOwner, read_operator
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.open_backend import BackendOpener
from raystream.storage.blobs import SnapshotFiles
from tests.unit.runtime.test_shared_uploads import acked, completed, operator, take
from tests.unit.runtime.test_snapshotter import GROUPS, AbortingFiles, Pieces, World, files_in, filled

NUMBERS = {key: key for key in range(500)}
__all__ = ["operator"]


@pytest.fixture
def job(tmp_path):
    return tmp_path / "job"


@pytest.fixture
def savepoint(tmp_path):
    return tmp_path / "savepoint"


def take_savepoint(world, savepoint, checkpoint_id, wanted=SavepointFormat.NATIVE):
    world.take(
        checkpoint_id, kind=SnapshotKind.SAVEPOINT, savepoint_format=wanted, directory=savepoint.as_uri()
    )


@pytest.fixture
def restored(tmp_path):
    """Restore what was acknowledged; return the values by key, and the snapshotter's world of the backend."""
    openers = []

    def restore(handle, directory, *, backend="rocksdb", groups=GROUPS, own=False):
        config = BackendConfig(type=backend, rocksdb_directory=str(tmp_path / f"restored-{len(openers)}"))
        openers.append(BackendOpener(config, SystemClock()))
        made = openers[-1].open(groups, 128, KeyCursor())
        source = OperatorRestore(directory=directory.as_uri(), keyed=(handle,), own=own)
        read_operator(SnapshotFiles(), source, KeyedOwner(backend=made, groups=groups, max_parallelism=128))
        made.value_state(ValueStateDescriptor("n", int))
        return made, {key: number for _, key, number in made.entries("n")}

    yield restore
    for opener in openers:
        opener.close()


@pytest.mark.parametrize("incremental", [True, False])
def test_files_are_in_the_savepoint_whatever_checkpoints_have_and_nothing_else_is(
    operator, job, savepoint, restored, incremental
):
    world = World(operator, incremental=incremental)
    take(world, job, 1)
    world.finish()
    completed(world, 1)
    before = files_in(job)
    operator.put(7, -1)
    take_savepoint(world, savepoint, 2)
    world.finish()

    handle = acked(world, 2)
    blobs = [handle.data.path] if isinstance(handle.data, FileHandle) else []
    paths = [*blobs, *(file.file.path for file in handle.files)]
    assert handle.shared == ()
    assert len(handle.files) == (2 if incremental else 1), "the checkpoint flushed the first one"
    assert sorted(paths) == sorted(path.name for path in files_in(savepoint))
    assert files_in(job) == before
    assert restored(handle, savepoint)[1] == {**NUMBERS, 7: -1}


def test_subtask_with_fewer_key_groups_restores_its_own(operator, savepoint, restored):
    world = World(operator)
    take_savepoint(world, savepoint, 1)
    world.finish()

    backend, numbers = restored(acked(world, 1), savepoint, groups=KeyGroupRange(10, 30))
    assert {group for group, _, _ in backend.entries("n")} <= set(range(10, 30))
    rest = [
        restored(acked(world, 1), savepoint, groups=KeyGroupRange(*groups))[1]
        for groups in ((0, 10), (30, 128))
    ]
    assert {**numbers, **rest[0], **rest[1]} == NUMBERS
    assert len(numbers) + len(rest[0]) + len(rest[1]) == len(NUMBERS)


def test_checkpoint_after_the_restore_of_a_savepoint_refers_to_nothing(operator, job, savepoint, restored):
    world = World(operator)
    take_savepoint(world, savepoint, 1)
    world.finish()
    backend, _ = restored(acked(world, 1), savepoint, own=True)
    operator.context.keyed_backend.close()
    operator.context.keyed_backend = backend

    take(world, job, 2)
    world.finish()
    assert {file.created_by for file in acked(world, 2).shared} == {2}


def test_heap_writes_a_blob_into_its_native_savepoint(savepoint, restored):
    world = World(filled(count=500), inline_bytes_max=0)
    take_savepoint(world, savepoint, 1)
    world.finish()

    handle = acked(world, 1)
    assert handle.files == ()
    assert [path.name for path in files_in(savepoint)] == [handle.data.path]
    for backend in ("hashmap", "rocksdb"):
        assert restored(handle, savepoint, backend=backend)[1] == {key: key * 2 for key in range(500)}


def test_files_of_rocksdb_are_refused_by_the_heap_with_advice(operator, savepoint, restored):
    world = World(operator)
    take_savepoint(world, savepoint, 1)
    world.finish()

    with pytest.raises(StateRestoreError, match="files of another state backend") as caught:
        restored(acked(world, 1), savepoint, backend="hashmap")
    assert caught.value.context["written_by"] == "rocksdb"
    assert "canonical savepoint" in caught.value.hint


@pytest.mark.parametrize("damage", ["missing", "damaged", "longer"])
def test_file_that_is_not_what_was_written_ends_the_restore_with_its_name(
    operator, savepoint, restored, damage
):
    world = World(operator)
    take_savepoint(world, savepoint, 1)
    world.finish()
    handle = acked(world, 1)
    path = savepoint / handle.files[0].file.path
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "damaged":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content + b"x")

    with pytest.raises(StateCorruptError, match=damage) as caught:
        restored(handle, savepoint)
    assert caught.value.context["path"] == path.as_uri()


class AbortingNamedFiles(AbortingFiles):
    """Counts the pieces of files beside blobs too."""

    def write_file(self, directory, file, data):
        super().write_file(directory, file, Pieces(data, self))


def uploading(operator, savepoint, wanted=SavepointFormat.NATIVE, *, abort_at=None):
    files = AbortingNamedFiles(abort_at)
    world = files.world = World(operator, files=files, inline_bytes_max=0)
    take_savepoint(world, savepoint, 1, wanted)
    while world.snapshotter.advance():
        pass
    return world


@pytest.mark.parametrize("wanted", SavepointFormat)
def test_upload_that_is_dropped_at_any_moment_leaves_no_file_and_no_directory(
    operator, tmp_path, monkeypatch, wanted
):
    monkeypatch.setattr(upload, "PIECE_BYTES", 2_000)
    whole = uploading(operator, tmp_path / "whole", wanted)
    whole.background.run_all()
    assert files_in(tmp_path / "whole")
    pieces = whole.snapshotter._files.pieces

    for moment in range(1, pieces + 1):
        world = uploading(operator, tmp_path / str(moment), wanted, abort_at=moment)
        world.background.run_all()

        assert world.acks == world.failures == []
        assert list((tmp_path / str(moment)).rglob("*")) == []
        assert world.snapshotter._files.pieces == moment, "nothing more is written"
