"""What goes into a part of a canonical savepoint comes out of it exactly as a blob would give it back."""

import datetime as dt
import math

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raystream.clock import TimeDomain
from raystream.keys import canonical_key, encode_key
from raystream.state import chunk_form as cf
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import (
    EVENT_TIMERS,
    PROCESSING_TIMERS,
    ListStateDescriptor,
    MapStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.ttl import StateTtl
from tests.unit import key_samples
from tests.unit.state.canonical_parts import chunks_of, decoded, exact_entries, round_trip
from tests.unit.state.test_serializer import INTS, TEXTS, TYPED, Opaque, Visit

SAMPLES = key_samples.keys.map(canonical_key)
KEYS = st.lists(SAMPLES, max_size=4, unique_by=encode_key)
FEW_KEYS = st.lists(
    st.sampled_from(["a", "b", "\udc80", 1, 2**70, b"\1", ("t", None)]), max_size=4, unique=True
)
PAIRS = st.tuples(st.integers(-(2**62), 2**62), INTS)
FLOATS = st.floats() | st.sampled_from([-0.0, math.nan, math.inf])
slow = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def assert_kept(descriptor, entries):
    chunks = chunks_of(descriptor, entries)
    back = round_trip(descriptor, chunks)
    assert exact_entries(decoded(descriptor, back)) == exact_entries(decoded(descriptor, chunks))
    assert [group for group, _ in back] == sorted(group for group, _ in back)
    assert {group for group, _ in back} == {group for group, _ in chunks}


@pytest.mark.parametrize(("declared", "values"), [(d, v) for d, _, v in TYPED], ids=[s for _, s, _ in TYPED])
@slow
@given(data=st.data())
def test_values_elements_and_map_values_of_every_type_come_back(declared, values, data):
    keys = data.draw(FEW_KEYS)
    assert_kept(ValueStateDescriptor("s", declared), {key: data.draw(values) for key in keys})
    if declared is not None and "None" not in str(declared):
        lists = st.lists(values, min_size=1, max_size=3)
        assert_kept(ListStateDescriptor("s", declared), {key: data.draw(lists) for key in keys})
    maps = st.dictionaries(TEXTS | INTS, st.none() | values, min_size=1, max_size=3)
    assert_kept(MapStateDescriptor("s", None, declared), {key: data.draw(maps) for key in keys})


@slow
@given(data=st.data())
def test_pickled_values_of_every_kind_come_back(data):
    anything = st.builds(Opaque, INTS) | st.builds(Visit, TEXTS, INTS) | FLOATS
    keys = data.draw(KEYS)
    assert_kept(ValueStateDescriptor("s"), {key: data.draw(anything) for key in keys})
    lists = st.lists(anything, min_size=1, max_size=3)
    assert_kept(ListStateDescriptor("s"), {key: data.draw(lists) for key in keys})
    maps = st.dictionaries(TEXTS | INTS, st.none() | anything, min_size=1, max_size=3)
    assert_kept(MapStateDescriptor("s"), {key: data.draw(maps) for key in keys})


@slow
@given(
    texts=st.dictionaries(TEXTS, FLOATS),
    ints=st.dictionaries(INTS, FLOATS),
    binaries=st.dictionaries(st.binary(), FLOATS),
)
def test_floats_come_back_to_the_bit(texts, ints, binaries):
    by_key = texts, ints, binaries
    for entries in by_key:
        assert_kept(ValueStateDescriptor("s", float), entries)
    assert_kept(ValueStateDescriptor("s", float), {key: v for some in by_key for key, v in some.items()})


@pytest.mark.parametrize("domain", list(TimeDomain))
@pytest.mark.parametrize("declared", [int, None])
@slow
@given(data=st.data())
def test_times_of_writing_come_back(domain, declared, data):
    ttl = StateTtl("1s", time=domain)
    keys = data.draw(KEYS)
    assert_kept(ValueStateDescriptor("s", declared, ttl=ttl), {key: data.draw(PAIRS) for key in keys})
    lists = st.lists(PAIRS, min_size=1, max_size=3)
    assert_kept(ListStateDescriptor("s", declared, ttl=ttl), {key: data.draw(lists) for key in keys})
    maps = st.dictionaries(TEXTS | INTS, PAIRS, min_size=1, max_size=3)
    assert_kept(MapStateDescriptor("s", None, declared, ttl=ttl), {key: data.draw(maps) for key in keys})


@slow
@given(data=st.data())
def test_namespaces_come_back(data):
    namespaces = st.none() | SAMPLES | st.tuples(st.integers(), st.integers())
    keys = st.lists(st.tuples(SAMPLES, namespaces), max_size=8, unique_by=encode_key)
    entries = {key: data.draw(INTS) for key in data.draw(keys)}
    assert_kept(ValueStateDescriptor("s", int, namespaced=True), entries)
    maps = st.dictionaries(TEXTS, INTS, min_size=1, max_size=3)
    entries = {key: data.draw(maps) for key in data.draw(keys)}
    assert_kept(MapStateDescriptor("s", None, int, namespaced=True), entries)


@pytest.mark.parametrize("name", [EVENT_TIMERS, PROCESSING_TIMERS])
@slow
@given(data=st.data())
def test_timers_come_back(name, data):
    timers = st.tuples(
        st.integers(-(2**62), 2**62), st.none() | st.tuples(st.integers(), st.integers()) | TEXTS
    )
    maps = st.dictionaries(timers, st.none(), min_size=1, max_size=3)
    entries = {key: data.draw(maps) for key in data.draw(KEYS)}
    assert_kept(MapStateDescriptor(name, tuple, type(None), internal=True), entries)


def test_times_in_an_hour_that_comes_twice_and_the_ends_of_time_come_back():
    for declared, values in [
        (dt.datetime, [dt.datetime.min, dt.datetime.max.replace(tzinfo=dt.UTC)]),  # noqa: DTZ901
        (dt.date, [dt.date.min, dt.date.max]),
        (dt.time, [dt.time.min, dt.time.max, dt.time(2, 30, fold=1)]),
        (dt.timedelta, [dt.timedelta.min, dt.timedelta.max, dt.timedelta(microseconds=-1)]),
        (list[dt.timedelta], [[dt.timedelta.max, dt.timedelta(1)], [dt.timedelta(2)]]),
        (int, [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1]),
        (dict[dt.date, int], [{dt.date.max: 1, dt.date.min: 2**63}, {}]),
        (dict[float, int | None], [{math.nan: 1, -0.0: None}]),
        (dict[dt.datetime, dt.timedelta], [{dt.datetime.max.replace(tzinfo=dt.UTC): dt.timedelta.max}, {}]),
        (tuple[tuple[int, str | None], ...], [((1, None),), (), ((2, "x"), (2**70, "y"))]),
        (type(None) | int, [None, 1]),
    ]:
        assert_kept(ValueStateDescriptor("s", declared), dict(enumerate(values)))


def test_chunks_as_rocksdb_writes_them_come_back():
    """All their keys are encoded, and values are in the plain form one by one."""
    descriptor = MapStateDescriptor("s", str, int)
    form = cf.KEYS_ENCODED | cf.KEYS_ENCODED << cf.MAP_KEY_SHIFT
    keys = [[encode_key("a"), encode_key("b")], [encode_key(7)]]
    contents = [
        [{encode_key("x"): 1, encode_key("y"): None}, {encode_key("x"): 2**64 - 1}],
        [{encode_key(b"z"): 3}],
    ]
    chunks = [
        (group, Chunk(form, len(of_group), msgspec.msgpack.encode((of_group, contents[group]))))
        for group, of_group in enumerate(keys)
    ]
    assert exact_entries(decoded(descriptor, round_trip(descriptor, chunks))) == exact_entries(
        {"a": {"x": 1, "y": None}, "b": {"x": 2**64 - 1}, 7: {b"z": 3}}
    )
