"""Records in flight as bytes: the batches of one channel that a snapshot has.

    magic "RSCH", version, two zero bytes, xxh3-64 of the rest     little-endian
    msgpack array of batches, each as `raystream.records.codec` encodes it

A *slice* is that much; a blob is several of them in a row, and a handle says where each one is, so
that a subtask reads only its own.  A batch has its timestamps, keys and key groups.  The classes of its
records are named anew in every slice, so each is read alone.  Values of plain types stand in it as
such, columns of other values are pickled.

That encoding is therefore a stored format too: a change to it is a new version here.
"""

import struct
from collections.abc import Iterable

import msgspec
import xxhash

from raystream.errors import CheckpointError, ProtocolError, StateCorruptError, StateRestoreError
from raystream.records.batch import RowBatch
from raystream.records.codec import BatchDecoder, BatchEncoder

FORMAT_VERSION = 1

_MAGIC = b"RSCH"
_HEADER = struct.Struct("<4sHHQ")
_decode: msgspec.msgpack.Decoder[list[bytes]] = msgspec.msgpack.Decoder(list[bytes])


def encode_slice(batches: Iterable[RowBatch]) -> bytes:
    """Return the bytes of some batches, in order.

    Raises:
        CheckpointError: a record cannot be stored.
    """
    encoder = BatchEncoder()
    try:
        payload = msgspec.msgpack.encode([encoder.encode(batch) for batch in batches])
    except Exception as error:  # Pickling runs the code of whatever classes the records have.
        raise CheckpointError(
            "records in flight cannot be stored",
            hint="emit records that pickle, or set execution.checkpointing.unaligned.enabled to false",
            cause=f"{type(error).__name__}: {error}",
        ) from error
    return _HEADER.pack(_MAGIC, FORMAT_VERSION, 0, xxhash.xxh3_64_intdigest(payload)) + payload


def decode_slice(data: bytes, path: str) -> list[RowBatch]:
    """Return the batches of a slice.

    Args:
        data: the whole slice.
        path: where it comes from; named in errors.

    Raises:
        StateCorruptError: a byte is not what it was when the slice was written.
        StateRestoreError: a newer version wrote the slice, or its records cannot be made again.
    """
    if len(data) < _HEADER.size:
        raise StateCorruptError("records in flight are cut off", path=path, size=len(data))
    magic, version, zero, checksum = _HEADER.unpack_from(data)
    payload = data[_HEADER.size :]
    if magic != _MAGIC or zero or version < 1:
        raise StateCorruptError("bytes are not records in flight of raystream", path=path)
    if version > FORMAT_VERSION:
        raise StateRestoreError(
            "records in flight were written by a newer raystream",
            hint="restore with the version that wrote them, or a later one",
            path=path,
            version=version,
            newest_readable=FORMAT_VERSION,
        )
    if xxhash.xxh3_64_intdigest(payload) != checksum:
        raise StateCorruptError("records in flight do not match their checksum", path=path)
    decoder = BatchDecoder()
    try:
        return [decoder.decode(batch) for batch in _decode.decode(payload)]
    except (msgspec.DecodeError, ProtocolError) as error:
        raise StateRestoreError(
            "records in flight cannot be made again",
            hint="restore with the program that wrote them; a savepoint has no records in flight",
            path=path,
            cause=str(error),
        ) from error
