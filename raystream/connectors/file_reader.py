"""The reader of a bounded file source: byte ranges in, batches of lines out.

Reads its splits one after the other and asks for the next one while it reads the last
it has, so that it never waits and never hoards more than one.  The position inside a
split is the byte behind the last line that was handed out; it is worked out at a
snapshot, never per record.

Where watermarks are made it asks only when it has none: a split that waited, unread, would
hold the watermark back.
"""

import os
from collections import deque
from collections.abc import Collection, Hashable, Sequence

from raystream.connectors.file_lines import LineBlock, LineDecoder, read_fully
from raystream.connectors.file_splits import FileSplit
from raystream.errors import StorageError
from raystream.operators.source import END, NOTHING, ReaderContext, ReaderSignal, SplitBatch
from raystream.records.batch import RowBatch

READ_BYTES_MIN = 32 << 10
READ_BYTES_MAX = 512 << 10
READ_BYTES_FIRST = 64 << 10
BATCHES_PER_BLOCK = 1.9
"""A block of about two batches costs least: less per batch than one, and it stays in the cache.
A little under two, so that the usual spread of line lengths does not leave a third, tiny batch."""
OVERREAD_BYTES = 4 << 10
"""How far behind its range a split reads at once to find the end of its last line."""


class BoundedFileReader:
    """Turns byte ranges of files into batches of lines."""

    def __init__(self, decoder: LineDecoder, context: ReaderContext) -> None:
        # glibc hands freed memory back to the system above a limit that it learns from the largest
        # piece freed so far.  Freeing one larger than any block and its text keeps their pages from
        # being mapped anew for every block (measured: 0.04 us of 0.11 us per line of 115 bytes).
        bytes(2 * READ_BYTES_MAX)
        self._decoder = decoder
        self._context = context
        self._queue: deque[FileSplit] = deque()
        self._current: _OpenSplit | None = None
        self._complete = False

    def poll(self, records_max: int, bytes_max: int) -> RowBatch | ReaderSignal:
        """Return the next lines of the split in hand, or of the next one.

        Raises:
            StorageError: a file is gone, has become shorter or cannot be read.
            ConfigError: a line cannot be decoded.
        """
        while True:
            if self._current is None:
                if not self._queue:
                    return END if self._complete else NOTHING
                self._current = _OpenSplit(self._queue.popleft(), self._decoder)
            split = self._current
            values = split.take(records_max, bytes_max)
            if split.finished:
                split.close()
                self._current = None
            if values:
                return SplitBatch(split.name, values) if self._context.per_split else RowBatch(values)

    def add_splits(self, splits: Sequence[bytes]) -> None:
        """Read these ranges after those already there."""
        self._queue.extend(FileSplit.decode(raw) for raw in splits)
        self._context.wake()

    def no_more_splits(self) -> None:
        """End when the ranges in hand are read."""
        self._complete = True
        self._context.wake()

    @property
    def wants_splits(self) -> bool:
        """True while no range waits behind the one in hand, or with watermarks no one is in hand."""
        wanted = not self._queue and (self._current is None or not self._context.per_split)
        return wanted and not self._complete

    def active_splits(self) -> Collection[Hashable]:
        """Return the names of the ranges in hand."""
        current = [] if self._current is None else [self._current.name]
        return [*current, *(split.name for split in self._queue)]

    def snapshot(self) -> list[bytes]:
        """Return what is left of each range, in reading order."""
        current = [] if self._current is None else [self._current.rest()]
        return [split.encode() for split in (*current, *self._queue)]

    def checkpoint_complete(self, checkpoint_id: int) -> None:
        """Do nothing: files keep what was read."""

    def close(self) -> None:
        """Close the file in hand."""
        if self._current is not None:
            self._current.close()
            self._current = None


class _OpenSplit:
    """One range being read.

    Invariant: between two blocks `position` is the first byte of a line, and every line
    of the range before it was handed out.
    """

    def __init__(self, split: FileSplit, decoder: LineDecoder) -> None:
        self.name = split.name
        self._path = split.path
        self._stop = split.stop
        self._decoder = decoder
        self._block: LineBlock | None = None
        self._read_bytes = READ_BYTES_FIRST
        try:
            self._descriptor = os.open(split.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            self._position = self._first_line(split.start)
        except BaseException:
            self.close()
            raise

    @property
    def finished(self) -> bool:
        """True when every line of the range was handed out."""
        return self._block is None and self._position >= self._stop

    def take(self, records_max: int, bytes_max: int) -> list[object]:
        """Return the records of the next batch; empty when there was no line left, or only blank JSON."""
        if self.finished:
            return []
        if self._block is None:
            self._block = self._next_block(records_max)
        block = self._block
        values = self._decoder.values(self._path, block, block.cut(records_max, bytes_max))
        if block.taken == len(block.lines):
            self._position = block.stop
            self._block = None
        return values

    def rest(self) -> FileSplit:
        """Return the range that was not handed out."""
        position = self._position if self._block is None else self._block.position
        return FileSplit(self._path, position, self._stop)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _next_block(self, records_max: int) -> LineBlock:
        """Read whole lines that begin before the end of the range, at least one."""
        wanted = min(self._read_bytes, self._stop - self._position + OVERREAD_BYTES)
        while True:
            raw = self._read(wanted, self._position)
            if not raw:
                raise StorageError(
                    "input file became shorter while it was read", path=self._path, offset=self._position
                )
            size = self._whole_lines(raw, at_end=len(raw) < wanted)
            if size:
                break
            wanted *= 2  # One line is longer than all this.  Doubling keeps the work linear in its length.
        if raw[size - 1] == 10 and raw.find(b"\n", size) >= 0:
            raw = raw[:size]  # Lines of the next split follow.
        block = self._decoder.block(self._path, self._position, raw, size)
        line_bytes = size / len(block.lines)
        read_bytes = int(line_bytes * records_max * BATCHES_PER_BLOCK)
        self._read_bytes = min(max(read_bytes, READ_BYTES_MIN), READ_BYTES_MAX)
        return block

    def _whole_lines(self, raw: bytes, at_end: bool) -> int:
        """Return how many bytes of `raw` are whole lines of this split; 0 when the first has no end yet."""
        last_byte = self._stop - 1 - self._position
        # The line in which the last byte of the range lies is ours, and the last one.
        end = raw.find(b"\n", last_byte) if last_byte < len(raw) else -1
        if end >= 0:
            return end + 1
        return len(raw) if at_end else raw.rfind(b"\n") + 1

    def _first_line(self, start: int) -> int:
        """Return the offset of the first line that begins at or after `start`; the stop if none does."""
        if start == 0:
            return 0
        # A line begins behind each line end, so the byte before `start` decides about `start` itself.
        position, last = start - 1, self._stop - 1
        wanted = OVERREAD_BYTES
        while position < last:
            raw = self._read(min(wanted, last - position), position)
            if not raw:
                raise StorageError(
                    "input file became shorter while it was read", path=self._path, offset=position
                )
            end = raw.find(b"\n")
            if end >= 0:
                return position + end + 1
            position += len(raw)
            wanted = min(wanted * 2, READ_BYTES_MAX)
        return self._stop

    def _read(self, size: int, offset: int) -> bytes:
        try:
            return read_fully(self._descriptor, size, offset)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> StorageError:
        return StorageError(
            "input file cannot be read",
            hint="the path must be readable on every node that runs the job",
            path=self._path,
            reason=error.strerror or str(error),
        )
