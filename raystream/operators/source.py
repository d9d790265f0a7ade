"""The contract between raystream and a source: splits, their enumerator and their reader.

A source is cut into *splits*, opaque bytes that its own connector encodes (with a
version byte, since they are stored in snapshots).  The enumerator lives at the job
master, finds splits and hands them out; a reader lives in each source subtask and
turns its splits into batches.  A split is at any time in the enumerator or in exactly
one reader, and a position inside a split is part of the split's bytes.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol, runtime_checkable

from raystream.clock import Clock
from raystream.records.batch import RowBatch
from raystream.records.elements import Idle, Watermark


class ReaderSignal(Enum):
    """What a reader returns when it has no batch."""

    NOTHING = auto()
    """No record now; the reader calls `context.wake` or `context.wake_at` when that changes."""
    END = auto()
    """Every split was read to its end and no more will come; never returned after more records."""


class SplitBatch(RowBatch):
    """A batch of a reader that says from which of its `active_splits` all of its records come."""

    __slots__ = ("split",)

    def __init__(self, split: Hashable, values: list[Any], timestamps: list[int] | None = None) -> None:
        super().__init__(values, timestamps)
        self.split = split


NOTHING = ReaderSignal.NOTHING
END = ReaderSignal.END


@dataclass(frozen=True, slots=True, kw_only=True)
class EnumeratorContext:
    """What an enumerator knows of its job."""

    parallelism: int
    max_parallelism: int
    restored: bool
    """True when the job starts from a snapshot, so that the state passed to it counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderContext:
    """What a reader knows of its subtask.

    Attributes:
        subtask: 0-based index of the source subtask.
        wake: makes the slot poll this reader soon; may be called from any thread.
        wake_at: like `wake`, at a time of `clock.monotonic_ms`; the slot's thread only.
        per_split: watermarks are made of the records, so a `PerSplitReader` returns a `SplitBatch` each
            time, and takes no split into its hands long before it reads it.
    """

    uid: str
    subtask: int
    parallelism: int
    attempt: int
    clock: Clock
    wake: Callable[[], None]
    wake_at: Callable[[float], None]
    per_split: bool = False


class SplitEnumerator(Protocol):
    """Finds splits and deals them out.  All methods but `discover` run on the job master's one thread."""

    discovery_interval_ms: int | None
    """Time between two discoveries, or None when the first finds everything."""

    def discover(self) -> Any:
        """Look for splits; may block, runs in a thread and must not touch the enumerator's state.

        Called before the first reader starts, also after a restore, and then every
        `discovery_interval_ms`.  The result goes to `discovered`.

        Raises:
            ConfigError: the source cannot be read (no such file, ...).
        """

    def discovered(self, found: Any) -> None:
        """Take in a result of `discover`; what is already known is ignored."""

    def next_splits(self, subtask: int) -> list[bytes]:
        """Remove and return the splits that this subtask, which has nothing to do, shall read now."""

    @property
    def exhausted(self) -> bool:
        """True when `next_splits` will never return a split again."""

    def snapshot(self) -> bytes:
        """Return the enumerator's state: the splits not yet handed out and what was seen."""


class SplitReader(Protocol):
    """Turns splits into batches; lives on the slot's thread and never blocks for long."""

    def poll(self, records_max: int, bytes_max: int) -> RowBatch | ReaderSignal | Watermark | Idle:
        """Return the next batch, `NOTHING` or `END`; a batch is cut at the first limit it reaches.

        A reader that knows more of event time than a watermark strategy could find in its records
        may return a watermark of its own, or that it will be idle until its next batch.
        """

    def add_splits(self, splits: Sequence[bytes]) -> None:
        """Read these splits too."""

    def no_more_splits(self) -> None:
        """No split will be added any more; after the last one `poll` returns `END`."""

    @property
    def wants_splits(self) -> bool:
        """True when the reader is about to run dry (asked after each batch; answers take 1 ms)."""

    def snapshot(self) -> list[bytes]:
        """Return the splits that are not read to their end, with the position behind the last batch."""

    def checkpoint_complete(self, checkpoint_id: int) -> None:
        """The checkpoint is durable; positions before it will not be asked for again."""

    def close(self) -> None:
        """Free files and threads."""


@runtime_checkable
class PerSplitReader(SplitReader, Protocol):
    """A reader whose splits have each an event time of their own, so that none makes another's records late.

    To its watermarks a reader without `active_splits` is one single split.  That is right for one
    that reads its splits side by side, in an order of their records.
    """

    def active_splits(self) -> Collection[Hashable]:
        """Return what names the splits in hand: added, and not yet read to their end.

        Names last as long as the reader.  Asked in intervals, not for every batch.
        """


class Source(Protocol):
    """Something that records come from; a small picklable value that holds no open resource."""

    @property
    def bounded(self) -> bool:
        """True when every split ends, so that the job ends."""

    @property
    def rewindable(self) -> bool:
        """True when a split can be read again from a position; exactly-once needs it."""

    def enumerator(self, context: EnumeratorContext, state: bytes | None) -> SplitEnumerator:
        """Return the enumerator, restored from `state` (of `SplitEnumerator.snapshot`) unless None."""

    def open_reader(self, context: ReaderContext) -> SplitReader:
        """Return the reader of one subtask; its splits follow by `add_splits`."""
