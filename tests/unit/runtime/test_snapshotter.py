"""Snapshots are encoded in slices between batches, written elsewhere, and given up without harm."""

import gc
import random
import weakref
from types import SimpleNamespace

import pytest

from raystream.clock import SystemClock
from raystream.errors import StateError, StorageError
from raystream.graph.physical import OperatorNode, Vertex
from raystream.handles import InlineHandle, Redistribution
from raystream.keygroup import KeyGroupRange
from raystream.operators.operator import Operator
from raystream.records.elements import Barrier, SnapshotKind
from raystream.runtime.snapshotter import SLICE_MS, Snapshotter
from raystream.runtime.upload import UploadsUnderWay
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.heap import HeapBackend
from raystream.state.operator_state import OperatorState, decode_elements
from raystream.state.snapshot_format import open_snapshot
from raystream.storage.blobs import SnapshotFiles
from tests.unit.operators.running import ManualBackground

GROUPS = KeyGroupRange(0, 128)
BARRIER = {"kind": SnapshotKind.CHECKPOINT, "created_ms": 900, "directory": ""}


class TickingClock:
    """Every look at it takes a millisecond."""

    now_ms = 0.0

    def monotonic_ms(self):
        self.now_ms += 1.0
        return self.now_ms

    def wall_ms(self):
        return 1000


class Stateful(Operator):
    """Has keyed state, and operator state as it is told."""

    def __init__(self, *, keyed=True, elements=()):
        self.elements = list(elements)
        self.savepoints = []
        self.cursor = KeyCursor()
        backend = HeapBackend(GROUPS, 128, self.cursor, clock=SystemClock()) if keyed else None
        self.state = backend.value_state(ValueStateDescriptor("n", int)) if backend else None
        self.context = SimpleNamespace(keyed_backend=backend)

    def snapshot(self, checkpoint_id, *, savepoint=False):
        self.savepoints.append(savepoint)
        if not self.elements:
            return []
        return [OperatorState(name="_splits", mode=Redistribution.SPLIT, elements=list(self.elements))]

    def put(self, key, value):
        self.cursor.current_key, self.cursor.group = key, key % 128
        self.state.update(value)

    def get(self, key):
        self.cursor.current_key, self.cursor.group = key, key % 128
        return self.state.value()


def vertex_of(*uids):
    operators = tuple(
        OperatorNode(uid=uid, uid_generated=False, name=uid, factory=Operator, stateful=True) for uid in uids
    )
    return Vertex(
        id=4, name="v", parallelism=1, max_parallelism=128, slot_offset=0, operators=operators, keyed=True
    )


class World:
    def __init__(self, *operators, files=None, inline_bytes_max=1 << 20, incremental=True):
        self.operators = operators
        self.vertex = vertex_of(*(f"uid-{n}" for n in range(len(operators))))
        self.clock = TickingClock()
        self.background = ManualBackground()
        self.acks, self.failures, self.under_way = [], [], UploadsUnderWay()
        self.snapshotter = Snapshotter(
            attempt=3,
            clock=self.clock,
            background=self.background,
            files=files or SnapshotFiles(),
            under_way=self.under_way,
            inline_bytes_max=inline_bytes_max,
            incremental=incremental,
            rng=random.Random(1),
            acknowledge=lambda checkpoint_id, snapshot: self.acks.append((checkpoint_id, snapshot)),
            failed=lambda *failure: self.failures.append(failure),
        )

    def take(self, checkpoint_id, *, subtask=0, operators=None, **barrier):
        barrier = Barrier(checkpoint_id=checkpoint_id, **{**BARRIER, **barrier})
        self.snapshotter.take(self.vertex, subtask, operators or self.operators, barrier, alignment_ms=40.0)

    def finish(self):
        slices = 0
        while self.snapshotter.encoding or self.background.waiting:
            slices += len(list(iter(self.snapshotter.advance, False)))
            self.background.run_all()
        return slices


def keyed_values(operator_snapshot):
    """Return the stored numbers, in no order."""
    (handle,) = operator_snapshot.keyed
    data = handle.data.data
    cursor = KeyCursor()
    backend = HeapBackend(GROUPS, 128, cursor, clock=SystemClock())
    backend.restore([open_snapshot(lambda at, n: data[at : at + n], len(data), GROUPS, 128)])
    state = backend.value_state(ValueStateDescriptor("n", int))
    values = {}
    for key in range(6000):
        cursor.current_key, cursor.group = key, key % 128
        if state.value() is not None:
            values[key] = state.value()
    return values


