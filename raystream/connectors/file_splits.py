"""Byte ranges of files, and the enumerator that deals them out.

A split is a half-open byte range of a file.  A line belongs to the split in which its
first byte lies, so ranges may be cut anywhere and none is lost or doubled.  Ranges are
cut when they are asked for, each a share of what is *left*: large ones at first, small
ones towards the end, so that all subtasks finish together (guided self-scheduling,
Polychronopoulos and Kuck 1987) and the stored state is one range per file.

Does not read files; `raystream.connectors.file_reader` does.
"""

from collections import deque

import msgspec

from raystream.connectors.file_listing import FoundFile, find_files, shown_without_text
from raystream.connectors.versioned import decode, encode
from raystream.errors import ConfigError
from raystream.operators.source import EnumeratorContext

FORMAT_VERSION = 1
SPLIT_BYTES_MIN = 256 << 10
SPLIT_BYTES_MAX = 64 << 20
SPLITS_PER_SUBTASK = 8


class FileSplit(msgspec.Struct, frozen=True, array_like=True):
    """The lines of a file that begin in the bytes `[start, stop)`."""

    path: str
    start: int
    stop: int

    @property
    def name(self) -> tuple[str, int]:
        """What it has in common with its rest, and with no other range."""
        return self.path, self.stop

    def encode(self) -> bytes:
        """Return the bytes that a snapshot stores."""
        return encode(FORMAT_VERSION, self)

    @classmethod
    def decode(cls, raw: bytes) -> "FileSplit":
        """Return the split that `encode` wrote.

        Raises:
            StateRestoreError: the bytes are of another version or damaged.
        """
        return decode(raw, FORMAT_VERSION, cls, "file split")


class _EnumeratorState(msgspec.Struct, frozen=True, array_like=True):
    left: list[FileSplit] | None
    """What was not handed out; None before the first discovery."""


class BoundedFileEnumerator:
    """Finds the files once and hands their bytes out in order, one split per request."""

    discovery_interval_ms: int | None = None

    def __init__(self, pattern: str, context: EnumeratorContext, state: bytes | None) -> None:
        self._pattern = pattern
        self._shares = context.parallelism * SPLITS_PER_SUBTASK
        self._left: deque[FileSplit] = deque()
        self._bytes_left = 0
        self._complete = False
        if state is not None:
            self._take_in(decode(state, FORMAT_VERSION, _EnumeratorState, "file enumerator").left)

    def discover(self) -> list[FoundFile] | None:
        """Return the files, or None after a restore: the first discovery has fixed them for good.

        Raises:
            ConfigError: nothing matches, or a file cannot be read or has a name that is not text.
        """
        if self._complete:
            return None
        found = find_files(self._pattern, required=True)
        for file in found:
            if (shown := shown_without_text(file.path)) is not None:
                raise ConfigError(
                    "name of an input file is not UTF-8 text",
                    hint="rename the file, or choose a pattern that it does not match",
                    path=shown,
                )
        return found

    def discovered(self, found: list[FoundFile] | None) -> None:
        """Take in the files of the first discovery."""
        if found is not None and not self._complete:
            self._take_in([FileSplit(file.path, 0, file.size) for file in found if file.size])

    def next_splits(self, subtask: int) -> list[bytes]:
        """Cut the next split off the files that are left."""
        if not self._left:
            return []
        share = self._bytes_left // self._shares
        size = min(max(share, SPLIT_BYTES_MIN), SPLIT_BYTES_MAX)
        split = self._left.popleft()
        middle = split.start + size
        if middle + size // 2 < split.stop:  # A last piece below half the size is not worth its own split.
            self._left.appendleft(FileSplit(split.path, middle, split.stop))
            split = FileSplit(split.path, split.start, middle)
        self._bytes_left -= split.stop - split.start
        return [split.encode()]

    @property
    def exhausted(self) -> bool:
        """True when every byte was handed out."""
        return self._complete and not self._left

    def snapshot(self) -> bytes:
        """Return what is left to hand out."""
        left = list(self._left) if self._complete else None
        return encode(FORMAT_VERSION, _EnumeratorState(left))

    def _take_in(self, left: list[FileSplit] | None) -> None:
        self._left.extend(left or ())
        self._bytes_left = sum(split.stop - split.start for split in self._left)
        self._complete = left is not None
