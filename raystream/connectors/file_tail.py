"""One file that others write to: how it grows, moves, is cut off and goes away.

    AT HOME --renamed, removed--> LOST --silent for KEEP_LOOKS looks--> GIVEN UP --read--> FINISHED
       ^                            |
       +-----found in the pattern---+

A line is handed out when its end has arrived; the unfinished last line of a file is
handed out only when the file is given up.  While the descriptor is open a renamed or
removed file is read on.

The bytes just before the reading position, the *anchor*, are kept and compared before
every read.  When they differ, or the file has become shorter than the position, it
was truncated, overwritten, or (after a restart) another file has got its inode, and it
is read from its start.

Knows one file; listing directories is left to `raystream.connectors.file_watch`.
"""

import logging
import os
from pathlib import Path
from typing import Any, Protocol

import msgspec

from raystream.connectors.file_lines import LineBlock, LineDecoder, read_fully
from raystream.connectors.versioned import decode, encode
from raystream.errors import StorageError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
ANCHOR_BYTES = 64
READ_BYTES = 256 << 10
KEEP_LOOKS = 5
"""Looks without growth after which a file that left the pattern is given up; more than the
listings after which the enumerator forgets it, so that its inode is not reused before."""
LISTINGS_MAX = 2
"""Looks at which a file that left its name is searched for in the pattern."""


class WatchedSplit(msgspec.Struct, frozen=True, array_like=True):
    """A file and the position behind the last line that was handed out."""

    path: str
    inode: int
    offset: int = 0
    anchor: bytes = b""
    """Up to `ANCHOR_BYTES` bytes of the file before `offset`."""

    def encode(self) -> bytes:
        """Return the bytes that a snapshot stores."""
        return encode(FORMAT_VERSION, self)

    @classmethod
    def decode(cls, raw: bytes) -> "WatchedSplit":
        """Return the split that `encode` wrote.

        Raises:
            StateRestoreError: the bytes are of another version or damaged.
        """
        return decode(raw, FORMAT_VERSION, cls, "watched file")


class Listing(Protocol):
    """Says where a file is now."""

    def path_of(self, inode: int) -> str | None:
        """Return the path of a file of the pattern, or None when it has none."""


