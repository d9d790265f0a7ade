"""The life of checkpoints and savepoints, seen from the job's coordinator: the state machine.

                          all acks               written         nothing else is being logged
    start --> COLLECTING ---------> WRITING -----------> WRITTEN -----------------> LOGGING
                  |                    |                    |                          |
                  +--------------------+--------------------+                   logged |  not logged
                  |  declined, expired, not written,                                   |      |
                  v  subsumed, end of the attempt                                      v      |
               aborted <--------------------------------------------------------- complete    |
                  ^                                                                           |
                  +---------------------------------------------------------------------------+

A checkpoint is complete when its log entry exists, and not before.  Once the entry is being
written nobody can know whether it exists until the answer comes, so a checkpoint in LOGGING can
not be aborted: the end of an attempt waits for it (`ConfirmSettled`), and only then is it known
what the next attempt restores.  At most one entry is being written, so entries are in the order
of completion, and a newer checkpoint that completes first subsumes the older one for certain.

Knows ids, subtasks and handles; knows nothing of files, slots, enumerators and wall time.  When
something starts is decided by `raystream.protocol.checkpoint_requests`, what is kept and restored by
`raystream.protocol.recovery`.

Source: Flink's `CheckpointCoordinator` and `CheckpointFailureManager`; expiry is tolerated without limit.
"""

from collections.abc import Iterable

from raystream.errors import CheckpointError, RaystreamError
from raystream.handles import SubtaskSnapshot
from raystream.ids import Attempt, CheckpointId, JobStatus
from raystream.protocol.checkpoint_commands import (
    AckOutcome,
    CheckpointFailureReason,
    Command,
    CommitAtEnd,
    ConfirmDeleted,
    ConfirmSettled,
    DeleteCheckpoint,
    DiscardSnapshot,
    FailAttempt,
    LogCompletion,
    LogNewestId,
    NotifyAborted,
    NotifyCompleted,
    RecordCompletion,
    RecordFailure,
    StartCheckpoint,
    WriteMetadata,
)
from raystream.protocol.checkpoint_failures import TolerableFailures, expiry_error, savepoint_error
from raystream.protocol.checkpoint_ids import CheckpointIds
from raystream.protocol.checkpoint_pending import PendingCheckpoint, PendingCheckpoints, Stage, partly_ended
from raystream.protocol.checkpoint_requests import FINAL_RETRY_MS, CheckpointRequests, Purpose, Request
from raystream.protocol.history import History
from raystream.protocol.recovery import Beginning, RecoveryPoint
from raystream.protocol.savepoint_answers import SavepointAnswers
from raystream.protocol.subtasks import Subtask


