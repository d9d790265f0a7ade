"""Appends to the job log, one entry after the other, until each is certain.

An append that may or may not have happened is tried again until it is known: whoever asked gets
an answer that is true, later.  When the log stays silent for too long, or belongs to somebody
else, nothing more is appended and the job must stop.

Knows the log and a background; decides nothing about the job.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from raystream.errors import FencedError, RaystreamError, StorageError
from raystream.ids import CheckpointId
from raystream.operators.operator import Background
from raystream.storage.job_log import JobLog, StaleLogError
from raystream.storage.log_entries import AttemptStarted, LogEntry

logger = logging.getLogger(__name__)

DOUBT_TRIES_MAX = 600
"""Times that an append of unknown outcome is asked about before the job is given up: the store may be away
for as long as a job master that begins waits for it (`coordinator_recovery.RECOVERY_TRIES_MAX`)."""

DOUBT_RETRY_MS = 1_000

Later = Callable[[float, Callable[[], None]], None]
"""Makes a call on the loop's thread after a number of milliseconds."""

Appended = Callable[[StorageError | None], None]
"""Takes None when the entry is in the log, and the error when it is certainly not."""


@dataclass(slots=True)
class _Task:
    work: Callable[[], None]
    """Reads or writes the log; runs in a thread."""
    in_doubt: Callable[[], None] | None
    """The same, when it is not known whether `work` has succeeded before; None when that is no matter."""
    done: Appended
    tries: int = 0


class LogWriter:
    """The only user of a job's log.

    Args:
        log: the log, which was read before.
        background: runs what blocks.
        later: for another try.
        conflicted: told once when nothing may be appended any more.
    """

    def __init__(
        self,
        log: JobLog,
        background: Background,
        *,
        later: Later,
        conflicted: Callable[[RaystreamError], None],
    ) -> None:
        self._log = log
        self._background = background
        self._later = later
        self._conflicted = conflicted
        self._tasks: deque[_Task] = deque()
        self._stopped = False

    def append(self, entry: LogEntry, done: Appended) -> None:
        """Append an entry behind everything that was appended before."""
        self._add(_Task(partial(self._log.append, entry), partial(self._append_again, entry), done))

    def prune(self, keep: Collection[CheckpointId]) -> None:
        """Remove entries of checkpoints that are no longer kept; failing to is harmless."""
        self._add(_Task(partial(self._log.prune_checkpoints, keep), None, _pruned))

    def _add(self, task: _Task) -> None:
        if self._stopped:
            return
        self._tasks.append(task)
        if len(self._tasks) == 1:
            self._submit(task.work)

    def _submit(self, work: Callable[[], None]) -> None:
        self._background.submit(work, self._finished)

    def _finished(self, result: Any) -> None:
        """Answer for the oldest task and begin the next one."""
        task = self._tasks[0]
        if isinstance(result, FencedError):
            self._stop(result)
            return
        error = _as_storage_error(result) if isinstance(result, Exception) else None
        if isinstance(error, StaleLogError) and task.in_doubt is not None:
            self._ask_again(task, task.in_doubt, error)
            return
        self._tasks.popleft()
        if self._tasks:
            self._submit(self._tasks[0].work)
        task.done(error)

    def _ask_again(self, task: _Task, in_doubt: Callable[[], None], error: StaleLogError) -> None:
        task.tries += 1
        if task.tries > DOUBT_TRIES_MAX:
            self._stop(error)
            return
        logger.warning("job log append of unknown outcome", extra={"tries": task.tries}, exc_info=error)
        delay_ms = 0 if task.tries == 1 else DOUBT_RETRY_MS
        self._later(delay_ms, lambda: self._submit(in_doubt))

    def _stop(self, error: RaystreamError) -> None:
        self._stopped = True
        self._tasks.clear()
        self._conflicted(error)

    # ---- in a thread ---------------------------------------------------------

    def _append_again(self, entry: LogEntry) -> None:
        try:
            entries = self._log.read()
        except (FencedError, StaleLogError):
            raise
        except StorageError as error:
            raise StaleLogError("job log does not answer", cause=error.message) from error
        # Two masters may begin the same attempt; only appending tells whose entry it is.
        if isinstance(entry, AttemptStarted) or entry not in entries:
            self._log.append(entry)


def _as_storage_error(error: Exception) -> StorageError:
    """Return what an error says about the entry: only a clean `StorageError` says that it is not there."""
    if isinstance(error, StorageError):
        return error
    doubt = StaleLogError("job log append ended with an error of another kind", cause=repr(error))
    doubt.__cause__ = error
    return doubt


def _pruned(error: StorageError | None) -> None:
    if error is not None:
        logger.warning("log entries of deleted checkpoints stay", exc_info=error)