def filled(count=5000, **arguments):
    operator = Stateful(**arguments)
    for key in range(count):
        operator.put(key, key * 2)
    return operator


def test_state_is_encoded_in_slices_and_then_acknowledged():
    operator = filled(elements=[b"split"])
    world = World(operator, Stateful(keyed=False))
    world.take(1)
    assert not world.background.waiting

    assert world.finish() > 10
    ((checkpoint_id, snapshot),) = world.acks
    assert (checkpoint_id, snapshot.vertex, snapshot.subtask) == (1, 4, 0)
    first, second = snapshot.operators
    assert keyed_values(first) == {key: key * 2 for key in range(5000)}
    assert first.keyed[0].entries == 5000
    assert first.keyed[0].groups == GROUPS
    assert decode_elements(first.operator[0].data.data) == [b"split"]
    assert [state.name for state in first.states] == ["n"]
    assert (second.uid, second.keyed, second.operator, second.states) == ("uid-1", (), (), ())
    assert snapshot.alignment_ms == 40
    assert snapshot.start_delay_ms == 60
    assert snapshot.async_ms > 0


def test_slice_ends_soon_after_its_time():
    world = World(filled())
    world.take(1)
    world.finish()

    assert SLICE_MS <= world.snapshotter.slice_ms_longest <= SLICE_MS + 3
    assert world.snapshotter.slice_ms_total >= world.snapshotter.slice_ms_longest


def test_snapshot_shows_the_state_at_the_barrier():
    operator = filled(count=100)
    world = World(operator)
    world.take(1)
    for key in range(50, 150):
        operator.put(key, -1)
    world.take(2)
    operator.put(0, None)
    world.finish()

    (_, first), (_, second) = world.acks
    assert keyed_values(first.operators[0]) == {key: key * 2 for key in range(100)}
    assert keyed_values(second.operators[0]) == {
        **{key: key * 2 for key in range(50)},
        **dict.fromkeys(range(50, 150), -1),
    }
    assert operator.get(0) is None
    assert operator.get(149) == -1


def test_snapshot_without_keyed_state_is_written_at_once():
    world = World(Stateful(keyed=False, elements=[b"a"]))
    world.take(1)

    assert not world.snapshotter.encoding
    world.background.run_all()
    assert len(world.acks) == 1


def test_operators_are_told_which_snapshots_are_savepoints():
    operator = Stateful(keyed=False)
    world = World(operator)
    world.take(1)
    world.take(2, kind=SnapshotKind.SAVEPOINT)

    assert operator.savepoints == [False, True]


def test_aborted_snapshot_is_never_written_and_its_tables_are_put_back():
    operator = filled(count=3000)
    world = World(operator)
    world.take(1)
    world.snapshotter.advance()
    operator.put(7, 777)
    world.snapshotter.abort(1)
    world.finish()

    assert not world.snapshotter.encoding
    assert world.acks == world.failures == []
    world.take(2)
    world.finish()
    ((_, snapshot),) = world.acks
    assert keyed_values(snapshot.operators[0]) == {**{key: key * 2 for key in range(3000)}, 7: 777}


def test_abort_of_one_checkpoint_leaves_the_others():
    world = World(filled(count=10))
    world.take(1)
    world.take(2)
    world.snapshotter.abort(2)
    world.finish()

    assert [checkpoint_id for checkpoint_id, _ in world.acks] == [1]


def test_state_that_cannot_be_encoded_fails_its_snapshot_once_and_no_other():
    operator = filled(count=300)
    operator.put(5, "not a number")
    world = World(operator)
    world.take(1)
    world.finish()

    ((checkpoint_id, vertex, subtask, error),) = world.failures
    assert (checkpoint_id, vertex.id, subtask) == (1, 4, 0)
    assert isinstance(error, StateError)
    assert world.acks == []

    operator.put(5, 10)
    world.take(2)
    world.finish()
    assert [checkpoint_id for checkpoint_id, _ in world.acks] == [2]
    assert len(world.failures) == 1


class AbortingFiles(SnapshotFiles):
    """Aborts checkpoint 1 at the n-th piece that is written; counts what was."""

    def __init__(self, abort_at):
        super().__init__()
        self.abort_at = abort_at
        self.pieces = 0
        self.world = None

    def write_blob(self, directory, name, data, *, inline_bytes_max):
        return super().write_blob(directory, name, Pieces(data, self), inline_bytes_max=inline_bytes_max)


