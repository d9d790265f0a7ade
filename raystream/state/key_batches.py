"""Keys of a batch, encoded with few calls (`raystream.keys` for what the bytes are)."""

from collections.abc import Sequence
from typing import Any

from xxhash import xxh3_64_intdigest

from raystream.keys import encode_canonical, hash_and_size


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
