"""The blob that holds the keyed state of one operator subtask.

    header    magic "RSKS", version, two zero bytes
    chunks    one after the other, sorted by key group (see `raystream.state.chunk_form`)
    index     msgpack: max parallelism, key groups, states, time, and for each chunk
              state, key group, form, offset, length, entries, xxh3-64
    trailer   offset, length and xxh3-64 of the index, version, magic "SKSR"

The blob describes itself: a reader fetches the end, then only the chunks of the key groups
it wants, which lie together.  Every byte is covered by a checksum or compared with its
only permitted value, so damage is always noticed, and always as `StateCorruptError`.  All integers
outside msgpack are little-endian.  A reader takes its own version and the one before.

This module knows bytes, offsets and key groups; what an entry looks like inside a chunk,
and where blobs are stored, is not its business.
"""

import math
import struct
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import msgspec
import xxhash

from raystream.errors import StateCorruptError, StateError, StateRestoreError
from raystream.handles import FOOTER_BYTES_MAX, StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state.blob_header import HEADER, check_version, decoded, groups_valid
from raystream.state.chunk_form import Chunk
from raystream.state.ttl import Moment

FORMAT_VERSION = 3
"""Version 2 had no times of event time, neither of writing nor of the snapshot, and is otherwise the same."""

_VERSION_OLDEST = 2
"""Oldest version that can be read: the one before `FORMAT_VERSION`."""

READ_BYTES_MAX = 8 * 1024 * 1024
"""Neighbouring chunks are fetched together up to this size; a larger chunk alone."""

_TRAILER = struct.Struct("<QQQH4s")
_MAGIC_FIRST, _MAGIC_LAST = b"RSKS", b"SKSR"

ReadRange = Callable[[int, int], bytes]
"""Returns `length` bytes from `offset` of one blob: `read_range(offset, length)`."""


class _Section(msgspec.Struct, array_like=True, frozen=True):
    state: int
    group: int
    form: int
    offset: int
    length: int
    entries: int
    checksum: int


class StoredInfo(msgspec.Struct, frozen=True):
    """The description of a state, as snapshots hold it."""

    name: str
    kind: str
    serializer: str
    schema: str
    map_key_schema: str
    namespaced: bool = False

    @classmethod
    def of(cls, info: StateInfo, **more: Any) -> Self:
        """Return what describes a state; a subclass has more fields."""
        return cls(
            name=info.name,
            kind=info.kind,
            serializer=info.serializer,
            schema=info.schema,
            map_key_schema=info.map_key_schema,
            namespaced=info.namespaced,
            **more,
        )

    @property
    def info(self) -> StateInfo:
        """The description for the engine."""
        return StateInfo(
            name=self.name,
            kind=self.kind,
            serializer=self.serializer,
            schema=self.schema,
            map_key_schema=self.map_key_schema,
            namespaced=self.namespaced,
        )


class _Index(msgspec.Struct, frozen=True):
    max_parallelism: int
    first_group: int
    end_group: int
    states: list[StoredInfo]
    sections: list[_Section]
    taken_ms: int = 0
    watermark_ms: int | None = None


_decode_index = msgspec.msgpack.Decoder(_Index).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunk:
    """A chunk as it was read, still encoded."""

    group: int
    """Key group of all its entries, under the max parallelism of its blob."""
    chunk: Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """One state in a blob, with what one of its new owners counts of it.

    Under the same max parallelism these are the entries of the wanted key groups.  Under another one every
    owner reads what may be its own, and each chunk is counted by one of them: their sum is what is stored.
    """

    info: StateInfo
    entries: int
    size_bytes: int


