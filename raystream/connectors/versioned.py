"""Bytes that are stored in snapshots: one version byte, then msgpack.

Splits, enumerator states and committables are written like this, so that a later
version can tell what it reads.  Knows nothing of their meaning.
"""

from typing import TypeVar

import msgspec

from raystream.errors import StateRestoreError

T = TypeVar("T")


def encode(version: int, value: object) -> bytes:
    """Return `value` as msgpack behind its version, `0 <= version < 256`."""
    return bytes((version,)) + msgspec.msgpack.encode(value)


def decode(raw: bytes, version: int, kind: type[T], what: str) -> T:
    """Return the value that `encode` wrote.

    Args:
        raw: the stored bytes.
        version: the version that this program writes and reads.
        kind: type of the value.
        what: name of the stored thing, for the error.

    Raises:
        StateRestoreError: the bytes are of another version, or are not what they should be.
    """
    if not raw:
        raise StateRestoreError(f"{what} in the snapshot cannot be read", size=0, reason="it is empty")
    if raw[0] != version:
        age, later = ("an older", "") if raw[0] < version else ("a newer", ", or a newer one")
        raise StateRestoreError(
            f"{what} in the snapshot has {age} format than this version of raystream reads",
            hint=f"restore with the version of raystream that wrote it{later}",
            format=raw[0],
            readable=version,
        )
    try:
        return msgspec.msgpack.decode(memoryview(raw)[1:], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateRestoreError(
            f"{what} in the snapshot cannot be read", size=len(raw), reason=str(error)
        ) from error
