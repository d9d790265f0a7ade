"""A source of generated records: `function(0)`, `function(1)`, and so on.

The indices are dealt out by remainder: split `j` of `S` stands for the indices `j`,
`j + S`, `j + 2 S`, ..., and its position is the next of them.  So every index belongs
to exactly one split at any time, under any parallelism, and a subtask that merges its
splits by index generates records nearly in the order of a single one.

A *round* is one index of each split.  All splits of a reader are normally in the same
round, and several rounds make up a batch; after a change of parallelism those that lag
behind catch up first.
"""

import operator
import traceback
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from raystream.connectors.sizing import records_within
from raystream.connectors.versioned import decode, encode
from raystream.errors import ConfigError, StateRestoreError, UserCodeError
from raystream.operators.source import (
    END,
    NOTHING,
    EnumeratorContext,
    ReaderContext,
    ReaderSignal,
    SplitEnumerator,
    SplitReader,
)
from raystream.records.batch import RowBatch

__all__ = ["DatagenSource"]

FORMAT_VERSION = 1
SPLITS = 128
"""Splits of a job of up to this parallelism; a larger one has one for each subtask."""
PACE_MS = 5.0
"""Shortest time between two batches at a limited rate."""
CATCH_UP_MS = 1000.0
"""A subtask that could not emit makes up for at most this much time."""


@dataclass(frozen=True, slots=True)
class DatagenSource:
    """Records computed from their index, the same ones at every run and after every restore.

    Attributes:
        function: called with each index `0, 1, 2, ...` exactly once per output; it should depend
            on nothing else.
        count: number of records in all; None never ends.
        rate: records per second over all subtasks together; None is as fast as possible.
            Time that passes while the job does not run is not made up for.

    Raises:
        ConfigError: `count` is negative or `rate` is not above 0.

    Example:
        >>> DatagenSource(lambda index: f"user-{index % 7}", count=1000, rate=50).bounded
        True
    """

    function: Callable[[int], Any]
    count: int | None = None
    rate: float | None = None

    rewindable = True

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 0:
            raise ConfigError("count of generated records must be 0 or more", count=self.count)
        if self.rate is not None and not self.rate > 0:
            raise ConfigError("rate of generated records must be above 0 a second", rate=self.rate)

    @property
    def bounded(self) -> bool:
        """True when there is a count."""
        return self.count is not None

    def enumerator(self, context: EnumeratorContext, state: bytes | None) -> SplitEnumerator:
        """Return what deals out the splits."""
        return DatagenEnumerator(context, state)

    def open_reader(self, context: ReaderContext) -> SplitReader:
        """Return what generates the records of one subtask."""
        return DatagenReader(self, context)


class IndexSplit(msgspec.Struct, frozen=True, array_like=True):
    """The indices `next, next + stride, next + 2 * stride, ...`."""

    next: int
    stride: int


class DatagenEnumerator:
    """Gives every subtask an equal part of the splits when it first asks."""

    discovery_interval_ms: int | None = None

    def __init__(self, context: EnumeratorContext, state: bytes | None) -> None:
        if state is None:
            stride = min(context.max_parallelism, max(SPLITS, context.parallelism))
            splits = [IndexSplit(remainder, stride) for remainder in range(stride)]
        else:
            splits = decode(state, FORMAT_VERSION, list[IndexSplit], "datagen enumerator")
        self._queues = [splits[subtask :: context.parallelism] for subtask in range(context.parallelism)]

    def discover(self) -> None:
        """Do nothing: the splits are known."""

    def discovered(self, found: None) -> None:
        """Do nothing: the splits are known."""

    def next_splits(self, subtask: int) -> list[bytes]:
        """Return all splits of the subtask, once."""
        splits, self._queues[subtask] = self._queues[subtask], []
        return [encode(FORMAT_VERSION, split) for split in splits]

    @property
    def exhausted(self) -> bool:
        """True when every subtask has its splits."""
        return not any(self._queues)

    def snapshot(self) -> bytes:
        """Return the splits of the subtasks that have not asked yet."""
        return encode(FORMAT_VERSION, [split for queue in self._queues for split in queue])


