"""Values come back equal and of the same type, or are refused by name before they are stored."""

import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
import zoneinfo
from typing import Any, NamedTuple, Optional, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raystream.errors import StateCorruptError, StateError, StateRestoreError
from raystream.state.chunk_codec import ChunkCodec
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import (
    ListStateDescriptor,
    MapStateDescriptor,
    StateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.serializer import serializer_for
from raystream.state.ttl import StateTtl


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Bits(enum.Flag):
    ONE = 1
    TWO = 2


@dataclasses.dataclass
class Visit:
    path: str
    hits: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    where: tuple[int, ...]
    note: str | None = None
    _private: int = 1


class Tree(msgspec.Struct):
    value: int
    children: list["Tree"] = []
    color: Color = Color.RED


class Point(NamedTuple):
    x: int
    y: int


class Typed(TypedDict):
    x: int


class Tagged(msgspec.Struct, tag=True):
    x: int


class ArrayLike(msgspec.Struct, array_like=True):
    x: int


@dataclasses.dataclass
class WithoutInit:
    x: int
    y: int = dataclasses.field(default=3, init=False)


@dataclasses.dataclass
class AlsoADict(dict[str, int]):
    x: int


class Opaque:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.x == self.x

    __hash__ = None

    def __repr__(self) -> str:
        return f"Opaque({self.x})"


UTC_PLUS_2 = dt.timezone(dt.timedelta(hours=2))
INTS = st.integers() | st.integers(-(2**80), 2**80)
TEXTS = st.text(st.characters(codec=None))
MOMENTS = st.datetimes(
    timezones=st.sampled_from([None, dt.UTC, UTC_PLUS_2, zoneinfo.ZoneInfo("Europe/Zurich")])
)
FLOATS = st.floats(allow_nan=False)
VISITS = st.builds(Visit, TEXTS, INTS)
FROZEN = st.builds(Frozen, where=st.lists(INTS).map(tuple), note=st.none() | TEXTS, _private=INTS)
TREES = st.recursive(
    st.builds(Tree, INTS, color=st.sampled_from(Color)),
    lambda children: st.builds(Tree, INTS, st.lists(children, max_size=3), st.sampled_from(Color)),
)

TYPED: list[tuple[Any, str, st.SearchStrategy[Any]]] = [
    (int, "int", INTS),
    (float, "float", FLOATS),
    (str, "str", TEXTS),
    (bytes, "bytes", st.binary()),
    (bool, "bool", st.booleans()),
    (dt.datetime, "datetime", MOMENTS),
    (dt.date, "date", st.dates()),
    (dt.time, "time", st.times(timezones=st.sampled_from([None, dt.UTC, UTC_PLUS_2]))),
    (dt.timedelta, "timedelta", st.timedeltas()),
    (decimal.Decimal, "Decimal", st.decimals(allow_nan=False)),
    (uuid.UUID, "UUID", st.uuids()),
    (Color, 'Color("red", "blue")', st.sampled_from(Color)),
    (Level, "Level(1, 2)", st.sampled_from(Level)),
    (list[int], "list[int]", st.lists(INTS)),
    (set[str], "set[str]", st.sets(TEXTS)),
    (frozenset[Color], 'frozenset[Color("red", "blue")]', st.frozensets(st.sampled_from(Color))),
    (tuple[int, str], "tuple[int, str]", st.tuples(INTS, TEXTS)),
    (tuple[dt.datetime, int], "tuple[datetime, int]", st.tuples(MOMENTS, INTS)),
    (tuple[int, ...], "tuple[int, ...]", st.lists(INTS).map(tuple)),
    (dict[str, list[int]], "dict[str, list[int]]", st.dictionaries(TEXTS, st.lists(INTS))),
    (
        dict[tuple[int, str], bool],
        "dict[tuple[int, str], bool]",
        st.dictionaries(st.tuples(INTS, TEXTS), st.booleans()),
    ),
    (int | str | None, "int | str | None", INTS | TEXTS),
    (int | float, "int | float", INTS | FLOATS),
    (Optional[list[float]], "list[float] | None", st.lists(FLOATS)),  # noqa: UP045 - the old spelling too
    (Visit, "Visit{path: str, hits?: int}", VISITS),
    (
        Frozen,
        "Frozen{where: tuple[int, ...], note?: str | None, _private?: int}",
        FROZEN,
    ),
    (Tree, 'Tree{value: int, children?: list[Tree], color?: Color("red", "blue")}', TREES),
    (list[Visit], "list[Visit{path: str, hits?: int}]", st.lists(VISITS)),
]
UNTYPED = [
    None, Any, object, list, dict, list[Any], dict[str, Any], Point, Typed, Tagged, ArrayLike, WithoutInit,
    AlsoADict, Opaque, Bits, Visit | Tree, dt.datetime | str, bytearray, dict[Frozen, int],
]  # fmt: skip
KEYS = st.lists(INTS | TEXTS | st.binary() | st.tuples(INTS, TEXTS), max_size=8, unique=True)


def round_trip(descriptor: StateDescriptor, entries: dict[Any, Any]) -> dict[Any, Any]:
    restored: dict[Any, Any] = {}
    decoder = ChunkDecoder(descriptor, descriptor.info())
    for chunk in ChunkCodec(descriptor).encode(list(entries), list(entries.values())):
        restored.update(zip(*decoder.decode(chunk), strict=True))
    return restored


def assert_same(got: Any, wanted: Any) -> None:
    """Equal, of the same types, and reading the same clock; floats may have been given as ints."""
    assert got == wanted
    assert repr(got) == repr(wanted) or isinstance(wanted, set | frozenset | dict | decimal.Decimal)


@pytest.mark.parametrize(("declared", "schema", "values"), TYPED, ids=[schema for _, schema, _ in TYPED])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_typed_values_come_back_equal_and_of_the_same_type(declared, schema, values, data):
    descriptor = ValueStateDescriptor("x", declared)
    assert (descriptor.info().serializer, descriptor.info().schema) == ("msgpack-1", schema)
    entries = {key: data.draw(values) for key in data.draw(KEYS)}
    restored = round_trip(descriptor, entries)
    assert list(map(type, sorted(restored, key=repr))) == list(map(type, sorted(entries, key=repr)))
    assert restored.keys() == entries.keys()
    for key, value in entries.items():
        assert_same(restored[key], value)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_lists_and_maps_of_any_content_come_back(data):
    lists = {key: data.draw(st.lists(INTS, min_size=1)) for key in data.draw(KEYS)}
    assert round_trip(ListStateDescriptor("x", int), lists) == lists
    assert round_trip(ListStateDescriptor("x"), lists) == lists
    maps = {
        key: data.draw(st.dictionaries(INTS | TEXTS, st.none() | MOMENTS, min_size=1))
        for key in data.draw(KEYS)
    }
    assert round_trip(MapStateDescriptor("x", None, dt.datetime), maps) == maps
    assert round_trip(MapStateDescriptor("x"), maps) == maps


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_values_come_back_with_their_times(data):
    pairs = st.tuples(st.integers(0, 2**60), INTS)
    values = {key: data.draw(pairs) for key in data.draw(KEYS)}
    ttl = StateTtl("1s")
    assert round_trip(ValueStateDescriptor("x", int, ttl=ttl), values) == values
    assert round_trip(ValueStateDescriptor("x", ttl=ttl), values) == values
    lists = {key: data.draw(st.lists(pairs, min_size=1)) for key in data.draw(KEYS)}
    assert round_trip(ListStateDescriptor("x", int, ttl=ttl), lists) == lists
    maps = {
        key: data.draw(st.dictionaries(INTS | TEXTS, st.tuples(st.integers(0, 2**60), st.none() | INTS)))
        for key in data.draw(KEYS)
    }
    assert round_trip(MapStateDescriptor("x", None, int, ttl=ttl), maps) == maps


@pytest.mark.parametrize("declared", UNTYPED, ids=repr)
def test_type_without_a_codec_that_keeps_it_is_pickled_and_marked(declared):
    serializer = serializer_for(declared)
    assert (serializer.id, serializer.schema) == ("pickle-1", "")


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (None, [Opaque(1), {1: (2, 3)}, {4}]),
        (Point, Point(1, 2)),
        (dict, {"a": (1, 2), 1: b""}),
        (Bits, Bits.ONE | Bits.TWO),
        (Tagged, Tagged(1)),
    ],
)
def test_pickled_values_come_back(declared, value):
    restored = round_trip(ValueStateDescriptor("x", declared), {"k": value})["k"]
    assert_same(restored, value)


