"""Which entries a state has and which of its keys are the largest; reads it once, without decoding values."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from raystream.handles import StateInfo
from raystream.savepoint.parts import LargeKey
from raystream.state.canonical_keys import key_text
from raystream.state.chunk_entries import entry_sizes, key_of
from raystream.state.snapshot_format import StoredChunk

LARGEST_MAX = 10
"""Number of keys that are listed by their size."""


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
    heaps: dict[str, list[tuple[int, bytes]]] = {}
    for info, stored in chunks:
        size = found.setdefault(info.name, StateSize())
        infos[info.name] = info
        heap = heaps.setdefault(info.name, [])
        size.entries += stored.chunk.entries
        size.size_bytes += len(stored.chunk.data)
        for key, size_bytes in entry_sizes(stored.chunk, info):
            if len(heap) < LARGEST_MAX:
                heapq.heappush(heap, (size_bytes, key))
            elif size_bytes > heap[0][0]:
                heapq.heapreplace(heap, (size_bytes, key))
    for name, size in found.items():
        # Of keys of one size the one that comes first by its bytes, so that the answer is always the same.
        ordered = sorted(heaps[name], key=lambda one: (-one[0], one[1]))
        size.largest = [
            LargeKey(size_bytes, key_text(key_of(key, infos[name]))) for size_bytes, key in ordered
        ]
    return found


def largest_of(parts: Iterable[list[LargeKey]]) -> list[LargeKey]:
    """Return the largest keys of a state, given those of its subtasks."""
    return sorted((large for part in parts for large in part), key=lambda one: (-one.size_bytes, one.text))[
        :LARGEST_MAX
    ]
