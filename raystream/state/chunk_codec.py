"""Chunks: many entries (key and content) of one state as one piece of msgpack.

    chunk   := [keys, contents]          two arrays of one length, encoded by one C call
    content := value                     value state
             | [element, ...]            list state
             | {map key: value, ...}     map state

The *form*, one byte beside each chunk, says how to read it, so that a chunk whose keys are
all `str` (or all `int`) is written natively, and whatever else there is still finds a form:

    bits 0-1   keys: 0 str, 1 int, 2 bytes of `raystream.keys.encode_key`
    bit 2      values: 0 plain, 1 wide (`raystream.state.serializer`)
    bits 3-4   map keys: as keys; 0 where there is no map
    bit 7      reserved: each content carries its write time

Every key is stored in full and in canonical form.  Entries of one chunk need not fit one
form; `encode` returns as many chunks as it takes, nearly always one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from raystream.errors import RaystreamError, StateCorruptError, StateError, StateRestoreError
from raystream.keys import decode_key, encode_key
from raystream.records.strict_map import strict_map
from raystream.state.descriptor import Descriptor, MapStateDescriptor, StateKind
from raystream.state.value_types import ValueTypeMismatch

_KEYS_STR, _KEYS_INT, _KEYS_ENCODED = 0, 1, 2
_KEY_TYPES: dict[int, type] = {_KEYS_STR: str, _KEYS_INT: int, _KEYS_ENCODED: bytes}
_KEY_MASK = 0b11
_WIDE = 1 << 2
_MAP_KEY_SHIFT = 3
_FORM_MASK = _KEY_MASK | _WIDE | _KEY_MASK << _MAP_KEY_SHIFT

_CHECKED_MAP_KEYS = (str, int, bytes)
"""Declared types of map keys that are their own canonical form, so that they can be checked."""

_NOT_CARRIED = (OverflowError, UnicodeEncodeError)
"""What msgpack raises at an int beyond 64 bits and at a lone surrogate."""

_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Chunk:
    """Encoded entries; `form` is needed to read `data`."""

    form: int
    entries: int
    data: bytes


class EncodedContent:
    """A content that was encoded before its turn, because user code was about to get hold of it."""

    __slots__ = ("data", "form")

    def __init__(self, form: int, data: bytes) -> None:
        self.form = form
        self.data = data


class ChunkCodec:
    """Encodes and decodes the entries of one state."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.info = descriptor.info()
        self._kind = descriptor.kind
        self._serializer = descriptor.serializer()
        self._pickled = self._serializer.plain_type is None
        self._map_key_type = _checked_map_key(descriptor)
        self._decoders: dict[int, msgspec.msgpack.Decoder[tuple[list[Any], list[Any]]]] = {}

    def encode(self, keys: Sequence[Any], contents: Sequence[Any]) -> list[Chunk]:
        """Return chunks that together hold the entries.

        Args:
            keys: canonical keys.
            contents: value, list or dict for each key, or its `EncodedContent`.

        Raises:
            StateError: a value does not have the declared type, or cannot be encoded; names the state.
        """
        if EncodedContent not in set(map(type, contents)):
            return self._encode_live(keys, contents)
        chunks: list[Chunk] = []
        live: tuple[list[Any], list[Any]] = ([], [])
        early: dict[int, tuple[list[Any], list[Any]]] = {}
        for key, content in zip(keys, contents, strict=True):
            if type(content) is EncodedContent:
                _append(early.setdefault(content.form, ([], [])), key, msgspec.Raw(content.data))
            else:
                _append(live, key, content)
        chunks += [_chunk(*entries, form) for form, entries in early.items()]
        return chunks + self._encode_live(*live) if live[0] else chunks

    def encode_early(self, content: Any) -> EncodedContent:
        """Return one content, encoded as it is now.

        Raises:
            StateError: as in `encode`.
        """
        try:
            return self._encode_content(content)
        except Exception as error:
            raise self._refusal(error) from error

    def decode(self, chunk: Chunk) -> tuple[list[Any], list[Any]]:
        """Return canonical keys and contents of a chunk.

        Raises:
            StateCorruptError: the bytes are not what the form says.
            StateRestoreError: a stored value cannot be read as the declared type.
        """
        try:
            keys, stored = self._decoder(chunk.form).decode(chunk.data)
            if chunk.form & _KEY_MASK == _KEYS_ENCODED:
                keys = list(map(decode_key, keys))
            contents = self._loaded(stored, chunk.form)
        except RaystreamError:
            raise
        except Exception as error:
            raise StateRestoreError(
                "stored values cannot be read as the type that the program declares",
                hint="restore with the program that wrote them",
                state=self.info.name,
                declared=self.info.schema or "pickle",
                cause=repr(error)[:200],
            ) from error
        if not len(keys) == len(contents) == chunk.entries:
            raise StateCorruptError("number of entries in a chunk is not as recorded", state=self.info.name)
        return keys, contents

    # ---- encoding ----

    def _encode_live(self, keys: Sequence[Any], contents: Sequence[Any]) -> list[Chunk]:
        try:
            fits = self._fits(contents)
            if fits or self._pickled:
                form = self._form(contents, fits=fits)
                try:
                    return [_chunk(keys, self._stored(contents, form), form)]
                except _NOT_CARRIED:
                    pass  # By some of the entries; the others keep their form.
            return self._encode_one_by_one(keys, contents)
        except Exception as error:
            raise self._refusal(error) from error

    def _encode_one_by_one(self, keys: Sequence[Any], contents: Sequence[Any]) -> list[Chunk]:
        by_form: dict[int, tuple[list[Any], list[Any]]] = {}
        for key, content in zip(keys, contents, strict=True):
            encoded = self._encode_content(content)
            _append(by_form.setdefault(encoded.form, ([], [])), key, msgspec.Raw(encoded.data))
        return [_chunk(*entries, form) for form, entries in by_form.items()]

    def _encode_content(self, content: Any) -> EncodedContent:
        form = self._form([content], fits=self._fits([content]))
        try:
            return EncodedContent(form, _encode(self._stored([content], form)[0]))
        except _NOT_CARRIED:
            form = _WIDE | (_KEYS_ENCODED << _MAP_KEY_SHIFT if self._kind is StateKind.MAP else 0)
            return EncodedContent(form, _encode(self._stored([content], form)[0]))

    def _fits(self, contents: Sequence[Any]) -> bool:
        """Return whether the plain form carries the contents; check their types."""
        match self._kind:
            case StateKind.VALUE:
                return self._serializer.fits(contents)
            case StateKind.LIST:
                return self._serializer.fits(list(chain.from_iterable(contents)))
            case StateKind.MAP:
                return self._serializer.fits(list(chain.from_iterable(map(dict.values, contents))))

    def _form(self, contents: Sequence[Any], *, fits: bool) -> int:
        """Return the form that suits the contents, without the bits of the keys."""
        form = 0 if fits else _WIDE
        if self._kind is StateKind.MAP:
            found = set(map(type, chain.from_iterable(contents)))
            if self._map_key_type is not None and found - {self._map_key_type}:
                others = ", ".join(sorted(t.__name__ for t in found - {self._map_key_type}))
                raise ValueTypeMismatch(f"{self._map_key_type.__name__} as map key", others)
            form |= _key_form(found) << _MAP_KEY_SHIFT
        return form

    def _stored(self, contents: Sequence[Any], form: int) -> Sequence[Any]:
        """Return the contents as the form wants them to be encoded."""
        dump = self._serializer.dump if form & _WIDE else None
        match self._kind:
            case StateKind.VALUE:
                return contents if dump is None else strict_map(dump, contents)
            case StateKind.LIST:
                return contents if dump is None else [strict_map(dump, elements) for elements in contents]
            case StateKind.MAP:
                key = encode_key if _map_form(form) == _KEYS_ENCODED else None
                return [_mapped(entries, key, dump) for entries in contents]

    def _refusal(self, error: Exception) -> StateError:
        if isinstance(error, StateError):
            return error
        if isinstance(error, ValueTypeMismatch):
            return StateError(
                "value does not have the declared type of the state",
                hint="store values of exactly this type, or declare another one",
                state=self.info.name,
                declared=error.declared,
                found=error.found,
            )
        return StateError(
            "value cannot be encoded",
            hint="store data only; classes must be importable by name, not local to a function",
            state=self.info.name,
            cause=repr(error)[:200],
        )

    # ---- decoding ----

    def _decoder(self, form: int) -> "msgspec.msgpack.Decoder[tuple[list[Any], list[Any]]]":
        decoder = self._decoders.get(form)
        if decoder is None:
            keys, map_keys = _KEY_TYPES.get(form & _KEY_MASK), _KEY_TYPES.get(_map_form(form))
            if form & ~_FORM_MASK or keys is None or map_keys is None or (self._pickled and not form & _WIDE):
                raise StateCorruptError("form of a chunk is not defined", state=self.info.name, form=form)
            content: Any = bytes if form & _WIDE else self._serializer.plain_type
            match self._kind:
                case StateKind.LIST:
                    content = list[content]
                case StateKind.MAP:
                    content = dict[map_keys, content]  # type: ignore[valid-type]  # built at run time
            decoder = msgspec.msgpack.Decoder(tuple[list[keys], list[content]])  # type: ignore[valid-type]
            self._decoders[form] = decoder
        return decoder

    def _loaded(self, stored: list[Any], form: int) -> list[Any]:
        load = self._serializer.load if form & _WIDE else None
        match self._kind:
            case StateKind.VALUE:
                return stored if load is None else strict_map(load, stored)
            case StateKind.LIST:
                return stored if load is None else [strict_map(load, elements) for elements in stored]
            case StateKind.MAP:
                key = decode_key if _map_form(form) == _KEYS_ENCODED else None
                return [_mapped(entries, key, load) for entries in stored]