def test_object_shared_by_two_keys_is_two_objects_after_a_restore():
    shared: list[int] = []
    restored = round_trip(ValueStateDescriptor("x"), {"a": shared, "b": shared})
    assert restored["a"] is not restored["b"]


def test_one_value_that_msgpack_does_not_carry_leaves_the_others_as_they_are():
    codec = ChunkCodec(ValueStateDescriptor("x", int))
    chunks = codec.encode(list(range(1000)), [*range(999), 2**64])
    assert sorted(chunk.entries for chunk in chunks) == [1, 999]


@pytest.mark.parametrize(
    ("declared", "value", "found"),
    [
        (int, "3", "str"),
        (int, True, "bool"),
        (int, 1.0, "float"),
        (int, Level.LOW, "Level"),
        (str, b"", "bytes"),
        (str, None, "NoneType"),
        (float, "1", "str"),
        (float, 2**53 + 1, "int that no float equals"),
        (bool, 1, "int"),
        (dt.date, dt.datetime(2020, 1, 1), "datetime"),  # noqa: DTZ001 - naive is what is tested
        (list[int], (1,), "tuple"),
        (list[int], [1, "2"], "str"),
        (list[list[int]], [[], [1], ["2"]], "str"),
        (set[int], {1, "2"}, "str"),
        (tuple[int, str], (1,), "tuple of 1"),
        (tuple[int, str], ("1", 1), "str"),
        (tuple[dt.datetime, int], (dt.datetime(2020, 1, 1, tzinfo=UTC_PLUS_2), "1"), "str"),
        (tuple[int, ...], (1, "2"), "str"),
        (dict[str, int], {1: 1}, "int"),
        (dict[str, int], {"a": "1"}, "str"),
        (int | None, "1", "str"),
        (list[int] | None, ["1"], "str"),
        (Visit, Visit(1), "int"),  # type: ignore[arg-type]
        (Visit, Visit("a", "b"), "str"),  # type: ignore[arg-type]
        (Visit, Tree(1), "Tree"),
        (Tree, Tree(1, [Tree(2, [Tree("3")])]), "str"),  # type: ignore[arg-type]
        (Color, Level.LOW, "Level"),
        (Color, "red", "str"),
        (Opaque, 1, "int"),
    ],
)
def test_value_of_another_type_is_refused_when_it_is_encoded(declared, value, found):
    codec = ChunkCodec(ValueStateDescriptor("visits", declared))
    with pytest.raises(StateError, match="declared type") as error:
        codec.encode(["k"], [value])
    assert error.value.context["state"] == "visits"
    assert error.value.context["found"] == found