class TailedFile:
    """Follows one file.

    Attributes:
        ready: there may be whole lines to take.
        finished: the file is gone and everything of it was handed out.
    """

    def __init__(self, split: WatchedSplit, decoder: LineDecoder) -> None:
        self.ready = True
        self.finished = False
        self._silent_looks = 0
        self._path = split.path
        self._inode = split.inode
        self._offset = split.offset
        self._anchor = split.anchor
        self._decoder = decoder
        self._descriptor: int | None = None
        self._block: LineBlock | None = None
        self._searched = 0  # No line end lies between `_offset` and here.
        self._seen: tuple[int, int] | None = None  # Size and time of change at the last look.
        self._lost_looks = 0
        self._given_up = False

    def look(self, listing: Listing) -> None:
        """Find out whether the file grew, moved or went away, and set `ready` or `finished`.

        Raises:
            StorageError: the file system does not answer.
        """
        named = self._status_by_name()
        if named is None and self._lost_looks < LISTINGS_MAX:
            path = listing.path_of(self._inode)
            if path is not None:
                self._path = path
                named = self._status_by_name()
        self._lost_looks = self._lost_looks + 1 if named is None else 0
        status = named if self._descriptor is None else os.fstat(self._descriptor)
        if status is None:
            self._look_for_closed_file()
            return
        seen = (status.st_size, status.st_mtime_ns)
        if seen != self._seen:
            self._seen = seen
            self._silent_looks = 0
            self.ready = True
            return
        self._silent_looks += 1
        if min(self._lost_looks, self._silent_looks) >= KEEP_LOOKS:
            self._given_up = True
            self.ready = True

    def take(self, records_max: int, bytes_max: int) -> list[Any]:
        """Return the next records, none when no whole line is there; then `ready` is False.

        Raises:
            StorageError: the file cannot be read.
            ConfigError: a line cannot be decoded.
        """
        if self._block is None:
            self._block = self._next_block()
        block = self._block
        if block is None:
            self.ready = False
            self.finished = self._given_up
            return []
        values = self._decoder.values(self._path, block, block.cut(records_max, bytes_max))
        if block.taken == len(block.lines):
            self._anchor = self._anchor_at(block)
            self._offset = block.stop
            self._block = None
        return values

    def split(self) -> WatchedSplit:
        """Return the file with the position behind the last record that was taken."""
        if self._block is None:
            return WatchedSplit(self._path, self._inode, self._offset, self._anchor)
        anchor = self._anchor_at(self._block)
        return WatchedSplit(self._path, self._inode, self._block.position, anchor)

    def close(self) -> None:
        """Close the descriptor; the file is opened again when it is read."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def rest(self) -> None:
        """Close the descriptor unless that would lose a file that has left its name."""
        if self._lost_looks == 0:
            self.close()

    def _status_by_name(self) -> os.stat_result | None:
        """Return the status of the file under its name; None when the name means another file now."""
        try:
            status = Path(self._path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(error) from error
        return status if status.st_ino == self._inode else None

    def _look_for_closed_file(self) -> None:
        """Give up a file that is nowhere and was not held open."""
        if self._lost_looks < LISTINGS_MAX:
            return
        logger.warning(
            "watched file is gone; what was written to it after the last look is not read",
            extra={"path": self._path, "offset": self._offset},
        )
        self.finished = True

    def _open(self) -> int | None:
        """Return the descriptor, or None when the file is not where it was."""
        if self._descriptor is not None:
            return self._descriptor
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(error) from error
        if os.fstat(descriptor).st_ino != self._inode:
            os.close(descriptor)
            return None
        self._descriptor = descriptor
        return descriptor

    def _next_block(self) -> LineBlock | None:
        """Read the whole lines behind the position, also an unfinished one when given up."""
        descriptor = self._open()
        if descriptor is None:
            self._seen = None  # What the last look saw was not read: report it again.
            return None
        self._restart_if_overwritten(descriptor)
        wanted = READ_BYTES
        if self._searched > self._offset:
            # An unfinished line is not read again and again: only what is new can hold its end.
            end = self._find_line_end(descriptor)
            if end < 0 and not self._given_up:
                return None
            wanted = max(wanted, end + 1 - self._offset)
        while True:
            raw = self._read(descriptor, wanted, self._offset)
            size = raw.rfind(b"\n") + 1
            if size == 0 and len(raw) < wanted:
                self._searched = self._offset + len(raw)
                if not self._given_up or not raw:
                    return None
                size = len(raw)
            if size:
                return self._decoder.block(self._path, self._offset, raw, size)
            wanted *= 2

    def _restart_if_overwritten(self, descriptor: int) -> None:
        before = self._read(descriptor, len(self._anchor), self._offset - len(self._anchor))
        if before == self._anchor:
            return
        logger.info(
            "watched file was truncated or overwritten; reading it from its start",
            extra={"path": self._path, "offset": self._offset},
        )
        self._offset = self._searched = 0
        self._anchor = b""

    def _find_line_end(self, descriptor: int) -> int:
        """Return the offset of the first line end at or after `_searched`; -1 when there is none yet."""
        while raw := self._read(descriptor, READ_BYTES, self._searched):
            found = raw.find(b"\n")
            if found >= 0:
                return self._searched + found
            self._searched += len(raw)
        return -1

    def _anchor_at(self, block: LineBlock) -> bytes:
        """Return the bytes before the position in `block`."""
        read = block.position - block.start
        near = block.raw[max(0, read - ANCHOR_BYTES) : read]
        return near if read >= ANCHOR_BYTES else (self._anchor + near)[-ANCHOR_BYTES:]

    def _read(self, descriptor: int, size: int, offset: int) -> bytes:
        try:
            return read_fully(descriptor, size, offset) if size else b""
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> StorageError:
        return StorageError(
            "watched file cannot be read", path=self._path, reason=error.strerror or str(error)
        )