def _checked_map_key(descriptor: Descriptor) -> type | None:
    declared = descriptor.key_type if isinstance(descriptor, MapStateDescriptor) else None
    return declared if declared in _CHECKED_MAP_KEYS else None


def _append(entries: tuple[list[Any], list[Any]], key: Any, content: Any) -> None:
    entries[0].append(key)
    entries[1].append(content)


def _map_form(form: int) -> int:
    return form >> _MAP_KEY_SHIFT & _KEY_MASK


def _key_form(found: set[type]) -> int:
    return _KEYS_STR if found == {str} else _KEYS_INT if found == {int} else _KEYS_ENCODED


def _mapped(
    entries: dict[Any, Any], key: Callable[[Any], Any] | None, value: Callable[[Any], Any] | None
) -> dict[Any, Any]:
    if key is None and value is None:
        return entries
    keys = entries if key is None else map(key, entries)
    values = entries.values() if value is None else map(value, entries.values())
    return dict(zip(keys, values, strict=True))


def _chunk(keys: Sequence[Any], stored: Sequence[Any], form: int) -> Chunk:
    key_form = _key_form(set(map(type, keys)))
    if key_form != _KEYS_ENCODED:
        try:
            return Chunk(form | key_form, len(keys), _encode((keys, stored)))
        except _NOT_CARRIED:
            pass  # A key, or a content; then it happens again, and the caller deals with it.
    return Chunk(form | _KEYS_ENCODED, len(keys), _encode((list(map(encode_key, keys)), stored)))
