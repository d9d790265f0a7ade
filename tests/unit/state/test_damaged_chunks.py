"""Chunks whose checksum is right and whose content is not: both backends refuse them alike."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raystream.errors import StateCorruptError, StateRestoreError
from raystream.state import chunk_form as cf
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.rocksdb_chunks import ChunkItems
from raystream.state.ttl import StateTtl

TTL = StateTtl(100)
VALUES = ValueStateDescriptor("s", int, ttl=TTL)
LISTS = ListStateDescriptor("s", int, ttl=TTL)
MAPS = MapStateDescriptor("s", str, int, ttl=TTL)


def on_heap(descriptor, chunk):
    """Return how many values of each key are read."""
    return [
        1 if descriptor.kind.single else len(content)
        for content in ChunkDecoder(descriptor, descriptor.info()).decode(chunk)[1]
    ]


def on_rocksdb(descriptor, chunk):
    counts = {}
    for key, _, _ in ChunkItems(chunk, descriptor.info()):
        counts[key] = counts.get(key, 0) + 1
    return list(counts.values())


both = pytest.mark.parametrize("read", [on_heap, on_rocksdb])


def chunk_of(form, *columns):
    return Chunk(form, len(columns[0]), msgspec.msgpack.encode(columns))


@both
def test_whole_chunk_is_read(read):
    assert read(VALUES, chunk_of(cf.TIMED, ["a", "b"], [1, 2], [7, 8])) == [1, 1]
    assert read(LISTS, chunk_of(cf.TIMED, ["a", "b"], [[1, 2, 3], [4]], [[7, 8, 9], [7]])) == [3, 1]
    assert read(MAPS, chunk_of(cf.TIMED, ["a"], [{"x": 1, "y": 2}], [[7, 8]])) == [2]


@both
@pytest.mark.parametrize(
    ("descriptor", "contents", "times"),
    [
        pytest.param(VALUES, [1], [], id="value without a time"),
        pytest.param(VALUES, [1], [7, 8], id="value with two times"),
        pytest.param(LISTS, [[1, 2, 3]], [[7]], id="list with a time for one element"),
        pytest.param(LISTS, [[1]], [[7, 8]], id="list with too many times"),
        pytest.param(LISTS, [[1]], [], id="list without times"),
        pytest.param(MAPS, [{"x": 1, "y": 2}], [[7]], id="map with a time for one entry"),
        pytest.param(MAPS, [{"x": 1}], [[]], id="map without times"),
    ],
)
def test_other_number_of_times_than_of_values_is_refused(read, descriptor, contents, times):
    with pytest.raises((StateCorruptError, StateRestoreError)):
        read(descriptor, chunk_of(cf.TIMED, ["a"], contents, times))


@both
@pytest.mark.parametrize("form", [1 << 6, 1 << 8, 3, 3 << cf.MAP_KEY_SHIFT])
def test_form_that_is_not_defined_is_corrupt(read, form):
    with pytest.raises(StateCorruptError):
        read(MapStateDescriptor("s", str, int), chunk_of(form, ["a"], [{"x": 1}]))


@settings(deadline=None)
@given(data=st.binary(max_size=40), form=st.integers(0, 511), entries=st.integers(0, 3))
def test_bytes_that_are_not_a_chunk_raise_our_errors_only(data, form, entries):
    for descriptor in (VALUES, LISTS, MAPS, ValueStateDescriptor("s"), ListStateDescriptor("s")):
        try:
            on_rocksdb(descriptor, Chunk(form, entries, data))
        except StateCorruptError:
            continue


@settings(deadline=None)
@given(
    form=st.integers(0, 511).filter(lambda form: not form & cf.BY_EVENT_TIME),
    sizes=st.lists(st.integers(0, 3), max_size=3),
    times=st.lists(st.integers(0, 3), max_size=3),
)
def test_what_the_heap_refuses_rocksdb_refuses_too(form, sizes, times):
    chunk = chunk_of(
        form, ["a", "b", "c"][: len(sizes)], [[5] * size for size in sizes], [[7] * size for size in times]
    )
    try:
        expected = on_heap(LISTS, chunk)
    except (StateCorruptError, StateRestoreError):
        with pytest.raises(StateCorruptError):
            on_rocksdb(LISTS, chunk)
    else:
        assert on_rocksdb(LISTS, chunk) == [size for size in expected if size]
