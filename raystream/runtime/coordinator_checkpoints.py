"""Executes what the checkpoint machine decides: files, log entries, messages to slots.

Holds no decisions.  Knows where every checkpoint is; the machine knows only ids.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

from raystream.errors import CheckpointError, RaystreamError
from raystream.graph.physical import PhysicalPlan
from raystream.handles import SavepointFormat, SubtaskSnapshot, files_in
from raystream.ids import Attempt, CheckpointId, OperatorUid, SlotId
from raystream.metrics import Counters
from raystream.protocol import checkpoint_commands as cmd
from raystream.protocol.checkpoint import CheckpointCoordinator
from raystream.protocol.checkpoint_pending import FATES_REMEMBERED_MAX
from raystream.protocol.checkpoint_requests import Purpose
from raystream.protocol.client_requests import ClientRequests, RequestOutcome
from raystream.protocol.job import Job
from raystream.protocol.job_commands import Command as JobCommand
from raystream.protocol.job_failures import Failure
from raystream.protocol.recovery import Beginning
from raystream.protocol.shared_files import SharedFiles
from raystream.records.elements import SnapshotKind
from raystream.runtime import messages as msg
from raystream.runtime.checkpoint_delays import failure_text
from raystream.runtime.coordinator_attempt import CLAIM_STAYS
from raystream.runtime.coordinator_completion import CompletionLog
from raystream.runtime.coordinator_end import Deletions
from raystream.runtime.coordinator_leftovers import Leftovers
from raystream.runtime.coordinator_log import LogWriter
from raystream.runtime.coordinator_recovery import Claimed, RecoveredJob
from raystream.runtime.coordinator_services import CoordinatorServices, as_error
from raystream.runtime.coordinator_sources import SourceCoordinator
from raystream.runtime.coordinator_storage import savepoint_directory
from raystream.runtime.coordinator_view import CheckpointRecords
from raystream.runtime.described_operators import describe_operators
from raystream.storage.metadata import SnapshotMetadata, shared_files_of

logger = logging.getLogger(__name__)

Run = Callable[[Iterable[cmd.Command | JobCommand]], None]
"""Executes commands, behind those that wait already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """What belongs to a pending checkpoint beside its subtasks' snapshots."""

    purpose: Purpose
    savepoint_format: SavepointFormat | None
    attempt: Attempt
    created_ms: int
    enumerators: dict[OperatorUid, bytes]


