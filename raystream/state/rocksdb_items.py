"""Items: what one entry of RocksDB holds, and under which key.

    key    state number (2) | key group (2) | encoded key | suffix        numbers big-endian
    suffix nothing                                              value, reduction or accumulator
           | position (8)                                       element of a list
           | encoded map key | its length (4)                   entry of a map
    item   form (1) | time of writing in ms (8), if timed | value
    value  msgpack if plain, else the wide form (`raystream.state.serializer`)

So all items of a key lie together, and so do those of a key group and of a state.  The key of a
namespaced state is the pair of key and namespace, in the key group of the key.

A value that has another type than declared is kept all the same, as a pickle, so that nothing is lost
while the program runs; a snapshot that meets it fails (see "When a wrong type is found" there).
"""

import pickle
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec

from raystream.errors import StateError
from raystream.keys import encode_canonical
from raystream.state.chunk_codec import check_sizes, encoding_refused
from raystream.state.descriptor import StateDescriptor, StateKind
from raystream.state.key_batches import encode_keys
from raystream.state.value_types import ValueTypeMismatch

WIDE = 1 << 2
MISTYPED = 1 << 6
TIMED = 1 << 7
PREFIX_BYTES = 4
"""State number and key group, before the encoded key."""

POSITION = struct.Struct(">Q")
MAP_KEY_LENGTH = struct.Struct(">I")
_TIME = struct.Struct(">q")
_PREFIX = struct.Struct(">HH")
_ARRAY = struct.Struct(">BI")
_ARRAY_TAG = 0xDD
"""Of a msgpack array whose length has four bytes."""
_PICKLE_PROTOCOL = 5
_WEIGHED_MAX = 65_536
"""Items after which the average size of an item counts those before by half."""
_CACHED_MAP_KEYS_MAX = 4096

_NOT_CARRIED = (OverflowError, UnicodeEncodeError)
"""What msgpack raises at an int beyond 64 bits and at a lone surrogate."""

_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_form_of = itemgetter(0)


def state_prefix(state: int) -> bytes:
    """Return what all keys of a state begin with."""
    return _PREFIX.pack(state, 0)[:2]


def group_prefix(state: int, group: int) -> bytes:
    """Return what all keys of a state in one key group begin with."""
    return _PREFIX.pack(state, group)


@lru_cache(maxsize=_CACHED_MAP_KEYS_MAX)
def map_suffix(map_key: Any) -> bytes:
    """Return the suffix of a canonical map key."""
    encoded = encode_canonical(map_key)
    return encoded + MAP_KEY_LENGTH.pack(len(encoded))


def suffix_bytes(kind: StateKind, stored: bytes) -> int:
    """Return the length of the suffix of a stored key."""
    if kind.single:
        return 0
    if kind is StateKind.LIST:
        return POSITION.size
    length: int = MAP_KEY_LENGTH.unpack_from(stored, len(stored) - MAP_KEY_LENGTH.size)[0]
    return length + MAP_KEY_LENGTH.size


class StoredKeys:
    """Makes the stored form of canonical keys of one state, without suffix."""

    def __init__(self, state: int, max_parallelism: int, *, namespaced: bool) -> None:
        self._prefixes = [group_prefix(state, group) for group in range(max_parallelism)]
        self._namespaced = namespaced

    def many(self, keys: Sequence[Any]) -> list[bytes]:
        """Return the stored form of each key."""
        prefixes = self._prefixes
        encoded, groups = encode_keys(keys, len(prefixes))
        if self._namespaced:
            groups = encode_keys([key[0] for key in keys], len(prefixes))[1]
        return [prefixes[group] + data for group, data in zip(groups, encoded, strict=True)]

    def one(self, key: Any) -> bytes:
        """Return the stored form of a key."""
        return self.many((key,))[0]


