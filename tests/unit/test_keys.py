"""Equal keys become one key, unequal keys stay apart, and what cannot be a key is refused."""

# ruff: noqa: DTZ001, DTZ901, RUF032
# Naive datetimes and Decimals with the exact value of a float are keys like others.

import datetime as dt
import decimal
import fractions
import itertools
import math
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import KeyTypeError
from raystream.keys import (
    CACHED_KEY_BYTES_MAX,
    DECIMAL_EXPONENT_MAX,
    TUPLE_DEPTH_MAX,
    KeyGroupCache,
    canonical_key,
    decode_key,
    encode_key,
    key_groups,
    stable_hash,
)
from tests.unit.key_samples import (
    WHOLE,
    ZONES,
    Colour,
    OldColour,
    Point,
    Size,
    Suit,
    exact,
    in_every_numeric_type,
    keys,
    numbers,
    texts,
)

# ---- equality ----------------------------------------------------------------


@given(st.lists(keys, min_size=2, max_size=12))
def test_encodings_are_equal_exactly_where_keys_are(pool):
    for a, b in itertools.combinations(pool, 2):
        assert (encode_key(a) == encode_key(b)) == (a == b), (a, b)


@given(st.lists(numbers, min_size=2, max_size=20))
def test_numbers_of_all_types_are_equal_by_value(pool):
    for a, b in itertools.combinations(pool, 2):
        assert (encode_key(a) == encode_key(b)) == (a == b), (a, b)
        assert a != b or stable_hash(a) == stable_hash(b)


@pytest.mark.parametrize("value", WHOLE)
def test_whole_numbers_of_all_types_become_one_int(value):
    assert {exact(canonical_key(number)) for number in in_every_numeric_type(value)} == {exact(value)}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (True, 1),
        (False, 0),
        (-0.0, 0),
        (Decimal("-0.000"), 0),
        (Decimal("0E+999999"), 0),
        (1e20, 10**20),
        (Decimal("0.50"), 0.5),
        (Decimal("0.10"), Decimal("0.1")),
        (Decimal(0.1), 0.1),
        (Decimal("-Infinity"), -math.inf),
        (Size.ONE, 1),
        (Colour.RED, "red"),
        (OldColour.RED, "red"),
        (Point(True, Point(2.0, None)), (1, (2, None))),
        (datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), datetime(2024, 1, 1, tzinfo=UTC)),
        (datetime(2024, 1, 1, fold=1), datetime(2024, 1, 1)),
        (UUID(int=7, is_safe=uuid.SafeUUID.safe), UUID(int=7)),
    ],
    ids=repr,
)
def test_canonical_form_is_the_plain_built_in_one(key, expected):
    assert exact(canonical_key(key)) == exact(expected)


@given(keys)
def test_canonical_form_equals_its_key_and_survives_encoding(key):
    canonical = canonical_key(key)

    assert canonical == key
    assert exact(canonical_key(canonical)) == exact(canonical)
    assert exact(decode_key(encode_key(key))) == exact(canonical)
    assert hash(canonical) == hash(key), "a dict would not find it"


def test_subclasses_that_show_something_else_are_taken_by_their_value():
    class Loud(str):  # noqa: SLOT000
        def __str__(self):
            return self.upper()

        def encode(self, *args):
            return b"other"

    class Bytes(bytes):
        def __bytes__(self):
            return b"other"

    assert exact(canonical_key(Loud("quiet"))) == exact("quiet")
    assert exact(canonical_key(Bytes(b"quiet"))) == exact(b"quiet")


def test_decimals_do_not_depend_on_the_decimal_context():
    many_digits = Decimal("0." + "123456789" * 20)
    with decimal.localcontext(prec=3, traps=[decimal.Inexact, decimal.Rounded, decimal.FloatOperation]):
        assert decode_key(encode_key(many_digits)) == many_digits
        assert canonical_key(Decimal("123450E-1")) == 12345
        assert exact(canonical_key(Decimal("0.25"))) == exact(0.25)


def test_long_decimals_and_ints_are_not_stopped_by_the_limit_on_int_to_str():
    assert decode_key(encode_key(10**6000)) == 10**6000
    assert encode_key(Decimal(10**6000)) == encode_key(10**6000)
    long = Decimal((1, (7,) * 6000, -6000))
    assert decode_key(encode_key(long)) == long


# ---- time --------------------------------------------------------------------


def test_a_date_a_naive_and_an_aware_datetime_of_one_moment_are_three_keys():
    keys = [date(2024, 1, 1), datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)]

    assert len({encode_key(key) for key in keys}) == 3


def test_the_two_passes_of_a_repeated_hour_are_two_instants():
    """Python calls them equal, and neither equal to its own instant in UTC; keys go by the instant."""
    berlin = ZoneInfo("Europe/Berlin")
    first, second = (datetime(2024, 10, 27, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1))
    assert first == second
    assert first != datetime(2024, 10, 27, 0, 30, tzinfo=UTC)

    assert canonical_key(first) == datetime(2024, 10, 27, 0, 30, tzinfo=UTC)
    assert canonical_key(second) == datetime(2024, 10, 27, 1, 30, tzinfo=UTC)
    cache = KeyGroupCache(32768)
    assert key_groups([first], cache)[1] != key_groups([second], cache)[1]


