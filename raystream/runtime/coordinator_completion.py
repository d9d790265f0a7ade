"""The log entries that make checkpoints complete, and name their ids.

An entry says all that a later job master needs to go on from there, and to show what was before: the records
that were counted, whom it answers, the history.
"""

from collections.abc import Callable, Iterable

from raystream.clock import Clock
from raystream.errors import StorageError
from raystream.ids import Attempt, CheckpointId
from raystream.metrics import Counters
from raystream.protocol import checkpoint_commands as cmd
from raystream.protocol.checkpoint import CheckpointCoordinator
from raystream.protocol.checkpoint_requests import Purpose
from raystream.runtime.coordinator_log import LogWriter
from raystream.runtime.coordinator_view import CheckpointRecords
from raystream.storage.log_entries import CheckpointCompletedEntry, NewestId, SavepointCompleted


class CompletionLog:
    """Executes the commands of the checkpoint machine that are about the log.

    Args:
        clock: the coordinator's.
        machine: the checkpoint machine, which is told what became of an entry.
        log: takes the entries.
        shown: the records of checkpoints.
        counted: gives what slots have counted so far.
        run: executes the commands that an event leads to.
    """

    def __init__(
        self,
        clock: Clock,
        machine: CheckpointCoordinator,
        log: LogWriter,
        *,
        shown: CheckpointRecords,
        counted: Callable[[], Counters],
        run: Callable[[Iterable[cmd.Command]], None],
    ) -> None:
        self._clock = clock
        self._machine = machine
        self._log = log
        self._shown = shown
        self._counted = counted
        self._run = run

    def completed(self, command: cmd.LogCompletion, attempt: Attempt, location: str) -> None:
        """Log that a checkpoint or savepoint is complete."""
        checkpoint_id = command.checkpoint_id

        def appended(error: StorageError | None) -> None:
            now_ms = self._clock.monotonic_ms()
            if error is None:
                self._run(self._machine.completion_logged(now_ms, checkpoint_id))
            else:
                self._run(self._machine.completion_not_logged(now_ms, checkpoint_id, error))

        self._log.append(self._entry(command, attempt, location), appended)

    def newest_id(self, checkpoint_id: CheckpointId) -> None:
        """Log that an id was given."""

        def appended(error: StorageError | None) -> None:
            self._run(self._machine.newest_id_logged(self._clock.monotonic_ms(), checkpoint_id, error))

        self._log.append(NewestId(newest_checkpoint=checkpoint_id), appended)

    def _entry(
        self, command: cmd.LogCompletion, attempt: Attempt, location: str
    ) -> SavepointCompleted | CheckpointCompletedEntry:
        checkpoint_id, purpose = command.checkpoint_id, command.purpose
        history = self._shown.history(checkpoint_id, self._clock.monotonic_ms())
        if purpose.savepoint:
            return SavepointCompleted(
                checkpoint_id=checkpoint_id,
                directory=location,
                attempt=attempt,
                stop=purpose is Purpose.STOP,
                request_ids=command.request_ids,
                record=next((one for one in history if one.checkpoint_id == checkpoint_id), None),
            )
        records = self._counted()
        return CheckpointCompletedEntry(
            checkpoint_id=checkpoint_id,
            directory=location,
            attempt=attempt,
            final=purpose.ends_job,
            records_in=records.records_in,
            records_out=records.records_out,
            dead_letters=records.dead_letters,
            history=history,
        )
