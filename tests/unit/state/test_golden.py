"""Blobs that earlier versions wrote still restore; one file of each kind for every format version."""

from pathlib import Path

import msgspec
import pytest

from raystream.clock import TimeDomain
from raystream.config.options import BackendConfig
from raystream.errors import StateRestoreError
from raystream.keygroup import KeyGroupRange
from raystream.state.canonical_part import SubtaskHead
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.open_backend import BackendOpener
from raystream.state.operator_state import decode_elements
from raystream.state.snapshot_files import SnapshotForm
from raystream.state.snapshot_format import FORMAT_VERSION
from raystream.state.ttl import Moment, StateTtl
from raystream.testing.source_run import ManualClock
from raystream.testing.state_kit import Mean, Subtask, add, never
from raystream.testing.stored_state import MemorySnapshot

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
GROUPS = KeyGroupRange(0, 16)
TAKEN_MS = 1_800_000_000_000
WATERMARK_MS = TAKEN_MS - 3_600_000
DAY_MS = 86_400_000
TTL = StateTtl("1d")
EVENT_TTL = StateTtl("1d", time=TimeDomain.EVENT_TIME)

HEAD = SubtaskHead(
    uid="golden",
    subtask=0,
    groups=GROUPS,
    max_parallelism=16,
    taken=Moment(processing_ms=TAKEN_MS, event_ms=WATERMARK_MS),
)

CONTENTS = {
    "a": (1, ["x"], [1, 2], {"p": 1, "q": None}),
    7: (2**64, ["y", "\udc80"], [2**70], {"r": 3}),
    ("t", None, 1.5): (-1, [], [0], {"s": -3}),
}


@pytest.fixture
def subtask_of(local_path):
    """Make subtasks, perhaps restored from what a file has."""
    openers = []

    def make(stored=None, *, backend="hashmap"):
        cursor, clock = KeyCursor(), ManualClock(TAKEN_MS)
        config = BackendConfig(type=backend, rocksdb_directory=str(local_path / str(len(openers))))
        openers.append(BackendOpener(config, clock))
        opened = openers[-1].open(GROUPS, 16, cursor)
        if stored is not None:
            opened.restore([stored.open(GROUPS, 16)])
        return Subtask(opened, cursor, 16, clock=clock)

    yield make
    for opener in openers:
        opener.close()


def blob(version):
    return MemorySnapshot((GOLDEN / f"keyed-state-{version}.bin").read_bytes(), (), {})


def files(version):
    """Return a snapshot that consists of files of RocksDB."""
    stored = (GOLDEN / f"keyed-state-files-{version}.msgpack").read_bytes()
    return msgspec.msgpack.decode(stored, type=MemorySnapshot)


def canonical(version):
    """Return the keyed state of a canonical savepoint."""
    stored = (GOLDEN / f"canonical-savepoint-{version}.msgpack").read_bytes()
    return msgspec.msgpack.decode(stored, type=MemorySnapshot)


def registered(subtask):
    backend = subtask.backend
    return (
        backend.value_state(ValueStateDescriptor("count", int)),
        backend.value_state(ValueStateDescriptor("untyped")),
        backend.list_state(ListStateDescriptor("list", int)),
        backend.map_state(MapStateDescriptor("map", str, int)),
    )


def registered_since_2(subtask):
    backend = subtask.backend
    return (
        backend.reducing_state(ReducingStateDescriptor("total", add, int)),
        backend.aggregating_state(AggregatingStateDescriptor("mean", Mean(), list[int])),
        backend.value_state(ValueStateDescriptor("windowed", int, namespaced=True)),
        backend.value_state(ValueStateDescriptor("value that lives", int, ttl=TTL)),
        backend.list_state(ListStateDescriptor("list that lives", int, ttl=TTL)),
        backend.map_state(MapStateDescriptor("map that lives", str, int, ttl=TTL)),
    )


def registered_since_3(subtask):
    backend = subtask.backend
    return (
        backend.value_state(ValueStateDescriptor("value of event time", int, ttl=EVENT_TTL)),
        backend.list_state(ListStateDescriptor("list of event time", int, ttl=EVENT_TTL)),
    )


