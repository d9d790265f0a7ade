"""What arrives equals what was sent, in value and in exact type, at every level."""

import datetime as dt
import math
import uuid
from collections import Counter, OrderedDict, deque
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raystream.errors import ProtocolError
from raystream.records.batch import RowBatch
from raystream.records.codec import BatchDecoder, BatchEncoder
from raystream.records.row_class import row_class_of
from tests.unit.records import record_classes
from tests.unit.records.record_classes import (
    Box,
    CheckedStruct,
    Child,
    Colour,
    Converting,
    Count,
    Derived,
    Described,
    DictStruct,
    Doubling,
    EmptyStruct,
    Frozen,
    FrozenStruct,
    Initial,
    KeywordOnly,
    KeywordStruct,
    LabelledPair,
    Legacy,
    Level,
    Made,
    Nameless,
    Nothing,
    OwnInit,
    Pair,
    PartlyKeywordStruct,
    Plain,
    Reduced,
    ReducedChild,
    Registered,
    Remembering,
    Restored,
    Slotted,
    Struct,
    Table,
    TaggedStruct,
    Text,
    TypedStruct,
    Undecorated,
    UndecoratedInit,
    Verb,
    exact,
)


def round_trip(*batches):
    encoder, decoder = BatchEncoder(), BatchDecoder()
    return [decoder.decode(memoryview(encoder.encode(batch))) for batch in batches]


def assert_arrives(*batches):
    for sent, arrived in zip(batches, round_trip(*batches), strict=True):
        assert exact(arrived.values) == exact(sent.values)
        assert exact(arrived.keys) == exact(sent.keys)
        assert arrived.groups == sent.groups
        assert arrived.timestamps == sent.timestamps


# ---- any values -------------------------------------------------------------

ANY_CHARACTERS = st.characters()  # Surrogates too.
plain_values = st.one_of(
    st.text(),
    st.text(ANY_CHARACTERS, max_size=5),
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(max_size=20),
)
rare_values = st.one_of(
    st.binary(max_size=5).map(bytearray),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.dates(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from([*Colour, *Level, *Verb]),
    st.text().map(Text),
    st.integers().map(Count),
    st.complex_numbers(allow_nan=False),
    st.just(...),
)
scalars = plain_values | rare_values
nested = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(deque),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict),
        st.sets(st.integers() | st.text(max_size=3), max_size=3),
        st.frozensets(st.binary(max_size=3), max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Frozen, inner, inner),
        st.builds(Struct, inner, inner),
    ),
    max_leaves=6,
)

ROWS = {
    "tuple": st.tuples(nested, nested),
    "tuple of plain values": st.tuples(plain_values, plain_values, plain_values),
    "named tuple": st.builds(Pair, nested, plain_values),
    "legacy named tuple": st.builds(Legacy, nested, plain_values, plain_values),
    "dataclass": st.builds(Plain, nested, plain_values, st.lists(plain_values, max_size=2)),
    "frozen dataclass": st.builds(Frozen, nested, plain_values),
    "slotted dataclass": st.builds(Slotted, nested, plain_values),
    "keyword-only dataclass": st.builds(KeywordOnly, a=nested, b=plain_values),
    "derived dataclass": st.builds(Child, nested, plain_values, st.just([]), plain_values),
    "struct": st.builds(Struct, nested, plain_values),
    "frozen struct": st.builds(FrozenStruct, nested, nested),  # Of types that it does not declare.
    "keyword-only struct": st.builds(KeywordStruct, a=nested, b=plain_values),
    "partly keyword-only struct": st.builds(PartlyKeywordStruct, plain_values, a=nested),
    "tagged struct": st.builds(TaggedStruct, nested, plain_values),
    "dict struct": st.builds(DictStruct, nested),
}  # fmt: skip


@given(values=st.lists(plain_values, min_size=1, max_size=8))
@example(values=["\ud800"])
@example(values=[2**64, -(2**63) - 1, b"x"])
@example(values=[math.nan, -0.0, 0.0, math.inf, 1.0, 1, True])
def test_plain_values_arrive_as_they_are(values):
    assert_arrives(RowBatch(values))


