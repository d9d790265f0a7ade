"""Blobs that earlier versions wrote still restore; one file of each kind for every format version."""

from pathlib import Path

import pytest

from raystream.keygroup import KeyGroupRange
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.heap import HeapBackend
from raystream.state.operator_state import decode_elements
from raystream.state.snapshot_format import open_snapshot
from raystream.state.ttl import StateTtl
from raystream.testing.source_run import ManualClock
from raystream.testing.state_kit import Mean, Subtask, add

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
GROUPS = KeyGroupRange(0, 16)
TAKEN_MS = 1_800_000_000_000
TTL = StateTtl("1d")

CONTENTS = {
    "a": (1, ["x"], [1, 2], {"p": 1, "q": None}),
    7: (2**64, ["y", "\udc80"], [2**70], {"r": 3}),
    ("t", None, 1.5): (-1, [], [0], {"s": -3}),
}


def subtask_of(path=None):
    """Return a backend, restored from a file."""
    cursor, clock = KeyCursor(), ManualClock(TAKEN_MS)
    backend = HeapBackend(GROUPS, 16, cursor, clock=clock)
    if path is not None:
        blob = path.read_bytes()
        backend.restore([open_snapshot(lambda at, n: blob[at : at + n], len(blob), GROUPS, 16)])
    return Subtask(backend, cursor, 16, clock=clock)


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


@pytest.mark.parametrize("version", [1, 2])
def test_keyed_state_of_every_version_restores(version):
    subtask = subtask_of(GOLDEN / f"keyed-state-{version}.bin")
    count, untyped, elements, entries = registered(subtask)
    for key, content in CONTENTS.items():
        subtask.at(key)
        assert (count.value(), untyped.value(), elements.get(), dict(entries.items())) == content


def test_kinds_namespaces_and_times_of_version_2_restore():
    subtask = subtask_of(GOLDEN / "keyed-state-2.bin")
    total, mean, windowed, value, elements, entries = registered_since_2(subtask)
    assert subtask.backend.processing_time.now_ms() == TAKEN_MS
    day_ms = 86_400_000
    for later, lives in ((day_ms // 2 - 1, True), (day_ms // 2, False)):
        subtask.clock.now_ms = TAKEN_MS + later
        for n, key in enumerate(CONTENTS, 1):
            subtask.at(key, (0, 10))
            assert (total.get(), mean.get(), windowed.value()) == (n + 1, n / 2, n)
            assert value.value() == (n if lives else None)
            assert elements.get() == ([n, -n] if lives else [-n])
            assert dict(entries.items()) == ({"old": n, "new": -n} if lives else {"new": -n})


@pytest.mark.parametrize("version", [1])
def test_operator_state_of_every_version_restores(version):
    blob = (GOLDEN / f"operator-state-{version}.bin").read_bytes()
    assert decode_elements(blob) == [b"", b"split 1", bytes(range(256))]