def fill(subtask):
    """Write what the file of the newest version has."""
    count, untyped, plain, numbers = registered(subtask)
    total, mean, windowed, value, elements, entries = registered_since_2(subtask)
    event_value, event_elements = registered_since_3(subtask)
    event_time = subtask.backend.event_time
    for back_ms in (DAY_MS // 2, 0):
        subtask.clock.now_ms = TAKEN_MS - back_ms
        event_time.reached(WATERMARK_MS - back_ms)
        for n, (key, content) in enumerate(CONTENTS.items(), 1):
            subtask.at(key, (0, 10))
            if back_ms:
                count.update(content[0])
                untyped.update(content[1])
                plain.update(content[2])
                numbers.put_all(content[3])
                total.add(n)
                total.add(1)
                mean.add(n)
                mean.add(0)
                windowed.update(n)
                value.update(n)
                event_value.update(n)
            elements.add(n if back_ms else -n)
            event_elements.add(n if back_ms else -n)
            entries.put("old" if back_ms else "new", n if back_ms else -n)


def taken(subtask):
    snapshot = subtask.backend.freeze(1, form=SnapshotForm.INCREMENTAL)
    assert snapshot.advance(never)
    return MemorySnapshot.of(snapshot)


def check_plain(subtask):
    count, untyped, elements, entries = registered(subtask)
    for key, content in CONTENTS.items():
        subtask.at(key)
        assert (count.value(), untyped.value(), elements.get(), dict(entries.items())) == content


def check_since_2(subtask):
    total, mean, windowed, value, elements, entries = registered_since_2(subtask)
    assert subtask.backend.processing_time.now_ms() == TAKEN_MS
    for later, lives in ((DAY_MS // 2 - 1, True), (DAY_MS // 2, False)):
        subtask.clock.now_ms = TAKEN_MS + later
        for n, key in enumerate(CONTENTS, 1):
            subtask.at(key, (0, 10))
            assert (total.get(), mean.get(), windowed.value()) == (n + 1, n / 2, n)
            assert value.value() == (n if lives else None)
            assert elements.get() == ([n, -n] if lives else [-n])
            assert dict(entries.items()) == ({"old": n, "new": -n} if lives else {"new": -n})


def check_since_3(subtask):
    value, elements = registered_since_3(subtask)
    event_time = subtask.backend.event_time
    assert event_time.now_ms() == WATERMARK_MS
    for later, lives in ((DAY_MS // 2 - 1, True), (DAY_MS // 2, False)):
        event_time.reached(WATERMARK_MS + later)
        for n, key in enumerate(CONTENTS, 1):
            subtask.at(key)
            assert value.value() == (n if lives else None)
            assert elements.get() == ([n, -n] if lives else [-n])


def test_keyed_state_of_version_1_is_too_old(subtask_of):
    with pytest.raises(StateRestoreError, match="by a raystream that is too old") as caught:
        subtask_of(blob(1))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_keyed_state_of_version_2_restores(subtask_of, backend):
    subtask = subtask_of(blob(2), backend=backend)
    check_plain(subtask)
    check_since_2(subtask)


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_keyed_state_of_version_3_restores(subtask_of, backend):
    subtask = subtask_of(blob(3), backend=backend)
    check_plain(subtask)
    check_since_2(subtask)
    check_since_3(subtask)


def test_keyed_state_in_files_of_version_1_restores(subtask_of):
    subtask = subtask_of(files(1), backend="rocksdb")
    check_plain(subtask)
    check_since_2(subtask)
    check_since_3(subtask)


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_canonical_savepoint_of_version_1_restores(subtask_of, backend):
    subtask = subtask_of(canonical(1), backend=backend)
    check_plain(subtask)
    check_since_2(subtask)
    check_since_3(subtask)


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_canonical_savepoint_that_is_written_now_restores(subtask_of, backend):
    subtask = subtask_of(backend=backend)
    fill(subtask)
    snapshot = subtask.backend.freeze(1)
    assert snapshot.advance(never)
    stored = MemorySnapshot.canonical(snapshot, HEAD)

    again = subtask_of(stored, backend=backend)
    check_plain(again)
    check_since_2(again)
    check_since_3(again)


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_keyed_state_that_is_written_now_is_what_the_newest_file_has(subtask_of, backend):
    subtask = subtask_of(backend=backend)
    fill(subtask)
    stored = taken(subtask)

    if backend == "hashmap":
        assert stored == blob(FORMAT_VERSION)
    again = subtask_of(stored, backend=backend)
    check_plain(again)
    check_since_2(again)
    check_since_3(again)


@pytest.mark.parametrize("version", [1])
def test_operator_state_of_every_version_restores(version):
    stored = (GOLDEN / f"operator-state-{version}.bin").read_bytes()
    assert decode_elements(stored) == [b"", b"split 1", bytes(range(256))]
