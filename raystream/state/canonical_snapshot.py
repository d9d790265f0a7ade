"""The keyed state of one subtask in a canonical savepoint: its parts, and the index that says what they are.

    header   magic "RSKC", version, two zero bytes
    content  msgpack: max parallelism, key groups, time, states, and which of these have a part

The index is small and stands in `_metadata`, beside the paths and checksums of the parts.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from raystream.errors import StateCorruptError, StateRestoreError
from raystream.handles import StateInfo
from raystream.keygroup import KEY_GROUPS_MAX, KeyGroupRange
from raystream.state.canonical_files import NewFile, Part
from raystream.state.canonical_part import PartWriter, SubtaskHead
from raystream.state.canonical_reader import PartPlace, PartReader
from raystream.state.chunk_form import Chunk
from raystream.state.snapshot_format import StoredChunk, StoredInfo, StoredState
from raystream.state.ttl import Moment

FORMAT_VERSION = 1

MAGIC = b"RSKC"
_HEADER = struct.Struct("<4sHH")


class CanonicalIndex(msgspec.Struct, frozen=True, kw_only=True):
    """What describes the keyed state of one subtask."""

    max_parallelism: int
    first_group: int
    end_group: int
    taken_ms: int
    event_ms: int
    states: list[StoredInfo]
    parts: list[int]
    """Positions of the states that have rows, and so a part, which is called by this number."""

    @property
    def taken(self) -> Moment:
        """When the savepoint was taken."""
        return Moment(processing_ms=self.taken_ms, event_ms=self.event_ms)


_decode = msgspec.msgpack.Decoder(CanonicalIndex).decode


def encode_index(index: CanonicalIndex) -> bytes:
    """Return the bytes of an index."""
    return _HEADER.pack(MAGIC, FORMAT_VERSION, 0) + msgspec.msgpack.encode(index)


def decode_index(data: bytes) -> CanonicalIndex:
    """Return what an index says.

    Raises:
        StateCorruptError: it is not as the format has it.
        StateRestoreError: a newer version wrote it.
    """
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise StateCorruptError("bytes are not the index of a savepoint's keyed state")
    _, version, zero = _HEADER.unpack_from(data)
    if version > FORMAT_VERSION:
        raise StateRestoreError(
            "savepoint was written by a newer raystream",
            hint="restore with the version that wrote it, or a later one",
            version=version,
            newest_readable=FORMAT_VERSION,
        )
    try:
        index = _decode(memoryview(data)[_HEADER.size :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateCorruptError("index of keyed state cannot be read", cause=str(error)[:200]) from error
    names = [state.name for state in index.states]
    groups_valid = 0 <= index.first_group < index.end_group <= index.max_parallelism <= KEY_GROUPS_MAX
    parts_valid = sorted(set(index.parts)) == index.parts and set(index.parts) <= set(range(len(names)))
    if zero or not groups_valid or not parts_valid or len(set(names)) != len(names):
        raise StateCorruptError("index of keyed state contradicts itself")
    return index


class StoredParts:
    """The keyed state of one subtask in a canonical savepoint, of which a new subtask restores some.

    It stands for a `StoredSnapshot`, and has the same attributes.

    Attributes:
        parts: by position of their state.

    Args:
        index: says what there is.
        parts: by position of their state.
        groups: the wanted key groups, under `max_parallelism`.
        max_parallelism: of the new owner; when the savepoint has another one, everything is wanted.
    """

    def __init__(
        self,
        index: CanonicalIndex,
        parts: Mapping[int, PartReader],
        groups: KeyGroupRange,
        max_parallelism: int,
    ) -> None:
        self.parts = parts
        self._wanted = groups if index.max_parallelism == max_parallelism else None
        self.max_parallelism = index.max_parallelism
        self.taken_ms = index.taken_ms
        self.watermark_ms = index.taken.watermark_ms
        entries, sizes = [0] * len(index.states), [0] * len(index.states)
        # As in a blob: of a key group that several new owners read, the owner of the first counts it.
        step = math.gcd(index.max_parallelism, max_parallelism)
        for state, part in parts.items():
            _check(index, state, part)
            for row_group in part.footer.row_groups:
                counted = [of for of in row_group.key_groups if of[0] % step in groups]
                rows = sum(rows for _, rows, _ in counted)
                entries[state] += sum(count for *_, count in counted)
                sizes[state] += row_group.length * rows // max(row_group.rows, 1)
        self.states = tuple(
            StoredState(info=state.info, entries=entries[n], size_bytes=sizes[n])
            for n, state in enumerate(index.states)
        )

    def chunks(self) -> Iterator[tuple[StateInfo, StoredChunk]]:
        """Yield the chunks of the wanted key groups, state by state, sorted by key group; blocks.

        Raises:
            StateCorruptError: a byte is not what it was when the savepoint was written.
        """
        for state, part in self.parts.items():
            info = self.states[state].info
            for chunk in part.chunks(self._wanted):
                yield info, chunk


def _check(index: CanonicalIndex, state: int, part: PartReader) -> None:
    """Check that a part is the one that the index means."""
    footer = part.footer
    groups = range(index.first_group, index.end_group)
    if (
        footer.state.info != index.states[state].info
        or footer.max_parallelism != index.max_parallelism
        or any(group not in groups for of in footer.row_groups for group, _, _ in of.key_groups)
    ):
        raise StateCorruptError("part of a savepoint is not the one that is indexed", path=part.path)


def open_parts(
    blob: bytes, parts: Mapping[str, PartPlace], groups: KeyGroupRange, max_parallelism: int
) -> StoredParts:
    """Return what a canonical savepoint has of the keyed state of one subtask; blocks, as it reads footers.

    Args:
        blob: the index.
        parts: the files beside it, by their local names.
        groups: the wanted key groups, under `max_parallelism`.
        max_parallelism: of the new owner.

    Raises:
        StateCorruptError: a byte is not what it was when the savepoint was written.
        StateRestoreError: a newer version wrote it.
    """
    index, readers = read_parts(blob, parts)
    return StoredParts(index, readers, groups, max_parallelism)


def read_parts(blob: bytes, parts: Mapping[str, PartPlace]) -> tuple[CanonicalIndex, dict[int, PartReader]]:
    """Return the index and, by position of their state, the parts; as `open_parts`."""
    index = decode_index(blob)
    if set(map(str, index.parts)) != set(parts):
        raise StateCorruptError("files of keyed state are not those that its index names")
    return index, {state: PartReader(parts[str(state)]) for state in index.parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePart:
    """A part that is written, and whose it is."""

    state: int
    info: StateInfo
    part: Part

    @property
    def local(self) -> str:
        """What the index calls it."""
        return str(self.state)


class PartsWriter:
    """Writes the chunks of all states of one subtask, each state into a part of its own.

    It holds at most the rows of one row group for each state.

    Args:
        head: whose state it is.
        states: all of them, also those without chunks.
        new_file: makes a local file.
    """

    def __init__(self, head: SubtaskHead, states: Sequence[StateInfo], new_file: NewFile) -> None:
        self._head = head
        self._states = states
        self._new_file = new_file
        self._writers: dict[int, PartWriter] = {}

    def add(self, state: int, group: int, chunk: Chunk) -> None:
        """Add a chunk of the state at this position, after those of lower key groups.

        Raises:
            StateCorruptError: the chunk is not what its form says.
            StateError: a value is too large for Parquet, or the local disk failed.
        """
        writer = self._writers.get(state)
        if writer is None:
            writer = self._writers[state] = PartWriter(self._head, self._states[state], self._new_file)
        writer.add(group, chunk)

    def finish(self) -> list[StatePart]:
        """Return the parts of the states that have rows, in the order of the states; the writer is done."""
        parts = []
        for state, writer in sorted(self._writers.items()):
            part = writer.finish()
            if part is not None:
                parts.append(StatePart(state=state, info=self._states[state], part=part))
        return parts

    def index(self, parts: Sequence[StatePart]) -> CanonicalIndex:
        """Return what `_metadata` has beside the parts."""
        head = self._head
        return CanonicalIndex(
            max_parallelism=head.max_parallelism,
            first_group=head.groups.start,
            end_group=head.groups.stop,
            taken_ms=head.taken.processing_ms,
            event_ms=head.taken.event_ms,
            states=list(map(StoredInfo.of, self._states)),
            parts=[part.state for part in parts],
        )

    def discard(self) -> None:
        """Remove the local files; may be called again, also when the parts are finished."""
        for writer in self._writers.values():
            writer.discard()