def test_int_in_a_float_state_comes_back_as_the_float_it_equals():
    assert repr(round_trip(ValueStateDescriptor("x", float), {1: 3})) == "{1: 3.0}"


def test_map_keys_of_another_type_are_refused_when_they_are_encoded():
    with pytest.raises(StateError, match="int as map key"):
        ChunkCodec(MapStateDescriptor("x", int, int)).encode(["k"], [{"1": 1}])


@pytest.mark.parametrize("name", ["", None, 3, "_timers"])
@pytest.mark.parametrize("descriptor", [ValueStateDescriptor, ListStateDescriptor, MapStateDescriptor])
def test_name_that_is_empty_or_reserved_is_refused(descriptor, name):
    with pytest.raises(StateError, match="name"):
        descriptor(name)


def test_descriptor_may_be_given_its_type_in_brackets():
    assert ValueStateDescriptor[int]("hits", int) == ValueStateDescriptor("hits", int)


def test_default_of_another_type_is_refused():
    with pytest.raises(StateError, match="default"):
        ValueStateDescriptor("hits", int, default="0")


@settings(deadline=None)
@given(
    data=st.binary(max_size=40),
    form=st.integers(0, 255),
    declared=st.sampled_from([int, None, dict[str, int], Visit]),
)
def test_bytes_that_are_not_a_chunk_raise_our_errors_only(data, form, declared):
    for descriptor in (
        ValueStateDescriptor("x", declared),
        ListStateDescriptor("x", declared),
        MapStateDescriptor("x", str, declared),
        ValueStateDescriptor("x", declared, ttl=StateTtl("1s")),
        ListStateDescriptor("x", declared, ttl=StateTtl("1s")),
        MapStateDescriptor("x", str, declared, ttl=StateTtl("1s")),
    ):
        with contextlib.suppress(StateRestoreError, StateCorruptError):
            ChunkDecoder(descriptor, descriptor.info()).decode(Chunk(form, 1, data))


class TestEvolution:
    """A record may lose fields and gain fields with a default."""

    def test_record_with_other_fields_reads_what_it_still_has(self):
        @dataclasses.dataclass
        class Before:
            path: str
            old: int

        after = dataclasses.make_dataclass("Before", [("path", str), ("note", str, "none")])
        chunks = ChunkCodec(ValueStateDescriptor("x", Before)).encode(
            ["a", "b"], [Before("/a", 1), Before("/b", 2**70)]
        )
        decoder = ChunkDecoder(ValueStateDescriptor("x", after), ValueStateDescriptor("x", Before).info())
        values = [value for chunk in chunks for value in decoder.decode(chunk)[1]]
        assert sorted((value.path, value.note) for value in values) == [("/a", "none"), ("/b", "none")]

    def test_value_that_does_not_read_as_the_new_type_is_a_restore_error(self):
        (chunk,) = ChunkCodec(ValueStateDescriptor("x", int)).encode(["a"], [1])
        with pytest.raises(StateRestoreError, match="x"):
            ChunkDecoder(ValueStateDescriptor("x", str), ValueStateDescriptor("x", int).info()).decode(chunk)
