"""Keys of a batch, encoded and decoded with few calls (`raystream.keys` for what the bytes are)."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from xxhash import xxh3_64_intdigest

from raystream.keys import Key, decode_key, encode_canonical, hash_and_size

_TEXT = encode_canonical("")[:1]
_ZERO = encode_canonical(0)[0]
_INT_BYTES_SHORT_MAX = 8


def encode_keys(keys: Sequence[Any], max_parallelism: int) -> tuple[list[bytes], list[int]]:
    r"""Return the bytes and the key group of each of some canonical keys.

    Example:
        >>> encode_keys(["a", 1], 128)
        ([b'\x03a\x00', b'\x1a\x01'], [31, 65])
    """
    try:
        text = "\0".join(keys)
    except TypeError:
        text = "\1"
    if "\1" in text or text.count("\0") != len(keys) - 1:
        return (
            list(map(encode_canonical, keys)),
            [hash_and_size(key)[0] % max_parallelism for key in keys],
        )
    # Nothing but strings, without a byte that would have to be escaped.
    texts = text.encode("utf-8", "surrogatepass").split(b"\0")
    return (
        [b"\3%b\0" % data for data in texts],
        [xxh3_64_intdigest(data) % max_parallelism for data in texts],
    )


def decode_keys(encoded: Sequence[bytes]) -> list[Key]:
    """Return the keys of many encodings; what is all text, or all short positive ints, costs little each.

    Raises:
        StateCorruptError: as in `decode_key`.
    """
    if {data[:1] for data in encoded} == {_TEXT}:
        whole = b"".join(encoded)
        # Without an escape, and with no other zero than at the ends, two keys meet only where one ends.
        if 1 not in whole and whole.count(0) == len(encoded) and all(data[-1] == 0 for data in encoded):
            with suppress(ValueError):
                keys: list[Key] = list(whole[1:-1].decode("utf-8", "surrogatepass").split("\0\3"))
                if len(keys) == len(encoded):
                    return keys
    elif all(len(data) - 1 == data[0] - _ZERO <= _INT_BYTES_SHORT_MAX for data in encoded if data):
        return [int.from_bytes(data[1:]) if data else decode_key(data) for data in encoded]
    return list(map(decode_key, encoded))
