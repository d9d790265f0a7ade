"""Equal keys have one encoding and one hash, for ever; unequal keys never share an encoding."""

# ruff: noqa: DTZ001, DTZ901, RUF032
# Naive datetimes and Decimals with the exact value of a float are keys like others.

import collections
import contextlib
import datetime as dt
import decimal
import enum
import fractions
import itertools
import math
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import KeyTypeError, StateCorruptError
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

ADR = Path(__file__).parents[2] / "docs" / "adr" / "0001-key-hash-and-key-encoding.md"

# Part of the savepoint format: a line may be added, none may be changed.
GOLDEN = [
    ("a", "036100", 0xE6C632B61E964E1F),
    ("", "0300", 0x2D06800538D394C2),
    ("/index.html?q=1", "032f696e6465782e68746d6c3f713d3100", 0x146B59C30F479FDA),
    ("h\u00e9llo \U0001f600", "0368c3a96c6c6f20f09f988000", 0x63B192BCD6E80FB0),
    ("a\x00b\x01c", "036101016201026300", 0x6879EAA99BFA4CD0),
    ("\ud800", "03eda08000", 0xDAAB8382539269D0),
    (b"a", "026100", 0xE6C632B61E964E1F),
    (b"", "0200", 0x2D06800538D394C2),
    (b"\x00\x01\x02\xff", "020101010202ff00", 0xCA78FB9C857B2B5F),
    (0, "19", 0xE220A8397B1DCDAF),
    (1, "1a01", 0x910A2DEC89025CC1),
    (-1, "18fe", 0xE4D971771B652C20),
    (255, "1aff", 0x338C507146283FB4),
    (256, "1b0100", 0x6602D201E324653F),
    (-256, "17feff", 0xC375CF7ABD03AEE6),
    (2**63 - 1, "217fffffffffffffff", 0x2A67D7552E039EA7),
    (-(2**63), "117fffffffffffffff", 0x481EC0A212A9F3DB),
    (2**64 - 1, "21ffffffffffffffff", 0xE4D971771B652C20),
    (2**64, "2200000009010000000000000000", 0x85A729223440DDEA),
    (-(2**64), "10fffffff6feffffffffffffffff", 0xADC286C4983CC60C),
    (10**30, "220000000d0c9f2c9cd04674edea40000000", 0xF6411285C68857A1),
    (0.5, "30bfe0000000000000", 0x64421ABC1D7565DA),
    (-1.5, "304007ffffffffffff", 0x3B216F59A764B8E0),
    (1e-300, "3081a56e1fc2f8f359", 0xB78265100906E1B0),
    (float("inf"), "30fff0000000000000", 0x1B3EEB54183E2C9C),
    (float("-inf"), "30000fffffffffffff", 0x93F94761B5CC61F5),
    (Decimal("0.1"), "3118fe1a01", 0x5F8CB698A6B8A425),
    (Decimal("-12.34"), "3118fd17fb2d", 0xA4BA1132522BA6C0),
    (datetime(1970, 1, 1), "4000dcbffeff2bc000", 0x7A81F57BB7462D57),
    (datetime(2024, 2, 29, 12, 30, 0, 1), "4000e2d2836a258201", 0x557FA674772BD76A),
    (datetime(1970, 1, 1, tzinfo=UTC), "4100dcbffeff2bc000", 0x0A6845952D9D15F4),
    (date(1970, 1, 1), "42000af93b", 0x641AC35CCB025B55),
    (UUID("12345678-1234-5678-1234-567812345678"), "5012345678123456781234567812345678", 0x5747136F2EFCDC02),
    ((), "6000", 0xDFCE7D3AB64B81AE),
    (("a", 1), "600361001a0100", 0x0F145A8AA5386F41),
    (("a", None), "600361000100", 0x9F9AC9C5FE5AAFE4),
    ((("a",), b"b", -0.5), "60600361000002620030401fffffffffffff00", 0x0E84A5ED41635011),
]


class Size(enum.IntEnum):
    ZERO = 0
    ONE = 1


class Colour(enum.StrEnum):
    RED = "red"


class OldColour(str, enum.Enum):  # noqa: UP042  # what programs had before StrEnum
    RED = "red"


class Suit(enum.Enum):
    HEARTS = 1


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024  # types do not matter here

