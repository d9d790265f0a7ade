"""Keys: their canonical form, their bytes, their hash and their key group.

Python calls keys of different types equal (`True == 1 == 1.0 == Decimal(1)`), so a key is
first brought into one canonical form, from which everything stored or hashed is derived:

    key --canonical_key--> canonical key --encode--> bytes     a == b  iff  the bytes are equal
                                         --hash----> 64 bits   picks the key group

Both are part of the savepoint format and never change (ADR 0001: reasons, format, golden
vectors).  Encoded keys are prefix-free, and the parts of a tuple stand one after the other,
so a store can append to a key, or to its leading parts, and scan by prefix.  Nothing here
uses the built-in `hash()` for placement: it is salted per process.
"""

import struct
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from itertools import chain
from math import isfinite, isnan
from typing import Any, TypeAlias
from uuid import UUID

from xxhash import xxh3_64_intdigest

from raystream.errors import KeyTypeError, StateCorruptError

Key: TypeAlias = str | bytes | int | float | Decimal | date | UUID | tuple["Key | None", ...]
"""A canonical key: exact built-in types, aware datetimes in UTC (`datetime` is a `date`)."""

TUPLE_DEPTH_MAX = 32
"""How deep the tuples of a key may be nested."""

DECIMAL_EXPONENT_MAX = 6_144
"""Largest adjusted exponent of a Decimal key (whole ones become ints), as in IEEE 754 decimal128."""

CACHED_KEY_BYTES_MAX = 256
"""A `KeyGroupCache` holds no key that is longer."""

CACHED_KEYS_DEFAULT_MAX = 65_536
"""How many keys a `KeyGroupCache` holds unless told otherwise."""

_INT_BYTES_SHORT_MAX = 8
_SIGN_BIT, _MASK_32, _MASK_64 = 1 << 63, (1 << 32) - 1, (1 << 64) - 1
_MICROSECOND = timedelta(microseconds=1)
_YEAR_ONE = datetime(1, 1, 1)  # noqa: DTZ001  # Of naive datetimes, and of UTC ones without their zone.
_CANONICAL_AS_THEY_ARE = frozenset({str, bytes, int})
_CANONICAL_PARTS = _CANONICAL_AS_THEY_ARE | {type(None)}  # Of a tuple.

_KEY_TYPES = "str, bytes, int, bool, float, Decimal, date, datetime, UUID, or a tuple of these"
_ADVICE: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (list, "use tuple(...) of it"),
    ((set, frozenset), "use tuple(sorted(...)) of it"),
    (dict, "use tuple(sorted(d.items())) of it, or the one field that matters"),
    ((bytearray, memoryview), "use bytes(...) of it"),
    (type(None), "give such records a key of their own or filter them out; None may stand inside a tuple"),
    (timedelta, "use its whole microseconds: delta // timedelta(microseconds=1)"),
    (Enum, "use the member's .value or .name"),
    (object, f"use the field that identifies it, or a tuple of such fields; key types are {_KEY_TYPES}"),
)
_NAN = ("is NaN, which does not equal itself", "replace it, for instance by None inside a tuple")


class _Tag:
    """First byte of every encoded key or part; a number is never given another meaning."""

    END, NONE, BYTES, STR = 0x00, 0x01, 0x02, 0x03
    INT_NEGATIVE_LONG, INT_ZERO, INT_POSITIVE_LONG = 0x10, 0x19, 0x22
    FLOAT, DECIMAL = 0x30, 0x31
    DATETIME, DATETIME_UTC, DATE = 0x40, 0x41, 0x42
    UUID, TUPLE = 0x50, 0x60


# ---- canonical form ----------------------------------------------------------


def canonical_key(key: object) -> Key:
    """Return the one key that stands for all keys equal to this one.

    Whole numbers of any type become int, other numbers float if a float has exactly their
    value, else a Decimal without trailing zeros; aware datetimes move to UTC; subclasses
    (enum members, named tuples, numpy scalars) become the built-in type they extend.

    Raises:
        KeyTypeError: the key, or a part of it, has no stable encoding.

    Example:
        >>> canonical_key((True, 2.0, Decimal("0.50"), None))
        (1, 2, 0.5, None)
    """
    plain = type(key) is tuple and _CANONICAL_PARTS.issuperset(map(type, key))
    return key if plain else _canonical(key, 0)  # type: ignore[return-value]  # one of the types in the set


