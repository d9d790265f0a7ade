"""Files of lines: `FileSource` and `FileSink`.

The values that a program holds; their readers, writers and formats live in the
`file_*` modules beside this one.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from raystream.config.units import parse_duration_ms
from raystream.connectors.file_lines import LineDecoder, LineFormat
from raystream.connectors.file_listing import local_path
from raystream.connectors.file_reader import BoundedFileReader
from raystream.connectors.file_sink import PartFileWriter
from raystream.connectors.file_splits import BoundedFileEnumerator
from raystream.connectors.file_watch import WatchEnumerator, WatchReader
from raystream.connectors.part_committer import PartCommitter
from raystream.errors import ConfigError, GraphError
from raystream.operators.sink import Committer, SinkWriter, WriterContext
from raystream.operators.source import EnumeratorContext, ReaderContext, SplitEnumerator, SplitReader
from raystream.storage.stores import to_url

__all__ = ["FileSink", "FileSource"]

_SHOWN_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """Records from the lines of files; made by `lines` or `json_lines`.

    The path may be a file, a directory (every file below it whose name does not begin
    with `.` or `_`) or a pattern (`*`, `?`, `[...]`, `**` across directories); it is
    looked up on the nodes that run the job and must mean the same on all of them.
    Lines of one file come in order within a split, splits in any order.
    """

    pattern: str
    """Absolute path or pattern."""
    line_format: LineFormat
    watch_ms: int | None
    """Time between two looks for growth and new files; None reads what is there and ends."""

    rewindable = True

    @property
    def bounded(self) -> bool:
        """True unless the files are watched."""
        return self.watch_ms is None

    @classmethod
    def lines(
        cls,
        path_or_glob: str | os.PathLike[str],
        *,
        encoding: str | None = "utf-8",
        errors: str = "strict",
        watch: str | timedelta | int | None = None,
        with_position: bool = False,
    ) -> "FileSource":
        """Return a source of lines, without their ends.

        A line ends with LF or CR LF; the last one of a file may lack its end.  An
        empty line is an empty record.

        Args:
            path_or_glob: file, directory or pattern; relative ones are resolved here.
            encoding: of the text, in which a line feed is the byte 0x0a; `utf-8-sig` drops a byte
                order mark at the start of a file; None gives `bytes`.
            errors: what to do with bytes that the encoding does not have, as in `bytes.decode`;
                with `strict` they fail the job with file and byte offset.
            watch: makes the source unbounded: look for new files and growth this often, as
                `"1s"`, `timedelta` or milliseconds.  A line is handed out when its end has
                arrived.  `raystream.connectors.file_watch` says what is recognised.  Watermarks wait for
                every file that is there, so give their strategy `with_idleness`.
            with_position: make each record `(file, byte offset, line)`.

        Raises:
            ConfigError: a path of another store, or an encoding, handler or duration that does not exist.

        Example:
            >>> FileSource.lines("/var/log/access.log", watch="1s").bounded
            False
        """
        line_format = LineFormat(encoding=encoding, errors=errors, with_position=with_position)
        return cls(pattern=local_path(path_or_glob), line_format=line_format, watch_ms=_watch_ms(watch))

    @classmethod
    def json_lines(
        cls,
        path_or_glob: str | os.PathLike[str],
        type: Any = None,  # noqa: A002 - as in msgspec
        *,
        watch: str | timedelta | int | None = None,
        with_position: bool = False,
    ) -> "FileSource":
        """Return a source of JSON documents, one per line; blank lines are left out.

        Args:
            path_or_glob: as in `lines`.
            type: what each document is checked against and turned into: a dataclass, `msgspec.Struct`,
                `TypedDict` or built-in type; None gives plain dicts, lists, strings and numbers.
            watch: as in `lines`.
            with_position: make each record `(file, byte offset, document)`.

        A line that is not JSON, or does not fit the type, fails the job with file and byte offset.

        Raises:
            ConfigError: a path of another store, a type that JSON cannot become, or no duration.
        """
        line_format = LineFormat(json=True, json_type=type, with_position=with_position)
        try:
            LineDecoder(line_format)
        except TypeError as error:
            raise ConfigError("type cannot be read from JSON", type=repr(type), reason=str(error)) from error
        return cls(pattern=local_path(path_or_glob), line_format=line_format, watch_ms=_watch_ms(watch))

    def enumerator(self, context: EnumeratorContext, state: bytes | None) -> SplitEnumerator:
        """Return what finds the files and deals them out."""
        if self.watch_ms is None:
            return BoundedFileEnumerator(self.pattern, context, state)
        return WatchEnumerator(self.pattern, self.watch_ms, context, state)

    def open_reader(self, context: ReaderContext) -> SplitReader:
        """Return what reads files in one subtask."""
        decoder = LineDecoder(self.line_format)
        if self.watch_ms is None:
            return BoundedFileReader(decoder, context)
        return WatchReader(self.watch_ms, decoder, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSink:
    """Records as lines of part files in a directory, exactly once; made by `lines` or `json_lines`.

    A file gets its final name, `part-...`, when the checkpoint that closed it is complete,
    or at the end of the job; before that its name contains `.inprogress`.  Visible files may be
    read and removed at any time.  The directory must be the same one on all nodes; each job leaves
    a hidden file there, `.raystream-<job id>`, by which it knows the directory again.

    The directory may be a URL, `s3://bucket/prefix`: then each part file is an object, and before its
    checkpoint is complete a multipart upload, which nobody sees.  A rule of the bucket that aborts
    old uploads is welcome, but must leave them for longer than the job may be away from its newest
    checkpoint, or a savepoint may wait to be restored.  A restore that misses output which such a rule
    may have taken fails, and says what to do when it was read and removed.
    """

    transactional = True

    directory: str
    """An absolute path, or a URL; made when the job starts, once what it has restored is committed."""
    encode_records: Callable[[list[Any]], bytes]
    """Turns the records of a batch into whole lines."""

    @classmethod
    def lines(cls, directory: str | os.PathLike[str]) -> "FileSink":
        """Return a sink of `str` (written as UTF-8) or `bytes` records, each followed by a line feed.

        Raises:
            ConfigError: a URL that names no bucket, or another store.
        """
        return cls(directory=_output_directory(directory), encode_records=encode_lines)

    @classmethod
    def json_lines(cls, directory: str | os.PathLike[str]) -> "FileSink":
        """Return a sink that writes each record as one line of JSON.

        Tuples, named tuples and sets become arrays; dataclasses, `msgspec.Struct`s and dicts objects.

        Raises:
            ConfigError: a URL that names no bucket, or another store.
        """
        return cls(directory=_output_directory(directory), encode_records=encode_json_lines)

    def open_writer(self, context: WriterContext) -> SinkWriter:
        """Return the writer of one subtask."""
        if _in_object_store(self.directory):
            # The libraries of object stores take long to load.
            from raystream.connectors.object_sink import PartObjectWriter

            return PartObjectWriter(self.directory, self.encode_records, context)
        return PartFileWriter(self.directory, self.encode_records, context)

    def open_committer(self, context: WriterContext) -> Committer:
        """Return what makes the files of one subtask visible."""
        return PartCommitter(context)


def encode_lines(values: list[Any]) -> bytes:
    """Return each record and a line end.

    Raises:
        GraphError: a record is neither `str` nor `bytes`, or not text that UTF-8 has.
    """
    try:
        if isinstance(values[0], bytes):
            return b"\n".join(values) + b"\n"
        return ("\n".join(values) + "\n").encode()
    except (TypeError, UnicodeEncodeError):
        return b"".join(map(_encode_line, values))


def encode_json_lines(values: list[Any]) -> bytes:
    """Return each record as JSON and a line end.

    Raises:
        GraphError: a record contains something that JSON does not have.
    """
    try:
        return _json_encoder.encode_lines(values)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return b"".join(map(_encode_json_line, values))


_json_encoder = msgspec.json.Encoder()


def _encode_line(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value) + b"\n"
    try:
        if isinstance(value, str):
            return value.encode() + b"\n"
        reason = f"it is a {type(value).__name__}"
    except UnicodeEncodeError as error:
        reason = str(error)
    raise GraphError(
        "record cannot be written as a line of text",
        hint="map records to str or bytes first, or use FileSink.json_lines",
        record=repr(value)[:_SHOWN_CHARACTERS_MAX],
        reason=reason,
    )


def _encode_json_line(value: Any) -> bytes:
    try:
        return _json_encoder.encode(value) + b"\n"
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise GraphError(
            "record cannot be written as JSON",
            hint="map records to built-in types, dataclasses or structs first",
            record=repr(value)[:_SHOWN_CHARACTERS_MAX],
            reason=str(error),
        ) from error


def _in_object_store(directory: str) -> bool:
    return directory.startswith("s3://")


def _output_directory(directory: str | os.PathLike[str]) -> str:
    text = os.fspath(directory)
    return to_url(text) if _in_object_store(text.lower()) else local_path(text)


def _watch_ms(watch: str | timedelta | int | None) -> int | None:
    if watch is None:
        return None
    try:
        interval_ms = parse_duration_ms(watch)
    except ValueError as error:
        raise ConfigError("watch is not a duration", watch=watch, reason=str(error)) from error
    if interval_ms == 0:
        raise ConfigError("watch needs a duration above 0", watch=watch)
    return interval_ms
