"""One file that others write to: how it grows, moves, is cut off, goes away and comes back.

             sighted nowhere             silent for KEEP_LOOKS looks, or closed
    AT HOME ----------------> ABSENT --------------------------------------> GONE
       ^                        |                                              |
       +----sighted again-------+<---------------------------------------------+

A line is handed out when its end has arrived; the unfinished last line of a file is
handed out only when the file has gone.  While the descriptor is open a renamed or
removed file is read on.  Of a file that has gone the position is kept: if it comes back,
it is read on from there.

The bytes just before the reading position, the *anchor*, are kept and compared before
every read.  When they differ, or the file has become shorter than the position, it
was truncated or overwritten, and it is read from its start.

Knows one file; where it is, is said by `raystream.connectors.file_watch`.
"""

import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from raystream.connectors.file_birth import birth_of, same_birth
from raystream.connectors.file_lines import LineBlock, LineDecoder, read_fully
from raystream.connectors.versioned import decode, encode
from raystream.errors import StorageError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
ANCHOR_BYTES = 64
READ_BYTES = 256 << 10
KEEP_LOOKS = 5
"""Looks without growth after which a file that is sighted nowhere has gone."""


class WatchedSplit(msgspec.Struct, frozen=True, array_like=True, tag="file"):
    """A file and the position behind the last line that was handed out."""

    path: str
    inode: int
    birth_ns: int
    number: int
    """How many files had been found before it."""
    offset: int = 0
    anchor: bytes = b""
    """Up to `ANCHOR_BYTES` bytes of the file before `offset`."""
    gone: bool = False
    """Nothing is read until it is sighted again."""

    def encode(self) -> bytes:
        """Return the bytes that a snapshot stores."""
        return encode(FORMAT_VERSION, self)


class Sighting(msgspec.Struct, frozen=True, array_like=True, tag="sighting"):
    """Where a file is that somebody reads; goes to readers as splits do, and is never stored."""

    number: int
    path: str | None
    """None when it is not in the pattern any more."""
    found_before: int = 0
    """How many files had been found when it went."""

    def encode(self) -> bytes:
        """Return the bytes that travel to a reader."""
        return encode(FORMAT_VERSION, self)


def decode_word(raw: bytes) -> WatchedSplit | Sighting:
    """Return what the enumerator, or a snapshot, says to a reader.

    Raises:
        StateRestoreError: the bytes are of another version or damaged.
    """
    word: WatchedSplit | Sighting = decode(raw, FORMAT_VERSION, _WORD, "watched file")
    return word


_WORD: Any = WatchedSplit | Sighting


class TailedFile:
    """Follows one file.

    Attributes:
        number: of its split.
        ready: there may be whole lines to take.
        gone: it is not in the pattern any more and everything of it was handed out.
        absent_since: how many files had been found when it went; None until that is said.
    """

    def __init__(self, split: WatchedSplit, decoder: LineDecoder) -> None:
        self.number = split.number
        self.ready = not split.gone
        self.gone = split.gone
        self.absent_since: int | None = None
        self._path = split.path
        self._inode = split.inode
        self._birth_ns = split.birth_ns
        self._offset = split.offset
        self._anchor = split.anchor
        self._decoder = decoder
        self._descriptor: int | None = None
        self._block: LineBlock | None = None
        self._searched = 0  # No line end lies between `_offset` and here.
        self._seen: tuple[int, int] | None = None  # Size and time of change at the last look.
        self._named = True  # The path led to it at the last look.
        self._absent = split.gone
        self._silent_looks = 0  # Since it is absent.
        self._given_up = False

    def sighted(self, sighting: Sighting) -> None:
        """Take in where it is."""
        self._silent_looks = 0
        self._absent = sighting.path is None
        self.absent_since = sighting.found_before if self._absent else None
        if sighting.path is not None:
            self._path = sighting.path
            self._seen = None
            self.gone = self._given_up = False

    def look(self) -> None:
        """Find out whether the file grew or went away, and set `ready` or `gone`.

        Raises:
            StorageError: the file system does not answer.
        """
        named = self._status_by_name()
        self._named = named is not None
        status = named if self._descriptor is None else os.fstat(self._descriptor)
        if status is None:
            if self._absent:
                self._close_absent()
            return  # Otherwise it is on its way: a sighting will tell.
        seen = (status.st_size, status.st_mtime_ns)
        if seen != self._seen:
            self._seen = seen
            self._silent_looks = 0
            self.ready = True
            return
        self._silent_looks = self._silent_looks + 1 if self._absent and not self._named else 0
        if self._silent_looks >= KEEP_LOOKS:
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
            self.gone = self._given_up
            return []
        values = self._decoder.values(self._path, block, block.cut(records_max, bytes_max))
        if block.taken == len(block.lines):
            self._anchor = self._anchor_at(block)
            self._offset = block.stop
            self._block = None
        return values

    def split(self) -> WatchedSplit:
        """Return the file with the position behind the last record that was taken."""
        offset, anchor = self._offset, self._anchor
        if self._block is not None:
            offset, anchor = self._block.position, self._anchor_at(self._block)
        return WatchedSplit(
            self._path, self._inode, self._birth_ns, self.number, offset, anchor, gone=self.gone
        )

    def close(self) -> None:
        """Close the descriptor; the file is opened again when it is read."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def rest(self) -> None:
        """Close the descriptor unless that would lose a file that has left its name."""
        if self._named:
            self.close()

    def _status_by_name(self) -> os.stat_result | None:
        """Return the status of the file under its name; None when the name means another file now."""
        try:
            status = Path(self._path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(error) from error
        if status.st_ino != self._inode:
            return None
        # While it is held open nobody else gets its inode.
        if self._descriptor is None and not same_birth(birth_of(self._path), self._birth_ns):
            return None
        return status

    def _close_absent(self) -> None:
        """Give up a file that is nowhere and was not held open."""
        logger.warning(
            "watched file is gone; what was written to it after the last look is not read",
            extra={"path": self._path, "offset": self._offset},
        )
        self.gone = True

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
        if os.fstat(descriptor).st_ino != self._inode or not same_birth(birth_of(descriptor), self._birth_ns):
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
        if self._searched > os.fstat(descriptor).st_size:
            self._searched = self._offset  # The writer took the unfinished line back.
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