def _canonical(key: object, depth: int) -> Key:
    if type(key) in _CANONICAL_AS_THEY_ARE:
        return key  # type: ignore[return-value]  # one of the types in the set
    if isinstance(key, tuple):
        return _canonical_tuple(key, depth)
    for base, convert in _CONVERSIONS:
        if isinstance(key, base):
            return convert(key)
    # A numpy scalar can only exist where numpy was imported, so this never imports it.
    numpy = sys.modules.get("numpy")
    if numpy and isinstance(key, (numpy.bool_, numpy.number)) and not isinstance(key, numpy.timedelta64):
        plain = key.item()
        if type(plain) in (bool, int, float):  # A longdouble has no built-in counterpart.
            return _canonical(plain, depth)
    advice = next(text for base, text in _ADVICE if isinstance(key, base))
    raise _refused(key, "has no stable encoding", advice)


def _refused(key: object, what: str, hint: str) -> KeyTypeError:
    kind = type(key)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return KeyTypeError(f"key of type {module}{kind.__qualname__} {what}", hint=hint)


def _canonical_tuple(key: tuple[Any, ...], depth: int) -> Key:
    if depth == TUPLE_DEPTH_MAX:
        raise _refused(key, f"is nested deeper than {TUPLE_DEPTH_MAX}", "use a flat tuple")
    parts = tuple.__getitem__(key, slice(None))  # `key` itself unless it is of a subclass.
    return tuple([None if part is None else _canonical(part, depth + 1) for part in parts])


def _canonical_float(key: float) -> Key:
    value = float.__float__(key)
    if isnan(value):
        raise _refused(key, *_NAN)
    return int(value) if isfinite(value) and value.is_integer() else value


def _canonical_decimal(key: Decimal) -> Key:
    # Only operations that neither round to nor signal in the caller's decimal context.
    if key.is_nan():
        raise _refused(key, *_NAN)
    if key.is_infinite():
        return float(key)
    sign, digits, exponent = key.as_tuple()
    assert isinstance(exponent, int)
    kept = len(digits)
    while kept > 1 and digits[kept - 1] == 0:
        kept -= 1
    if digits[:kept] == (0,):
        return 0
    exponent += len(digits) - kept
    if kept + exponent - 1 > DECIMAL_EXPONENT_MAX:
        raise _refused(key, f"is above 10**{DECIMAL_EXPONENT_MAX + 1}", "use an int, or a str of it")
    exact = Decimal((sign, digits[:kept], exponent))
    if exponent >= 0:
        return int(exact)
    nearest = float(exact)
    return nearest if Decimal.from_float(nearest) == exact else exact  # noqa: FURB164  # no signal


def _canonical_datetime(key: datetime) -> Key:
    if key != key or getattr(key, "nanosecond", None):  # noqa: PLR0124  # pandas: NaT, Timestamp
        raise _refused(key, "is not a whole number of microseconds", "round it, or use its integer value")
    fields = (key.year, key.month, key.day, key.hour, key.minute, key.second, key.microsecond)
    local = datetime(*fields)  # noqa: DTZ001  # Naive, and with fold=0: equality ignores it.
    offset = key.utcoffset()  # Here fold counts: the two passes of an hour are two instants.
    try:
        return local if offset is None else (local - offset).replace(tzinfo=UTC)
    except OverflowError as error:
        hint = "where it means 'no limit', use a naive datetime, or None inside a tuple"
        raise _refused(key, "is outside the years 1 to 9999 in UTC", hint) from error


# In this order: a bool is an int, a datetime is a date.
_CONVERSIONS: tuple[tuple[type, Callable[[Any], Key]], ...] = (
    (str, str.__str__),
    (bytes, lambda key: bytes.__getitem__(key, slice(None))),
    (int, int.__index__),
    (float, _canonical_float),
    (Decimal, _canonical_decimal),
    (datetime, _canonical_datetime),
    (date, lambda key: date(key.year, key.month, key.day)),
    (UUID, lambda key: UUID(int=key.int)),
)


# ---- encoding ----------------------------------------------------------------


def encode_key(key: object) -> bytes:
    """Return the bytes of a key; they are equal for equal keys and only for them.

    Raises:
        KeyTypeError: as in `canonical_key`.

    Example:
        >>> encode_key(("a", 1)).hex(" ")
        '60 03 61 00 1a 01 00'
    """
    return encode_canonical(canonical_key(key))


