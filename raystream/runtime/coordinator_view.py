"""What a job's coordinator shows: plain values that may be pickled and kept.

Knows nothing of how a job works.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from raystream.errors import RaystreamError
from raystream.graph.physical import PhysicalPlan
from raystream.handles import SubtaskSnapshot
from raystream.ids import Attempt, CheckpointId, JobId, JobStatus
from raystream.protocol.checkpoint_requests import Purpose
from raystream.protocol.client_requests import RequestOutcome
from raystream.protocol.subtasks import Subtask
from raystream.records.elements import SnapshotKind
from raystream.runtime.checkpoint_delays import held_up_by, label, master_delay, subtask_records, waited_for
from raystream.storage.archive import ArchivedCheckpoint, ArchivedJob, SubtaskRecord
from raystream.storage.metadata import SnapshotMetadata, shared_files_of

RECORDS_MAX = 100
"""Checkpoints and savepoints that a view shows: the newest ones, and always what a failure goes back to."""

SUBTASKS_MAX = 1_000
"""Subtasks that are shown of all checkpoints together, of the newest ones; the newest has all of its own."""
SUBTASKS_KEPT = 3
"""Subtasks that are shown of each older one, the slowest."""
MISSING_MAX = 20
"""Subtasks that are named of those which had not acknowledged a checkpoint that was given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """One checkpoint or savepoint."""

    checkpoint_id: CheckpointId
    kind: SnapshotKind
    purpose: str
    """`periodic`, `manual`, `final`, `savepoint` or `stop`."""
    status: str
    """`pending`, `completed`, `failed`, or `damaged` when it was complete and could not be restored."""
    attempt: Attempt
    triggered_ms: int
    """Wall time, ms since epoch."""
    duration_ms: float = 0.0
    """From the trigger to the log entry, or to the failure."""
    size_bytes: int = 0
    """Of all state, whenever it was written."""
    uploaded_bytes: int = 0
    """How much was stored for this checkpoint, copied or linked: less than its size when it refers to files
    of older ones."""
    path: str = ""
    """Directory of `_metadata`, once complete and until it is deleted."""
    failure: str = ""
    """Reason and cause, if it failed; what is damaged, if it is."""
    held_up_by: str = ""
    """What it waited for longest, in one line."""
    missing: tuple[str, ...] = ()
    """Subtasks that had not acknowledged when it was given up, up to `MISSING_MAX` of them."""
    missing_count: int = 0
    """All of them."""
    subtasks: tuple[SubtaskRecord, ...] = ()
    """Those that have acknowledged, slowest first; of older checkpoints only `SUBTASKS_KEPT`."""


def last_recoverable(records: Iterable[CheckpointRecord]) -> CheckpointRecord | None:
    """Return the newest complete one that a failure goes back to: none goes back to a mere savepoint."""
    return max(
        (one for one in records if one.status == "completed" and one.purpose != Purpose.SAVEPOINT.value),
        key=lambda record: record.checkpoint_id,
        default=None,
    )


class CheckpointCounts(NamedTuple):
    """How many checkpoints and savepoints have ended."""

    completed: int
    failed: int