class DatagenReader:
    """Generates the records of its splits by rising index, at its share of the rate."""

    def __init__(self, source: DatagenSource, context: ReaderContext) -> None:
        self._function = source.function
        self._count = source.count
        self._rate = source.rate
        self._context = context
        self._pace: Pace | None = None
        self._stride = 0
        # Remainders by the round in which their next index lies, each list sorted.
        self._rounds: dict[int, list[int]] = {}
        self._complete = False

    def poll(self, records_max: int, bytes_max: int) -> RowBatch | ReaderSignal:
        """Generate the next records.

        Raises:
            UserCodeError: the function raised; names the index.
        """
        if not self._rounds:
            return END if self._complete else NOTHING
        now_ms = self._context.clock.monotonic_ms()
        if self._pace is not None:
            records_max = min(records_max, self._pace.due(now_ms))
            if records_max == 0:
                self._context.wake_at(self._pace.next_ms)
                return NOTHING
        values = self._generate(records_max, bytes_max)
        if self._pace is not None:
            self._pace.emitted(len(values), now_ms)
        return RowBatch(values)

    def add_splits(self, splits: Sequence[bytes]) -> None:
        """Generate these indices too.

        Raises:
            StateRestoreError: the splits are of another format, or of different jobs.
        """
        for raw in splits:
            split = decode(raw, FORMAT_VERSION, IndexSplit, "datagen split")
            if self._stride not in (0, split.stride):
                raise StateRestoreError(
                    "datagen splits of different jobs cannot be mixed",
                    stride=split.stride,
                    expected=self._stride,
                )
            self._stride = split.stride
            if self._count is None or split.next < self._count:
                number, remainder = divmod(split.next, split.stride)
                insort(self._rounds.setdefault(number, []), remainder)
        if self._rate is not None and self._rounds:
            share = self._rate * sum(map(len, self._rounds.values())) / self._stride
            self._pace = Pace(share, self._context.clock.monotonic_ms())
        self._context.wake()

    def no_more_splits(self) -> None:
        """End when all indices below the count are generated."""
        self._complete = True
        self._context.wake()

    @property
    def wants_splits(self) -> bool:
        """True until there are none left."""
        return not self._complete

    def snapshot(self) -> list[bytes]:
        """Return each split with its next index, lowest first."""
        return [
            encode(FORMAT_VERSION, IndexSplit(number * self._stride + remainder, self._stride))
            for number in sorted(self._rounds)
            for remainder in self._rounds[number]
        ]

    def checkpoint_complete(self, checkpoint_id: int) -> None:
        """Do nothing: every index can be generated again."""

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def _generate(self, records_max: int, bytes_max: int) -> list[Any]:
        """Return at least one record; some split has an index left."""
        before = dict(self._rounds)
        indices = self._take_indices(records_max)
        values = self._call(indices[:1])
        fitting = records_within(len(indices), bytes_max, values[0])
        if fitting < len(indices):
            self._rounds = before
            indices = self._take_indices(fitting)
        values += self._call(indices[1:])
        return values

    def _take_indices(self, count_max: int) -> Sequence[int]:
        """Take the lowest indices and move their splits on.

        At full speed half of `count_max` will do: a batch that ends with a round leaves the next one whole.
        """
        enough = count_max if self._pace is not None else count_max // 2
        indices = self._next_indices(count_max)
        while len(indices) < enough and self._rounds:
            indices = [*indices, *self._next_indices(count_max - len(indices))]
        return indices

    def _next_indices(self, count_max: int) -> Sequence[int]:
        """Take one or more of the lowest indices: whole rounds if they fit, else part of one."""
        number = min(self._rounds)
        remainders = self._rounds.pop(number)
        base = number * self._stride
        rounds = count_max // len(remainders)
        if len(self._rounds):  # The splits ahead join in when these have come up to them.
            rounds = min(rounds, min(self._rounds) - number)
        if self._count is not None:
            rounds = min(rounds, (self._count - 1 - remainders[-1] - base) // self._stride + 1)
        if rounds < 1:
            return self._part_of_a_round(number, remainders, count_max)
        indices: Sequence[int]
        if len(remainders) == self._stride:
            indices = range(base, base + rounds * self._stride)
        else:
            starts = range(base, base + rounds * self._stride, self._stride)
            indices = [start + remainder for start in starts for remainder in remainders]
        self._put_back(number + rounds, remainders)
        return indices

    def _part_of_a_round(self, number: int, remainders: list[int], count_max: int) -> Sequence[int]:
        taken, left = remainders[:count_max], remainders[count_max:]
        self._put_back(number, left)
        self._put_back(number + 1, taken)
        return [number * self._stride + remainder for remainder in taken]

    def _put_back(self, number: int, remainders: list[int]) -> None:
        """File splits under their new round; those that have reached the count are done."""
        if self._count is not None:
            remainders = remainders[: bisect_left(remainders, self._count - number * self._stride)]
        if remainders:
            self._rounds[number] = sorted(self._rounds.get(number, []) + remainders)

    def _call(self, indices: Sequence[int]) -> list[Any]:
        remaining = iter(indices)
        try:
            values = list(map(self._function, remaining))
            if len(values) != len(indices):
                raise StopIteration
            return values
        except Exception as error:
            index = indices[len(indices) - operator.length_hint(remaining) - 1]
            raise UserCodeError(
                "function of a datagen source raised",
                subtask=self._context.subtask,
                record=index,
                cause=f"{type(error).__name__}: {error}",
                traceback=traceback.format_exc(),
            ) from error


class Pace:
    """Says how many records are due at a rate, without a clock of its own.

    Attributes:
        next_ms: from when on more are due.
    """

    def __init__(self, records_per_s: float, now_ms: float) -> None:
        self._records_per_ms = records_per_s / 1000.0
        self._since_ms = now_ms
        self._emitted = 0
        self.next_ms = now_ms + 1.0 / self._records_per_ms

    def due(self, now_ms: float) -> int:
        """Return how many records should come now, 0 exactly before `next_ms`."""
        if now_ms < self.next_ms:
            return 0
        behind_ms = now_ms - self._since_ms - self._emitted / self._records_per_ms
        behind_ms_max = max(CATCH_UP_MS, 1.0 / self._records_per_ms)
        if behind_ms > behind_ms_max:
            self._since_ms += behind_ms - behind_ms_max
            behind_ms = behind_ms_max
        return max(1, int(behind_ms * self._records_per_ms))

    def emitted(self, count: int, now_ms: float) -> None:
        """Take note of records that came; the next ones wait a little, so that batches are not tiny."""
        self._emitted += count
        due_ms = self._since_ms + (self._emitted + 1) / self._records_per_ms
        self.next_ms = now_ms if due_ms <= now_ms else max(due_ms, now_ms + PACE_MS)