class CheckpointCoordinator:
    """Decides what happens to every checkpoint of a job.

    Args:
        subtasks: everyone whose snapshot a checkpoint needs, until the job is rescaled.
        requests: decides what starts when.
        recovery: decides what is kept, and what the next attempt restores.
        timeout_ms: age at which a checkpoint that is not complete expires.
        tolerable_failures: failures in a row that the attempt survives.
    """

    def __init__(
        self,
        *,
        subtasks: Iterable[Subtask],
        requests: CheckpointRequests,
        recovery: RecoveryPoint,
        timeout_ms: float,
        tolerable_failures: int,
    ) -> None:
        self._pending = PendingCheckpoints(subtasks)
        self._requests = requests
        self._answers = SavepointAnswers()
        self._recovery = recovery
        self._timeout_ms = timeout_ms
        self._failures = TolerableFailures(tolerable_failures)
        self._attempt = Attempt(0)
        self._running = False  # Between the start and the end of an attempt.
        self._finishing = False  # What ends the attempt is complete; it only commits.
        self._settling = False  # The end of an attempt waits for a log entry.
        self._ended = False  # The job has ended.
        self._ids = CheckpointIds()
        self._history: History[Command] = History()
        self._done = self._history.done

    @property
    def recovery_point(self) -> CheckpointId | None:
        """What the next attempt restores; None for nothing."""
        return self._recovery.point

    @property
    def newest(self) -> CheckpointId:
        """The newest id that was given to a checkpoint; 0 before the first."""
        return self._ids.last

    @property
    def retained(self) -> tuple[CheckpointId, ...]:
        """Complete checkpoints that the job owns and keeps, oldest first."""
        return self._recovery.retained

    @property
    def passed_over(self) -> tuple[CheckpointId, ...]:
        """Those of them that are damaged, so that no attempt restores them."""
        return self._recovery.passed_over

    @property
    def next_deadline_ms(self) -> float | None:
        """When `time_passed` has something to do, monotonic; None when only an event can change that."""
        deadlines = [pending.started_ms + self._timeout_ms for pending in self._pending.abortable]
        due_ms = self._requests.deadline_ms(self._pending.load) if self._may_start else None
        return min(deadlines if due_ms is None else [*deadlines, due_ms], default=None)

    # ---- the attempt and the clients -----------------------------------------

    def job_began(self, beginning: Beginning) -> list[Command]:
        """The job begins with a snapshot of another one, or goes on with what its log names."""
        if self._ids.last:
            raise self._history.broken("job began after a checkpoint", beginning=beginning)
        self._ids.begin_above(beginning.newest)
        self._recovery.began(beginning)
        return self._done("job_began", beginning, [])

    def attempt_started(self, now_ms: float, attempt: Attempt) -> list[Command]:
        """All slots process records; checkpoints may be taken."""
        if self._running or self._settling or self._pending or attempt <= self._attempt:
            raise self._history.broken("attempt started before the last one was settled", attempt=attempt)
        self._attempt, self._running, self._finishing = attempt, True, False
        self._ids.logged(self._ids.last)  # By the entry of the attempt.
        self._failures.attempt_started()
        self._requests.attempt_started(now_ms)
        return self._done("attempt_started", attempt, self._start_due(now_ms))

    def job_reshaped(self, subtasks: Iterable[Subtask]) -> None:
        """The next attempt has these subtasks."""
        assert not self._running, "shape of a job changed during an attempt"
        assert not self._pending, "shape of a job changed with a checkpoint pending"
        self._pending.subtasks = frozenset(subtasks)

    def restore_damaged(self, attempt: Attempt, error: RaystreamError) -> list[Command]:
        """An attempt can not read what it restores: a file is missing, or not what was written."""
        commands = self._recovery.damaged(attempt, error, running=self._attempt)
        return self._done("restore_damaged", (attempt, error), commands)

    def attempt_ended(self, now_ms: float) -> list[Command]:
        """No slot processes records any more, or none has yet; answered by `ConfirmSettled`."""
        self._running = False
        self._requests.attempt_ended()
        error = CheckpointError("attempt ended before the checkpoint was complete", attempt=self._attempt)
        commands: list[Command] = []
        for pending in self._pending.abortable:
            commands += self._abort(now_ms, pending, CheckpointFailureReason.ATTEMPT_ENDED, error)
        self._settling = True
        return self._done("attempt_ended", None, commands + self._settle())

    def checkpoint_requested(self, now_ms: float, request: Request) -> list[Command]:
        """A client wants a checkpoint or savepoint; it waits until the job runs."""
        commands = self._answers.joined(request)
        if commands is None and self._ended:
            error = CheckpointError(f"{request.purpose.noun} was requested after the end of the job")
            commands = self._answers.resolved(request, None, error)
        elif commands is None and (refusal := self._requests.requested(request)):
            commands = self._answers.resolved(request, None, refusal)
        elif commands is None:
            commands = self._start_due(now_ms)
        return self._done("checkpoint_requested", request, commands)

    def input_ended(self, now_ms: float) -> list[Command]:
        """All subtasks have processed all their input: take the final checkpoint, or commit without one."""
        self._requests.final_wanted(now_ms)
        return self._done("input_ended", None, self._start_due(now_ms))

    def job_ended(self, status: JobStatus) -> list[Command]:
        """The log says how the job has ended: answer who still waits, delete what is not kept."""
        if self._running or self._pending:
            raise self._history.broken("job ended during an attempt", status=status.value)
        self._ended = True
        commands: list[Command] = []
        for request in self._requests.drain():
            error = CheckpointError(f"job is {status.value}; the {request.purpose.noun} was not taken")
            commands += self._answers.resolved(request, None, error)
        commands += [*self._recovery.job_ended(status), ConfirmDeleted()]
        return self._done("job_ended", status.value, commands)

    def time_passed(self, now_ms: float) -> list[Command]:
        """Expire what is too old and start what is due."""
        commands: list[Command] = []
        for pending in self._pending.abortable:
            if now_ms - pending.started_ms >= self._timeout_ms:
                error = expiry_error(pending.id, self._timeout_ms, self._pending.missing(pending))
                commands += self._abort(now_ms, pending, CheckpointFailureReason.EXPIRED, error)
        return self._done("time_passed", now_ms, commands + self._start_due(now_ms))

    # ---- one checkpoint ------------------------------------------------------

    def trigger_failed(
        self, now_ms: float, checkpoint_id: CheckpointId, error: RaystreamError
    ) -> list[Command]:
        """`StartCheckpoint` could not be executed; no source was triggered."""
        return self._failed(now_ms, checkpoint_id, CheckpointFailureReason.TRIGGER_FAILED, error)

    def ack_outcome(self, attempt: Attempt, checkpoint_id: CheckpointId, subtask: Subtask) -> AckOutcome:
        """Return what an acknowledgement would be now."""
        if attempt != self._attempt:
            return AckOutcome.FOREIGN
        return self._pending.ack_outcome(checkpoint_id, subtask)

    def snapshot_acked(
        self, now_ms: float, attempt: Attempt, checkpoint_id: CheckpointId, snapshot: SubtaskSnapshot
    ) -> list[Command]:
        """A subtask has stored its part."""
        subtask = (snapshot.vertex, snapshot.subtask)
        outcome = self.ack_outcome(attempt, checkpoint_id, subtask)
        commands: list[Command] = []
        if outcome.discards:
            commands = [DiscardSnapshot(checkpoint_id, snapshot)]
        elif outcome is AckOutcome.TAKEN:
            commands = self._collect(now_ms, checkpoint_id, snapshot)
        commands += self._start_due(now_ms)
        return self._done("snapshot_acked", (attempt, checkpoint_id, subtask, outcome.value), commands)

    def snapshot_declined(
        self, now_ms: float, attempt: Attempt, checkpoint_id: CheckpointId, error: RaystreamError
    ) -> list[Command]:
        """A subtask could not take part or not store its part: this checkpoint will not complete."""
        if attempt == self._attempt:
            return self._failed(now_ms, checkpoint_id, CheckpointFailureReason.DECLINED, error)
        return self._done("snapshot_declined", (attempt, checkpoint_id), [])

    def metadata_written(self, now_ms: float, checkpoint_id: CheckpointId) -> list[Command]:
        """`_metadata` is durable."""
        pending = self._pending.get(checkpoint_id)
        if pending is None:  # Dropped meanwhile; its directory was deleted before this was written.
            return self._done("metadata_written", checkpoint_id, [DeleteCheckpoint(checkpoint_id)])
        if pending.stage is not Stage.WRITING:
            raise self._history.broken("metadata written twice", checkpoint_id=checkpoint_id)
        pending.stage = Stage.WRITTEN
        return self._done("metadata_written", checkpoint_id, self._log_next() + self._start_due(now_ms))

    def metadata_failed(
        self, now_ms: float, checkpoint_id: CheckpointId, error: RaystreamError
    ) -> list[Command]:
        """`_metadata` could not be written."""
        return self._failed(now_ms, checkpoint_id, CheckpointFailureReason.FINALIZE_FAILED, error)

    def completion_logged(self, now_ms: float, checkpoint_id: CheckpointId) -> list[Command]:
        """The log entry exists: the checkpoint is complete."""
        pending = self._take_logging(checkpoint_id)
        commands = self._complete(now_ms, pending) + self._log_next()
        commands += self._settle() + self._start_due(now_ms)
        return self._done("completion_logged", checkpoint_id, commands)

    def completion_not_logged(
        self, now_ms: float, checkpoint_id: CheckpointId, error: RaystreamError
    ) -> list[Command]:
        """The log entry does not exist and never will."""
        pending = self._take_logging(checkpoint_id)
        commands = self._abort(now_ms, pending, CheckpointFailureReason.FINALIZE_FAILED, error)
        commands += self._log_next() + self._settle() + self._start_due(now_ms)
        return self._done("completion_not_logged", checkpoint_id, commands)

    def newest_id_logged(
        self, now_ms: float, checkpoint_id: CheckpointId, error: RaystreamError | None
    ) -> list[Command]:
        """The log names an id, so that more may be given; with an error it does not."""
        self._ids.claimed(None if error else checkpoint_id)
        commands = self._start_due(now_ms)
        if error is not None and self._ids.exhausted and self._running:
            commands = [FailAttempt(error)]
        return self._done("newest_id_logged", checkpoint_id, commands)

    # ---- inside --------------------------------------------------------------

    @property
    def _may_start(self) -> bool:
        return not (not self._running or self._finishing or self._failures.exhausted or self._ids.exhausted)

    def _start_due(self, now_ms: float) -> list[Command]:
        commands: list[Command] = []
        while self._may_start and (request := self._requests.take(now_ms, self._pending.load)):
            if request.purpose is Purpose.FINAL and not self._requests.periodic:
                self._finishing = True
                return [*commands, CommitAtEnd()]
            checkpoint_id = self._ids.give()
            self._pending.add(PendingCheckpoint(checkpoint_id, request, now_ms))
            commands.append(StartCheckpoint.of(checkpoint_id, request))
            if self._ids.claim_due:
                commands.append(LogNewestId(self._ids.claim()))
        return commands

    def _collect(self, now_ms: float, number: CheckpointId, snapshot: SubtaskSnapshot) -> list[Command]:
        pending = self._pending.get(number)
        assert pending is not None, "an ack that is taken belongs to a pending checkpoint"
        pending.snapshots[snapshot.vertex, snapshot.subtask] = snapshot
        if self._pending.missing(pending):
            return []
        if error := partly_ended(pending.acknowledged):
            return self._abort(now_ms, pending, CheckpointFailureReason.PARTLY_ENDED, error)
        pending.stage = Stage.WRITING
        return [WriteMetadata(number, pending.acknowledged)]

    def _log_next(self) -> list[Command]:
        """Log the oldest checkpoint that is written, unless another one is being logged."""
        pending = self._pending.next_to_log
        if pending is None:
            return []
        pending.stage = Stage.LOGGING
        return [LogCompletion(pending.id, pending.purpose, self._answers.of(pending.request))]

    def _take_logging(self, checkpoint_id: CheckpointId) -> PendingCheckpoint:
        pending = self._pending.logging
        if pending is None or pending.id != checkpoint_id:
            raise self._history.broken("log entry was not asked for", checkpoint_id=checkpoint_id)
        return pending

    def _complete(self, now_ms: float, pending: PendingCheckpoint) -> list[Command]:
        self._pending.end(pending, AckOutcome.SETTLED)
        self._ids.logged(pending.id)
        self._requests.checkpoint_completed(now_ms)
        commands: list[Command] = [RecordCompletion(pending.id, pending.purpose)]
        if pending.purpose.recovers:
            self._recovery.completed(pending.id)
            self._failures.succeeded(pending.id)
            if self._running:
                self._finishing = pending.purpose.ends_attempt
                commands.append(NotifyCompleted(pending.id, pending.purpose.ends_job))
            commands += self._subsume_older(now_ms, pending.id)
        if not pending.purpose.savepoint:
            commands += self._recovery.kept(pending.id)
        return commands + self._answers.resolved(pending.request, pending.id, None)

    def _subsume_older(self, now_ms: float, checkpoint_id: CheckpointId) -> list[Command]:
        older = [p for p in self._pending if p.id < checkpoint_id and not p.purpose.savepoint]
        error = CheckpointError("a newer checkpoint completed first", newer=checkpoint_id)
        commands: list[Command] = []
        for pending in older:
            commands += self._abort(now_ms, pending, CheckpointFailureReason.SUBSUMED, error)
        return commands

    def _failed(
        self,
        now_ms: float,
        checkpoint_id: CheckpointId,
        reason: CheckpointFailureReason,
        error: RaystreamError,
    ) -> list[Command]:
        """Abort a checkpoint if it still can be, and go on."""
        pending = self._pending.get(checkpoint_id)
        commands: list[Command] = []
        if pending is not None and pending.stage is not Stage.LOGGING:
            commands = self._abort(now_ms, pending, reason, error) + self._start_due(now_ms)
        return self._done(reason.value, checkpoint_id, commands)

    def _abort(
        self,
        now_ms: float,
        pending: PendingCheckpoint,
        reason: CheckpointFailureReason,
        error: RaystreamError,
    ) -> list[Command]:
        subsumed = reason is CheckpointFailureReason.SUBSUMED
        self._pending.end(pending, AckOutcome.SETTLED if subsumed else AckOutcome.TOO_LATE)
        commands: list[Command] = [NotifyAborted(pending.id)] if self._running else []
        missing = tuple(self._pending.missing(pending))
        failure = RecordFailure(pending.id, reason, error, pending.acknowledged, missing)
        commands += [DeleteCheckpoint(pending.id), failure]
        told = savepoint_error(pending.request, reason, error)
        commands += self._answers.resolved(pending.request, None, told)
        if pending.purpose is Purpose.FINAL and self._running:
            self._requests.final_wanted(now_ms + FINAL_RETRY_MS)
        if self._running:
            commands += self._failures.aborted(pending.id, pending.request, reason, error)
        return commands

    def _settle(self) -> list[Command]:
        if not self._settling or self._pending:
            return []
        self._settling = False
        return [ConfirmSettled()]

    def validate(self) -> None:
        """Assert every invariant."""
        self._requests.validate()
        self._answers.validate()
        self._recovery.validate()
        self._pending.validate()
        known = [*(pending.id for pending in self._pending), *self._recovery.retained]
        assert all(checkpoint_id <= self._ids.last for checkpoint_id in known), known
        assert self._running or not self._pending.abortable, "only a log entry outlives its attempt"
