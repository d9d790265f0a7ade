"""The keyed state of one subtask in a canonical savepoint: its parts, as they are read and written."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from raystream.errors import StateCorruptError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state.canonical_files import NewFile, Part
from raystream.state.canonical_index import CanonicalIndex, PartPlace, decode_index
from raystream.state.canonical_part import PartWriter, SubtaskHead
from raystream.state.canonical_reader import PartReader
from raystream.state.chunk_form import Chunk
from raystream.state.snapshot_format import StoredChunk, StoredInfo, StoredState


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