def test_a_zone_that_knows_no_offset_leaves_a_datetime_naive():
    class Nowhere(dt.tzinfo):
        def utcoffset(self, when):
            return None

    assert exact(canonical_key(datetime(2024, 1, 1, tzinfo=Nowhere()))) == exact(datetime(2024, 1, 1))


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
def test_the_first_and_last_moment_are_keys(moment):
    assert decode_key(encode_key(moment)) == moment
    assert decode_key(encode_key(moment.replace(tzinfo=UTC))) == moment.replace(tzinfo=UTC)


def test_a_timestamp_with_nanoseconds_is_refused_rather_than_cut():
    class Timestamp(datetime):
        nanosecond = 1

    with pytest.raises(KeyTypeError, match="whole number of microseconds"):
        canonical_key(Timestamp(2024, 1, 1))


# ---- what is refused ---------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "message", "hint"),
    [
        ([1], "key of type list ", "tuple"),
        ({1}, "key of type set ", "sorted"),
        (frozenset({1}), "key of type frozenset ", "sorted"),
        ({"a": 1}, "key of type dict ", "field"),
        (None, "key of type NoneType ", "inside a tuple"),
        (math.nan, "key of type float is NaN", "None inside a tuple"),
        (Decimal("NaN"), r"key of type decimal\.Decimal is NaN", "None inside a tuple"),
        (Decimal("sNaN"), r"key of type decimal\.Decimal is NaN", "None inside a tuple"),
        (bytearray(b"a"), "key of type bytearray ", "bytes"),
        (Suit.HEARTS, "Suit has no stable encoding", ".value"),
        (1j, "key of type complex ", "key types are"),
        (timedelta(1), "timedelta ", "microseconds"),
        (fractions.Fraction(1, 2), r"key of type fractions\.Fraction ", "key types are"),
        (object(), "key of type object ", "field that identifies it"),
        (("a", [1]), "key of type list ", "tuple"),
        (("a", ("b", math.nan)), "is NaN", "None"),
        (datetime.min.replace(tzinfo=ZONES[1]), "outside the years", "naive"),
        (Decimal(f"1E+{DECIMAL_EXPONENT_MAX + 1}"), r"above 10\*\*6145", "int"),
        (Decimal("1E+999999999999999999"), "above", "int"),
    ],
)
def test_what_has_no_stable_encoding_is_refused_by_type_with_advice(key, message, hint):
    for function in (canonical_key, encode_key, stable_hash, lambda key: key_groups([key], KeyGroupCache(1))):
        with pytest.raises(KeyTypeError, match=message) as caught:
            function(key)
        assert hint in caught.value.hint


def nested(levels):
    key = "a"
    for _ in range(levels):
        key = (key,)
    return key


def test_tuples_are_nested_up_to_the_limit():
    deepest = nested(TUPLE_DEPTH_MAX)
    assert decode_key(encode_key(deepest)) == deepest

    with pytest.raises(KeyTypeError, match="nested deeper than 32"):
        encode_key(nested(TUPLE_DEPTH_MAX + 1))


# ---- batches -----------------------------------------------------------------


@given(st.lists(keys | texts | st.integers(), max_size=12), st.integers(1, 32768))
def test_a_batch_has_canonical_keys_and_the_groups_of_their_hashes(batch, max_parallelism):
    before = list(map(exact, batch))
    canonical, groups = key_groups(batch, KeyGroupCache(max_parallelism, entries_max=4))

    assert list(map(exact, canonical)) == [exact(canonical_key(key)) for key in batch]
    assert groups == [stable_hash(key) % max_parallelism for key in batch]
    assert list(map(exact, batch)) == before


@pytest.mark.parametrize(
    "batch", [[], ["a", "b", "a"], [1, 2], [b"a"], ["a", 1, b"a"], [("a", 1), (2, b"b")]]
)
def test_a_batch_of_canonical_keys_is_returned_as_it_is(batch):
    assert key_groups(batch, KeyGroupCache(128))[0] is batch


def test_equal_keys_of_different_types_in_one_batch_become_one_key():
    cache = KeyGroupCache(128)

    for batch in ([1], [True, 1.0, Decimal(1), Size.ONE], [(True, "a"), (1.0, "a")]):
        canonical, groups = key_groups(batch, cache)
        assert {exact(key) for key in canonical} in ({exact(1)}, {exact((1, "a"))})
        assert len(set(groups)) == 1


def test_the_cache_is_bounded_and_right_after_it_was_full():
    cache = KeyGroupCache(128, entries_max=10)
    for n in [*range(1000), *range(1000)]:
        assert cache[n] == stable_hash(n) % 128
        assert len(cache) <= 10


def test_long_keys_are_not_held_by_the_cache():
    cache = KeyGroupCache(128)
    longer = CACHED_KEY_BYTES_MAX + 1
    long_keys = ["a" * longer, b"a" * longer, 1 << 8 * longer, ("a" * longer, None)]

    assert key_groups(long_keys, cache)[1] == [stable_hash(key) % 128 for key in long_keys]
    assert not cache


# ---- numpy -------------------------------------------------------------------


def test_numpy_scalars_are_the_numbers_and_strings_that_they_show():
    pairs = [
        (np.int64(-7), -7),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.int8(1), 1),
        (np.bool_(True), 1),
        (np.float64(2.0), 2),
        (np.float64(0.1), 0.1),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float16(0.5), 0.5),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
        ((np.int32(1), np.str_("b")), (1, "b")),
    ]
    for scalar, expected in pairs:
        assert exact(canonical_key(scalar)) == exact(expected)

    for other in (
        np.float32("nan"),
        np.complex64(1),
        np.datetime64("2024-01-01"),
        np.timedelta64(5, "ns"),
        np.array([1]),
    ):
        with pytest.raises(KeyTypeError):
            canonical_key(other)
