"""A source of the items of a collection that the program holds.

The items travel with the program; splits are index ranges `[start, stop)`.  Ranges are
handed out in order, so a single subtask, also after a restore, keeps the order of the
collection.
"""

from collections import deque
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any

import msgspec

from raystream.connectors.sizing import records_within
from raystream.connectors.versioned import decode, encode
from raystream.operators.source import (
    END,
    NOTHING,
    EnumeratorContext,
    ReaderContext,
    ReaderSignal,
    SplitBatch,
    SplitEnumerator,
    SplitReader,
)
from raystream.records.batch import RowBatch

FORMAT_VERSION = 1
RANGES_PER_SUBTASK = 4


class IndexRange(msgspec.Struct, frozen=True, array_like=True):
    """The items `[start, stop)` of the collection."""

    start: int
    stop: int


class CollectionSource:
    """The items of an iterable, which is read once, here.

    Example:
        >>> CollectionSource(range(3)).items
        [0, 1, 2]
    """

    bounded = True
    rewindable = True

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = list(items)

    def enumerator(self, context: EnumeratorContext, state: bytes | None) -> SplitEnumerator:
        """Return what deals out ranges of the items."""
        return CollectionEnumerator(len(self.items), context, state)

    def open_reader(self, context: ReaderContext) -> SplitReader:
        """Return what reads ranges of the items in one subtask."""
        return CollectionReader(self.items, context)


class CollectionEnumerator:
    """Hands out ranges in order, one per request."""

    discovery_interval_ms: int | None = None

    def __init__(self, count: int, context: EnumeratorContext, state: bytes | None) -> None:
        self._size = max(1, -(-count // (context.parallelism * RANGES_PER_SUBTASK)))
        self._left = IndexRange(0, count)
        if state is not None:
            self._left = decode(state, FORMAT_VERSION, IndexRange, "collection enumerator")

    def discover(self) -> None:
        """Do nothing: the items are known."""

    def discovered(self, found: None) -> None:
        """Do nothing: the items are known."""

    def next_splits(self, subtask: int) -> list[bytes]:
        """Cut the next range off what is left."""
        if self.exhausted:
            return []
        start, stop = self._left.start, self._left.stop
        middle = min(start + self._size, stop)
        self._left = IndexRange(middle, stop)
        return [encode(FORMAT_VERSION, IndexRange(start, middle))]

    @property
    def exhausted(self) -> bool:
        """True when every item was handed out."""
        return self._left.start >= self._left.stop

    def snapshot(self) -> bytes:
        """Return the range that is left."""
        return encode(FORMAT_VERSION, self._left)


class CollectionReader:
    """Emits ranges of the items, one after the other."""

    def __init__(self, items: list[Any], context: ReaderContext) -> None:
        self._items = items
        self._context = context
        self._ranges: deque[IndexRange] = deque()
        self._complete = False

    def poll(self, records_max: int, bytes_max: int) -> RowBatch | ReaderSignal:
        """Return the next items of the first range."""
        if not self._ranges:
            return END if self._complete else NOTHING
        current = self._ranges.popleft()
        fitting = records_within(records_max, bytes_max, self._items[current.start])
        stop = min(current.start + fitting, current.stop)
        if stop < current.stop:
            self._ranges.appendleft(IndexRange(stop, current.stop))
        values = self._items[current.start : stop]
        return SplitBatch(current.stop, values) if self._context.per_split else RowBatch(values)

    def add_splits(self, splits: Sequence[bytes]) -> None:
        """Read these ranges after those already there.

        Raises:
            StateRestoreError: a range is of another format.
        """
        ranges = [decode(raw, FORMAT_VERSION, IndexRange, "collection split") for raw in splits]
        count = len(self._items)
        # A restored range may reach beyond the items of a program that was changed.
        clipped = [IndexRange(part.start, min(part.stop, count)) for part in ranges]
        self._ranges.extend(part for part in clipped if part.start < part.stop)
        self._context.wake()

    def no_more_splits(self) -> None:
        """End when the ranges in hand are read."""
        self._complete = True
        self._context.wake()

    @property
    def wants_splits(self) -> bool:
        """True while no range waits behind the one in hand, or with watermarks no one is in hand."""
        return not self._complete and len(self._ranges) <= (0 if self._context.per_split else 1)

    def active_splits(self) -> Collection[Hashable]:
        """Return the stops of the ranges in hand, which differ."""
        return [part.stop for part in self._ranges]

    def snapshot(self) -> list[bytes]:
        """Return what is left of each range, in reading order."""
        return [encode(FORMAT_VERSION, part) for part in self._ranges]

    def checkpoint_complete(self, checkpoint_id: int) -> None:
        """Do nothing: the items stay."""

    def close(self) -> None:
        """Do nothing: there is nothing to free."""
