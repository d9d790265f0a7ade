"""Keys of every type, many of them equal to each other across types."""

# ruff: noqa: RUF032
# Decimals with the exact value of a float are keys like others.

import collections
import enum
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st


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
ints = st.sampled_from(WHOLE) | st.integers() | st.integers(-(2**80), 2**80)
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