def encode_canonical(key: Key | None) -> bytes:
    """Return the bytes of a canonical key, or of None in a tuple."""
    match key:
        case str():
            return b"%c%b\0" % (_Tag.STR, _escape(_utf8(key)))
        case int():
            return _encode_int(key)
        case tuple():
            return b"%c%b\0" % (_Tag.TUPLE, b"".join(map(encode_canonical, key)))
        case bytes():
            return b"%c%b\0" % (_Tag.BYTES, _escape(key))
        case None:
            return b"%c" % _Tag.NONE
        case float():
            bits = int.from_bytes(struct.pack(">d", key))
            return struct.pack(">BQ", _Tag.FLOAT, bits ^ (_MASK_64 if bits & _SIGN_BIT else _SIGN_BIT))
        case Decimal():
            sign, digits, exponent = key.as_tuple()
            coefficient = int(Decimal((sign, digits, 0)))
            return b"%c%b%b" % (_Tag.DECIMAL, _encode_int(int(exponent)), _encode_int(coefficient))
        case datetime():
            tag = _Tag.DATETIME if key.tzinfo is None else _Tag.DATETIME_UTC
            return struct.pack(">BQ", tag, (key.replace(tzinfo=None) - _YEAR_ONE) // _MICROSECOND)
        case date():
            return struct.pack(">BI", _Tag.DATE, key.toordinal())
        case UUID():
            return b"%c%b" % (_Tag.UUID, key.bytes)


def _utf8(text: str) -> bytes:
    # Lone surrogates are legal in a str (names of files have them) and keep their identity.
    return text.encode("utf-8", "surrogatepass")


def _escape(data: bytes) -> bytes:
    # Byte 0 ends a string; 0 and 1 become two bytes each, which keeps the order of strings.
    return data.replace(b"\1", b"\1\2").replace(b"\0", b"\1\1")


def _encode_int(value: int) -> bytes:
    # The size stands before the magnitude, and both are inverted in negative numbers, so that
    # bytes sort as the numbers do.
    size = (value.bit_length() + 7) // 8
    negative = value < 0
    digits = (value + (1 << 8 * size) - 1 if negative else value).to_bytes(size)
    if size <= _INT_BYTES_SHORT_MAX:
        return b"%c%b" % (_Tag.INT_ZERO - size if negative else _Tag.INT_ZERO + size, digits)
    tag, length = (_Tag.INT_NEGATIVE_LONG, _MASK_32 - size) if negative else (_Tag.INT_POSITIVE_LONG, size)
    return struct.pack(">BI", tag, length) + digits


# ---- decoding ----------------------------------------------------------------


def decode_key(data: bytes) -> Key:
    """Return the canonical key that `encode_key` made these bytes of.

    Raises:
        StateCorruptError: the bytes are not one encoded key.
    """
    try:
        key, end = _decode(data, 0, 0)
        if key is None or end != len(data):
            raise ValueError("not exactly one key")
    except (IndexError, ValueError, ArithmeticError, struct.error) as error:
        raise StateCorruptError("encoded key is damaged", start=data[:64].hex()) from error
    return key


def _decode(data: bytes, at: int, depth: int) -> tuple[Key | None, int]:
    # Returns what starts at `at`, and where it ends; the errors that `decode_key` names mean damage.
    tag, at = data[at], at + 1
    match tag:
        case _Tag.STR:
            end = data.index(0, at)
            return _unescape(data[at:end]).decode("utf-8", "surrogatepass"), end + 1
        case _Tag.TUPLE:
            return _decode_tuple(data, at, depth)
        case _Tag.BYTES:
            end = data.index(0, at)
            return _unescape(data[at:end]), end + 1
        case _Tag.NONE:
            return None, at
        case _Tag.FLOAT:
            (bits,) = struct.unpack_from(">Q", data, at)
            bits ^= _SIGN_BIT if bits & _SIGN_BIT else _MASK_64
            return struct.unpack(">d", bits.to_bytes(8))[0], at + 8
        case _Tag.DECIMAL:
            exponent, at = _decode_int(data, at)
            coefficient, at = _decode_int(data, at)
            sign, digits, _ = Decimal(coefficient).as_tuple()
            return Decimal((sign, digits, exponent)), at
        case _Tag.DATETIME | _Tag.DATETIME_UTC:
            moment = _YEAR_ONE + struct.unpack_from(">Q", data, at)[0] * _MICROSECOND
            return moment.replace(tzinfo=UTC if tag == _Tag.DATETIME_UTC else None), at + 8
        case _Tag.DATE:
            return date.fromordinal(struct.unpack_from(">I", data, at)[0]), at + 4
        case _Tag.UUID:
            return UUID(bytes=data[at : at + 16]), at + 16
        case _:
            return _decode_int(data, at - 1)


def _decode_tuple(data: bytes, at: int, depth: int) -> tuple[Key, int]:
    if depth == TUPLE_DEPTH_MAX:
        raise ValueError("nested too deeply")
    parts: list[Key | None] = []
    while data[at] != _Tag.END:
        part, at = _decode(data, at, depth + 1)
        parts.append(part)
    return tuple(parts), at + 1


def _unescape(data: bytes) -> bytes:
    return data.replace(b"\1\1", b"\0").replace(b"\1\2", b"\1") if 1 in data else data


def _decode_int(data: bytes, at: int) -> tuple[int, int]:
    tag, at = data[at], at + 1
    if not _Tag.INT_NEGATIVE_LONG <= tag <= _Tag.INT_POSITIVE_LONG:
        raise ValueError("no such tag")
    size = abs(tag - _Tag.INT_ZERO)
    if size > _INT_BYTES_SHORT_MAX:
        (size,) = struct.unpack_from(">I", data, at)
        size, at = (size if tag > _Tag.INT_ZERO else _MASK_32 - size), at + 4
    if size > len(data) - at:
        raise ValueError("cut off")
    value = int.from_bytes(data[at : at + size])
    return value if tag >= _Tag.INT_ZERO else value + 1 - (1 << 8 * size), at + size


# ---- hash and key group ------------------------------------------------------


def stable_hash(key: object) -> int:
    """Return the 64-bit hash of a key, `0 <= hash < 2**64`: equal for equal keys, for ever.

    Raises:
        KeyTypeError: as in `canonical_key`.

    Source:
        xxh3-64 with seed 0 (https://xxhash.com); for ints the first output of SplitMix64
        (Steele, Lea, Flood, 2014) seeded with the int, in wrapping unsigned 64-bit arithmetic.
    """
    return hash_and_size(canonical_key(key))[0]


def hash_and_size(key: Key) -> tuple[int, int]:
    """Return the hash of a canonical key, and the number of bytes that make it up."""
    if type(key) is int and -_SIGN_BIT <= key <= _MASK_64:  # All of int64 and of uint64.
        z = (key + 0x9E3779B97F4A7C15) & _MASK_64
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK_64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK_64
        return z ^ z >> 31, 8
    data = _utf8(key) if type(key) is str else key if type(key) is bytes else encode_canonical(key)
    return xxh3_64_intdigest(data), len(data)


class KeyGroupCache(dict[object, int]):
    """Key group of each canonical key seen lately; `cache[key]` computes what is missing.

    A dict, so that a key that is in it costs one lookup in C.  Look up canonical keys only.  When it
    is full it is emptied, which costs each key one more computation.

    Args:
        max_parallelism: number of key groups, 1 to 32,768.
        entries_max: number of keys it holds at most.
    """

    __slots__ = ("_entries_max", "_max_parallelism")

    def __init__(self, max_parallelism: int, entries_max: int = CACHED_KEYS_DEFAULT_MAX) -> None:
        super().__init__()
        self._max_parallelism = max_parallelism
        self._entries_max = entries_max

    def __missing__(self, key: Key) -> int:
        digest, size_bytes = hash_and_size(key)
        group = digest % self._max_parallelism
        if size_bytes <= CACHED_KEY_BYTES_MAX:
            if len(self) >= self._entries_max:
                self.clear()
            self[key] = group
        return group


def key_groups(keys: list[Any], cache: KeyGroupCache) -> tuple[list[Any], list[int]]:
    """Return the canonical form and the key group of every key of a batch.

    The first list is `keys` itself when its keys are canonical already; neither is changed.

    Raises:
        KeyTypeError: as in `canonical_key`.
    """
    if not (_plain(keys) or (set(map(type, keys)) == {tuple} and _plain(chain.from_iterable(keys)))):
        keys = list(map(canonical_key, keys))
    return keys, list(map(cache.__getitem__, keys))


def _plain(keys: Iterable[object]) -> bool:
    return _CANONICAL_AS_THEY_ARE.issuperset(map(type, keys))
