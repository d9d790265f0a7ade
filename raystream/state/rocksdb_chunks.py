"""From a chunk of any backend to items of RocksDB, without the declaration of the state.

A chunk says how its keys and values are written, and an item holds a value as a chunk does.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import msgspec

from raystream.errors import StateCorruptError
from raystream.handles import StateInfo
from raystream.keys import encode_key
from raystream.state import chunk_form as cf
from raystream.state.chunk_form import Chunk, map_form
from raystream.state.descriptor import StateKind
from raystream.state.rocksdb_items import MAP_KEY_LENGTH, POSITION, item_of


class ChunkItems:
    """The items of a chunk.

    Args:
        chunk: of some state.
        info: of the state.

    Raises:
        StateCorruptError: the bytes are not what the form says.
    """

    def __init__(self, chunk: Chunk, info: StateInfo) -> None:
        form = chunk.form
        try:
            self._kind = StateKind(info.kind)
            read_as = cf.chunk_type(form, self._kind, msgspec.Raw)
            if read_as is None:
                raise ValueError("form is not defined")
            keys, contents, *times = msgspec.msgpack.decode(chunk.data, type=read_as)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise StateCorruptError(
                "chunk of state cannot be read", state=info.name, form=form, cause=str(error)[:200]
            ) from error
        written = times[0] if times else None
        if not len(keys) == len(contents) == chunk.entries or not self._fit(contents, written):
            raise StateCorruptError("number of entries in a chunk is not as recorded", state=info.name)
        self._form = form
        self._keys = keys if form & cf.KEY_MASK == cf.KEYS_ENCODED else map(encode_key, keys)
        self._contents = contents
        self._times = repeat(None, len(keys)) if written is None else written
        self.timed = form & cf.TIMES
        """Which times of writing the items have, if any, as in `raystream.state.chunk_form`."""
        self.positions = max(map(len, contents), default=0) if self._kind is StateKind.LIST else 0
        """One more than the highest position of an element in a list."""

    def _fit(self, contents: list[Any], times: list[Any] | None) -> bool:
        """Return whether there is a time for each value, if there are times."""
        if times is None:
            return True
        if self._kind.single:
            return len(times) == len(contents)
        return list(map(len, times)) == list(map(len, contents))

    def __iter__(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Yield encoded key, suffix and item of each; once."""
        wide = bool(self._form & cf.WIDE)
        encoded = map_form(self._form) == cf.KEYS_ENCODED
        for key, content, written in zip(self._keys, self._contents, self._times, strict=True):
            if self._kind.single:
                yield key, b"", item_of(content, wide=wide, written_ms=written)
                continue
            times = repeat(None, len(content)) if written is None else written
            if self._kind is StateKind.LIST:
                for position, (value, time) in enumerate(zip(content, times, strict=True)):
                    yield key, POSITION.pack(position), item_of(value, wide=wide, written_ms=time)
                continue
            for (map_key, value), time in zip(content.items(), times, strict=True):
                suffix = map_key if encoded else encode_key(map_key)
                suffix += MAP_KEY_LENGTH.pack(len(suffix))
                yield key, suffix, item_of(value, wide=wide, written_ms=time)