ZONES = [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-3)), ZoneInfo("Asia/Tokyo")]
DAYS = [date(1970, 1, 1), date(2024, 2, 29), date(2024, 3, 1)]
WHOLE = [*range(-3, 4), 255, 256, 2**53 - 1, 2**53, 2**53 + 1, 2**63, 2**64, 10**22, 10**23, -(10**300)]


def in_every_numeric_type(value):
    """All numbers that Python calls equal to this int, of the types that keys may have."""
    candidates = [value, float(value), Decimal(value), Decimal(value).scaleb(2).scaleb(-2)]
    candidates += [bool(value), *Size]
    return [number for number in candidates if number == value]


whole = st.sampled_from(WHOLE).map(in_every_numeric_type).flatmap(st.sampled_from)
broken = st.sampled_from(
    [0.5, Decimal("0.5"), Decimal("0.50"), 0.1, Decimal("0.1"), Decimal("0.10"), Decimal(0.1)]
)
extreme = st.sampled_from([-0.0, Decimal("-0"), 1e-320, Decimal("1E-320"), Decimal("1E-999999")])
infinite = st.sampled_from([math.inf, Decimal("Infinity"), -math.inf])
huge = st.sampled_from(
    [1e300, Decimal("1E+300"), 10**300, int(1e300), Decimal(1e300), Decimal("1E+20"), 1e20]
)
numbers = (
    whole
    | broken
    | extreme
    | infinite
    | huge
    | st.integers()
    | st.floats(allow_nan=False)
    | st.decimals(allow_nan=False, places=3)
    | st.floats(allow_nan=False, allow_infinity=False).map(Decimal)
)
texts = st.text(st.characters(), max_size=4) | st.sampled_from(
    [*Colour, *OldColour, "red", "\0", "\1", "\0\1"]
)
binaries = st.binary(max_size=4) | st.sampled_from([b"red", b"\0", b"\1", b"\1\1", b"\0\0"])
moments = st.builds(
    lambda day, hour, zone, micros: datetime(day.year, day.month, day.day, hour, 0, 0, micros, zone),
    st.sampled_from(DAYS),
    st.sampled_from([0, 3, 9]),
    st.sampled_from([None, *ZONES]),
    st.sampled_from([0, 1]),
)
in_another_zone = st.builds(
    lambda moment, zone: moment.astimezone(zone) if moment.tzinfo else moment, moments, st.sampled_from(ZONES)
)
days = st.sampled_from(DAYS) | st.dates()
uuids = st.sampled_from([UUID(int=0), UUID(int=1)]) | st.uuids()
scalars = numbers | texts | binaries | moments | in_another_zone | days | uuids
keys = st.recursive(
    scalars,
    lambda parts: (
        st.lists(parts | st.none(), max_size=3).map(tuple) | st.builds(Point, parts | st.none(), parts)
    ),
    max_leaves=5,
)


def exact(key):
    """Tell `1`, `1.0` and `True` apart, at every level."""
    return (type(key), tuple(map(exact, key)) if isinstance(key, tuple) else repr(key))


# ---- the format --------------------------------------------------------------


@pytest.mark.parametrize(("key", "encoded", "digest"), GOLDEN, ids=[ascii(key) for key, *_ in GOLDEN])
def test_encoding_and_hash_never_change(key, encoded, digest):
    assert encode_key(key).hex() == encoded
    assert stable_hash(key) == digest
    assert exact(decode_key(bytes.fromhex(encoded))) == exact(key)


def test_the_golden_vectors_are_documented():
    text = ADR.read_text(encoding="utf-8")

    missing = [
        row
        for key, encoded, digest in GOLDEN
        if (row := f"`{key!a}` | `{encoded}` | `{digest:016x}`") not in text
    ]
    assert not missing


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
    ids=repr,
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


# ---- bytes -------------------------------------------------------------------


@given(st.lists(keys, min_size=2, max_size=8))
def test_no_encoding_begins_another_one(pool):
    encoded = {encode_key(key) for key in pool}
    for a, b in itertools.permutations(encoded, 2):
        assert not a.startswith(b)


