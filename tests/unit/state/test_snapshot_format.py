"""A blob gives back what was put in, reads only what is asked for, and notices every damage."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raystream.errors import StateCorruptError, StateRestoreError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state import snapshot_format
from raystream.state.chunk_codec import Chunk
from raystream.state.snapshot_format import FORMAT_VERSION, SnapshotWriter, open_snapshot

STATES = (
    StateInfo(name="hits", kind="value", serializer="msgpack-1", schema="int"),
    StateInfo(name="unused", kind="map", serializer="pickle-1", schema="", map_key_schema="str"),
)
ALL = KeyGroupRange(0, 128)


def make_blob(groups=range(4, 12), chunk_bytes=10) -> bytes:
    writer = SnapshotWriter(STATES, KeyGroupRange(4, 12), 128)
    for group in groups:
        for n in range(2):
            writer.add(0, group, Chunk(n, group, bytes([group]) * chunk_bytes))
    return b"".join(writer.finish())


def load(blob, groups=ALL, max_parallelism=128, reads=None):
    def read_range(offset, length):
        if reads is not None:
            reads.append((offset, length))
        return blob[offset : offset + length]

    return open_snapshot(read_range, len(blob), groups, max_parallelism)


def groups_in(loaded):
    return [stored.group for info, stored in loaded.chunks() if info.name == "hits"]


def test_loaded_blob_has_all_states_and_all_chunks():
    loaded = load(make_blob())
    assert tuple(state.info for state in loaded.states) == STATES
    assert [(state.entries, state.size_bytes) for state in loaded.states] == [(120, 160), (0, 0)]
    assert loaded.max_parallelism == 128
    assert groups_in(loaded) == [group for group in range(4, 12) for _ in range(2)]
    assert {info.name for info, _ in loaded.chunks()} == {"hits"}
    assert [stored.chunk for _, stored in loaded.chunks()][2] == Chunk(0, 5, b"\x05" * 10)


def test_only_wanted_key_groups_are_read():
    blob = make_blob(chunk_bytes=100_000)
    reads: list[tuple[int, int]] = []
    assert groups_in(load(blob, KeyGroupRange(7, 9), reads=reads)) == [7, 7, 8, 8]
    tail, header, chunks = reads
    assert chunks == (8 + 6 * 100_000, 400_000)
    assert header == (0, 8)
    assert tail[1] <= 64 * 1024
    assert groups_in(load(blob, KeyGroupRange(50, 60))) == []


def test_one_read_is_bounded(monkeypatch):
    monkeypatch.setattr(snapshot_format, "READ_BYTES_MAX", 250)
    reads: list[tuple[int, int]] = []
    groups_in(load(make_blob(chunk_bytes=100), reads=reads))
    assert [length for _, length in reads[1:]] == [200] * 8


def test_index_that_is_longer_than_the_first_read_is_found():
    writer = SnapshotWriter(STATES, ALL, 128)
    for n in range(10_000):
        writer.add(0, n // 100, Chunk(0, 1, b"x"))
    assert len(groups_in(load(b"".join(writer.finish())))) == 10_000


def test_all_chunks_are_loaded_under_another_max_parallelism():
    assert len(groups_in(load(make_blob(), KeyGroupRange(0, 1), max_parallelism=64))) == 16


def test_newer_version_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(snapshot_format, "FORMAT_VERSION", FORMAT_VERSION + 1)
    blob = make_blob()
    monkeypatch.undo()
    with pytest.raises(StateRestoreError, match="newer raystream") as error:
        load(blob)
    assert "\n" not in error.value.message


BLOB = make_blob()


@given(st.integers(0, len(BLOB) - 1), st.integers(1, 255))
@settings(max_examples=500)
def test_any_flipped_byte_is_noticed(position, flip):
    damaged = bytearray(BLOB)
    damaged[position] ^= flip
    with pytest.raises(StateCorruptError):
        list(load(bytes(damaged)).chunks())


@given(st.integers(0, len(BLOB) - 1))
def test_any_truncation_is_noticed(length):
    with pytest.raises(StateCorruptError):
        list(load(BLOB[:length]).chunks())


@given(st.binary(max_size=200), st.integers(0, len(BLOB)), st.integers(0, len(BLOB)))
@settings(max_examples=300)
def test_any_other_damage_is_noticed(garbage, start, stop):
    damaged = BLOB[:start] + garbage + BLOB[stop:]
    if damaged != BLOB:
        with pytest.raises((StateCorruptError, StateRestoreError)):
            list(load(damaged).chunks())


def test_store_that_returns_too_little_is_noticed():
    with pytest.raises(StateCorruptError, match="cut off"):
        open_snapshot(lambda offset, length: BLOB[offset : offset + length - 1], len(BLOB), ALL, 128)
