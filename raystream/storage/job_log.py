"""The job log: what is true about a job after any crash.

Knows entries, their order and who may write; knows nothing of why they are written.

Each entry is a file `<log dir>/<number>`, created with create-if-absent and never changed.  A writer reads
the log, decides, and appends under the next number.  Whoever finds that number taken has decided on
something that is no longer true: the entry of a newer attempt, or of a job master that begins after another
one, means that this process was replaced and must stop (`FencedError`).  So a job master that was paused for
an hour can never complete a checkpoint: the number it would need holds the entry with which its successor
began, and those entries are never deleted.

An entry is in the log or it is not; what a writer may not know is which.  `append` raises
`StorageError` only when its entry is not there, and `StaleLogError` when that cannot be told.
"""

import os
from collections.abc import Collection
from typing import Any, Protocol

import msgspec

from raystream.errors import FencedError, ProtocolError, StateCorruptError, StateError, StorageError
from raystream.ids import CheckpointId
from raystream.storage.envelope import seal, unseal
from raystream.storage.filesystem import FileSystem, MissingFileError
from raystream.storage.layout import JobLayout, log_number_of
from raystream.storage.log_entries import (
    AttemptStarted,
    CancelAccepted,
    CheckpointCompletedEntry,
    LogEntry,
    MasterStarted,
    NewestId,
    SavepointCompleted,
    StopAccepted,
    Terminal,
)

FORMAT_VERSION = 2
"""Of an entry that is written; also the one before is read, in which an entry did not say which one it is."""

_FILE_KIND = "log-entry"


class StaleLogError(StorageError):
    """The log has, or may have, an entry that this writer has not read; read it, then decide anew."""


_TYPES: dict[str, type[LogEntry]] = {
    "master-started": MasterStarted,
    "attempt-started": AttemptStarted,
    "checkpoint-completed": CheckpointCompletedEntry,
    "savepoint-completed": SavepointCompleted,
    "newest-id": NewestId,
    "stop-accepted": StopAccepted,
    "cancel-accepted": CancelAccepted,
    "terminal": Terminal,
}
_NAMES: dict[type[LogEntry], str] = {entry_type: name for name, entry_type in _TYPES.items()}


class JobLog(Protocol):
    """The log of one job.  Calls block; one thread at a time."""

    def read(self) -> list[LogEntry]:
        """Return all entries, oldest first.

        Raises:
            FencedError: this writer's attempt was replaced by a newer one.
            StateCorruptError: an entry is damaged.
            StorageError: the store did not answer.
        """

    def append(self, entry: LogEntry) -> None:
        """Add an entry durably behind the last one that was read or appended.

        Raises:
            FencedError: a newer attempt owns the log; this process must stop.
            StaleLogError: read the log again; the entry may be in it.
            StorageError: the entry is not in the log.
            ProtocolError: the log was not read since it was opened or became stale.
        """

    def prune_checkpoints(self, keep: Collection[CheckpointId]) -> None:
        """Remove entries of checkpoints that are no longer retained; all others stay.

        Raises:
            StorageError: the store refused; the entries that remain do no harm.
        """


