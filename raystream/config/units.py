"""Durations and sizes as people write them, and back.

Durations are whole milliseconds, sizes whole bytes (1 kb = 1024 bytes, as in Flink).
A number without a unit is milliseconds or bytes.  Knows nothing of options.
"""

import re
from datetime import timedelta
from fractions import Fraction

DURATION_UNITS_MS = {
    "ms": 1,
    "s": 1_000,
    "sec": 1_000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
}
SIZE_UNITS_BYTES = {
    "b": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "m": 1 << 20,
    "mb": 1 << 20,
    "g": 1 << 30,
    "gb": 1 << 30,
    "t": 1 << 40,
    "tb": 1 << 40,
}
_PRINTED_DURATIONS = ("d", "h", "min", "s", "ms")
_PRINTED_SIZES = ("tb", "gb", "mb", "kb", "b")

_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([a-z]*)", re.ASCII | re.IGNORECASE)


def parse_duration_ms(raw: object) -> int:
    """Return a duration in whole milliseconds.

    Args:
        raw: text such as `200ms`, `30s`, `1.5min`, `1h`; a `timedelta`; or an int in milliseconds.

    Raises:
        ValueError: it is none of these, is negative, or is not a whole number of milliseconds.

    Example:
        >>> parse_duration_ms("1.5 min")
        90000
    """
    if isinstance(raw, timedelta):
        milliseconds = Fraction(raw // timedelta(microseconds=1), 1000)
    else:
        milliseconds = _quantity(raw, DURATION_UNITS_MS, "a duration such as 200ms, 30s, 5min or 1h")
    if milliseconds < 0 or milliseconds.denominator != 1:
        raise ValueError("a duration is a whole number of milliseconds, not below 0")
    return int(milliseconds)


def format_duration(duration_ms: int) -> str:
    """Return the shortest exact text of a duration, such as `90s`; parsing it gives the same number."""
    return _format(duration_ms, DURATION_UNITS_MS, _PRINTED_DURATIONS)


def parse_size_bytes(raw: object) -> int:
    """Return a size in whole bytes.

    Args:
        raw: text such as `64kb`, `32mb`, `1gb`, or an int in bytes.

    Raises:
        ValueError: it is neither, is negative, or is not a whole number of bytes.

    Example:
        >>> parse_size_bytes("20kb")
        20480
    """
    size = _quantity(raw, SIZE_UNITS_BYTES, "a size such as 64kb, 32mb or 1gb")
    if size < 0 or size.denominator != 1:
        raise ValueError("a size is a whole number of bytes, not below 0")
    return int(size)


def format_size(size_bytes: int) -> str:
    """Return the shortest exact text of a size, such as `20kb`; parsing it gives the same number."""
    return _format(size_bytes, SIZE_UNITS_BYTES, _PRINTED_SIZES)


def _quantity(raw: object, units: dict[str, int], wanted: str) -> Fraction:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return Fraction(raw)
    match = _QUANTITY.fullmatch(raw.strip()) if isinstance(raw, str) else None
    unit = match[2].lower() if match else ""
    if match is None or (unit and unit not in units):
        raise ValueError(f"expected {wanted}")
    return Fraction(match[1]) * units.get(unit, 1)


def _format(amount: int, units: dict[str, int], printed: tuple[str, ...]) -> str:
    if amount == 0:
        return "0"
    unit = next(unit for unit in printed if amount % units[unit] == 0)
    return f"{amount // units[unit]}{unit}"
