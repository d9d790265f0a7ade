"""Reads chunks (`raystream.state.chunk_form`) as entries of the state that a program declares.

What was stored with a type that evolves into the declared one is read as that at once.  What was not is
read by its stored schema and handed to the `migrate` function of the descriptor.  Times are kept,
dropped or begun as the declaration has a time to live or not.
"""

from typing import Any

import msgspec

from raystream.errors import RaystreamError, StateCorruptError, StateRestoreError
from raystream.handles import StateInfo
from raystream.keys import decode_key
from raystream.records.strict_map import strict_map
from raystream.state import chunk_form as cf
from raystream.state.chunk_form import Chunk, map_form, mapped, timed_form
from raystream.state.descriptor import StateDescriptor, StateKind
from raystream.state.migration import Migration, migration
from raystream.state.pairs import paired, paired_now


class ChunkDecoder:
    """Decodes the entries of one state.

    Args:
        descriptor: of the state in the program.
        stored: of the state in the snapshot; its kind and map keys fit.
        restored_ms: time of writing of values that were stored without one, or with one of another domain.
    """

    def __init__(self, descriptor: StateDescriptor, stored: StateInfo, restored_ms: int = 0) -> None:
        self._name = descriptor.name
        self._kind = descriptor.kind
        self._declared = descriptor.serializer().schema or "pickle"
        self._restored_ms = restored_ms
        self._timed = timed_form(descriptor.ttl)
        self._migration: Migration | None = migration(descriptor, stored)
        self._serializer = (
            descriptor.serializer() if self._migration is None else self._migration.stored_serializer
        )
        self._decoders: dict[int, msgspec.msgpack.Decoder[Any]] = {}

    def decode(self, chunk: Chunk) -> tuple[list[Any], list[Any]]:
        """Return canonical keys and contents of a chunk; contents in pairs where there is a time to live.

        Raises:
            StateCorruptError: the bytes are not what the form says.
            StateRestoreError: a stored value cannot be read as the declared type, or not be migrated.
        """
        try:
            keys, stored, *times = self._decoder(chunk.form).decode(chunk.data)
            if chunk.form & cf.KEY_MASK == cf.KEYS_ENCODED:
                keys = list(map(decode_key, keys))
            contents = self._loaded(stored, chunk.form)
            if self._timed and self._timed == chunk.form & cf.TIMES:
                contents = paired(self._kind, contents, times[0])
            elif self._timed:
                contents = paired_now(self._kind, contents, self._restored_ms)
        except RaystreamError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error
        if not len(keys) == len(contents) == chunk.entries:
            raise StateCorruptError("number of entries in a chunk is not as recorded", state=self._name)
        return keys, contents

    def value(self, data: bytes, *, wide: bool) -> Any:
        """Return one stored value as a value of the declared type; raises as `decode`.

        Args:
            data: the value as in a chunk.
            wide: whether it is in the wide form.
        """
        try:
            if wide:
                value = self._serializer.load(data)
            else:
                value = msgspec.msgpack.decode(data, type=self._serializer.plain_type)
            return value if self._migration is None else self._migration.migrate(value)
        except RaystreamError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> StateRestoreError:
        return StateRestoreError(
            "stored values cannot be read as the type that the program declares",
            hint="restore with the program that wrote them",
            state=self._name,
            declared=self._declared,
            cause=repr(error)[:200],
        )

    def _decoder(self, form: int) -> "msgspec.msgpack.Decoder[Any]":
        decoder = self._decoders.get(form)
        if decoder is None:
            read_as = cf.chunk_type(form, self._kind, self._serializer.plain_type)
            if read_as is None:
                raise StateCorruptError("form of a chunk is not defined", state=self._name, form=form)
            decoder = self._decoders[form] = msgspec.msgpack.Decoder(read_as)
        return decoder

    def _loaded(self, stored: list[Any], form: int) -> list[Any]:
        """Return the contents as values of the declared type, without times."""
        load = self._serializer.load if form & cf.WIDE else None
        migrate = None if self._migration is None else self._migration.migrate
        value = load if migrate is None else migrate if load is None else lambda data: migrate(load(data))
        if self._kind is StateKind.MAP:
            key = decode_key if map_form(form) == cf.KEYS_ENCODED else None
            return [mapped(entries, key, value) for entries in stored]
        if value is None:
            return stored
        if self._kind is StateKind.LIST:
            return [strict_map(value, elements) for elements in stored]
        return strict_map(value, stored)
