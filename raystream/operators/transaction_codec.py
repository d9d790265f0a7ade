"""Transactions of a `TwoPhaseCommitSink` as bytes in a snapshot.

    committable := version byte, msgpack array [serializer, schema, form, chunk]

The chunk is one value as keyed state stores it (`raystream.state.chunk_form`), and serializer and schema
say what it was declared as.  So the type of a transaction is checked, evolves and is pickled by the rules
of state.
"""

from dataclasses import replace
from typing import Any

import msgspec

from raystream.errors import StateRestoreError
from raystream.state.chunk_codec import ChunkCodec
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.schema import values_readable

FORMAT_VERSION = 1


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    serializer: str
    schema: str
    form: int
    chunk: bytes


class TransactionCodec:
    """Encodes and decodes transactions.

    Args:
        declared: type of a transaction; None stands for none, and then it is pickled.
    """

    def __init__(self, declared: Any) -> None:
        self._descriptor: ValueStateDescriptor[Any] = ValueStateDescriptor("transaction", declared)
        self._info = self._descriptor.info()
        self._codec = ChunkCodec(self._descriptor)

    def encode(self, transaction: Any) -> bytes:
        """Return the transaction as it is now.

        Raises:
            StateError: it does not have its declared type, or cannot be encoded.
        """
        (chunk,) = self._codec.encode([0], [transaction])
        stored = _Stored(self._info.serializer, self._info.schema, chunk.form, chunk.data)
        return bytes((FORMAT_VERSION,)) + msgspec.msgpack.encode(stored)

    def decode(self, raw: bytes) -> Any:
        """Return the transaction that `encode` was given.

        Raises:
            StateRestoreError: it was stored with a type that the declared one does not evolve from, or by
                another version.
            StateCorruptError: the bytes are not what was written.
        """
        try:
            if raw[0] != FORMAT_VERSION:
                raise StateRestoreError(
                    "transaction in the snapshot has a format that this version of raystream does not read",
                    hint="restore with the version of raystream that wrote it, or a later one",
                    format=raw[0],
                    readable=FORMAT_VERSION,
                )
            stored = msgspec.msgpack.decode(memoryview(raw)[1:], type=_Stored)
        except (IndexError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StateRestoreError(
                "transaction in the snapshot cannot be read", size=len(raw), reason=str(error)
            ) from error
        info = replace(self._info, serializer=stored.serializer, schema=stored.schema)
        if not values_readable(info, self._info):
            raise StateRestoreError(
                "transaction in the snapshot is of another type than the sink declares",
                hint="declare the type that it was stored with until the job has committed it",
                stored=stored.schema or "pickle",
                declared=self._info.schema or "pickle",
            )
        _, (transaction,) = ChunkDecoder(self._descriptor, info).decode(Chunk(stored.form, 1, stored.chunk))
        return transaction
