"""What a job itself leaves behind: its entries in the job log, and the archive at its end.

(Completions of checkpoints are logged by `raystream.runtime.coordinator_checkpoints`.)
"""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from raystream.errors import RaystreamError, StorageError
from raystream.ids import Attempt, CheckpointId, JobStatus
from raystream.metrics import Counters
from raystream.protocol.checkpoint import CheckpointCoordinator
from raystream.protocol.job import Job
from raystream.protocol.job_commands import Command, LogCancel, LogStop
from raystream.runtime.coordinator_end import ARCHIVE_WAIT_MS, go_on_within
from raystream.runtime.coordinator_leftovers import Leftovers
from raystream.runtime.coordinator_log import Later, LogWriter
from raystream.runtime.coordinator_services import CoordinatorServices
from raystream.runtime.coordinator_view import JobView, archived
from raystream.storage.log_entries import AttemptStarted, CancelAccepted, StopAccepted, Terminal

logger = logging.getLogger(__name__)


class JobEntries:
    """Executes the commands of the job machine that are about its log.

    Args:
        services: the coordinator's world.
        log: takes the entries.
        job: the job machine, which is told what became of them.
        checkpoints: knows what an attempt restores.
        location: gives the location of a complete checkpoint.
        program_checksum: gives that of the stored program.
        leftovers: sweeps what older attempts left.
        parallelism: gives that of a job that was rescaled.
        records: gives the records in and out so far.
        later: for the bound of the archive.
        run: executes the commands that an event leads to.
        failed: told when an attempt can not be logged.

    Attributes:
        archived_as: how the job has ended; None when it never started, so that it leaves nothing.
    """

    def __init__(
        self,
        services: CoordinatorServices,
        log: LogWriter,
        *,
        job: Job,
        checkpoints: CheckpointCoordinator,
        location: Callable[[CheckpointId | None], str | None],
        program_checksum: Callable[[], str | None],
        leftovers: Leftovers,
        parallelism: Callable[[], int | None],
        records: Callable[[], Counters],
        later: Later,
        run: Callable[[Iterable[Command]], None],
        failed: Callable[[Attempt, RaystreamError], None],
    ) -> None:
        self._services = services
        self._log = log
        self._job = job
        self._checkpoints = checkpoints
        self._location = location
        self._program_checksum = program_checksum
        self._leftovers = leftovers
        self._records = records
        self._parallelism = parallelism
        self._later = later
        self._run = run
        self._failed = failed
        self.archived_as: JobStatus | None = None

    def attempt_begins(self, attempt: Attempt) -> None:
        """Log the attempt, and sweep what earlier ones left while it goes on."""
        checkpoints = self._checkpoints
        restored, newest = checkpoints.recovery_point, checkpoints.newest
        records = self._records()
        entry = AttemptStarted(
            attempt=attempt,
            job_name=self._services.submission.name,
            started_ms=self._services.clock.wall_ms(),
            restored_checkpoint=restored,
            restored_path=self._location(restored),
            newest_checkpoint=newest or None,
            passed_over=checkpoints.passed_over,
            program_checksum=self._program_checksum(),
            records_in=records.records_in,
            records_out=records.records_out,
            dead_letters=records.dead_letters,
            restarts=self._job.failures.restarts,
            parallelism=self._parallelism(),
        )

        def appended(error: StorageError | None) -> None:
            if error is not None:
                self._failed(attempt, error)
                return
            self._leftovers.sweep_older_attempts(checkpoints.retained, newest)
            self._run(self._job.attempt_logged(attempt))

        self._log.append(entry, appended)

    def request_accepted(self, command: LogStop | LogCancel) -> None:
        """Log that a client may stop or cancel the job."""
        accepted = StopAccepted if isinstance(command, LogStop) else CancelAccepted
        self._log.append(accepted(request_id=command.request_id), _request_logged)

    def job_ends(self, status: JobStatus, error: RaystreamError | None) -> None:
        """Log how the job ends."""

        def appended(failure: StorageError | None) -> None:
            if failure is None:
                self._run(self._job.end_logged())
            else:
                now_ms = self._services.clock.monotonic_ms()
                self._run(self._job.end_not_logged(now_ms, failure))

        text = None if error is None else str(error)
        self._log.append(Terminal(status=status, error=text), appended)

    def archive(self, view: JobView) -> None:
        """Leave what `list -a` shows, then the job has ended."""
        directory, status = self._services.storage.directory, self.archived_as
        if directory is None:
            self._run(self._job.cleaned_up())
            return
        archive = None if status is None else archived(view, status)

        def write(over: Callable[[], None]) -> None:
            def written(result: Any) -> None:
                if isinstance(result, Exception):
                    logger.warning("archive of the job was not written", exc_info=result)
                over()

            self._services.background.submit(partial(directory.leave, archive), written)

        go_on_within(
            ARCHIVE_WAIT_MS,
            write,
            lambda: self._run(self._job.cleaned_up()),
            later=self._later,
            late="archive of the job was not written in time",
        )


def _request_logged(error: StorageError | None) -> None:
    if error is not None:
        logger.warning("request of a client is not in the job log", exc_info=error)