NO_CHECKPOINTS = CheckpointCounts(completed=0, failed=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """How a job stands at one moment."""

    job_id: JobId
    name: str
    status: JobStatus
    parallelism: int
    attempt: Attempt
    restarts: int
    records_in: int
    """Records that sources have emitted in all attempts, repeated ones included."""
    records_out: int
    duration_ms: int
    dead_letters: int = 0
    """Records that went to the dead letters, in all attempts, repeated ones included."""
    checkpoints: tuple[CheckpointRecord, ...] = ()
    """Oldest first."""
    checkpoint_counts: CheckpointCounts = NO_CHECKPOINTS
    """Of all of them; under a later job master, of those that the job log still knows and its own."""
    last_checkpoint_id: CheckpointId | None = None
    """What a failure would recover from."""
    started_from: str | None = None
    """Path of the snapshot that the job was started from."""
    error: RaystreamError | None = None
    """Primary cause of the last failure; of a FAILED job, what it failed with."""
    restart_in_ms: int = 0
    """Time until the attempt after a failed one may begin; 0 when it is not waited for."""
    gave_up: str = ""
    """Why a FAILED job was not started again."""
    waiting_for: str = ""
    """What holds the job up; empty when nothing does."""
    waiting_ms: int = 0
    """For how long something has."""
    recovering: bool = False
    """What became of the job under an earlier job master is not known yet."""
    abandoned: bool = False
    """Another process owns the job; this one does nothing for it any more."""
    outcomes: tuple[RequestOutcome, ...] = ()
    """Answers to clients' requests, oldest first."""

    def outcome(self, request_id: str) -> RequestOutcome | None:
        """Return the answer to a request, or None while there is none."""
        return next((outcome for outcome in self.outcomes if outcome.request_id == request_id), None)


class Wait:
    """For how long a job has been held up, as far as anybody has looked."""

    def __init__(self) -> None:
        self._since_ms: float | None = None

    def lasts_ms(self, waiting_for: str, now_ms: float) -> int:
        """Return for how long something has held the job up, whatever it was at first."""
        if not waiting_for:
            self._since_ms = None
            return 0
        if self._since_ms is None:
            self._since_ms = now_ms
        return round(now_ms - self._since_ms)


class CheckpointRecords:
    """The newest checkpoints and savepoints of a job."""

    def __init__(self) -> None:
        self._records: dict[CheckpointId, CheckpointRecord] = {}
        self._started_ms: dict[CheckpointId, float] = {}
        self._shown: tuple[CheckpointRecord, ...] | None = None
        self.counts = NO_CHECKPOINTS

    def started(
        self, checkpoint_id: CheckpointId, purpose: Purpose, attempt: Attempt, *, wall_ms: int, now_ms: float
    ) -> None:
        """Show a new one; when there are too many, the oldest is forgotten that no failure goes back to."""
        self._started_ms[checkpoint_id] = now_ms
        self._put(
            CheckpointRecord(
                checkpoint_id=checkpoint_id,
                kind=SnapshotKind.SAVEPOINT if purpose.savepoint else SnapshotKind.CHECKPOINT,
                purpose=purpose.value,
                status="pending",
                attempt=attempt,
                triggered_ms=wall_ms,
            )
        )
        if len(self._records) > RECORDS_MAX:
            kept = last_recoverable(self._records.values())
            oldest = next(number for number, record in self._records.items() if record is not kept)
            del self._records[oldest]
            self._started_ms.pop(oldest, None)

    def recovered(self, history: Iterable[ArchivedCheckpoint]) -> None:
        """Show what is known of checkpoints under an earlier job master."""
        for one in history:
            self._put(_record_of(one))
            self._count(failed=bool(one.failure))

    def history(self, completing: CheckpointId, now_ms: float) -> tuple[ArchivedCheckpoint, ...]:
        """Return all that have ended, oldest first, with the one that this entry makes complete."""
        records = [record for record in self._records.values() if record.status != "pending"]
        if (record := self._records.get(completing)) is not None:
            duration_ms = now_ms - self._started_ms[completing]
            records.append(replace(record, status="completed", duration_ms=duration_ms))
        records.sort(key=lambda record: record.checkpoint_id)
        # Every entry of the log has the whole history, so that it is without the subtasks.
        return tuple(_archived_record(replace(record, subtasks=())) for record in records)

    def acknowledged(
        self,
        checkpoint_id: CheckpointId,
        plan: PhysicalPlan,
        snapshots: Iterable[SubtaskSnapshot],
        missing: Sequence[Subtask] = (),
    ) -> None:
        """Show what the subtasks said, and who has said nothing when the checkpoint is given up."""
        if record := self._records.get(checkpoint_id):
            subtasks = subtask_records(plan, snapshots)
            record = replace(
                record,
                subtasks=subtasks,
                missing=tuple(label(plan, one) for one in missing[:MISSING_MAX]),
                missing_count=len(missing),
                held_up_by=waited_for(plan, missing) if missing else held_up_by(plan, subtasks),
            )
            self._put(record)
            self._bound_subtasks(record)

    def written(self, path: str, metadata: SnapshotMetadata) -> None:
        """Show where a snapshot is, and how large."""
        checkpoint_id, size = metadata.checkpoint_id, metadata.size_bytes
        older = sum(file.size_bytes for file in shared_files_of(metadata) if file.created_by != checkpoint_id)
        if record := self._records.get(checkpoint_id):
            self._put(replace(record, path=path, size_bytes=size, uploaded_bytes=size - older))

    def ended(self, checkpoint_id: CheckpointId, now_ms: float, *, failure: str) -> CheckpointRecord | None:
        """Show how it ended, and return the record; an empty `failure` is success."""
        record = self._records.get(checkpoint_id)
        if record is None:
            return None
        duration_ms = now_ms - self._started_ms.pop(checkpoint_id)
        record = replace(
            record,
            status="failed" if failure else "completed",
            duration_ms=duration_ms,
            held_up_by=("" if record.missing else master_delay(record.subtasks, duration_ms))
            or record.held_up_by,
            failure=failure,
            path="" if failure else record.path,
        )
        self._put(record)
        self._count(failed=bool(failure))
        return record

    def damaged(self, checkpoint_id: CheckpointId, error: RaystreamError) -> None:
        """Show that it cannot be restored."""
        if record := self._records.get(checkpoint_id):
            failure = f"{error.message}: {error.context.get('path', '')}".rstrip(": ")
            self._put(replace(record, status="damaged", failure=failure))

    def deleted(self, checkpoint_id: CheckpointId) -> None:
        """Show that its files are gone, or will be."""
        if record := self._records.get(checkpoint_id):
            self._put(replace(record, path=""))

    def shown(self) -> tuple[CheckpointRecord, ...]:
        """Return all records, oldest first."""
        if self._shown is None:
            self._shown = tuple(self._records.values())
        return self._shown

    def _bound_subtasks(self, newest: CheckpointRecord) -> None:
        """Forget most subtasks of the older checkpoints when there are too many of all."""
        left = SUBTASKS_MAX - len(newest.subtasks)
        for record in reversed(list(self._records.values())):
            if record is newest or len(record.subtasks) <= SUBTASKS_KEPT:
                continue
            left -= len(record.subtasks)
            if left < 0:
                self._put(replace(record, subtasks=record.subtasks[:SUBTASKS_KEPT]))

    def _count(self, *, failed: bool) -> None:
        completed, failures = self.counts
        self.counts = CheckpointCounts(completed + (not failed), failures + failed)

    def _put(self, record: CheckpointRecord) -> None:
        self._records[record.checkpoint_id] = record
        self._shown = None


def archived(view: JobView, status: JobStatus) -> ArchivedJob:
    """Return what is left to show of a job that ends with this status."""
    return ArchivedJob(
        job_id=view.job_id,
        name=view.name,
        status=status,
        parallelism=view.parallelism,
        records_in=view.records_in,
        records_out=view.records_out,
        dead_letters=view.dead_letters,
        attempt=view.attempt,
        restarts=view.restarts,
        duration_ms=view.duration_ms,
        last_checkpoint_id=view.last_checkpoint_id,
        error=str(view.error) if status is JobStatus.FAILED and view.error is not None else "",
        checkpoints=tuple(map(_archived_record, view.checkpoints)),
    )


def view_of(archive: ArchivedJob) -> JobView:
    """Return what is left to show of a job that has ended."""
    return JobView(
        job_id=archive.job_id,
        name=archive.name,
        status=archive.status,
        parallelism=archive.parallelism,
        attempt=Attempt(archive.attempt or archive.restarts + 1),
        restarts=archive.restarts,
        records_in=archive.records_in,
        records_out=archive.records_out,
        dead_letters=archive.dead_letters,
        duration_ms=archive.duration_ms,
        checkpoints=tuple(map(_record_of, archive.checkpoints)),
        last_checkpoint_id=archive.last_checkpoint_id,
        error=RaystreamError(archive.error) if archive.error else None,
    )


def _archived_record(record: CheckpointRecord) -> ArchivedCheckpoint:
    return ArchivedCheckpoint(
        checkpoint_id=record.checkpoint_id,
        kind=record.kind,
        location=record.path,
        created_ms=record.triggered_ms,
        duration_ms=record.duration_ms,
        size_bytes=record.size_bytes,
        uploaded_bytes=record.uploaded_bytes,
        failure=record.failure,
        damaged=record.status == "damaged",
        purpose=record.purpose,
        attempt=record.attempt,
        held_up_by=record.held_up_by,
        missing=record.missing,
        missing_count=record.missing_count,
        subtasks=record.subtasks,
    )


def _record_of(archived: ArchivedCheckpoint) -> CheckpointRecord:
    status = "failed" if archived.failure else "completed"
    return CheckpointRecord(
        checkpoint_id=archived.checkpoint_id,
        kind=archived.kind,
        purpose=archived.purpose,
        status="damaged" if archived.damaged else status,
        attempt=Attempt(archived.attempt),
        triggered_ms=archived.created_ms,
        duration_ms=archived.duration_ms,
        size_bytes=archived.size_bytes,
        uploaded_bytes=archived.uploaded_bytes,
        path=archived.location,
        failure=archived.failure,
        held_up_by=archived.held_up_by,
        missing=archived.missing,
        missing_count=archived.missing_count,
        subtasks=archived.subtasks,
    )
