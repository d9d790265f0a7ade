"""A canonical savepoint has a part for each state with rows, and leaves nothing when it is dropped."""

import pytest

from raystream.errors import StateCorruptError, StateError
from raystream.handles import InlineHandle, Redistribution, SavepointFormat, StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.protocol.redistribution import ElementSlice
from raystream.records.elements import SnapshotKind
from raystream.runtime.messages import OperatorRestore
from raystream.runtime.restore import read_operator
from raystream.savepoint import subtask_parts
from raystream.state import canonical_files
from raystream.state.operator_state import OperatorState
from raystream.storage.blobs import SnapshotFiles
from tests.unit.runtime.test_native_savepoints import AbortingNamedFiles, restored, savepoint
from tests.unit.runtime.test_shared_uploads import acked, operator
from tests.unit.runtime.test_snapshotter import Stateful, World, files_in

NUMBERS = {key: key for key in range(500)}
__all__ = ["operator", "restored", "savepoint"]


def take_canonical(world, savepoint, checkpoint_id=1):
    world.take(
        checkpoint_id,
        kind=SnapshotKind.SAVEPOINT,
        savepoint_format=SavepointFormat.CANONICAL,
        directory=savepoint.as_uri(),
    )


def finished(operator, savepoint):
    world = World(operator)
    take_canonical(world, savepoint)
    world.finish()
    assert world.failures == []
    return world


@pytest.fixture(params=["hashmap", "rocksdb"])
def numbers(request, operator):
    """An operator with the same numbers on either backend."""
    if request.param == "rocksdb":
        return operator
    heap = Stateful()
    for key, number in NUMBERS.items():
        heap.put(key, number)
    return heap


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_any_backend_restores_what_any_backend_wrote(numbers, savepoint, restored, backend):
    world = finished(numbers, savepoint)

    handle = acked(world, 1)
    assert isinstance(handle.data, InlineHandle)
    assert [part.file.path for part in handle.files] == ["uid-0/n/part-0.parquet"]
    assert [str(path.relative_to(savepoint)) for path in files_in(savepoint)] == ["uid-0/n/part-0.parquet"]
    assert (handle.entries, handle.shared) == (500, ())
    assert restored(handle, savepoint, backend=backend)[1] == NUMBERS


def test_subtask_with_fewer_key_groups_restores_its_own(numbers, savepoint, restored):
    world = finished(numbers, savepoint)

    found = [
        restored(acked(world, 1), savepoint, groups=KeyGroupRange(*groups))
        for groups in ((0, 10), (10, 30), (30, 128))
    ]
    assert {group for group, _, _ in found[1][0].entries("n")} <= set(range(10, 30))
    assert {**found[0][1], **found[1][1], **found[2][1]} == NUMBERS
    assert sum(len(numbers) for _, numbers in found) == len(NUMBERS)


@pytest.mark.parametrize("damage", ["missing", "shorter", "first", "middle", "last"])
def test_part_that_is_not_what_was_written_ends_the_restore_with_its_name(
    numbers, savepoint, restored, damage
):
    world = finished(numbers, savepoint)
    (path,) = files_in(savepoint)
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(content[:-1])
    else:
        content[{"first": 0, "middle": len(content) // 2, "last": -1}[damage]] ^= 1
        path.write_bytes(content)

    with pytest.raises(StateCorruptError) as caught:
        restored(acked(world, 1), savepoint)
    assert caught.value.context["path"] == path.as_uri()


def test_state_without_rows_has_no_part_and_is_restored(savepoint, restored):
    world = finished(Stateful(), savepoint)

    handle = acked(world, 1)
    assert (handle.files, handle.entries, files_in(savepoint)) == ((), 0, [])
    backend, numbers = restored(handle, savepoint)
    assert numbers == {}
    assert [match.verdict for match in backend.restored_states()] == ["matched"]


class WithElements(Stateful):
    """Has operator state beside its keyed state."""

    def __init__(self, *states):
        super().__init__()
        self.states = states

    def snapshot(self, checkpoint_id, *, savepoint):
        return list(self.states)


def state_of(name, elements, info=None):
    return OperatorState(name=name, mode=Redistribution.SPLIT, elements=elements, info=info)


def test_operator_state_is_a_part_and_one_without_elements_is_nothing(savepoint):
    world = finished(WithElements(state_of("_splits", [b"a", b"", b"b"]), state_of("_none", [])), savepoint)

    ((_, snapshot),) = world.acks
    (handle,) = snapshot.operators[0].operator
    assert (handle.name, handle.element_count) == ("_splits", 3)
    assert handle.data.path == "uid-0/_splits/part-0.parquet"
    part = ElementSlice(handle=handle, start=1, stop=3)
    source = OperatorRestore(directory=savepoint.as_uri(), operator=(part,))
    assert read_operator(SnapshotFiles(), source, None).operator_state == {"_splits": [b"", b"b"]}


def test_operator_state_that_is_called_as_a_keyed_state_has_a_file_of_its_own(savepoint):
    info = StateInfo(name="n", kind="operator-raw", serializer="raw-1", schema="bytes")
    operator = WithElements(state_of("n", [b"x"], info))
    operator.put(7, 8)
    finished(operator, savepoint)
    assert sorted(path.parent.name for path in files_in(savepoint)) == ["_operator_n", "n"]


def test_full_local_disk_fails_the_savepoint_with_advice(numbers, savepoint, monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(subtask_parts.tempfile, "TemporaryFile", lambda **_: Full())
    world = World(numbers)
    take_canonical(world, savepoint)
    world.finish()

    ((_, _, _, error),) = world.failures
    assert isinstance(error, StateError)
    assert "disk" in error.hint
    assert files_in(savepoint) == []


def test_upload_that_is_dropped_at_any_moment_leaves_no_file(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(canonical_files, "PIECE_BYTES", 500)

    def uploading(directory, abort_at=None):
        files = AbortingNamedFiles(abort_at)
        world = files.world = World(numbers, files=files)
        take_canonical(world, directory)
        while world.snapshotter.advance():
            pass
        world.background.run_all()
        return world

    pieces = uploading(tmp_path / "whole").snapshotter._files.pieces
    assert pieces > 5
    for moment in range(1, pieces + 1):
        world = uploading(tmp_path / str(moment), abort_at=moment)
        assert world.acks == world.failures == []
        assert files_in(tmp_path / str(moment)) == []
        assert world.snapshotter._files.pieces == moment, "nothing more is written"
