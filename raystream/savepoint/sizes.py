"""Which entries a state has and which of its keys are the largest; reads it once, without decoding values."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from raystream.handles import StateInfo
from raystream.state.canonical_keys import key_text
from raystream.state.chunk_entries import entry_sizes, key_of
from raystream.state.snapshot_format import StoredChunk

LARGEST_MAX = 10
"""Number of keys that are listed by their size."""


@dataclass(frozen=True, slots=True)
class LargeKey:
    """An entry among the largest of its state.

    Attributes:
        size_bytes: of its key and its values as they are stored.
        values: how many it has: elements of a list, entries of a map, else one.
    """

    text: str
    """The key, as Python shows it."""
    size_bytes: int
    values: int


@dataclass(slots=True)
class StateSize:
    """What was counted of a state."""

    entries: int = 0
    size_bytes: int = 0
    largest: list[LargeKey] = field(default_factory=list)


def sizes(chunks: Iterator[tuple[StateInfo, StoredChunk]]) -> dict[str, StateSize]:
    """Return the size of each state of which there are chunks, by name.

    Raises:
        StateCorruptError: a chunk is damaged.
    """
    found: dict[str, StateSize] = {}
    infos: dict[str, StateInfo] = {}
    heaps: dict[str, list[tuple[int, int, bytes]]] = {}
    for info, stored in chunks:
        size = found.setdefault(info.name, StateSize())
        infos[info.name] = info
        heap = heaps.setdefault(info.name, [])
        size.entries += stored.chunk.entries
        size.size_bytes += len(stored.chunk.data)
        for key, values, size_bytes in entry_sizes(stored.chunk, info):
            if len(heap) < LARGEST_MAX:
                heapq.heappush(heap, (size_bytes, values, key))
            elif size_bytes > heap[0][0]:
                heapq.heapreplace(heap, (size_bytes, values, key))
    for name, size in found.items():
        # Of keys of one size the one that comes first by its bytes, so that the answer is always the same.
        ordered = sorted(heaps[name], key=lambda one: (-one[0], one[2]))
        size.largest = [
            LargeKey(key_text(key_of(key, infos[name])), size_bytes, values) for size_bytes, values, key in ordered
        ]
    return found