class StoredSnapshot:
    """A blob of which the index was read; its chunks are read when they are asked for.

    Attributes:
        max_parallelism: number of key groups of its operator.
        states: all states of the blob, also those without entries.
        taken_ms: processing time of the snapshot, ms since epoch; 0 when the blob does not say.
        watermark_ms: its event time; None when the blob does not say.
    """

    def __init__(
        self,
        read_range: ReadRange,
        index: _Index,
        wanted: Sequence[_Section],
        counted: Iterable[_Section],
        path: str,
    ) -> None:
        self._read_range = read_range
        self._wanted = wanted
        self._path = path
        self.max_parallelism = index.max_parallelism
        self.taken_ms = index.taken_ms
        self.watermark_ms = index.watermark_ms
        entries, sizes = [0] * len(index.states), [0] * len(index.states)
        for section in counted:
            entries[section.state] += section.entries
            sizes[section.state] += section.length
        self.states = tuple(
            StoredState(info=state.info, entries=entries[n], size_bytes=sizes[n])
            for n, state in enumerate(index.states)
        )

    def chunks(
        self, *, states: Container[str] | None = None, groups: Container[int] | None = None
    ) -> Iterator[tuple[StateInfo, StoredChunk]]:
        """Yield the chunks of the wanted key groups, sorted by key group; blocks.

        Args:
            states: names of the states that are wanted; None stands for all.
            groups: the wanted ones among the wanted key groups, under the blob's own max parallelism; None
                stands for all.

        Raises:
            StateCorruptError: a byte is not what it was when the blob was written.
        """
        wanted = [
            section
            for section in self._wanted
            if (states is None or self.states[section.state].info.name in states)
            and (groups is None or section.group in groups)
        ]
        for run in _runs(wanted):
            start = run[0].offset
            data = _read(self._read_range, start, run[-1].offset + run[-1].length - start)
            for section in run:
                encoded = data[section.offset - start : section.offset - start + section.length]
                if _checksum(encoded) != section.checksum:
                    raise StateCorruptError(
                        "chunk of state does not match its checksum",
                        path=self._path,
                        offset=section.offset,
                    )
                chunk = Chunk(section.form, section.entries, encoded)
                yield self.states[section.state].info, StoredChunk(group=section.group, chunk=chunk)


_UNKNOWN = Moment()


class SnapshotWriter:
    """Puts chunks into one blob; they must come sorted by key group.

    Args:
        states: all states of the operator, also those without chunks.
        groups: key groups of the subtask, under `max_parallelism`.
        taken: time of the snapshot.
    """

    def __init__(
        self,
        states: Sequence[StateInfo],
        groups: KeyGroupRange,
        max_parallelism: int,
        *,
        taken: Moment = _UNKNOWN,
    ) -> None:
        self._states = list(map(StoredInfo.of, states))
        self._groups = groups
        self._max_parallelism = max_parallelism
        self._taken = taken
        self._sections: list[_Section] = []
        self._buffers = [HEADER.pack(_MAGIC_FIRST, FORMAT_VERSION, 0)]
        self._offset = HEADER.size
        self.entries = 0
        self.pending_bytes = 0
        """Size of the pieces that the writer holds."""

    def add(self, state: int, group: int, chunk: Chunk) -> None:
        """Append a chunk of the state at this position in `states`."""
        self._sections.append(
            _Section(
                state, group, chunk.form, self._offset, len(chunk.data), chunk.entries, _checksum(chunk.data)
            )
        )
        self._buffers.append(chunk.data)
        self._offset += len(chunk.data)
        self.pending_bytes += len(chunk.data)
        self.entries += chunk.entries

    def chunks(self) -> Iterator[tuple[int, int, Chunk]]:
        """Yield state, key group and chunk of each that was added; no piece may have been taken."""
        for section, data in zip(self._sections, self._buffers[1:], strict=False):
            yield section.state, section.group, Chunk(section.form, section.entries, data)

    def take(self) -> list[bytes]:
        """Return the first pieces of the blob, which the writer forgets."""
        pieces, self._buffers = self._buffers, []
        self.pending_bytes = 0
        return pieces

    def finish(self) -> list[bytes]:
        """Return the blob in pieces, after those that were taken; the writer is done."""
        groups = self._groups
        index = msgspec.msgpack.encode(
            _Index(
                self._max_parallelism,
                groups.start,
                groups.stop,
                self._states,
                self._sections,
                self._taken.processing_ms,
                self._taken.watermark_ms,
            )
        )
        trailer = _TRAILER.pack(self._offset, len(index), _checksum(index), FORMAT_VERSION, _MAGIC_LAST)
        return [*self._buffers, index, trailer]