@given(st.lists(keys, max_size=4), st.lists(keys, max_size=4))
def test_parts_of_a_tuple_are_scanned_by_prefix(leading, other):
    prefix = encode_key(tuple(leading))[:-1]  # Without the byte that ends the tuple.

    assert encode_key(tuple(leading + other)).startswith(prefix)
    assert encode_key(tuple(other)).startswith(prefix) == (other[: len(leading)] == leading)


@pytest.mark.parametrize(
    "values", [texts.map(str.__str__), binaries, numbers.filter(lambda n: type(n) is int), days, uuids]
)
def test_encodings_of_one_type_sort_as_the_keys_do(values):
    @given(values, values)
    def check(a, b):
        assert (encode_key(a) < encode_key(b)) == (a < b)

    check()


@given(st.floats(allow_nan=False).filter(lambda x: x != x // 1), st.floats(allow_nan=False))
def test_encodings_of_fractions_sort_as_the_keys_do(a, b):
    if isinstance(canonical_key(b), float):
        assert (encode_key(a) < encode_key(b)) == (a < b)


@given(keys)
def test_an_encoding_that_is_cut_off_or_continued_is_found_damaged(key):
    encoded = encode_key(key)
    for damaged in [*(encoded[:end] for end in range(len(encoded))), encoded + b"\x19"]:
        with pytest.raises(StateCorruptError, match="encoded key is damaged"):
            decode_key(damaged)


@given(st.binary(max_size=24) | st.binary(max_size=24).map(lambda data: b"\x31" + data))
def test_any_bytes_are_a_key_or_found_damaged(data):
    with contextlib.suppress(StateCorruptError, KeyTypeError):
        canonical_key(decode_key(data))


def test_a_tag_that_was_never_given_out_is_damage():
    given_out = {0, 1, 2, 3, *range(0x10, 0x23), 0x30, 0x31, 0x40, 0x41, 0x42, 0x50, 0x60}
    for tag in set(range(256)) - given_out:
        with pytest.raises(StateCorruptError):
            decode_key(bytes([tag, 0, 0, 0, 0]))


def test_a_damaged_length_allocates_nothing():
    with pytest.raises(StateCorruptError):
        decode_key(b"\x10\x00\x00\x00\x00")  # An int of four gigabytes.


def test_deeply_nested_bytes_do_not_exhaust_the_stack():
    with pytest.raises(StateCorruptError):
        decode_key(b"\x60" * 100_000)


def test_none_alone_is_no_key():
    with pytest.raises(StateCorruptError):
        decode_key(b"\x01")


# ---- hash --------------------------------------------------------------------


@given(texts)
def test_text_is_hashed_by_its_utf8_bytes(text):
    data = str.__str__(text).encode("utf-8", "surrogatepass")

    assert stable_hash(text) == xxhash.xxh3_64_intdigest(data) == stable_hash(data)


@given(keys)
def test_hashes_have_64_bits(key):
    assert 0 <= stable_hash(key) < 2**64


def hash_of_int_column(column):
    """SplitMix64 over a whole column, in arithmetic that wraps: the formula of ADR 0001."""
    z = pc.add(column.view(pa.uint64()), pa.scalar(0x9E3779B97F4A7C15, pa.uint64()))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = pc.bit_wise_xor(z, pc.shift_right(z, pa.scalar(shift, pa.uint64())))
        z = pc.multiply(z, pa.scalar(factor, pa.uint64()))
    return pc.bit_wise_xor(z, pc.shift_right(z, pa.scalar(31, pa.uint64())))


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_a_column_of_int64_has_the_hashes_of_its_rows(values):
    assert hash_of_int_column(pa.array(values, pa.int64())).to_pylist() == list(map(stable_hash, values))


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_a_column_of_uint64_has_the_hashes_of_its_rows(values):
    assert hash_of_int_column(pa.array(values, pa.uint64())).to_pylist() == list(map(stable_hash, values))


@pytest.mark.parametrize(
    "keys", [range(100_000), [f"/page/{n}" for n in range(100_000)], range(0, 12_800_000, 128)]
)
def test_keys_spread_evenly_over_key_groups(keys):
    counts = collections.Counter(key_groups(list(keys), KeyGroupCache(128))[1])

    assert len(counts) == 128
    # Each count is binomial with mean 781 and deviation 28: six deviations.
    assert max(abs(count - 100_000 / 128) for count in counts.values()) < 168


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
    np = pytest.importorskip("numpy", reason="numpy is not installed")
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
