"""The blob of operator state: one named list of opaque elements of one subtask.

    magic "RSOS", version, two zero bytes, xxh3-64 of the rest     little-endian
    msgpack array of bytes

What an element means is the business of its operator: a split with its position, a
committable, an element of a user's state (`raystream.state.operator_store`).  How elements are
dealt out when the parallelism changes is in `raystream.protocol.redistribution`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import xxhash

from raystream.errors import StateCorruptError
from raystream.handles import Redistribution, StateInfo
from raystream.state.blob_header import check_version

FORMAT_VERSION = 1

_MAGIC = b"RSOS"
_HEADER = struct.Struct("<4sHHQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorState:
    """One named list of opaque elements, part of a snapshot."""

    name: str
    mode: Redistribution
    elements: list[bytes]
    info: StateInfo | None = None
    """What the program declared; None for state that raystream itself keeps."""


_decode: msgspec.msgpack.Decoder[list[bytes]] = msgspec.msgpack.Decoder(list[bytes])


def encode_elements(elements: Sequence[bytes]) -> bytes:
    """Return the blob that holds the elements, in order."""
    payload = msgspec.msgpack.encode(elements)
    return _HEADER.pack(_MAGIC, FORMAT_VERSION, 0, xxhash.xxh3_64_intdigest(payload)) + payload


def decode_elements(blob: bytes) -> list[bytes]:
    """Return the elements of a blob, in order.

    Raises:
        StateCorruptError: a byte is not what it was when the blob was written.
        StateRestoreError: a newer version wrote the blob.

    Example:
        >>> decode_elements(encode_elements([b"split 1", b"split 2"]))
        [b'split 1', b'split 2']
    """
    if len(blob) < _HEADER.size:
        raise StateCorruptError("operator state is cut off", size=len(blob))
    magic, version, zero, checksum = _HEADER.unpack_from(blob)
    payload = blob[_HEADER.size :]
    if magic != _MAGIC or zero or version < 1:
        raise StateCorruptError("bytes are not operator state of raystream")
    check_version(version, FORMAT_VERSION, "operator state")
    if xxhash.xxh3_64_intdigest(payload) != checksum:
        raise StateCorruptError("operator state does not match its checksum")
    try:
        return _decode.decode(payload)
    except msgspec.DecodeError as error:
        raise StateCorruptError("operator state cannot be read", cause=str(error)) from error
