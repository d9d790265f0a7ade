"""Drives the enumerator and the readers of a source as a job does, step by step.

Plays the parts of job master and slots for `SourceContract`: answers requests for
splits, polls readers that are awake, moves a clock of its own to the next wake-up, and
takes consistent snapshots.
"""

import random
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from raystream.operators.source import (
    END,
    EnumeratorContext,
    PerSplitReader,
    ReaderContext,
    ReaderSignal,
    Source,
    SplitBatch,
)
from raystream.records.batch import RowBatch

MAX_PARALLELISM = 128
SILENT_ROUNDS = 3
"""Wake-ups in a row without a record after which an unbounded source counts as read."""


class ManualClock:
    """A clock that somebody sets."""

    def __init__(self, now_ms: float = 1000.0) -> None:
        self.now_ms = now_ms

    def monotonic_ms(self) -> float:
        return self.now_ms

    def wall_ms(self) -> int:
        return int(self.now_ms)


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """A consistent cut through a source: the enumerator's state and each reader's splits."""

    enumerator: bytes
    splits: list[list[bytes]]


class ReaderRun:
    """One reader and what a slot knows of it.

    Attributes:
        reader: the reader.
        awake: it asked to be polled, or was not polled yet.
        of_splits: the records of each split, by the name that a reader of splits gives it.
    """

    def __init__(
        self,
        source: Source,
        subtask: int = 0,
        parallelism: int = 1,
        clock: ManualClock | None = None,
        *,
        per_split: bool = False,
    ) -> None:
        self.clock = clock or ManualClock()
        self.awake = True
        self.of_splits: dict[Hashable, list[Any]] = {}
        self._per_split = per_split
        self.wake_at_ms: float | None = None
        self._ended = False
        self.reader = source.open_reader(
            ReaderContext(
                uid="source under test",
                subtask=subtask,
                parallelism=parallelism,
                attempt=1,
                clock=self.clock,
                wake=self._wake,
                wake_at=self._wake_at,
                per_split=per_split,
            )
        )

    def poll_once(self, records: list[Any], records_max: int, bytes_max: int) -> bool:
        """Poll until a batch has come and append it; False when the source has ended or fallen silent."""
        for _ in range(SILENT_ROUNDS):
            if self.poll(records, records_max, bytes_max):
                return True
            if self._ended or not self.pass_time():
                return False
        return False

    def poll(self, records: list[Any], records_max: int, bytes_max: int) -> bool:
        """Poll once; True when records came."""
        self.awake = False
        if self.wake_at_ms is not None and self.wake_at_ms <= self.clock.now_ms:
            self.wake_at_ms = None
        splits = self.active_splits()
        result = self.reader.poll(records_max, bytes_max)
        if isinstance(result, RowBatch):
            if splits is not None:
                assert isinstance(result, SplitBatch), "a reader of splits says of each batch whose it is"
                assert result.split in splits, "records come from active splits"
                self.of_splits.setdefault(result.split, []).extend(result.values)
            assert not self._ended, "records came after the end"
            assert 1 <= len(result) <= records_max, (
                "a batch has at least one record and at most those asked for"
            )
            records.extend(result.values)
            self.awake = True
            return True
        assert result is END or not self._ended, "a reader that has ended stays so"
        if not isinstance(result, ReaderSignal):  # It moves event time.
            self.awake = True
            return False
        self._ended = result is END
        return False

    def pass_time(self) -> bool:
        """Let the reader wake up: now, later, or by a checkpoint; False when nothing would wake it."""
        if not self.awake and self.wake_at_ms is not None:
            self.clock.now_ms = max(self.clock.now_ms, self.wake_at_ms)
            self.awake = True
        if not self.awake:
            self.reader.snapshot()
        return self.awake

    def read_all(self) -> list[Any]:
        """Return everything up to the end, or to a lasting silence."""
        records: list[Any] = []
        while self.poll_once(records, 1024, 1 << 20):
            pass
        return records

    def ended(self) -> bool:
        """Poll a reader that should have no record left; True when it says that it has ended."""
        records: list[Any] = []
        self.poll(records, 1, 1)
        assert not records
        return self._ended

    @property
    def at_end(self) -> bool:
        """True when the last poll said so."""
        return self._ended

    def active_splits(self) -> Collection[Hashable] | None:
        """Return what a reader of splits has in hand; None when watermarks are not of splits."""
        reader = self.reader
        return reader.active_splits() if self._per_split and isinstance(reader, PerSplitReader) else None

    def close(self) -> None:
        """Close the reader."""
        self.reader.close()

    def _wake(self) -> None:
        self.awake = True

    def _wake_at(self, at_ms: float) -> None:
        self.wake_at_ms = at_ms if self.wake_at_ms is None else min(at_ms, self.wake_at_ms)


