"""What the log of a job says about it: read by a job master that goes on after another one.

Pure: takes entries, reads no files.  What is said there is all that is true; what lies in directories
counts only where an entry names it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from raystream.errors import RaystreamError, StateCorruptError
from raystream.ids import Attempt, CheckpointId
from raystream.metrics import Counters
from raystream.protocol.checkpoint_ids import IDS_AHEAD_MAX
from raystream.protocol.client_requests import RequestOutcome
from raystream.protocol.job_past import JobPast, PastFailure
from raystream.protocol.recovery import Beginning
from raystream.protocol.retention import Retention
from raystream.records.elements import SnapshotKind
from raystream.storage.archive import ArchivedCheckpoint
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
    newest_attempt,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedFailure:
    """A failure after which the job went on."""

    wall_ms: int
    """About when it was: when the next attempt began, ms since epoch."""
    progress: bool
    """A checkpoint had completed since the failure before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedJob:
    """A job by its log."""

    attempt: Attempt
    """The newest number that was given."""
    restarts: int
    """Attempts that a failure has led to, and job masters that died before theirs."""
    started_ms: int
    """Wall time of the first attempt, ms since epoch."""
    program_checksum: str | None
    """Of the stored program."""
    started_from: str | None = None
    """Location of the snapshot that the job itself started from."""
    started_from_id: CheckpointId | None = None
    """Its id."""
    parallelism: int | None = None
    """Of a job that was rescaled."""
    beginning: Beginning
    locations: Mapping[CheckpointId, str]
    """Of every snapshot that the log names."""
    masters_in_vain: int = 0
    """Job masters in a row that have begun no attempt."""
    only_commits_left: bool = False
    canceled: bool = False
    end: Terminal | None = None
    failures: tuple[LoggedFailure, ...] = ()
    """Oldest first; without the one that has led here."""
    progress: bool = False
    """A checkpoint has completed since the last of them."""
    outcomes: tuple[RequestOutcome, ...] = ()
    """Of savepoints that clients asked for."""
    records: Counters
    history: tuple[ArchivedCheckpoint, ...] = ()

    def past(self, *, now_ms: float, wall_ms: float) -> JobPast:
        """Return what the job machine is to know, by the clocks of this process."""
        failures, last_ms = [], float("-inf")
        for failure in self.failures:
            last_ms = max(last_ms, min(now_ms - (wall_ms - failure.wall_ms), now_ms))
            failures.append(PastFailure(at_ms=last_ms, progress=failure.progress))
        text = self.end.error if self.end is not None else None
        return JobPast(
            attempt=self.attempt,
            restarts=self.restarts,
            masters_in_vain=self.masters_in_vain,
            only_commits_left=self.only_commits_left,
            canceled=self.canceled,
            status=None if self.end is None else self.end.status,
            error=None if text is None else RaystreamError(text),
            failures=failures,
            progress=self.progress,
        )


def has_begun(entries: Iterable[LogEntry]) -> bool:
    """Return whether a job has logged more than that it has job masters, and what of them clients ask.

    An accepted stop says nothing, since it ends with the job master: the client asks again.
    """
    return any(not isinstance(entry, MasterStarted | StopAccepted) for entry in entries)


def masters_in_vain(entries: Iterable[LogEntry]) -> int:
    """Return how many job masters in a row have begun no attempt, up to the last one in the log."""
    count = 0
    for entry in entries:
        match entry:
            case MasterStarted():
                count += 1
            case AttemptStarted():
                count = 0
    return count


def logged_job(entries: Sequence[LogEntry], *, num_retained: int, claims: bool) -> LoggedJob:
    """Return what a log says.

    Args:
        entries: all of them, oldest first; at least one.
        num_retained: complete checkpoints that the job keeps.
        claims: the snapshot that the job started from became its own.

    Raises:
        StateCorruptError: entries of attempts, which are never deleted, are missing.
    """
    reader = _Reader(num_retained, claims=claims)
    for entry in entries:
        reader.read(entry)
    # Numbers of masters from before the first attempt count too: no writer is to have one that another has.
    return reader.job(attempt=newest_attempt(entries), masters_in_vain=masters_in_vain(entries))


