"""Keys, namespaces and map keys as columns of a canonical savepoint.

A column is typed as long as all its keys have one type that Parquet has too; a column of other keys, or of
several types, holds their canonical encoding (`raystream.keys`), and beside it their text for people.  The
metadata of the field says which, so that a reader need not guess.

    str, int, bytes      string, int64, binary
    encoded              binary, and a column `..._text`

A namespace that is None is null.
"""

from collections.abc import Sequence
from enum import StrEnum
from types import NoneType
from typing import Any

import pyarrow as pa

from raystream.errors import StateCorruptError
from raystream.keys import Key, decode_key, encode_canonical
from raystream.state import chunk_form as cf

KIND_FIELD = b"raystream.key"
"""Metadata of a field of keys: its `KeyKind`."""

TEXT_SUFFIX = "_text"
"""Of the column with the text of encoded keys."""

TEXT_CHARACTERS_MAX = 1000
"""Longer texts are cut; the key itself never is."""

_NOT_CARRIED = (pa.ArrowException, OverflowError, UnicodeEncodeError)
"""What Arrow raises at an int beyond 64 bits and at a lone surrogate."""

Columns = list[tuple[pa.Field, pa.Array]]


class KeyKind(StrEnum):
    """How the keys of a column are written."""

    STR = "str"
    INT = "int"
    BYTES = "bytes"
    ENCODED = "encoded"

    @property
    def type(self) -> pa.DataType:
        """The Arrow type of the column."""
        return _TYPES[self]

    def merged(self, other: "KeyKind") -> "KeyKind":
        """Return the kind that carries the keys of both."""
        return self if self is other else KeyKind.ENCODED


_TYPES = {
    KeyKind.STR: pa.string(),
    KeyKind.INT: pa.int64(),
    KeyKind.BYTES: pa.binary(),
    KeyKind.ENCODED: pa.binary(),
}
_KINDS = {frozenset({str}): KeyKind.STR, frozenset({int}): KeyKind.INT, frozenset({bytes}): KeyKind.BYTES}


def key_fields(name: str, kind: KeyKind) -> list[pa.Field]:
    """Return the fields of a column of keys: one, or two when they are encoded."""
    field = pa.field(name, kind.type, metadata={KIND_FIELD: kind.value})
    return [field, pa.field(name + TEXT_SUFFIX, pa.string())] if kind is KeyKind.ENCODED else [field]


def key_columns(name: str, keys: Sequence[Key | None]) -> tuple[KeyKind, Columns]:
    """Return keys as columns of the narrowest kind that carries them.

    Args:
        name: of the column.
        keys: canonical ones.
    """
    found = frozenset(map(type, keys)) - {NoneType}
    kind = _KINDS.get(found, KeyKind.ENCODED) if found else KeyKind.STR
    if kind is not KeyKind.ENCODED:
        try:
            return kind, list(zip(key_fields(name, kind), [pa.array(keys, kind.type)], strict=True))
        except _NOT_CARRIED:
            pass
    return KeyKind.ENCODED, list(zip(key_fields(name, KeyKind.ENCODED), _encoded(keys), strict=True))


def _encoded(keys: Sequence[Key | None]) -> list[pa.Array]:
    """Return the encodings and the texts of keys; many namespaces and map keys are alike."""
    distinct = {key for key in keys if key is not None}
    encoded = {key: encode_canonical(key) for key in distinct}
    text = {key: key_text(key) for key in distinct}
    return [
        pa.array([None if key is None else encoded[key] for key in keys], pa.binary()),
        pa.array([None if key is None else text[key] for key in keys], pa.string()),
    ]


def widened(name: str, table: pa.Table, kind: KeyKind) -> list[pa.ChunkedArray]:
    """Return the columns of keys in a table, as columns of a kind that carries them."""
    if kind_of(table.schema.field(name)) is kind:
        return [table.column(field.name) for field in key_fields(name, kind)]
    assert kind is KeyKind.ENCODED
    return [pa.chunked_array([array]) for array in _encoded(read_keys(name, table))]


def kind_of(field: pa.Field) -> KeyKind:
    """Return how the keys of a column are written; a table of somebody else says so by its type alone.

    Raises:
        StateCorruptError: they cannot be keys.
    """
    type_ = field.type
    try:
        if field.metadata and KIND_FIELD in field.metadata:
            kind = KeyKind(field.metadata[KIND_FIELD].decode())
            return kind if type_ == kind.type else KeyKind("")
    except ValueError as error:
        raise _not_keys(field) from error
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_null(type_):
        return KeyKind.STR
    if pa.types.is_integer(type_):
        return KeyKind.INT
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return KeyKind.BYTES
    raise _not_keys(field)


def read_keys(name: str, table: pa.Table) -> list[Any]:
    """Return the canonical keys of a column.

    Raises:
        StateCorruptError: it does not hold keys.
    """
    keys: list[Any] = table.column(name).to_pylist()
    if kind_of(table.schema.field(name)) is KeyKind.ENCODED:
        found = {key: None if key is None else decode_key(key) for key in set(keys)}
        return list(map(found.__getitem__, keys))
    return keys


def chunk_keys(name: str, table: pa.Table) -> tuple[int, list[Any]]:
    """Return the form of keys in a chunk (`raystream.state.chunk_form`), and the keys in it."""
    kind = kind_of(table.schema.field(name))
    keys = table.column(name).to_pylist()
    if None in keys:
        raise StateCorruptError("row of a savepoint has no key", column=name)
    match kind:
        case KeyKind.STR:
            return cf.KEYS_STR, keys
        case KeyKind.INT:
            return cf.KEYS_INT, keys
        case KeyKind.ENCODED:
            return cf.KEYS_ENCODED, keys
        case KeyKind.BYTES:
            return cf.KEYS_ENCODED, list(map(encode_canonical, keys))


def key_text(key: Key) -> str:
    """Return a key as text for people."""
    try:
        text = repr(key)
    except ValueError:  # An int of more digits than Python writes.
        text = f"key of {len(encode_canonical(key))} bytes"
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[: TEXT_CHARACTERS_MAX - 3]}..."


def _not_keys(field: pa.Field) -> StateCorruptError:
    return StateCorruptError(
        "column of a savepoint does not hold keys", column=field.name, type=str(field.type)
    )
