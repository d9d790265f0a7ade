"""Bytes and hashes of keys never change, no key's bytes begin another one's, and damage is found."""

# ruff: noqa: DTZ001
# Naive datetimes are keys like others.

import collections
import contextlib
import itertools
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import KeyTypeError, StateCorruptError
from raystream.keys import (
    KeyGroupCache,
    canonical_key,
    decode_key,
    encode_key,
    key_groups,
    stable_hash,
)
from tests.unit.key_samples import (
    binaries,
    days,
    exact,
    ints,
    keys,
    texts,
    uuids,
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


@pytest.mark.parametrize("values", [texts.map(str.__str__), binaries, ints, days, uuids])
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