class ItemCodec:
    """Encodes and decodes the items of one state; values are in pairs where there is a time to live."""

    def __init__(self, descriptor: StateDescriptor) -> None:
        self._name = descriptor.name
        self._serializer = descriptor.serializer()
        self._timed = descriptor.ttl is not None
        self._pickled = self._serializer.plain_type is None
        plain: Any = self._serializer.plain_type
        self._decode: Callable[[bytes], Any] | None = None
        self._decode_all: Callable[[bytes], list[Any]] | None = None
        if not self._pickled:
            self._decode = msgspec.msgpack.Decoder(plain).decode
            self._decode_all = msgspec.msgpack.Decoder(list[plain]).decode
        self.refusal: StateError | None = None
        """What was wrong with the last value that does not have its declared type."""
        self.refused = 0
        """Number of such values."""
        self._bytes, self._items = 0, 0

    @property
    def item_bytes(self) -> int:
        """Average size of the items seen lately."""
        return self._bytes // self._items if self._items else 0

    def encode(self, values: Sequence[Any]) -> list[bytes]:
        """Return an item for each value.

        Raises:
            StateError: one of them cannot be encoded at all, or is too large.
        """
        if self._timed:
            times = [_TIME.pack(value[0]) for value in values]
            plain = self._encoded([value[1] for value in values])
            items = [
                b"%c%b%b" % (item[0] | TIMED, time, item[1:]) for item, time in zip(plain, times, strict=True)
            ]
        else:
            items = self._encoded(values)
        check_sizes(self._name, items, self._seen(items))
        return items

    def _encoded(self, values: Sequence[Any]) -> list[bytes]:
        serializer = self._serializer
        with suppress(Exception):  # That of some of the values; the others keep their form.
            fits = serializer.fits(values)
            if fits:
                return [b"\0" + data for data in map(_encode, values)]
            if self._pickled:
                return [b"\4" + data for data in map(serializer.dump, values)]
        return [self._encoded_one(value) for value in values]

    def _encoded_one(self, value: Any) -> bytes:
        try:
            if self._serializer.fits([value]):
                try:
                    return b"\0" + _encode(value)
                except _NOT_CARRIED:
                    pass
            return b"%c%b" % (WIDE, self._serializer.dump(value))
        except ValueTypeMismatch as error:
            return self.mistyped(value, error)
        except Exception as error:
            raise encoding_refused(self._name, error) from error

    def mistyped(self, value: Any, error: ValueTypeMismatch) -> bytes:
        """Return the item, without time, of a value that the declaration does not allow."""
        self.refusal = encoding_refused(self._name, error)
        self.refused += 1
        try:
            return b"%c%b" % (MISTYPED, pickle.dumps(value, _PICKLE_PROTOCOL))
        except Exception:
            raise self.refusal from error

    def decode(self, items: Sequence[bytes]) -> list[Any]:
        """Return the values of items."""
        self._seen(items)
        if self._decode_all is None or any(map(_form_of, items)):
            return list(map(self.decode_one, items))
        plain = b"".join([item[1:] for item in items])
        return self._decode_all(_ARRAY.pack(_ARRAY_TAG, len(items)) + plain)

    def weigh(self, value: Any) -> None:
        """Have the size of a value that is not encoded yet count in `item_bytes`."""
        with suppress(Exception):  # A value that cannot be encoded is told of when its turn comes.
            self._seen([_encode(value) if not self._pickled else self._serializer.dump(value)])

    def decode_one(self, item: bytes) -> Any:
        """Return the value of an item, a pair if it is timed."""
        form = item[0]
        if not form:
            assert self._decode is not None
            return self._decode(item[1:])
        if form & TIMED:
            return time_of(item), self._value(form, item[1 + _TIME.size :])
        return self._value(form, item[1:])

    def _value(self, form: int, data: bytes) -> Any:
        if form & MISTYPED:
            return pickle.loads(data)
        if form & WIDE:
            return self._serializer.load(data)
        assert self._decode is not None
        return self._decode(data)

    def for_chunk(self, item: bytes) -> tuple[int, Any]:
        """Return the form of a value in a chunk, `WIDE` or 0, and what is to be encoded there.

        Raises:
            StateError: the value does not have its declared type.
        """
        form, data = item[0], item[1 + _TIME.size :] if item[0] & TIMED else item[1:]
        if form & MISTYPED:
            assert self.refusal is not None
            raise self.refusal
        return (WIDE, data) if form & WIDE else (0, msgspec.Raw(data))

    def widened(self, item: bytes) -> bytes:
        """Return the wide form of the value of an item, without time."""
        value = self.decode_one(item)
        return self._serializer.dump(value[1] if self._timed else value)

    def _seen(self, items: Sequence[bytes]) -> int:
        total_bytes = sum(map(len, items))
        self._items += len(items)
        self._bytes += total_bytes
        if self._items > _WEIGHED_MAX:
            self._items //= 2
            self._bytes //= 2
        return total_bytes


def time_of(item: bytes) -> int:
    """Return the time of writing in a timed item."""
    written: int = _TIME.unpack_from(item, 1)[0]
    return written


def item_of(value: Any, *, wide: bool, written_ms: int | None) -> bytes:
    """Return the item of a value that is encoded already, as in a chunk."""
    form = WIDE if wide else 0
    if written_ms is None:
        return b"%c%b" % (form, bytes(value))
    return b"%c%b%b" % (form | TIMED, _TIME.pack(written_ms), bytes(value))


def value_of(item: bytes) -> tuple[bool, int | None, bytes]:
    """Return whether the value in an item is wide, its time of writing, and the value, encoded."""
    wide = bool(item[0] & WIDE)
    if item[0] & TIMED:
        return wide, time_of(item), item[1 + _TIME.size :]
    return wide, None, item[1:]