class _Reader:
    """Goes through the entries in order, with a `Retention` that decides again what it decided."""

    def __init__(self, num_retained: int, *, claims: bool) -> None:
        self.claims = claims
        self.master_started_ms = 0
        self.first: AttemptStarted | None = None
        self.last: AttemptStarted | None = None
        self.attempt = Attempt(0)
        self.restarts = 0
        self.newest = CheckpointId(0)
        self.point: CheckpointId | None = None
        self.ends_with: CheckpointId | None = None  # What ends the job when it is the point.
        self.canceled = False
        self.end: Terminal | None = None
        self.progress = False
        self.records = Counters()
        self.failures: list[LoggedFailure] = []
        self.locations: dict[CheckpointId, str] = {}
        self.outcomes: list[RequestOutcome] = []
        self.history: dict[CheckpointId, ArchivedCheckpoint] = {}
        self.retention = Retention(num_retained)

    def read(self, entry: LogEntry) -> None:
        match entry:
            case MasterStarted():
                self.master_started_ms = entry.started_ms
                if self.first is not None:  # Else the one before it had not begun anything.
                    self._failed(entry.started_ms)
                    self.restarts += 1
                    self.attempt = max(self.attempt, entry.attempt)
            case AttemptStarted():
                self._attempt_started(entry)
            case CheckpointCompletedEntry(checkpoint_id=number):
                self._completed(number, entry.directory, ends_job=entry.final)
                self.retention.checkpoint_completed(number)
                self.records = Counters(entry.records_in, entry.records_out, entry.dead_letters)
                self.history = {record.checkpoint_id: record for record in entry.history}
            case SavepointCompleted(checkpoint_id=number):
                if entry.stop:
                    self._completed(number, entry.directory, ends_job=True)
                self._named(number, entry.directory)
                if entry.record is not None:
                    self.history[number] = entry.record
                self.outcomes += [
                    RequestOutcome(request_id=request_id, checkpoint_id=number, path=entry.directory)
                    for request_id in entry.request_ids
                ]
            case NewestId():
                self.newest = max(self.newest, entry.newest_checkpoint)
            case CancelAccepted():
                self.canceled = True
            case Terminal():
                self.end = entry
            case StopAccepted():
                pass  # A stop ends with its attempt, and the client that still wants it asks again.

    def job(self, *, attempt: Attempt, masters_in_vain: int) -> LoggedJob:
        first, last, retention = self.first, self.last, self.retention
        if first is None or last is None:
            if self.locations or not (self.canceled or self.end):
                raise StateCorruptError("job log has lost the entries of its attempts")
            first = last = AttemptStarted(attempt=attempt, started_ms=self.master_started_ms)
        return LoggedJob(
            attempt=attempt,
            masters_in_vain=masters_in_vain,
            restarts=self.restarts,
            started_ms=first.started_ms,
            program_checksum=last.program_checksum,
            started_from=first.restored_path,
            started_from_id=first.restored_checkpoint,
            parallelism=last.parallelism,
            beginning=Beginning(
                newest=CheckpointId(self.newest + IDS_AHEAD_MAX),
                point=self.point,
                retained=retention.retained,
                damaged=retention.damaged,
            ),
            locations=dict(self.locations),
            only_commits_left=self.point is not None and self.point == self.ends_with,
            canceled=self.canceled,
            end=self.end,
            failures=tuple(self.failures),
            progress=self.progress,
            outcomes=tuple(self.outcomes),
            records=self.records,
            history=tuple(self._history()),
        )

    def _attempt_started(self, entry: AttemptStarted) -> None:
        if self.first is None:
            self.first = entry
            if self.claims and entry.restored_checkpoint is not None:
                self.retention.began((entry.restored_checkpoint,), ())
        elif self.last is not None and entry.attempt != self.attempt:
            # The entry of the checkpoint between may be pruned; what was restored tells of it all the same.
            self.progress = self.progress or entry.restored_checkpoint != self.last.restored_checkpoint
        self._failures(entry)
        for damaged in entry.passed_over:
            if damaged in self.retention.retained:
                self.retention.checkpoint_damaged(damaged)
        self.attempt, self.last = max(self.attempt, entry.attempt), entry
        self.point = entry.restored_checkpoint
        if self.point is not None and entry.restored_path is not None:
            self._named(self.point, entry.restored_path)
        self.newest = max(self.newest, entry.newest_checkpoint or self.newest)
        logged = Counters(entry.records_in, entry.records_out, entry.dead_letters)
        self.records = Counters(*map(max, self.records, logged))

    def _failures(self, entry: AttemptStarted) -> None:
        """Take in the failures that led to an attempt, which may be several: some attempts log nothing.

        The second try with an older checkpoint is none: the restart strategy was not asked about it.
        """
        restarts = entry.attempt - 1 if entry.restarts is None else entry.restarts
        before = () if self.last is None else self.last.passed_over
        for _ in range(restarts - self.restarts - len(set(entry.passed_over).difference(before))):
            self._failed(entry.started_ms)
        self.restarts = restarts

    def _completed(self, number: CheckpointId, directory: str, *, ends_job: bool) -> None:
        self._named(number, directory)
        self.point, self.progress = number, True
        self.ends_with = number if ends_job else None

    def _named(self, number: CheckpointId, directory: str) -> None:
        self.locations[number] = directory
        self.newest = max(self.newest, number)

    def _failed(self, wall_ms: int) -> None:
        self.failures.append(LoggedFailure(wall_ms=wall_ms, progress=self.progress))
        self.progress = False

    def _history(self) -> Iterable[ArchivedCheckpoint]:
        """Return the history, with what is known of each checkpoint now."""
        retained, damaged = self.retention.retained, self.retention.damaged
        for number, record in sorted(self.history.items()):
            deleted = record.kind is SnapshotKind.CHECKPOINT and number not in retained
            found = replace(record, location="") if deleted else record
            yield replace(found, damaged=True) if number in damaged else found
