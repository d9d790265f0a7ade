"""Looks into chunks (`raystream.state.chunk_form`) without the program: whose entries, how large, which.

Everything here goes by encoded keys (`raystream.keys.encode_key`), which are the same however a chunk
writes its keys, and by values as they are stored.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec
import xxhash

from raystream.errors import StateCorruptError
from raystream.handles import StateInfo
from raystream.keys import Key, decode_key, encode_key
from raystream.state import chunk_form as cf
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import StateKind
from raystream.state.migration import StoredSerializer
from raystream.state.rocksdb_chunks import ChunkItems
from raystream.state.rocksdb_items import value_of

_encode = msgspec.msgpack.Encoder().encode
_encode_ordered = msgspec.msgpack.Encoder(order="deterministic").encode
_digest = xxhash.xxh3_128_intdigest
_TUPLE = encode_key(())[:1]
"""What the encoding of every tuple begins with."""


def entry_sizes(chunk: Chunk, info: StateInfo) -> Iterator[tuple[bytes, int]]:
    """Yield encoded key and stored size of each entry: of its key and its values.

    Raises:
        StateCorruptError: the bytes are not what the form says.
    """
    for key, items in groupby(ChunkItems(chunk, info), itemgetter(0)):
        yield key, len(key) + sum([len(suffix) + len(item) for _, suffix, item in items])


def entry_digests(chunk: Chunk, info: StateInfo) -> Iterator[tuple[bytes, int]]:
    """Yield encoded key and a 128-bit digest of the values of each entry.

    Digests are equal when the values are stored alike, whichever backend wrote them: times of writing do not
    count, nor does the order of map entries, of sets and of dicts.

    Raises:
        StateCorruptError: the bytes are not what the form says.
    """
    ordered = _ordered(info)
    if StateKind(info.kind).single:
        keys, (_, contents, *_) = _columns(chunk, info)
        if chunk.form & cf.WIDE:
            yield from zip(keys, [_digest(b"w" + content) for content in contents], strict=True)
        else:
            plain = [_digest(b"p" + ordered(bytes(content))) for content in contents]
            yield from zip(keys, plain, strict=True)
        return
    for key, items in groupby(ChunkItems(chunk, info), itemgetter(0)):
        values = sorted((suffix, value_of(item)) for _, suffix, item in items)
        hasher = xxhash.xxh3_128()
        for suffix, (wide, _, stored) in values:
            value = stored if wide else ordered(stored)
            hasher.update(b"%d %d %d " % (wide, len(suffix), len(value)))
            hasher.update(suffix)
            hasher.update(value)
        yield key, hasher.intdigest()


def _ordered(info: StateInfo) -> Callable[[bytes], bytes]:
    """Return what brings values in the plain form that are equal into one order, where they have several."""
    if not any(f"{kind}[" in info.schema for kind in ("set", "frozenset", "dict")):
        return _as_it_is
    plain: Any = StoredSerializer(info, nullable=info.kind == StateKind.MAP).plain_type
    decode = msgspec.msgpack.Decoder(plain).decode

    def ordered(value: bytes) -> bytes:
        try:
            return _encode_ordered(decode(value))
        except (msgspec.MsgspecError, TypeError, RecursionError):
            return value

    return ordered


def _as_it_is(value: bytes) -> bytes:
    return value


def entries_of_key(chunk: Chunk, info: StateInfo, key: bytes) -> Chunk | None:
    """Return the part of a chunk that belongs to one key, all its namespaces; None when there is none.

    Args:
        chunk: of some state.
        info: of the state.
        key: encoded.

    Raises:
        StateCorruptError: the bytes are not what the form says.
    """
    encoded, columns = _columns(chunk, info)
    if info.namespaced:
        begins = _TUPLE + key
        wanted = [place for place, one in enumerate(encoded) if one.startswith(begins)]
    else:
        wanted = [place for place, one in enumerate(encoded) if one == key]
    if not wanted:
        return None
    part = [[column[place] for place in wanted] for column in columns]
    return replace(chunk, entries=len(wanted), data=_encode(part))


def _columns(chunk: Chunk, info: StateInfo) -> tuple[Iterable[bytes], Any]:
    """Return the encoded keys of a chunk, and its columns as they are stored."""
    try:
        read_as = cf.chunk_type(chunk.form, StateKind(info.kind), msgspec.Raw)
        if read_as is None:
            raise ValueError("form is not defined")
        columns: Any = msgspec.msgpack.decode(chunk.data, type=read_as)
        if set(map(len, columns)) != {chunk.entries}:
            raise ValueError("number of entries is not as recorded")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise StateCorruptError(
            "chunk of state cannot be read", state=info.name, form=chunk.form, cause=str(error)[:200]
        ) from error
    keys: list[Any] = columns[0]
    return (keys if chunk.form & cf.KEY_MASK == cf.KEYS_ENCODED else map(encode_key, keys)), columns


def key_of(encoded: bytes, info: StateInfo) -> Key:
    """Return the key of an entry, without its namespace.

    Raises:
        StateCorruptError: the bytes are not an encoded key.
    """
    key: Any = decode_key(encoded)
    if not info.namespaced:
        found: Key = key
        return found
    if not isinstance(key, tuple) or len(key) != 2 or key[0] is None:
        raise StateCorruptError("stored key has no namespace", state=info.name)
    of_entry: Key = key[0]
    return of_entry