@given(values=st.lists(nested, min_size=1, max_size=5))
@example(values=[()])
@example(values=[(), (1,), (1, 2)])
@example(values=[(1, 2), (3, 4), Pair(5, 6)])
@example(values=[bytearray(b"x"), b"x"])
def test_values_of_any_types_arrive_as_they_are(values):
    assert_arrives(RowBatch(values))


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_one_class_arrive_as_they_are(kind):
    @given(values=st.lists(ROWS[kind], min_size=1, max_size=5))
    def check(values):
        assert_arrives(RowBatch(values), RowBatch(values[:1]), RowBatch(values))

    check()


@given(st.lists(st.lists(st.one_of(*ROWS.values()), min_size=1, max_size=4), min_size=1, max_size=6))
def test_batches_of_changing_classes_arrive_on_one_channel(batches):
    assert_arrives(*map(RowBatch, batches))


# ---- classes that must not be taken apart, or not without care --------------


def with_attribute(value):
    value.note = "beside the fields"
    return value


def without_attribute(value):
    del value.b
    return value


def undecided(value):
    """A dataclass as a generic alias makes it: with an attribute beside its fields."""
    return Box[int](value)


@pytest.mark.parametrize(
    "value",
    [
        Nothing(),
        Nameless(),
        EmptyStruct(),
        LabelledPair(1, 2),
        with_attribute(LabelledPair(1, 2)),
        with_attribute(Plain(1)),
        without_attribute(Plain(1)),
        with_attribute(Count(3)),
        Doubling(3),
        Derived(1),
        OwnInit(1, 2),
        Undecorated(1),
        UndecoratedInit(1, 2, []),
        Initial(1),
        Initial(1, seed=5),
        Converting(1),
        Described(1),
        Box(1),
        undecided(1),
        Counter("aab"),
        PartlyKeywordStruct(3, a=1),
        TypedStruct(1, "1", [1]),  # An int in a field of float stays one.
        TypedStruct(b"price", 2, (1.0, "x")),
        uuid.UUID(int=7),
        Decimal("1.10"),
        dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_object_with_a_peculiar_class_arrives_as_it_is(value):
    assert_arrives(RowBatch([value]), RowBatch([value, value]))


def test_dataclass_that_is_a_dict_keeps_its_items():
    table = Table("name")
    table["key"] = "item"

    (arrived,) = round_trip(RowBatch([table]))[0].values

    assert dict.items(arrived) == dict.items(table)
    assert arrived.a == "name"


def test_metaclass_that_makes_objects_is_not_called_again():
    made = Made(1, 2)
    made.b = 5

    assert_arrives(RowBatch([made]))


def test_batch_in_which_one_object_lacks_a_field_arrives():
    assert_arrives(RowBatch([Plain(1), without_attribute(Plain(1)), with_attribute(Plain(2))]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Reduced("x"), Reduced("reduced x")),
        (ReducedChild("x"), Reduced("reduced x")),
        (Restored("x"), Restored(("restored", "x"))),
        (Registered("x"), Registered(("registered", "x"))),
    ],
)
def test_class_that_says_how_it_is_pickled_is_obeyed(value, expected):
    ((arrived,),) = [batch.values for batch in round_trip(RowBatch([value]))]

    assert exact(arrived) == exact(expected)


def test_class_that_says_what_its_state_is_is_obeyed():
    ((arrived,),) = [batch.values for batch in round_trip(RowBatch([Remembering(1)]))]

    assert vars(arrived) == {"a": 1, "pickled": True}


def test_struct_that_checks_itself_is_checked_when_it_arrives():
    """msgspec does the same when it unpickles one."""
    assert_arrives(RowBatch([CheckedStruct(1)]))


@pytest.mark.parametrize(
    "cls",
    [Pair, Legacy, Plain, Frozen, Undecorated, Child, Box, Struct, FrozenStruct, TaggedStruct, TypedStruct],
)
def test_ordinary_class_is_sent_by_columns(cls):
    assert row_class_of(cls) is not None


# ---- keys, groups, timestamps -----------------------------------------------


def keyed(values, keys):
    return RowBatch(values, None, keys, [position % 128 for position in range(len(keys))])


def test_keys_that_are_the_objects_of_a_column_are_sent_once():
    words = [f"a rather long key {n}" for n in range(100)]
    values = [(n, word) for n, word in enumerate(words)]

    same, equal = keyed(values, words), keyed(values, [word[:1] + word[1:] for word in words])

    assert_arrives(same, equal)
    assert len(BatchEncoder().encode(same)) + 1000 < len(BatchEncoder().encode(equal))


def test_keys_that_equal_a_column_but_are_other_objects_keep_their_type():
    assert_arrives(keyed([True, False], [1, 0]), keyed([1.0], [1]), keyed([Verb.GET], ["GET"]))


def test_only_the_first_key_may_be_the_object_of_a_column():
    first = "first"
    assert_arrives(keyed([first, "second"], [first, "other"]))


def test_keys_in_a_pickled_column_arrive():
    words = [Text("a"), Text("b")]
    assert_arrives(keyed(words, words))


def test_tuple_keys_arrive():
    assert_arrives(keyed([{"a": 1}, {"a": 2}], [("a", 1, None), ("a", 2, b"x")]))


def test_values_that_msgpack_refuses_do_not_harm_the_keys():
    huge = [2**70, 2**71]
    assert_arrives(
        keyed([(1, "a"), (2, "\ud800")], ["plain", "keys"]),
        keyed([(1, "a"), (2, "b")], huge),
        keyed(huge, huge),
        keyed([(1, "a"), (2, "\ud800")], [(1, 2), (3, 4)]),
    )


@given(
    values=st.lists(nested, min_size=1, max_size=4),
    keys=st.lists(st.text(ANY_CHARACTERS, max_size=3) | st.integers() | st.tuples(st.integers())),
)
def test_keyed_batches_arrive(values, keys):
    size = min(len(values), len(keys))
    if size:
        assert_arrives(keyed(values[:size], keys[:size]))


def test_groups_and_timestamps_arrive():
    assert_arrives(RowBatch(["a", "b"], [-1, 2**40], ["a", "b"], [0, 32767]))


# ---- a channel --------------------------------------------------------------


def test_class_is_named_once_on_a_channel():
    encoder = BatchEncoder()
    first = encoder.encode(RowBatch([Struct(1), Struct(2)]))
    second = encoder.encode(RowBatch([Struct(1), Struct(2)]))

    assert b"Struct" in first
    assert b"Struct" not in second


def test_class_whose_first_batch_could_not_be_encoded_is_named_later():
    encoder, decoder = BatchEncoder(), BatchDecoder()
    with pytest.raises(Exception, match="pickle"):
        encoder.encode(RowBatch([Struct(lambda: None)]))

    assert decoder.decode(encoder.encode(RowBatch([Struct(1)]))).values == [Struct(1)]


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x97", BatchEncoder().encode(RowBatch([1]))[:-1]])
def test_payload_that_no_encoder_made_is_a_protocol_error(payload):
    with pytest.raises(ProtocolError, match="batch does not decode"):
        BatchDecoder().decode(payload)


def test_batch_of_a_class_that_was_never_named_is_a_protocol_error():
    encoder = BatchEncoder()
    encoder.encode(RowBatch([Struct(1)]))

    with pytest.raises(ProtocolError, match="batch does not decode"):
        BatchDecoder().decode(encoder.encode(RowBatch([Struct(1)])))


def test_class_that_cannot_be_imported_at_the_receiver_is_named_in_the_error(monkeypatch):
    payload = BatchEncoder().encode(RowBatch([Struct(1)]))
    monkeypatch.delattr(record_classes, "Struct")

    with pytest.raises(ProtocolError, match="Struct"):
        BatchDecoder().decode(payload)
