"""The coordinator of one job: turns calls into events of the machines, and commands into calls.

    reports, answers, requests, time --> Job, CheckpointCoordinator --> slots, storage, log, enumerators
                                              ^          |
                                              +----------+ what concerns the other one

The job log is read first (`coordinator_recovery`): the job may have run before, under another job master.
Three machines decide, `raystream.protocol.job`, `checkpoint` and `rescale`; this module and its neighbours
(`coordinator_*`) execute.  Everything happens on one thread, the owner's: it calls the methods here, and
`step` when `next_deadline_ms` has come.  Nothing here blocks: what may block goes to the background and
comes back as an event, which is dropped when its attempt is over.

Commands are executed in the order in which they were decided; what a command leads to is
queued behind them, so that no machine is entered while it decides.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import assert_never

from raystream.api import runner
from raystream.errors import RaystreamError, StateCorruptError
from raystream.ids import Attempt, SlotId
from raystream.protocol import checkpoint_commands as checkpoint_cmd
from raystream.protocol import job_commands as cmd
from raystream.protocol import rescale as rescale_cmd
from raystream.protocol.client_requests import ClientRequests, RequestOutcome
from raystream.protocol.job_phases import Phase
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_attempt import AttemptPreparation
from raystream.runtime.coordinator_checkpoints import CheckpointShell
from raystream.runtime.coordinator_end import Deletions, abandon_slots, release_slots
from raystream.runtime.coordinator_entries import JobEntries
from raystream.runtime.coordinator_log import LogWriter
from raystream.runtime.coordinator_machines import make_checkpoint_coordinator, make_job
from raystream.runtime.coordinator_recovery import JobRecovery, LogReader, RecoveredJob
from raystream.runtime.coordinator_reports import SlotReports
from raystream.runtime.coordinator_requests import as_wanted
from raystream.runtime.coordinator_rescale import RescaleShell
from raystream.runtime.coordinator_services import CoordinatorServices, Timers, failure_of
from raystream.runtime.coordinator_sources import SourceCoordinator
from raystream.runtime.coordinator_view import JobView, Wait
from raystream.storage.metadata import SnapshotMetadata

logger = logging.getLogger(__name__)

Command = cmd.Command | checkpoint_cmd.Command | rescale_cmd.Command


class JobCoordinator:
    """Runs one job, from its submission, or from where its log says that it is, to its end.

    Args:
        services: the job, and the world it runs in.
        on_change: called after anything that a view shows has changed, but for record counts.
        on_output: takes what sinks send to the client.
    """

    def __init__(
        self,
        services: CoordinatorServices,
        *,
        on_change: Callable[[], None],
        on_output: Callable[[msg.ClientOutput], None],
    ) -> None:
        self._services = services
        self._submission = services.submission
        self._on_change = on_change
        self._queue: deque[Command] = deque()
        self._running = False  # A command is being executed.
        self._timers = Timers()
        self._started_ms = services.clock.monotonic_ms()
        self._ended_ms: float | None = None
        self._wait = Wait()
        self._job = make_job(services)
        self._checkpoints = make_checkpoint_coordinator(services)
        self._requests = ClientRequests()
        self._started_from = self._submission.config.recovery.path
        self._log = LogWriter(
            services.storage.log, services.log, later=self._later, conflicted=self._log_conflicted
        )
        self._recovery = self._make_recovery()
        self._deletions = Deletions(services.deletion, self._later)
        self._sources = SourceCoordinator(
            services.discovery, later=self._later, send=services.slots.send, failed=self._attempt_failed
        )
        self._preparation = self._make_preparation()
        self._rescale = RescaleShell(
            services, self._job, self._checkpoints, self._requests, self._preparation, run=self._run
        )
        self._shell = CheckpointShell(
            services,
            self._checkpoints,
            job=self._job,
            requests=self._requests,
            sources=self._sources,
            log=self._log,
            deletions=self._deletions,
            plan=lambda: self._preparation.plan,
            run=self._run,
            records=lambda: self.reports.records,
            rescales=self._rescale.checkpoint_ended,
            deleted=lambda: self._entries.archive(self.view()),
        )
        self._entries = self._make_entries()
        self.reports = self._make_reports(on_output)
        """What slots have counted and measured."""

    def _make_preparation(self) -> AttemptPreparation:
        return AttemptPreparation(
            self._services,
            self._sources,
            deletions=self._deletions,
            restored=self._snapshot_restored,
            ready=lambda attempt: self._run(self._job.attempt_prepared(attempt)),
            failed=self._attempt_failed,
        )

    def _make_recovery(self) -> JobRecovery:
        return JobRecovery(
            LogReader(self._services),
            self._services.log,
            later=self._later,
            begin=self._begin,
            refused=self._log_conflicted,
        )

    def _make_reports(self, on_output: Callable[[msg.ClientOutput], None]) -> SlotReports:
        return SlotReports(
            self._services,
            job=self._job,
            checkpoints=self._checkpoints,
            sources=self._sources,
            check=lambda: self._preparation.check,
            run=self._run,
            failed=self._attempt_failed,
            on_output=on_output,
        )

    def _make_entries(self) -> JobEntries:
        return JobEntries(
            self._services,
            self._log,
            job=self._job,
            checkpoints=self._checkpoints,
            location=self._shell.location,
            program_checksum=lambda: self._preparation.program_checksum,
            leftovers=self._shell.leftovers,
            parallelism=lambda: self._rescale.parallelism,
            records=lambda: self.reports.records,
            later=self._later,
            run=self._run,
            failed=self._attempt_failed,
        )

    # ---- what the owner calls --------------------------------------------------

    def start(self) -> None:
        """Find out how the job stands, then begin its next attempt, or do what is left of its end."""
        self._recovery.start()

    def _begin(self, recovered: RecoveredJob | None) -> None:
        if recovered is None:
            self._run(self._job.job_submitted(inherited=self._services.inherits))
            return
        logged, now_ms, wall_ms = recovered.logged, self._now_ms, self._services.clock.wall_ms()
        logger.warning("job goes on under another job master", extra={"attempt": logged.attempt})
        self._started_ms = now_ms - max(wall_ms - logged.started_ms, 0)
        self._started_from = logged.started_from
        self.reports.counted_before(logged.records)
        self._requests.recovered(logged.outcomes)
        self._preparation.recovered()
        self._run(self._checkpoints.job_began(logged.beginning))
        if logged.parallelism is not None:
            self._rescale.recovered(logged.parallelism)
        self._shell.recovered(recovered)
        self._run(self._job.job_recovered(now_ms, logged.past(now_ms=now_ms, wall_ms=wall_ms)))

    def slot_acquired(self, slot: SlotId) -> None:
        """The process of a slot is there."""
        if not self._rescale.slot_acquired(slot):
            self._run(self._job.slot_acquired(slot))

    def slots_leave(self, slots: tuple[SlotId, ...]) -> None:
        """The nodes of some slots are about to go, and other processes are there; said while it is so."""
        self._rescale.slots_leave(slots)

    def slot_lost(self, slot: SlotId, error: RaystreamError) -> None:
        """The process of a slot is gone, or is not to be had."""
        logger.warning("slot lost", extra={"slot": slot}, exc_info=error)
        if not self._rescale.slot_lost(slot, error):
            self._run(self._job.slot_lost(self._now_ms, slot, failure_of(error)))

    def slot_reported(self, report: msg.Report) -> None:
        """A slot says something; dropped when it is about another attempt."""
        if report.attempt == self._job.attempt:
            self.reports.take(report)

    def request(self, request: runner.ClientRequest) -> None:
        """A client wants something; the answer is in the view.  Repeating a request is harmless."""
        if not self._recovery.over:
            self._recovery.hold(lambda: self.request(request))
            return
        if not self._requests.request_received(request.request_id):
            return
        if self._job.phase is Phase.ABANDONED:  # The machines say nothing any more.
            outcome = RequestOutcome(request_id=request.request_id, error=self._job.error)
            self._requests.request_resolved(outcome)
            self._on_change()
            return
        options = self._submission.config.checkpointing
        match request:
            case runner.SavepointRequest() | runner.CheckpointRequest():
                self._run(self._checkpoints.checkpoint_requested(self._now_ms, as_wanted(request, options)))
            case runner.StopRequest():
                self._run(self._job.stop_requested(as_wanted(request, options)))
            case runner.CancelRequest(request_id):
                self._run(self._job.cancel_requested(self._now_ms, request_id))
            case runner.RescaleRequest():
                self._rescale.requested(request)
            case _:
                assert_never(request)

    def step(self) -> bool:
        """Do what is due; True when there was anything."""
        deadline_ms = self.next_deadline_ms()
        now_ms = self._now_ms
        if deadline_ms is None or now_ms < deadline_ms:
            return False
        self._timers.run_due(now_ms)
        self._run(self._job.time_passed(now_ms))
        self._run(self._checkpoints.time_passed(now_ms))
        self._rescale.time_passed(now_ms)
        return True

    def next_deadline_ms(self) -> float | None:
        """Return when `step` has something to do, monotonic; None when only a call can change that."""
        if self.finished:
            return None
        parts = (self._job, self._checkpoints, self._rescale, self._timers)
        return min((due for part in parts if (due := part.next_deadline_ms) is not None), default=None)

    @property
    def finished(self) -> bool:
        """True when the job has ended and is cleaned up, or belongs to another process."""
        return self._job.phase in (Phase.ENDED, Phase.ABANDONED)

    def view(self) -> JobView:
        """Return how the job stands now."""
        job = self._job
        now_ms = self._now_ms if self._ended_ms is None else self._ended_ms
        waiting_for = job.waiting_for or self._rescale.waiting_for or self._recovery.waiting_for
        return JobView(
            job_id=self._submission.job_id,
            name=self._submission.name,
            status=job.status,
            parallelism=max(vertex.parallelism for vertex in self._preparation.plan.vertices),
            attempt=job.attempt,
            **job.failures.shown(now_ms),
            **self.reports.records._asdict(),
            duration_ms=round(now_ms - self._started_ms),
            checkpoints=self._shell.records.shown(),
            checkpoint_counts=self._shell.records.counts,
            last_checkpoint_id=self._checkpoints.recovery_point,
            started_from=self._started_from,
            error=job.error,
            waiting_for=waiting_for,
            waiting_ms=self._wait.lasts_ms(waiting_for, now_ms),
            recovering=not self._recovery.over,
            abandoned=job.phase is Phase.ABANDONED,
            outcomes=self._requests.outcomes,
        )

    def validate(self) -> None:
        """Assert every invariant of the machines."""
        self._job.validate()
        self._checkpoints.validate()
        self._requests.validate()
        self._rescale.validate()
        self._shell.shared.validate()

    # ---- commands --------------------------------------------------------------

    def _run(self, commands: Iterable[Command]) -> None:
        """Execute commands, and what they lead to, in order."""
        self._queue.extend(commands)
        if self._running:
            return
        self._running = True
        try:
            while self._queue:
                command = self._queue.popleft()
                if self._job.phase is Phase.ABANDONED and not isinstance(command, cmd.AbandonJob):
                    continue  # Whatever else was decided is another process's business now.
                if isinstance(command, cmd.Command):
                    self._execute(command)
                elif isinstance(command, rescale_cmd.Command):
                    self._rescale.execute(command)
                else:
                    self._shell.execute(command)
        finally:
            self._running = False
        if self.finished and self._ended_ms is None:
            self._ended_ms = self._now_ms
        self._on_change()

    def _execute(self, command: cmd.Command) -> None:  # noqa: C901 - one arm for each command
        slots, checkpoints = self._services.slots, self._checkpoints
        match command:
            case cmd.ReshapeJob():
                self._rescale.reshape(command)
            case cmd.PrepareAttempt(attempt):
                self.reports.counted_before(self.reports.records)
                self._preparation.begin(attempt, self._shell.location(checkpoints.recovery_point))
            case cmd.LogAttempt(attempt):
                self._entries.attempt_begins(attempt)
            case cmd.AcquireSlots(wanted):
                slots.acquire(wanted)
            case cmd.DeploySlots(_, deployed):
                for slot in deployed:
                    slots.send(slot, self._preparation.deployment(slot))
            case cmd.ConnectSlots(attempt, addresses):
                self._preparation.slots_deployed()
                self._send_all(msg.Connect(attempt=attempt, addresses=dict(addresses)), addresses)
            case cmd.StartSlots(attempt):
                logger.info("attempt runs", extra={"attempt": attempt})
                self._send_all(msg.Start(attempt=attempt), self._preparation.plan.slots)
            case cmd.StopSlots(attempt, stopping):
                self._send_all(msg.StopAttempt(attempt=attempt), stopping)
            case cmd.KillSlot(slot):
                slots.kill(slot)
            case cmd.BeginCheckpoints(attempt):
                self._run(checkpoints.attempt_started(self._now_ms, attempt))
                self._rescale.attempt_runs()
            case cmd.EndCheckpoints():
                self._end_attempt()
            case cmd.TakeFinalCheckpoint():
                self._run(checkpoints.input_ended(self._now_ms))
            case cmd.TakeStopSavepoint(wanted):
                self._run(checkpoints.checkpoint_requested(self._now_ms, wanted))
            case cmd.CommitSlots(attempt):
                self._send_all(msg.CommitAtEnd(attempt=attempt), self._preparation.plan.slots)
            case cmd.LogStop() | cmd.LogCancel():
                self._entries.request_accepted(command)
            case cmd.LogEnd(status, error):
                self._entries.job_ends(status, error)
            case cmd.CleanUp():
                self._clean_up(command)
            case cmd.ResolveCancel(request_id, error):
                self._requests.request_resolved(RequestOutcome(request_id=request_id, error=error))
            case cmd.AbandonJob(abandoned):
                logger.error("job given up to another process", exc_info=self._job.error)
                abandon_slots(slots, abandoned)
            case _:
                assert_never(command)

    def _clean_up(self, command: cmd.CleanUp) -> None:
        self._entries.archived_as = command.status if command.archive else None

        def gone() -> None:
            self._preparation.close()
            self._rescale.job_ended(command.status)
            self._run(self._checkpoints.job_ended(command.status))

        release_slots(self._services.slots, self._later, gone)

    def _end_attempt(self) -> None:
        logger.info("attempt ends", extra={"attempt": self._job.attempt})
        self._preparation.end()
        self._sources.end()
        self._run(self._checkpoints.attempt_ended(self._now_ms))

    def _log_conflicted(self, error: RaystreamError) -> None:
        self._run(self._job.log_conflicted(error))

    # ---- small things ------------------------------------------------------------

    @property
    def _now_ms(self) -> float:
        return self._services.clock.monotonic_ms()

    def _send_all(self, command: msg.Command, slots: Iterable[SlotId]) -> None:
        for slot in slots:
            self._services.slots.send(slot, command)

    def _attempt_failed(self, attempt: Attempt, error: RaystreamError) -> None:
        logger.warning("attempt failed", extra={"attempt": attempt}, exc_info=error)
        if isinstance(error, StateCorruptError) and attempt == self._job.attempt:
            self._run(self._checkpoints.restore_damaged(attempt, error))
        else:
            self._run(self._job.attempt_failed(self._now_ms, attempt, failure_of(error)))

    def _snapshot_restored(self, directory: str, metadata: SnapshotMetadata) -> None:
        self._run(self._checkpoints.job_began(self._shell.began_with(directory, metadata)))

    def _later(self, delay_ms: float, call: Callable[[], None]) -> None:
        self._timers.add(self._now_ms + delay_ms, call)
        self._on_change()  # The owner may wait for a later deadline.