class CheckpointShell:
    """Executes the commands of the checkpoint machine.

    Args:
        services: the coordinator's world.
        machine: the checkpoint machine.
        job: the job machine, which is told what concerns it.
        requests: gets the answers to clients.
        sources: are snapshotted with every trigger.
        log: gets an entry for every completion.
        deletions: take what nothing needs any more.
        plan: gives the plan of the current attempt.
        run: executes the commands that an event leads to.
        rescales: told first how what was asked for has ended; False when it was not in order to rescale.
        records: gives the records in and out so far.
        deleted: called when the machine has ended and all deletions are over, or their time is.

    Attributes:
        shared: the shared files that complete checkpoints need.
        leftovers: sweeps what nothing needs any more.
    """

    def __init__(
        self,
        services: CoordinatorServices,
        machine: CheckpointCoordinator,
        *,
        job: Job,
        requests: ClientRequests,
        sources: SourceCoordinator,
        log: LogWriter,
        deletions: Deletions,
        plan: Callable[[], PhysicalPlan],
        run: Run,
        rescales: Callable[[cmd.ResolveSavepoint], bool],
        records: Callable[[], Counters],
        deleted: Callable[[], None],
    ) -> None:
        self._services = services
        self._snapshots = services.storage.snapshots
        self._machine = machine
        self._job = job
        self._requests = requests
        self._sources = sources
        self._log = log
        self.records = CheckpointRecords()
        self._completions = CompletionLog(
            services.clock, machine, log, shown=self.records, counted=records, run=run
        )
        self._deletions = deletions
        self._plan = plan
        self._run = run
        self._rescales = rescales
        self._deleted = deleted
        self.shared = SharedFiles()
        self.leftovers = Leftovers(deletions, self._snapshots, self.shared)
        self._cuts: dict[CheckpointId, _Cut] = {}
        self._locations: dict[CheckpointId, str] = {}
        self._claimed: Claimed | None = None  # What the job has begun with.

    def location(self, checkpoint_id: CheckpointId | None) -> str | None:
        """Return where a complete checkpoint is, for `SnapshotStore.load`."""
        return None if checkpoint_id is None else self._locations[checkpoint_id]

    def began_with(self, directory: str, metadata: SnapshotMetadata) -> Beginning:
        """Remember the snapshot that the job starts from, and return what it means for the job."""
        checkpoint_id = metadata.checkpoint_id
        self._locations[checkpoint_id] = directory
        if self._services.submission.config.recovery.claim_mode != "claim":
            return Beginning(newest=checkpoint_id, point=checkpoint_id)
        self._owns(directory, metadata)
        return Beginning(newest=checkpoint_id, point=checkpoint_id, retained=(checkpoint_id,))

    def recovered(self, job: RecoveredJob) -> None:
        """Remember what the job had under an earlier job master."""
        self._locations = dict(job.logged.locations)
        self.records.recovered(job.logged.history)
        retained = job.logged.beginning.retained
        if job.claimed is not None:
            self._owns(*job.claimed)
            if job.claimed[1].checkpoint_id not in retained:
                self._delete_checkpoint(job.claimed[1].checkpoint_id)  # Which may not have come to its end.
        for checkpoint_id in retained:
            metadata = job.snapshots.get(checkpoint_id)
            if self._claimed is None or checkpoint_id != self._claimed[1].checkpoint_id:
                self.shared.restored(checkpoint_id, shared_files_of(metadata) if metadata else ())

    def _owns(self, directory: str, metadata: SnapshotMetadata) -> None:
        self._claimed = directory, metadata
        # Its shared files are elsewhere: nothing of this job refers to them.
        self.shared.restored(metadata.checkpoint_id, ())

    def execute(self, command: cmd.Command) -> None:  # noqa: C901 - one arm for each command
        """Do what the machine decided."""
        match command:
            case cmd.StartCheckpoint():
                self._start(command)
            case cmd.WriteMetadata(checkpoint_id, snapshots):
                self._write_metadata(checkpoint_id, snapshots)
            case cmd.LogCompletion(checkpoint_id):
                attempt, location = self._cuts[checkpoint_id].attempt, self._locations[checkpoint_id]
                self._completions.completed(command, attempt, location)
            case cmd.LogNewestId(checkpoint_id):
                self._completions.newest_id(checkpoint_id)
            case cmd.RecordCompletion() | cmd.RecordFailure():
                self._record(command)
            case cmd.RecordDamage(checkpoint_id, error, older):
                self.records.damaged(checkpoint_id, error)
                details = {"checkpoint_id": checkpoint_id, "path": error.context.get("path")}
                logger.warning("checkpoint is damaged", extra={**details, "older_checkpoint": older})
            case cmd.NotifyCompleted(checkpoint_id, final):
                self._broadcast(
                    msg.CheckpointCompleted(
                        attempt=self._job.attempt, checkpoint_id=checkpoint_id, final=final
                    )
                )
            case cmd.NotifyAborted(checkpoint_id):
                self._broadcast(msg.CheckpointAborted(attempt=self._job.attempt, checkpoint_id=checkpoint_id))
            case cmd.CommitAtEnd():
                self._run(self._job.commit_without_checkpoint_due())
            case cmd.DiscardSnapshot(checkpoint_id, snapshot):
                directory = self._locations.get(checkpoint_id, "")
                if files := files_in(snapshot.operators):
                    work = partial(self._snapshots.delete_files, directory, files)
                    self.leftovers.delete(checkpoint_id, work)
            case cmd.DeleteCheckpoint(checkpoint_id):
                self._delete_checkpoint(checkpoint_id)
            case cmd.PruneLog(keep):
                self._log.prune(keep)
                self.leftovers.sweep(keep)
            case cmd.FailAttempt(error, retryable, passed_over, taken_back):
                failure = Failure(error, retryable=retryable, passed_over=passed_over, taken_back=taken_back)
                self._run(self._job.attempt_failed(self._now_ms, self._job.attempt, failure))
            case cmd.ResolveSavepoint():
                self._resolve(command)
            case cmd.ConfirmSettled():
                self._run(self._job.checkpoints_settled(self._now_ms))
            case cmd.ConfirmDeleted():
                self._delete_leftovers()
                self._deletions.when_over(self._deleted)
            case _:
                assert_never(command)

    # ---- the cut ---------------------------------------------------------------

    def _start(self, command: cmd.StartCheckpoint) -> None:
        """Snapshot the enumerators and trigger the sources in one step."""
        checkpoint_id, purpose = command.checkpoint_id, command.purpose
        wall_ms = self._services.clock.wall_ms()
        self.records.started(checkpoint_id, purpose, self._job.attempt, wall_ms=wall_ms, now_ms=self._now_ms)
        try:
            directory = self._directory(command)
            enumerators = self._sources.snapshot()
        except RaystreamError as error:
            self._run(self._machine.trigger_failed(self._now_ms, checkpoint_id, error))
            return
        self._remember(checkpoint_id, directory)
        savepoint_format = command.format if purpose.savepoint else None
        self._cuts[checkpoint_id] = _Cut(
            purpose=purpose,
            savepoint_format=savepoint_format,
            attempt=self._job.attempt,
            created_ms=wall_ms,
            enumerators=enumerators,
        )
        trigger = msg.TriggerCheckpoint(
            attempt=self._job.attempt,
            checkpoint_id=checkpoint_id,
            kind=_kind(purpose),
            savepoint_format=savepoint_format,
            created_ms=wall_ms,
            directory=directory,
            stop=purpose is Purpose.STOP,
            drain=command.drain,
            full=command.full,
        )
        for slot in self._source_slots():
            self._services.slots.send(slot, trigger)

    def _directory(self, command: cmd.StartCheckpoint) -> str:
        if not command.purpose.savepoint:
            return self._snapshots.checkpoint_directory(command.checkpoint_id)
        services = self._services
        return savepoint_directory(services.storage, services.submission.config, command.base, services.rng)

    def _source_slots(self) -> list[SlotId]:
        sources = (vertex for vertex in self._plan().vertices if vertex.source is not None)
        return sorted({vertex.slot(i) for vertex in sources for i in range(vertex.parallelism)})

    def _remember(self, checkpoint_id: CheckpointId, directory: str) -> None:
        """Remember where a new checkpoint goes, and forget those that nobody asks for any more."""
        kept = {*self._machine.retained, self._machine.recovery_point}
        for old in [i for i in self._locations if i < checkpoint_id - FATES_REMEMBERED_MAX and i not in kept]:
            del self._locations[old]
        self._locations[checkpoint_id] = directory

    # ---- completion ------------------------------------------------------------

    def _write_metadata(self, checkpoint_id: CheckpointId, snapshots: tuple[SubtaskSnapshot, ...]) -> None:
        self.records.acknowledged(checkpoint_id, self._plan(), snapshots)
        self.leftovers.acknowledged(snapshots)
        cut = self._cuts[checkpoint_id]
        try:
            if not cut.purpose.savepoint:  # A savepoint refers to nothing outside.
                shared = [file for snapshot in snapshots for file in snapshot.shared_files]
                self.shared.verify(checkpoint_id, shared)
        except CheckpointError as error:
            self._run(self._machine.metadata_failed(self._now_ms, checkpoint_id, error))
            return
        submission = self._services.submission
        metadata = SnapshotMetadata(
            job_id=submission.job_id,
            job_name=submission.name,
            checkpoint_id=checkpoint_id,
            kind=_kind(cut.purpose),
            savepoint_format=cut.savepoint_format,
            created_ms=cut.created_ms,
            completed_ms=self._services.clock.wall_ms(),
            operators=describe_operators(self._plan(), snapshots),
            enumerators=cut.enumerators,
        )

        def written(result: Any) -> None:
            if isinstance(result, Exception):
                error = as_error(result, "writing of the checkpoint's metadata")
                self._run(self._machine.metadata_failed(self._now_ms, checkpoint_id, error))
                return
            self._locations[checkpoint_id] = result
            self.records.written(result, metadata)
            self._run(self._machine.metadata_written(self._now_ms, checkpoint_id))

        directory = self._locations[checkpoint_id]
        self._services.background.submit(
            partial(self._snapshots.write_metadata, directory, metadata), self._deletions.awaiting(written)
        )

    def _record(self, command: cmd.RecordCompletion | cmd.RecordFailure) -> None:
        checkpoint_id = command.checkpoint_id
        self._cuts.pop(checkpoint_id, None)
        if isinstance(command, cmd.RecordCompletion):
            if not command.purpose.savepoint:
                self.shared.checkpoint_completed(checkpoint_id)
            record = self.records.ended(checkpoint_id, self._now_ms, failure="")
            details: dict[str, Any] = {"checkpoint_id": checkpoint_id, "purpose": command.purpose.value}
            if record is not None:
                details |= {
                    "duration_ms": round(record.duration_ms),
                    "size_bytes": record.size_bytes,
                    "uploaded_bytes": record.uploaded_bytes,
                }
            logger.info("checkpoint completed", extra=details)
            self._run(self._job.checkpoint_completed(command.purpose))
            return
        self.leftovers.given_up(checkpoint_id)
        if command.missing:
            acknowledged, missing = command.acknowledged, command.missing
            self.records.acknowledged(checkpoint_id, self._plan(), acknowledged, missing)
        failure = failure_text(self._plan(), command.reason.value, command.error)
        self.records.ended(checkpoint_id, self._now_ms, failure=failure)
        details = {"checkpoint_id": checkpoint_id, "reason": command.reason.value}
        if command.reason.routine:
            logger.info("checkpoint given up", extra=details)
        else:
            logger.warning("checkpoint failed", extra=details, exc_info=command.error)

    def _resolve(self, command: cmd.ResolveSavepoint) -> None:
        if self._rescales(command):
            return
        outcome = RequestOutcome(
            request_id=command.request_id,
            checkpoint_id=command.checkpoint_id,
            path=self.location(command.checkpoint_id) or "",
            error=command.error,
        )
        self._requests.request_resolved(outcome)

    # ---- deletion --------------------------------------------------------------

    def _delete_checkpoint(self, checkpoint_id: CheckpointId) -> None:
        self.records.deleted(checkpoint_id)
        unused = self.shared.checkpoint_deleted(checkpoint_id)
        if self._claimed is not None and self._claimed[1].checkpoint_id == checkpoint_id:
            work = partial(self._services.storage.claims.delete, *self._claimed)
            self.leftovers.delete_elsewhere(checkpoint_id, work)
            return
        if not self._machine.retained:  # The job has ended: the sweep removes them all at once.
            unused = ()
        location = self._locations.get(checkpoint_id, "")
        self.leftovers.delete(checkpoint_id, partial(self._snapshots.delete, location, shared=unused))

    def _delete_leftovers(self) -> None:
        """Sweep: an upload for an aborted checkpoint may have outlasted its attempt, not its slot."""
        if self._machine.newest:
            self.leftovers.sweep_all(self._machine.retained, self._machine.newest)
        if self._claimed is not None and self._claimed[1].checkpoint_id in self._machine.retained:
            release = partial(self._services.storage.claims.release, self._claimed[0])
            self._deletions.submit(release, failed=CLAIM_STAYS)

    # ---- small things ------------------------------------------------------------

    @property
    def _now_ms(self) -> float:
        return self._services.clock.monotonic_ms()

    def _broadcast(self, command: msg.Command) -> None:
        for slot in self._plan().slots:
            self._services.slots.send(slot, command)


def _kind(purpose: Purpose) -> SnapshotKind:
    return SnapshotKind.SAVEPOINT if purpose.savepoint else SnapshotKind.CHECKPOINT
