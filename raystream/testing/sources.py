"""A source that is a script: records, and between them what shall happen to the job."""

from collections import deque
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from raystream.connectors.versioned import decode, encode
from raystream.errors import ConfigError, UserCodeError
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
from raystream.records.elements import Idle, Watermark

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Barrier:
    """A checkpoint or savepoint is taken exactly here; the source waits until it is triggered.

    The job needs checkpointing: nothing else lets the source go on.
    """


@dataclass(frozen=True, slots=True)
class Crash:
    """The source fails here in attempt 1; later attempts pass over it."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The source is silent here for `ms` milliseconds, from the moment it gets here."""

    ms: float


class TestSource:
    """Emits the items of one or more lists and obeys the control items in them.

    Control items are `Barrier`, `Crash` and `Pause`, and what moves event time: `Watermark(ms)`, and
    `Idle()`, which lasts until the next record or watermark of the subtask.

    Each list is one split with an order of its own; list `i` is read by subtask
    `i % parallelism`, unless a restore deals the splits out otherwise.

    Args:
        scripts: lists of records and control items; read once, here.

    Raises:
        ConfigError: there is no list.

    Example:
        >>> source = TestSource(["a", Barrier(), "b", Crash(), "c"])
        >>> source.records
        ['a', 'b', 'c']
    """

    __test__ = False  # Not a test class, whatever its name begins with.

    bounded = True
    rewindable = True

    def __init__(self, *scripts: Iterable[Any]) -> None:
        if not scripts:
            raise ConfigError("a test source needs at least one list of items")
        self.scripts = [list(script) for script in scripts]

    @property
    def records(self) -> list[Any]:
        """The records of all lists, without the control items."""
        return [item for script in self.scripts for item in script if not isinstance(item, _CONTROL)]

    def enumerator(self, context: EnumeratorContext, state: bytes | None) -> SplitEnumerator:
        """Return what deals out the lists."""
        return _ScriptEnumerator(len(self.scripts), context, state)

    def open_reader(self, context: ReaderContext) -> SplitReader:
        """Return what plays the lists in one subtask."""
        return _ScriptReader(self.scripts, context)


_CONTROL = (Barrier, Crash, Pause, Watermark, Idle)


class _ScriptSplit(msgspec.Struct, array_like=True):
    """The rest of one list; `position` is the next item, control items included."""

    script: int
    position: int = 0


class _ScriptEnumerator:
    """Gives each subtask its lists, one per request."""

    discovery_interval_ms: int | None = None

    def __init__(self, count: int, context: EnumeratorContext, state: bytes | None) -> None:
        if state is None:
            waiting = list(range(count))
        else:
            waiting = decode(state, FORMAT_VERSION, list[int], "test source enumerator")
        self._parallelism = context.parallelism
        self._waiting = waiting

    def discover(self) -> None:
        """Do nothing: the lists are known."""

    def discovered(self, found: None) -> None:
        """Do nothing: the lists are known."""

    def next_splits(self, subtask: int) -> list[bytes]:
        for script in self._waiting:
            if script % self._parallelism == subtask:
                self._waiting.remove(script)
                return [encode(FORMAT_VERSION, _ScriptSplit(script))]
        return []

    @property
    def exhausted(self) -> bool:
        """True when every list has its reader."""
        return not self._waiting

    def snapshot(self) -> bytes:
        return encode(FORMAT_VERSION, self._waiting)


class _ScriptReader:
    """Plays lists, one after the other."""

    def __init__(self, scripts: list[list[Any]], context: ReaderContext) -> None:
        self._scripts = scripts
        self._context = context
        self._splits: deque[_ScriptSplit] = deque()
        self._silent_until_ms: float | None = None
        self._complete = False

    def poll(self, records_max: int, bytes_max: int) -> RowBatch | ReaderSignal | Watermark | Idle:
        """Return the records up to the next control item, or do what that item says.

        Raises:
            UserCodeError: a `Crash` in attempt 1.
        """
        while self._splits:
            split = self._splits[0]
            script = self._scripts[split.script]
            if split.position == len(script):
                self._splits.popleft()
                continue
            item = script[split.position]
            if not isinstance(item, _CONTROL):
                records = self._records(split, records_max)
                return SplitBatch(split.script, records) if self._context.per_split else RowBatch(records)
            if isinstance(item, Watermark | Idle):
                split.position += 1
                return item
            if not self._passes(item):
                return NOTHING
            split.position += 1
        return END if self._complete else NOTHING

    def add_splits(self, splits: Sequence[bytes]) -> None:
        self._splits.extend(decode(raw, FORMAT_VERSION, _ScriptSplit, "test source split") for raw in splits)
        self._context.wake()

    def no_more_splits(self) -> None:
        self._complete = True
        self._context.wake()

    @property
    def wants_splits(self) -> bool:
        """True when no list is in hand: one that waits at a barrier holds up no other reader's."""
        return not self._complete and not self._splits

    def active_splits(self) -> Collection[Hashable]:
        """Return the numbers of the lists in hand."""
        return [split.script for split in self._splits]

    def snapshot(self) -> list[bytes]:
        """Return what is left of each list; a `Barrier` that all records before it have passed is done."""
        for split in self._splits:
            script = self._scripts[split.script]
            if split.position < len(script) and isinstance(script[split.position], Barrier):
                split.position += 1
                self._context.wake()
            break  # The others have not been reached.
        return [encode(FORMAT_VERSION, split) for split in self._splits]

    def checkpoint_complete(self, checkpoint_id: int) -> None:
        """Do nothing: the lists stay."""

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def _records(self, split: _ScriptSplit, records_max: int) -> list[Any]:
        """Take the next records, up to a control item."""
        script = self._scripts[split.script]
        records: list[Any] = []
        for item in script[split.position : split.position + records_max]:
            if isinstance(item, _CONTROL):
                break
            records.append(item)
        split.position += len(records)
        return records

    def _passes(self, item: Barrier | Crash | Pause) -> bool:
        """Do what a control item says; True when the source may go on behind it."""
        if isinstance(item, Barrier):
            return False
        if isinstance(item, Crash):
            if self._context.attempt == 1:
                raise UserCodeError("test source crashed, as its script says", subtask=self._context.subtask)
            return True
        now_ms = self._context.clock.monotonic_ms()
        if self._silent_until_ms is None:
            self._silent_until_ms = now_ms + item.ms
        if now_ms < self._silent_until_ms:
            self._context.wake_at(self._silent_until_ms)
            return False
        self._silent_until_ms = None
        return True