class Pieces(list):
    """Pieces of a blob, which are gone through to measure, to hash and to write them."""

    def __init__(self, data, files):
        super().__init__(data)
        self.data, self.files = data, files

    def __iter__(self):
        for piece in self.data:
            yield piece
            self.files.pieces += 1
            if self.files.pieces == self.files.abort_at:
                self.files.world.snapshotter.abort(1)


def uploading(directory, *, abort_at=None, operators=1):
    files = AbortingFiles(abort_at)
    world = files.world = World(
        *(filled(count=8, elements=[b"x" * 100]) for _ in range(operators)), files=files, inline_bytes_max=0
    )
    world.take(1, directory=directory.as_uri())
    while world.snapshotter.advance():
        pass
    assert world.snapshotter.uploads_pending == 1
    return world


def files_in(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def test_upload_that_is_dropped_at_any_moment_leaves_nothing_behind(tmp_path):
    whole = uploading(tmp_path / "whole", operators=2)
    whole.background.run_all()
    assert len(whole.acks) == 1
    assert len(files_in(tmp_path / "whole")) == 4

    pieces = whole.snapshotter._files.pieces
    for moment in range(1, pieces + 1):
        directory = tmp_path / str(moment)
        world = uploading(directory, abort_at=moment, operators=2)
        world.background.run_all()

        assert world.acks == world.failures == []
        assert files_in(directory) == []
        assert world.snapshotter._files.pieces == moment, "nothing more is written"
        assert world.snapshotter.uploads_pending == 0


def test_upload_that_is_dropped_when_it_is_written_and_not_yet_known_is_deleted(tmp_path):
    world = uploading(tmp_path)
    work, done = world.background.waiting.popleft()
    stored = work()
    assert len(files_in(tmp_path)) == 2

    world.snapshotter.abort(1)
    done(stored)
    world.background.run_all()

    assert world.acks == []
    assert files_in(tmp_path) == []


def test_aborted_snapshots_that_wait_for_a_slow_store_hold_no_state_and_no_later_one_up(tmp_path):
    operator = filled(count=100)
    world = World(operator, files=SnapshotFiles(), inline_bytes_max=0)
    encoded = []
    for checkpoint_id in range(1, 6):
        world.take(checkpoint_id, directory=(tmp_path / str(checkpoint_id)).as_uri())
        encoded.append(weakref.ref(world.snapshotter._encoding[-1].parts[0].keyed))
        while world.snapshotter.advance():
            pass
        if checkpoint_id < 5:
            world.snapshotter.abort(checkpoint_id)
    gc.collect()

    assert [keyed() is None for keyed in encoded] == [True] * 4 + [False]
    assert world.snapshotter.uploads_pending == 1
    world.background.run_all()
    assert [checkpoint_id for checkpoint_id, _ in world.acks] == [5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5"]


def test_end_of_the_attempt_drops_what_is_encoded_and_what_is_written(tmp_path):
    world = uploading(tmp_path)
    world.take(2, directory=tmp_path.as_uri())
    world.snapshotter.close()
    world.finish()

    assert world.acks == world.failures == []
    assert files_in(tmp_path) == []


class FailingFiles(SnapshotFiles):
    def write_blob(self, directory, name, data, *, inline_bytes_max):
        raise StorageError("disk is full")


def test_snapshot_that_cannot_be_written_fails():
    world = World(filled(count=10), files=FailingFiles())
    world.take(1)
    world.finish()

    assert world.acks == []
    ((checkpoint_id, *_, error),) = world.failures
    assert checkpoint_id == 1
    assert str(error) == "disk is full"


def test_large_blobs_go_to_files_with_names_of_their_own(tmp_path):
    world = World(filled(count=500, elements=[b"x" * 100]), inline_bytes_max=0)
    world.take(1, directory=tmp_path.as_uri())
    world.take(2, directory=tmp_path.as_uri())
    world.finish()

    handles = [
        handle.data
        for _, snapshot in world.acks
        for operator in snapshot.operators
        for handle in (*operator.keyed, *operator.operator)
    ]
    assert not any(isinstance(handle, InlineHandle) for handle in handles)
    assert len({handle.path for handle in handles}) == 4
    assert sorted(handle.path for handle in handles) == sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    )


def test_nothing_is_done_when_there_is_nothing_to_encode():
    assert not World().snapshotter.advance()


@pytest.mark.parametrize("count", [1, 3])
def test_snapshots_are_acknowledged_in_the_order_of_their_barriers(count):
    world = World(filled(count=1000))
    for checkpoint_id in range(1, count + 1):
        world.take(checkpoint_id)
    world.finish()

    assert [checkpoint_id for checkpoint_id, _ in world.acks] == list(range(1, count + 1))