class DurableJobLog:
    """The log in a store.

    Args:
        fs: store of the layout.
        layout: names the entries.
        writer: tells this writer's entries from those of others; random unless given.
    """

    def __init__(self, fs: FileSystem, layout: JobLayout, *, writer: str = "") -> None:
        self._fs = fs
        self._layout = layout
        self._writer = writer or os.urandom(8).hex()
        self._attempt = 0  # Newest attempt that this writer has started.
        self._began_job = False  # It found no log, and took none over: of what others log it knows nothing.
        self._next: int | None = None  # None until the log is read.
        self._checkpoints: dict[int, CheckpointId] = {}  # By number of the entry.

    def read(self) -> list[LogEntry]:
        self._next = None
        records: dict[int, _Record] = {}
        for file in self._fs.list_dir(self._layout.log_dir):
            if (number := log_number_of(file.name)) is None:
                continue
            try:
                records[number] = self._read_record(number)
            except MissingFileError:
                continue  # Its owner has pruned it since the listing.
        others = [record.attempt for record in records.values() if record.writer != self._writer]
        newest = max(others, default=0)  # An entry of ours may be there although its append has failed.
        if 0 < self._attempt < newest or (others and self._began_job and not self._attempt):
            raise self._fenced(newest)
        entries = {number: _decode_entry(record, self._url(number)) for number, record in records.items()}
        self._checkpoints = {
            number: entry.checkpoint_id
            for number, entry in entries.items()
            if isinstance(entry, CheckpointCompletedEntry)
        }
        self._next = max(entries, default=0) + 1
        self._began_job = self._began_job or not entries
        return [entries[number] for number in sorted(entries)]

    def append(self, entry: LogEntry) -> None:
        if self._next is None:
            raise ProtocolError("job log was appended to before it was read", entry=entry)
        number, self._next = self._next, None
        attempt = self._attempt
        if isinstance(entry, MasterStarted | AttemptStarted):
            attempt = max(attempt, entry.attempt)  # The first attempt has number 1 whoever begins it.
        self._began_job = self._began_job and not isinstance(entry, MasterStarted)
        data = self._encode(number, entry, attempt)
        try:
            created = self._create(number, data)
        except StorageError as error:
            if not isinstance(error, StaleLogError):
                self._next = number  # The entry is not there, so its number is still free.
            raise
        if not created:
            raise self._taken(number, attempt)
        if isinstance(entry, MasterStarted | AttemptStarted):
            self._verify_newest(number)
        self._attempt = attempt
        self._next = number + 1
        if isinstance(entry, CheckpointCompletedEntry):
            self._checkpoints[number] = entry.checkpoint_id

    def prune_checkpoints(self, keep: Collection[CheckpointId]) -> None:
        # The newest entry stays in any case: a free number at the end would be taken again, and a
        # writer that was paused before it would then append behind its successor's first entry.
        newest = (self._next or 0) - 1
        for number, checkpoint_id in sorted(self._checkpoints.items()):
            if checkpoint_id not in keep and number < newest:
                self._fs.delete_file(self._url(number))
                del self._checkpoints[number]

    def _create(self, number: int, data: bytes) -> bool:
        """Return whether the number holds our entry now; raises `StorageError` when it is free."""
        url = self._url(number)
        try:
            return self._fs.create_exclusive(url, data) or self._fs.read(url) == data
        except StorageError as first:
            cause = first  # Perhaps only the answer was lost: asking once more tells.
        try:
            return self._fs.create_exclusive(url, data) or self._fs.read(url) == data
        except StorageError:
            pass
        try:
            self._fs.read(url)
        except MissingFileError:
            raise cause from None
        except StorageError:
            pass
        raise StaleLogError("outcome of an append to the job log is not known", path=url) from cause

    def _taken(self, number: int, attempt: int) -> StorageError:
        """Return what it means that another entry has our number."""
        try:
            other = self._read_record(number)
        except (StorageError, StateError) as error:
            return StaleLogError(
                "job log has an entry that could not be read", path=self._url(number), cause=error.message
            )
        if other.writer != self._writer and other.attempt >= attempt:
            return self._fenced(other.attempt)
        # An older attempt went on until now, or an append of ours that had failed has arrived.
        return StaleLogError("job log has an entry that was not read", path=self._url(number))

    def _verify_newest(self, number: int) -> None:
        """Make sure that the entry with which we take the log over stands at its end.

        An older attempt that still ran may have appended entries since we read, and pruned the one whose
        number we took; behind them it would not meet our entry.  Nothing else frees a number, and the newest
        entry always stays, so a look at the names tells.
        """
        directory = self._layout.log_dir
        try:
            names = [log_number_of(file.name) for file in self._fs.list_dir(directory)]
        except StorageError as error:
            raise StaleLogError("job log could not be verified", path=directory) from error
        if any(other is not None and other > number for other in names):
            raise StaleLogError("job log has an entry that was not read", path=directory)

    def _fenced(self, newer: int) -> FencedError:
        return FencedError("a newer attempt owns the job log", path=self._layout.log_dir, newer_attempt=newer)

    def _read_record(self, number: int) -> "_Record":
        url = self._url(number)
        version, content = unseal(_FILE_KIND, FORMAT_VERSION, self._fs.read(url), path=url)
        try:
            record = _RECORDS.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StateCorruptError("log entry breaks its format", path=url, cause=str(error)) from error
        if version > 1 and (record.job_id, record.number) != (self._layout.job_id, number):
            raise StateCorruptError(
                "log entry is not the one that its name says",
                path=url,
                job=record.job_id,
                number=record.number,
            )
        return record

    def _encode(self, number: int, entry: LogEntry, attempt: int) -> bytes:
        record = _Record(
            job_id=self._layout.job_id,
            number=number,
            writer=self._writer,
            attempt=attempt,
            type=_NAMES[type(entry)],
            entry=msgspec.Raw(msgspec.json.encode(entry)),
        )
        return seal(_FILE_KIND, FORMAT_VERSION, msgspec.json.encode(record))

    def _url(self, number: int) -> str:
        return self._layout.log_entry(number)


class VolatileJobLog:
    """The log of a job that keeps nothing durable; gone with the process, so nobody else writes it."""

    def __init__(self) -> None:
        self._entries: list[LogEntry] = []

    def read(self) -> list[LogEntry]:
        return list(self._entries)

    def append(self, entry: LogEntry) -> None:
        self._entries.append(entry)

    def prune_checkpoints(self, keep: Collection[CheckpointId]) -> None:
        self._entries = [
            entry
            for entry in self._entries
            if not isinstance(entry, CheckpointCompletedEntry) or entry.checkpoint_id in keep
        ]


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """Format 2 of an entry: which one it is, who wrote it, in which attempt, and the entry by its type."""

    job_id: str = ""
    """Empty in format 1, like the number."""
    number: int = 0
    writer: str
    attempt: int
    type: str
    entry: msgspec.Raw


_RECORDS = msgspec.json.Decoder(_Record)


def _decode_entry(record: _Record, url: str) -> LogEntry:
    entry_type: Any = _TYPES.get(record.type)
    if entry_type is None:
        raise StateCorruptError("log entry has a type that does not exist", path=url, type=record.type)
    try:
        entry: LogEntry = msgspec.json.decode(record.entry, type=entry_type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateCorruptError("log entry breaks its format", path=url, cause=str(error)) from error
    return entry
