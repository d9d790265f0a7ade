"""Blobs that earlier versions wrote still restore; one file of each kind for every format version."""

from pathlib import Path

import pytest

from raystream.keygroup import KeyGroupRange
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.heap import HeapBackend
from raystream.state.operator_state import decode_elements
from raystream.state.snapshot_format import load_snapshot
from tests.unit.state.contract_kit import Subtask

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
GROUPS = KeyGroupRange(0, 16)

CONTENTS = {
    "a": (1, ["x"], [1, 2], {"p": 1, "q": None}),
    7: (2**64, ["y", "\udc80"], [2**70], {"r": 3}),
    ("t", None, 1.5): (-1, [], [0], {"s": -3}),
}


def registered(subtask):
    backend = subtask.backend
    return (
        backend.value_state(ValueStateDescriptor("count", int)),
        backend.value_state(ValueStateDescriptor("untyped")),
        backend.list_state(ListStateDescriptor("list", int)),
        backend.map_state(MapStateDescriptor("map", str, int)),
    )


@pytest.mark.parametrize("version", [1])
def test_keyed_state_of_every_version_restores(version):
    blob = (GOLDEN / f"keyed-state-{version}.bin").read_bytes()
    cursor = KeyCursor()
    backend = HeapBackend(GROUPS, 16, cursor)
    backend.restore([load_snapshot(lambda at, n: blob[at : at + n], len(blob), GROUPS, 16)])
    subtask = Subtask(backend, cursor, 16)
    count, untyped, elements, entries = registered(subtask)
    for key, content in CONTENTS.items():
        subtask.at(key)
        assert (count.value(), untyped.value(), elements.get(), dict(entries.items())) == content


@pytest.mark.parametrize("version", [1])
def test_operator_state_of_every_version_restores(version):
    blob = (GOLDEN / f"operator-state-{version}.bin").read_bytes()
    assert decode_elements(blob) == [b"", b"split 1", bytes(range(256))]
