r"""Lines of a file: bytes in, lists of lines with exact byte positions out.

Knows how lines are cut and decoded, and where each begins.  Does not know splits,
directories or checkpoints.

A line ends with `\n`; a `\r` directly before it belongs to the line end, any other
`\r` to the line.  A file is read in blocks that begin at the first byte of a line, so
nothing is carried from one block to the next: the unfinished line at the end of a
block is simply read again, and a line longer than the block doubles it.  A block is
split and decoded as a whole, which costs a twentieth of a microsecond per line;
positions are worked out only when somebody asks (a snapshot, `with_position`, a batch
limit in bytes, an error), from the bytes that the block keeps.
"""

import codecs
import os
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, count, repeat
from operator import add
from typing import Any

import msgspec

from raystream.errors import ConfigError
from raystream.records.strict_map import strict_map

_WHOLE_BLOCK_CODECS = frozenset({"utf-8", "ascii", "iso8859-1"})
"""Encodings in which no error and no state crosses a line end, so that many lines decode as one text."""

_SHRINKING_ERROR_HANDLERS = frozenset({"strict", "ignore", "replace", "surrogateescape"})
"""Handlers that never make more characters than there were bytes."""

_SHOWN_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFormat:
    """How the bytes of a file become records."""

    encoding: str | None = None
    """Name of a text encoding; None hands out bytes."""
    errors: str = "strict"
    """Name of the handler of bytes that the encoding does not have."""
    json: bool = False
    """Each line is one JSON document; `encoding` is None then."""
    json_type: Any = None
    """Type that JSON documents are checked against and turned into; None for plain built-in types."""
    with_position: bool = False
    """Records are `(file, byte offset, line)`."""

    def __post_init__(self) -> None:
        if self.encoding is None:
            return
        try:
            codecs.lookup_error(self.errors)
            # Also finds encodings whose line end is more than the byte `\n`: utf-16, utf-32, EBCDIC.
            byte_line_end = b"a\nb".decode(self.encoding) == "a\nb"
        except LookupError as error:
            raise ConfigError(
                "no such encoding or error handler", encoding=self.encoding, errors=self.errors
            ) from error
        except UnicodeError:
            byte_line_end = False
        if not byte_line_end:
            raise ConfigError(
                "lines cannot be found in an encoding whose line end is not the byte 0x0a",
                hint="convert the file to utf-8",
                encoding=self.encoding,
            )


