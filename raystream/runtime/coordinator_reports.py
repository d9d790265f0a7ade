"""What slots report, as events of the machines; and the records that they have counted."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import assert_never

from raystream.errors import CheckpointError, RaystreamError
from raystream.ids import Attempt, SlotId
from raystream.metrics import Counters
from raystream.protocol.checkpoint import CheckpointCoordinator
from raystream.protocol.checkpoint_commands import Command as CheckpointCommand
from raystream.protocol.job import Job
from raystream.protocol.job_commands import Command as JobCommand
from raystream.protocol.job_failures import Failure
from raystream.runtime import messages as msg
from raystream.runtime.coordinator_services import CoordinatorServices
from raystream.runtime.coordinator_sources import SourceCoordinator
from raystream.runtime.restored_states import RestoreCheck

logger = logging.getLogger(__name__)


class SlotReports:
    """Takes the reports of the current attempt.

    Args:
        services: the coordinator's world.
        job: the job machine.
        checkpoints: the checkpoint machine.
        sources: hand out splits.
        check: gives what finds out whether the attempt's restored state fits.
        run: executes the commands that an event leads to.
        failed: told when the attempt can not go on.
        on_output: takes what sinks send to the client.
    """

    def __init__(
        self,
        services: CoordinatorServices,
        *,
        job: Job,
        checkpoints: CheckpointCoordinator,
        sources: SourceCoordinator,
        check: Callable[[], RestoreCheck],
        run: Callable[[Iterable[JobCommand | CheckpointCommand]], None],
        failed: Callable[[Attempt, RaystreamError], None],
        on_output: Callable[[msg.ClientOutput], None],
    ) -> None:
        self._clock = services.clock
        self._job = job
        self._checkpoints = checkpoints
        self._sources = sources
        self._check = check
        self._run = run
        self._failed = failed
        self._on_output = on_output
        self.progress: Mapping[SlotId, msg.Progress] = {}
        """The newest of each slot in this attempt; never changed, but replaced."""
        self._counted = Counters()  # Of earlier attempts.

    @property
    def records(self) -> Counters:
        """What was counted in all attempts."""
        reported = self.progress.values()
        counted = (Counters(one.records_in, one.records_out, one.dead_letters) for one in reported)
        return Counters.total([self._counted, *counted])

    def counted_before(self, records: Counters) -> None:
        """Go on above the records of earlier attempts; nothing these still say is listened to."""
        self._counted, self.progress = records, {}

    def take(self, report: msg.Report) -> None:
        """Take a report of the current attempt."""
        job, checkpoints, now_ms = self._job, self._checkpoints, self._clock.monotonic_ms()
        match report:
            case msg.SlotDeployed():
                self._run(job.slot_deployed(report.slot, report.address))
            case msg.SlotReady():
                self._slot_ready(report)
            case msg.SlotStopped():
                self._run(job.slot_stopped(now_ms, report.slot))
            case msg.SlotFailed():
                self._slot_failed(report)
            case msg.SplitsRequested():
                self._sources.splits_requested(report)
            case msg.SnapshotAcked():
                self._run(
                    checkpoints.snapshot_acked(now_ms, report.attempt, report.checkpoint_id, report.snapshot)
                )
            case msg.SnapshotDeclined():
                error = _declined(report)
                self._run(checkpoints.snapshot_declined(now_ms, report.attempt, report.checkpoint_id, error))
            case msg.InputEnded():
                self._run(job.input_ended((report.vertex, report.subtask)))
            case msg.CommitsDone():
                self._run(job.commits_done(now_ms, (report.vertex, report.subtask)))
            case msg.Progress():
                self.progress = {**self.progress, report.slot: report}
            case msg.ClientOutput():
                self._on_output(report)
            case _:
                assert_never(report)

    def _slot_failed(self, report: msg.SlotFailed) -> None:
        if report.consequence:
            logger.info("slot lost a peer", extra={"slot": report.slot, "why": str(report.error)})
        else:
            logger.warning("slot failed", extra={"slot": report.slot}, exc_info=report.error)
        if report.damage:
            self._run(self._checkpoints.restore_damaged(report.attempt, report.error))
            return
        failure = Failure(report.error, retryable=report.retryable, consequence=report.consequence)
        self._run(self._job.slot_failed(self._clock.monotonic_ms(), report.slot, failure))

    def _slot_ready(self, report: msg.SlotReady) -> None:
        """Take in that a slot could start; the last one is followed by the start, or by one error for all."""
        try:
            dropped = self._check().slot_found(report.slot, report.states)
        except RaystreamError as error:
            self._failed(report.attempt, error)
            return
        if dropped:
            logger.warning("restored without some state\n%s", dropped)
        self._run(self._job.slot_ready(self._clock.monotonic_ms(), report.slot))


def _declined(report: msg.SnapshotDeclined) -> CheckpointError:
    cause, place = report.error, {"vertex": report.vertex, "subtask": report.subtask}
    error = CheckpointError(cause.message, hint=cause.hint, **{**cause.context, **place})
    error.__cause__ = cause
    return error
