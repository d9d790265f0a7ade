"""Encodes entries of one state into chunks (`raystream.state.chunk_form`), and checks their types.

Entries of one chunk need not fit one form; `encode` returns as many chunks as it takes, nearly
always one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import msgspec

from raystream.errors import StateError
from raystream.keys import encode_key
from raystream.records.strict_map import strict_map
from raystream.state import chunk_form as cf
from raystream.state.chunk_form import Chunk, key_form, map_form, mapped, timed_form
from raystream.state.descriptor import MapStateDescriptor, StateDescriptor, StateKind
from raystream.state.pairs import times_of, values_of
from raystream.state.value_types import ValueTypeMismatch

VALUE_BYTES_MAX = 2 << 30
"""Encoded size of a value, an element or the value of a map entry; from 4 GiB on nothing could store it."""

_CHECKED_MAP_KEYS = (str, int, bytes)
"""Declared types of map keys that are their own canonical form, so that they can be checked."""

_NOT_CARRIED = (OverflowError, UnicodeEncodeError)
"""What msgpack raises at an int beyond 64 bits and at a lone surrogate."""

_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


class EncodedContent:
    """A content that was encoded before its turn, because user code was about to get hold of it.

    Attributes:
        times: times of writing in it; None in a state without a time to live.
    """

    __slots__ = ("data", "form", "times")

    def __init__(self, form: int, data: bytes, times: Any = None) -> None:
        self.form = form
        self.data = data
        self.times = times

    @property
    def newest_ms(self) -> int:
        """The newest of its times."""
        newest: int = max(self.times) if type(self.times) is list else self.times
        return newest


class _Columns:
    """Entries that will be one chunk: keys, encoded contents, and times if the state has them."""

    __slots__ = ("contents", "keys", "times")

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.contents: list[Any] = []
        self.times: list[Any] = []

    def append(self, key: Any, content: Any, times: Any) -> None:
        self.keys.append(key)
        self.contents.append(content)
        self.times.append(times)


class ChunkCodec:
    """Encodes the entries of one state.

    Contents are value, list or dict; those of a state with a time to live are in pairs
    `(written_ms, value)`.
    """

    def __init__(self, descriptor: StateDescriptor) -> None:
        self.info = descriptor.info()
        self._kind = descriptor.kind
        self._timed = timed_form(descriptor.ttl)
        self._serializer = descriptor.serializer()
        self._pickled = self._serializer.plain_type is None
        self._map_key_type = checked_map_key(descriptor)

    def encode(self, keys: Sequence[Any], contents: Sequence[Any]) -> list[Chunk]:
        """Return chunks that together hold the entries.

        Args:
            keys: canonical keys.
            contents: content for each key, or its `EncodedContent`.

        Raises:
            StateError: a value does not have the declared type, or cannot be encoded; names the state.
        """
        if EncodedContent not in set(map(type, contents)):
            return self._checked(self._encode_live(keys, contents), contents)
        live_keys, live = [], []
        early: dict[int, _Columns] = {}
        for key, content in zip(keys, contents, strict=True):
            if type(content) is EncodedContent:
                columns = early.setdefault(content.form, _Columns())
                columns.append(key, msgspec.Raw(content.data), content.times)
            else:
                live_keys.append(key)
                live.append(content)
        chunks = self._chunks(early)
        chunks = chunks + self._encode_live(live_keys, live) if live else chunks
        return self._checked(chunks, contents)

    def _checked(self, chunks: list[Chunk], contents: Sequence[Any]) -> list[Chunk]:
        """Return the chunks, unless one of the values in them is too large."""
        check_sizes(self.info.name, self._items(contents), sum([len(chunk.data) for chunk in chunks]))
        return chunks

    def _items(self, contents: Sequence[Any]) -> Iterator[bytes]:
        """Yield each value, element and map value, encoded; not those of lists and maps encoded before."""
        for content in contents:
            if type(content) is EncodedContent:
                yield content.data if self._kind.single else b""
                continue
            value = values_of(self._kind, content) if self._timed else content
            parts = value.values() if self._kind is StateKind.MAP else value
            yield from map(self._encode_item, [value] if self._kind.single else parts)

    def _encode_item(self, value: Any) -> bytes:
        if self._serializer.fits([value]):
            with suppress(*_NOT_CARRIED):
                return _encode(value)
        return self._serializer.dump(value)

    def encode_early(self, content: Any) -> EncodedContent:
        """Return one content, encoded as it is now.

        Raises:
            StateError: as in `encode`.
        """
        try:
            if not self._timed:
                return self._encode_content(content)
            encoded = self._encode_content(values_of(self._kind, content))
            encoded.times = times_of(self._kind, content)
        except Exception as error:
            raise encoding_refused(self.info.name, error) from error
        return encoded

    def _encode_live(self, keys: Sequence[Any], contents: Sequence[Any]) -> list[Chunk]:
        times = None
        if self._timed:
            times = [times_of(self._kind, content) for content in contents]
            contents = [values_of(self._kind, content) for content in contents]
        try:
            fits = self._fits(contents)
            if fits or self._pickled:
                form = self._form(contents, fits=fits)
                try:
                    return [_chunk(keys, self._stored(contents, form), form | self._timed, times)]
                except _NOT_CARRIED:
                    pass  # By some of the entries; the others keep their form.
            return self._encode_one_by_one(keys, contents, times)
        except Exception as error:
            raise encoding_refused(self.info.name, error) from error

    def _encode_one_by_one(
        self, keys: Sequence[Any], contents: Sequence[Any], times: Sequence[Any] | None
    ) -> list[Chunk]:
        by_form: dict[int, _Columns] = {}
        written: Iterable[Any] = [None] * len(keys) if times is None else times
        for key, content, time in zip(keys, contents, written, strict=True):
            encoded = self._encode_content(content)
            by_form.setdefault(encoded.form, _Columns()).append(key, msgspec.Raw(encoded.data), time)
        return self._chunks(by_form)

    def _chunks(self, by_form: dict[int, _Columns]) -> list[Chunk]:
        return [
            _chunk(columns.keys, columns.contents, form | self._timed, columns.times if self._timed else None)
            for form, columns in by_form.items()
        ]

    def _encode_content(self, content: Any) -> EncodedContent:
        form = self._form([content], fits=self._fits([content]))
        try:
            return EncodedContent(form, _encode(self._stored([content], form)[0]))
        except _NOT_CARRIED:
            form = cf.WIDE | (cf.KEYS_ENCODED << cf.MAP_KEY_SHIFT if self._kind is StateKind.MAP else 0)
            return EncodedContent(form, _encode(self._stored([content], form)[0]))

    def _fits(self, contents: Sequence[Any]) -> bool:
        """Return whether the plain form carries the contents; check their types."""
        if self._kind is StateKind.LIST:
            return self._serializer.fits(list(chain.from_iterable(contents)))
        if self._kind is StateKind.MAP:
            return self._serializer.fits(list(chain.from_iterable(map(dict.values, contents))))
        return self._serializer.fits(contents)

    def _form(self, contents: Sequence[Any], *, fits: bool) -> int:
        """Return the form that suits the contents, without the bits of the keys."""
        form = 0 if fits else cf.WIDE
        if self._kind is StateKind.MAP:
            found = set(map(type, chain.from_iterable(contents)))
            if self._map_key_type is not None and found - {self._map_key_type}:
                others = ", ".join(sorted(t.__name__ for t in found - {self._map_key_type}))
                raise ValueTypeMismatch(f"{self._map_key_type.__name__} as map key", others)
            form |= key_form(found) << cf.MAP_KEY_SHIFT
        return form

    def _stored(self, contents: Sequence[Any], form: int) -> Sequence[Any]:
        """Return the contents as the form wants them to be encoded."""
        dump = self._serializer.dump if form & cf.WIDE else None
        if self._kind is StateKind.MAP:
            key = encode_key if map_form(form) == cf.KEYS_ENCODED else None
            return [mapped(entries, key, dump) for entries in contents]
        if dump is None:
            return contents
        if self._kind is StateKind.LIST:
            return [strict_map(dump, elements) for elements in contents]
        return strict_map(dump, contents)


def encoding_refused(state: str, error: Exception) -> StateError:
    """Return the error about a value of a state that could not be encoded."""
    if isinstance(error, StateError):
        return error
    if isinstance(error, ValueTypeMismatch):
        return StateError(
            "value does not have the declared type of the state",
            hint="store values of exactly this type, or declare another one",
            state=state,
            declared=error.declared,
            found=error.found,
        )
    return StateError(
        "value cannot be encoded",
        hint="store data only; classes must be importable by name, not local to a function",
        state=state,
        cause=repr(error)[:200],
    )


def check_sizes(state: str, items: Iterable[bytes], total_bytes: int) -> None:
    """Refuse items of a state of which one is too large.

    Args:
        state: its name.
        items: encoded values; looked at only if it may be that one is too large.
        total_bytes: size of all of them.

    Raises:
        StateError: there is such a value; names the state and the size.
    """
    if total_bytes > VALUE_BYTES_MAX and (largest := max(map(len, items))) > VALUE_BYTES_MAX:
        raise StateError(
            "value of a state is too large",
            hint="keep it as the elements of a list or the entries of a map, which are stored one by one",
            state=state,
            size_bytes=largest,
            size_bytes_max=VALUE_BYTES_MAX,
        )


def checked_map_key(descriptor: StateDescriptor) -> type | None:
    """Return the one type that the map keys of a state have to have; None where they are not checked."""
    declared = descriptor.key_type if isinstance(descriptor, MapStateDescriptor) else None
    return declared if declared in _CHECKED_MAP_KEYS else None


def _chunk(keys: Sequence[Any], stored: Sequence[Any], form: int, times: Sequence[Any] | None) -> Chunk:
    columns: tuple[Any, ...] = (stored,) if times is None else (stored, times)
    of_keys = key_form(set(map(type, keys)))
    if of_keys != cf.KEYS_ENCODED:
        try:
            return Chunk(form | of_keys, len(keys), _encode((keys, *columns)))
        except _NOT_CARRIED:
            pass  # A key, or a content; then it happens again, and the caller deals with it.
    return Chunk(form | cf.KEYS_ENCODED, len(keys), _encode((list(map(encode_key, keys)), *columns)))
