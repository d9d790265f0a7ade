"""Durations and sizes are read as people write them, and printed so that they can be read back."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.config.units import format_duration, format_size, parse_duration_ms, parse_size_bytes

AMOUNTS = st.integers(min_value=0, max_value=2**53)


@pytest.mark.parametrize(
    ("written", "expected_ms"),
    [
        ("200ms", 200),
        ("30s", 30_000),
        ("5min", 300_000),
        ("1h", 3_600_000),
        ("2d", 172_800_000),
        ("10 min", 600_000),
        (" 3 S ", 3_000),
        ("1.5s", 1_500),
        ("0", 0),
        ("60000", 60_000),
        (250, 250),
        (0, 0),
        (timedelta(seconds=1, milliseconds=5), 1_005),
    ],
)
def test_duration_is_read_in_milliseconds(written, expected_ms):
    assert parse_duration_ms(written) == expected_ms


@pytest.mark.parametrize(
    ("written", "expected_bytes"),
    [("64kb", 65_536), ("32mb", 32 << 20), ("1gb", 1 << 30), ("1.5 KB", 1_536), ("7b", 7), ("20480", 20_480)],
)
def test_size_is_read_in_bytes(written, expected_bytes):
    assert parse_size_bytes(written) == expected_bytes


@pytest.mark.parametrize(
    "written",
    ["", "s", "1x", "1 week", "-1s", "1s2", "1e3s", "٣s", "0.5ms", -1, 1.5, True, None, [], timedelta(-1)],
)
def test_anything_else_is_no_duration(written):
    with pytest.raises(ValueError, match="duration"):
        parse_duration_ms(written)


def test_duration_below_a_millisecond_is_refused_rather_than_rounded():
    with pytest.raises(ValueError, match="whole number of milliseconds"):
        parse_duration_ms(timedelta(microseconds=1_500))


@pytest.mark.parametrize("written", ["", "kb", "1 s", "-1kb", "0.5b", -1, 1.5, False, None])
def test_anything_else_is_no_size(written):
    with pytest.raises(ValueError, match="size"):
        parse_size_bytes(written)


@pytest.mark.parametrize(
    ("duration_ms", "text"), [(0, "0"), (10, "10ms"), (90_000, "90s"), (60_000, "1min"), (86_400_000, "1d")]
)
def test_duration_is_printed_in_its_largest_exact_unit(duration_ms, text):
    assert format_duration(duration_ms) == text


@given(AMOUNTS)
def test_printed_durations_and_sizes_read_back_as_the_same_number(amount):
    assert parse_duration_ms(format_duration(amount)) == amount
    assert parse_size_bytes(format_size(amount)) == amount