class SourceRun:
    """An execution of a source by several readers, from the start or from a snapshot.

    Attributes:
        records: what came since the start, or since somebody emptied the list.
        enumerator: the enumerator.
        readers: one run per subtask.
    """

    def __init__(
        self, source: Source, parallelism: int, rng: random.Random, *, snapshot: SourceSnapshot | None = None
    ) -> None:
        self.records: list[Any] = []
        self._source = source
        self._rng = rng
        self._clock = ManualClock()
        self._silent_rounds = 0
        context = EnumeratorContext(
            parallelism=parallelism, max_parallelism=MAX_PARALLELISM, restored=snapshot is not None
        )
        self.enumerator = source.enumerator(context, snapshot.enumerator if snapshot else None)
        self._discover()
        per_split = rng.random() < 0.5
        self.readers = [
            ReaderRun(source, i, parallelism, self._clock, per_split=per_split)
            for i in range(parallelism)
        ]
        self._told = [False] * parallelism
        if snapshot is not None:
            for run, splits in zip(self.readers, deal_evenly(snapshot.splits, parallelism), strict=True):
                run.reader.add_splits(splits)

    def step(self) -> None:
        """Poll a reader that is awake; when all sleep, let time pass and checkpoints happen."""
        subtask = self._rng.randrange(len(self.readers))
        self._answer_request(subtask)
        run = self.readers[subtask]
        if run.awake:
            records_max = self._rng.choice((1, 2, 7, 40, 1024))
            bytes_max = self._rng.choice((1, 100, 1 << 20))
            if run.poll(self.records, records_max, bytes_max):
                self._silent_rounds = 0
        elif not any(other.awake for other in self.readers):
            self._pass_time()

    def read_what_is_there(self) -> None:
        """Poll until every reader sleeps or has ended; no time passes."""
        for subtask, run in enumerate(self.readers):
            self._answer_request(subtask)
            while run.awake:
                run.poll(self.records, 1024, 1 << 20)
                self._answer_request(subtask)

    def tick(self) -> None:
        """Let the time of one discovery pass, discover, and wake whoever wanted to be woken by then."""
        self._clock.now_ms += self.enumerator.discovery_interval_ms or 0
        self._discover()
        self._wake_who_is_due()

    def finished(self, wanted: int) -> bool:
        """True when all readers have ended, or an unbounded source has given enough and is silent."""
        if self._source.bounded:
            return all(run.at_end for run in self.readers)
        assert len(self.records) <= wanted, f"{len(self.records)} records, {wanted} expected"
        return len(self.records) == wanted and self._silent_rounds >= SILENT_ROUNDS

    def snapshot(self) -> SourceSnapshot:
        """Return a cut: no split is assigned meanwhile."""
        return SourceSnapshot(self.enumerator.snapshot(), [run.reader.snapshot() for run in self.readers])

    def close(self) -> None:
        """Close all readers, as at the end of an attempt."""
        for run in self.readers:
            run.close()

    def _answer_request(self, subtask: int) -> None:
        run = self.readers[subtask]
        if not self._told[subtask] and run.reader.wants_splits:
            splits = self.enumerator.next_splits(subtask)
            if splits:
                run.reader.add_splits(splits)
            elif self.enumerator.exhausted:
                self._told[subtask] = True
                run.reader.no_more_splits()

    def _pass_time(self) -> None:
        self._silent_rounds += 1
        times_ms = [run.wake_at_ms for run in self.readers if run.wake_at_ms is not None]
        if self.enumerator.discovery_interval_ms is not None:
            times_ms.append(self._clock.now_ms + self.enumerator.discovery_interval_ms)
            self._discover()
        if times_ms:
            self._clock.now_ms = max(self._clock.now_ms, min(times_ms))
        self._wake_who_is_due()
        if not any(run.awake for run in self.readers):
            # Nobody waits for time: what is left may wait for a checkpoint.
            self.snapshot()

    def _wake_who_is_due(self) -> None:
        for run in self.readers:
            if run.wake_at_ms is not None and run.wake_at_ms <= self._clock.now_ms:
                run.awake = True

    def _discover(self) -> None:
        self.enumerator.discovered(self.enumerator.discover())


def deal_evenly(parts: Sequence[Sequence[bytes]], parallelism: int) -> list[list[bytes]]:
    """Return operator state dealt out to so many subtasks: as it was, or in even contiguous runs.

    Example:
        >>> deal_evenly([[b"a", b"b"], [b"c"]], 2)
        [[b'a', b'b'], [b'c']]
        >>> deal_evenly([[b"a", b"b"], [b"c"]], 1)
        [[b'a', b'b', b'c']]
    """
    if len(parts) == parallelism:
        return [list(part) for part in parts]
    elements = [element for part in parts for element in part]
    size, longer = divmod(len(elements), parallelism)
    stops = [size * (i + 1) + min(i + 1, longer) for i in range(parallelism)]
    return [elements[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