def open_snapshot(
    read_range: ReadRange, size: int, groups: KeyGroupRange, max_parallelism: int, *, path: str = ""
) -> StoredSnapshot:
    """Return the part of a blob that belongs to some key groups; blocks as `read_range` does.

    Args:
        read_range: returns `length` bytes from `offset`.
        size: length of the blob in bytes.
        groups: the wanted key groups, under `max_parallelism`.
        max_parallelism: of the new owner.  When the blob has another one, its key groups mean
            something else, and all chunks are wanted.
        path: where the blob is, for errors.

    Raises:
        StateCorruptError: a byte of the index is not what it was when the blob was written.
        StateRestoreError: a newer version wrote the blob, or one that is too old.
    """
    try:
        index = _read_index(read_range, size)
    except StateError as error:
        raise type(error)(error.message, hint=error.hint, **{"path": path, **error.context}) from error
    wanted = [
        section
        for section in index.sections
        if index.max_parallelism != max_parallelism or section.group in groups
    ]
    # Keys of a group have only groups with the same remainder now; the owner of the first of these counts.
    step = math.gcd(index.max_parallelism, max_parallelism)
    counted = [section for section in wanted if section.group % step in groups]
    return StoredSnapshot(read_range, index, wanted, counted, path)


def _checksum(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)


def _runs(sections: Iterable[_Section]) -> Iterable[list[_Section]]:
    """Cut sections, in order of offset, into runs to be read together."""
    run: list[_Section] = []
    for section in sections:
        if run and (
            run[-1].offset + run[-1].length != section.offset
            or section.offset + section.length - run[0].offset > READ_BYTES_MAX
        ):
            yield run
            run = []
        run.append(section)
    if run:
        yield run


def _read(read_range: ReadRange, offset: int, length: int) -> bytes:
    data = read_range(offset, length)
    if len(data) != length:
        raise StateCorruptError("keyed state is cut off", offset=offset, wanted=length, got=len(data))
    return data


def _read_index(read_range: ReadRange, size: int) -> _Index:
    if size < HEADER.size + _TRAILER.size:
        raise StateCorruptError("keyed state is cut off", size=size)
    tail_offset = max(0, size - FOOTER_BYTES_MAX)  # Usually holds the whole index.
    tail = _read(read_range, tail_offset, size - tail_offset)
    offset, length, checksum, version, magic = _TRAILER.unpack(tail[-_TRAILER.size :])
    header = tail[: HEADER.size] if tail_offset == 0 else _read(read_range, 0, HEADER.size)
    _check_version(header, version, magic)
    if offset + length + _TRAILER.size != size or offset < HEADER.size:
        raise StateCorruptError("index of keyed state is not where it should be", offset=offset)
    encoded = (
        tail[offset - tail_offset : -_TRAILER.size]
        if offset >= tail_offset
        else _read(read_range, offset, length)
    )
    if _checksum(encoded) != checksum:
        raise StateCorruptError("index of keyed state does not match its checksum", offset=offset)
    index = decoded(_decode_index, encoded)
    _check_index(index, offset)
    return index


def _check_version(header: bytes, version: int, magic: bytes) -> None:
    first, written, zero = HEADER.unpack(header)
    if (first, zero, magic, written) != (_MAGIC_FIRST, 0, _MAGIC_LAST, version):
        raise StateCorruptError("bytes are not keyed state of raystream")
    check_version(version, FORMAT_VERSION, "keyed state")
    if version < _VERSION_OLDEST:
        raise StateRestoreError(
            "keyed state was written by a raystream that is too old",
            hint="restore and save it with the version of raystream in between",
            version=version,
            oldest_readable=_VERSION_OLDEST,
        )


def _check_index(index: _Index, end: int) -> None:
    """Check that every place the index names exists, before anything is read there."""
    sections = index.sections
    offset = HEADER.size
    for section in sections:
        if (
            section.offset != offset
            or section.length < 0
            or not 0 <= section.state < len(index.states)
            or not index.first_group <= section.group < index.end_group
            or section.entries < 0
        ):
            raise StateCorruptError("index of keyed state contradicts itself", offset=section.offset)
        offset += section.length
    sorted_by_group = all(a.group <= b.group for a, b in pairwise(sections))
    if offset != end or not sorted_by_group or not groups_valid(index):
        raise StateCorruptError("index of keyed state contradicts itself", offset=offset)
    if len({state.name for state in index.states}) != len(index.states):
        raise StateCorruptError("index of keyed state names a state twice")
