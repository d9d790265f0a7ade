"""A source whose splits get their records while the job runs, as the partitions of a log do."""

from typing import ClassVar

import msgspec

from raystream.operators.source import NOTHING, SplitBatch

LOOK_MS = 100


class Position(msgspec.Struct, array_like=True):
    split: str
    next: int = 0


class Feeds:
    """Splits are named lists of numbers that a test appends to; one subtask reads them all, in turn."""

    records: ClassVar[dict[str, list[int]]] = {}
    bounded = False
    rewindable = True

    def enumerator(self, context, state):
        return FeedEnumerator(sorted(self.records) if state is None else [])

    def open_reader(self, context):
        return FeedReader(context)


class FeedEnumerator:
    discovery_interval_ms = None

    def __init__(self, left):
        self._left = left

    def discover(self):
        pass

    def discovered(self, found):
        pass

    def next_splits(self, subtask):
        given, self._left = self._left, []
        return [msgspec.msgpack.encode(Position(split)) for split in given]

    @property
    def exhausted(self):
        return not self._left

    def snapshot(self):
        return b"all dealt out"


class FeedReader:
    def __init__(self, context):
        self._context = context
        self._positions = []
        self.wants_splits = True

    def poll(self, records_max, bytes_max):
        for position in self._positions:
            values = Feeds.records[position.split][position.next :]
            if values:
                position.next += len(values)
                return SplitBatch(position.split, values)
        self._context.wake_at(self._context.clock.monotonic_ms() + LOOK_MS)
        return NOTHING

    def add_splits(self, splits):
        self._positions += [msgspec.msgpack.decode(raw, type=Position) for raw in splits]

    def no_more_splits(self):
        self.wants_splits = False

    def active_splits(self):
        return [position.split for position in self._positions]

    def snapshot(self):
        return [msgspec.msgpack.encode(position) for position in self._positions]

    def checkpoint_complete(self, checkpoint_id):
        pass

    def close(self):
        pass