class LineBlock:
    """Consecutive lines of one file, and how many of them were taken.

    Attributes:
        start: byte offset of the first line in the file.
        raw: the bytes of the file from `start`; may hold more than the lines.
        size: bytes that the lines and their ends cover.
        lines: `str` or `bytes`, without line ends; never empty.
        exact: each line has as many items as it has bytes in the file, without its line feed.
        taken: lines handed out so far.
    """

    __slots__ = ("_offsets", "exact", "lines", "raw", "size", "start", "taken")

    def __init__(self, start: int, raw: bytes, size: int, lines: list[Any], exact: bool) -> None:
        self.start = start
        self.raw = raw
        self.size = size
        self.lines = lines
        self.exact = exact
        self.taken = 0
        self._offsets: list[int] | None = None

    @property
    def stop(self) -> int:
        """Byte offset behind the last line and its end."""
        return self.start + self.size

    @property
    def position(self) -> int:
        """Byte offset of the first line that was not taken; `stop` when all were."""
        if self.taken == 0:
            return self.start
        return self.stop if self.taken == len(self.lines) else self.offsets()[self.taken]

    def offsets(self) -> list[int]:
        """Return the byte offset of each line, and `stop` as one more item; computed once."""
        if self._offsets is None:
            pieces = self.lines if self.exact else self.raw[: self.size].split(b"\n")[: len(self.lines)]
            # Line i begins behind the bytes of i lines and i line ends.
            before = accumulate(map(len, pieces), initial=self.start)
            self._offsets = list(map(add, before, count()))
            self._offsets[-1] = self.stop  # The last line of a file may lack its end.
        return self._offsets

    def cut(self, records_max: int, bytes_max: int) -> int:
        """Return the index behind the lines that make up the next batch, at least one.

        What is left of the block is cut evenly, since a full batch and a tiny one cost
        more downstream than two of middle size.
        """
        rest = len(self.lines) - self.taken
        batches = -(-rest // records_max)
        stop = self.taken - (-rest // batches)
        if self.size > bytes_max:
            offsets = self.offsets()
            fitting = bisect_right(offsets, offsets[self.taken] + bytes_max) - 1
            stop = max(self.taken + 1, min(stop, fitting))
        return stop


class LineDecoder:
    """Makes blocks and records in one format; one per reader."""

    def __init__(self, line_format: LineFormat) -> None:
        self._format = line_format
        self._codec = codecs.lookup(line_format.encoding).name if line_format.encoding else ""
        self._drop_bom = line_format.json or self._codec == "utf-8-sig"
        if self._codec == "utf-8-sig":
            self._codec = "utf-8"
        self._lengths_kept = line_format.errors in _SHRINKING_ERROR_HANDLERS
        self._decode_json = msgspec.json.Decoder(
            Any if line_format.json_type is None else line_format.json_type
        ).decode

    def block(self, path: str, start: int, raw: bytes, size: int) -> LineBlock:
        """Return the lines in `raw[:size]`.

        Args:
            path: the file, for errors.
            start: byte offset of `raw` in it, where a line begins.
            raw: bytes of the file; no line ends behind `size`.
            size: length of whole lines; the last one may lack its end at the end of the file.

        Raises:
            ConfigError: a byte does not fit the encoding; names file and byte offset.
        """
        ended = raw[size - 1] == 10
        lines: list[Any]
        if self._codec in _WHOLE_BLOCK_CODECS:
            try:
                text = str(memoryview(raw)[:size], self._codec, self._format.errors)
            except UnicodeDecodeError as error:
                raise self._undecodable(path, start + error.start, error) from error
            lines = text.split("\n")
            exact = self._lengths_kept and len(text) == size
            carriage_return: Any = "\r" if "\r" in text else ""
        else:
            lines, exact = raw.split(b"\n"), True
            # In JSON it is white space, so that there is nothing to strip.
            carriage_return = b"\r" if b"\r" in raw and not self._format.json else b""
        rest: Any = lines.pop()
        if carriage_return:
            lines = [line.removesuffix(carriage_return) for line in lines]
            exact = False
        if not ended:
            lines.append(rest)
        if self._drop_bom and start == 0 and raw.startswith(codecs.BOM_UTF8):
            first: Any = lines[0]
            lines[0] = first[1:] if self._codec else first[len(codecs.BOM_UTF8) :]
            exact = False
        block = LineBlock(start, raw, size, lines, exact)
        if self._codec and self._codec not in _WHOLE_BLOCK_CODECS:
            self._decode_lines(path, block)
        return block

    def values(self, path: str, block: LineBlock, stop: int) -> list[Any]:
        """Take the lines of `block` up to index `stop` and return their records, possibly none.

        Raises:
            ConfigError: a line is not the JSON that was asked for; names file and byte offset.
        """
        start, block.taken = block.taken, stop
        whole = stop - start == len(block.lines)
        values = block.lines if whole else block.lines[start:stop]
        if self._format.json:
            return self._json_values(path, block, start, values)
        if self._format.with_position:
            return list(zip(repeat(path), block.offsets()[start:stop], values))
        return values

    def _decode_lines(self, path: str, block: LineBlock) -> None:
        """Decode line by line, for encodings in which an error might swallow a line end."""
        codec, errors, encoded = self._codec, self._format.errors, block.lines
        try:
            block.lines = [line.decode(codec, errors) for line in encoded]
        except UnicodeDecodeError as error:
            index = next(i for i, line in enumerate(encoded) if line == error.object)
            raise self._undecodable(path, block.offsets()[index] + error.start, error) from error
        block.exact = False

    def _undecodable(self, path: str, offset: int, error: UnicodeDecodeError) -> ConfigError:
        return ConfigError(
            "input is not text in this encoding",
            hint="pass encoding=, errors='replace', or encoding=None to get bytes",
            path=path,
            offset=offset,
            encoding=self._format.encoding,
            reason=error.reason,
        )

    def _json_values(self, path: str, block: LineBlock, start: int, lines: list[bytes]) -> list[Any]:
        positioned = self._format.with_position
        try:
            values = strict_map(self._decode_json, lines)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._json_values_one_by_one(path, block, start, lines)
        if positioned:
            return list(zip(repeat(path), block.offsets()[start : start + len(lines)], values))
        return values

    def _json_values_one_by_one(
        self, path: str, block: LineBlock, start: int, lines: list[bytes]
    ) -> list[Any]:
        """Leave out blank lines and find the line that is not JSON."""
        values: list[Any] = []
        for index, line in enumerate(lines, start):
            if not line.strip():
                continue
            try:
                value = self._decode_json(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigError(
                    "line is not the JSON that was asked for",
                    hint="read with FileSource.lines and parse in a function to keep such lines",
                    path=path,
                    offset=block.offsets()[index],
                    reason=str(error),
                    line=line[:_SHOWN_CHARACTERS_MAX].decode("utf-8", "replace"),
                ) from error
            values.append((path, block.offsets()[index], value) if self._format.with_position else value)
        return values


def read_fully(descriptor: int, size: int, offset: int) -> bytes:
    """Return `size` bytes of a file from `offset`, less only at its end."""
    data = os.pread(descriptor, size, offset)
    if len(data) == size:
        return data
    parts = [data]
    missing = size - len(data)
    while data and missing:
        data = os.pread(descriptor, missing, offset + size - missing)
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)
