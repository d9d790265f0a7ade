"""The end of a chain: writes batches and commits them when their checkpoint is complete."""

import threading

from raystream.errors import RaystreamError
from raystream.handles import Redistribution
from raystream.operators.operator import Operator
from raystream.operators.sink import Committer, Sink, SinkWriter, WriterContext
from raystream.operators.user_code import raise_for_connector
from raystream.protocol.commit import PendingCommits
from raystream.records.batch import RowBatch
from raystream.state.operator_state import OperatorState

COMMITTABLES_STATE = "_committables"
"""Name of the operator state that holds what was pre-committed and not yet committed."""


class SinkOperator(Operator):
    """Drives the writer and the committer of one subtask of a sink.

    Attributes:
        records_written: records given to the writer since the start of the attempt.
    """

    def __init__(self, sink: Sink) -> None:
        self.records_written = 0
        self._sink = sink
        self._writer: SinkWriter | None = None
        self._committer: Committer | None = None
        self._commits = PendingCommits()
        self._syncing = threading.Lock()
        self._ended_without_checkpoint = False

    def open(self) -> None:
        context = self.context
        writer_context = WriterContext(
            job_id=context.job_id,
            uid=context.uid,
            subtask=context.subtask,
            parallelism=context.parallelism,
            attempt=context.attempt,
            tell_client=context.tell_client,
            deliver=context.deliver,
        )
        try:
            self._committer = self._sink.open_committer(writer_context)
            self._commits = PendingCommits(context.restored.get(COMMITTABLES_STATE, ()))
            self._commit_what_is_due()
            self._writer = self._sink.open_writer(writer_context)
        except BaseException as error:
            raise_for_connector("sink failed to open", error, context)

    @property
    def opened(self) -> bool:
        return self._commits.idle

    @property
    def committed(self) -> bool:
        return self._commits.idle

    @property
    def records_out(self) -> int:
        return self.records_written

    def start(self) -> None:
        assert self._writer is not None, "start before open"
        self._writer.start()

    def process(self, batch: RowBatch) -> None:
        self.records_written += len(batch.values)
        try:
            self._writer.write(batch)  # type: ignore[union-attr]
        except BaseException as error:
            raise_for_connector("sink failed to write", error, self.context)

    def snapshot(self, checkpoint_id: int, *, savepoint: bool = False) -> list[OperatorState]:
        self._commits.prepared(checkpoint_id, self._prepare(checkpoint_id))
        if self._committer is None:
            return []
        elements = self._commits.state()
        if savepoint and elements:
            self._keep(elements)
        return [OperatorState(name=COMMITTABLES_STATE, mode=Redistribution.SPLIT, elements=elements)]

    def sync(self) -> None:
        assert self._writer is not None, "sync before open"
        try:
            with self._syncing:
                self._writer.sync()
        except BaseException as error:
            raise_for_connector("sink failed to make its output durable", error, self.context)

    def checkpoint_complete(self, checkpoint_id: int) -> None:
        self._commits.checkpoint_completed(checkpoint_id)
        self._commit_what_is_due()

    def commit_at_end(self) -> None:
        self._commits.ended(self._prepare(0))
        self._ended_without_checkpoint = True
        self._commit_what_is_due()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def abort(self) -> None:
        """Remove what was written after the last barrier, when the attempt is given up."""
        if self._writer is not None:
            self._writer.abort()

    def _prepare(self, checkpoint_id: int) -> list[bytes]:
        assert self._writer is not None, "snapshot before open"
        try:
            return self._writer.prepare_commit(checkpoint_id)
        except BaseException as error:
            raise_for_connector("sink failed to pre-commit", error, self.context)

    def _keep(self, committables: list[bytes]) -> None:
        assert self._writer is not None, "snapshot before open"
        try:
            self._writer.keep(committables)
        except BaseException as error:
            raise_for_connector("sink failed to keep what a savepoint refers to", error, self.context)

    def _commit_what_is_due(self) -> None:
        due = self._commits.begin()
        if not due:
            return
        committer = self._committer
        assert committer is not None, "committables of a sink without a committer"

        def commit() -> None:
            if self._ended_without_checkpoint:  # Else the snapshot that names it was synced.
                self.sync()
            committer.commit(due)

        self.context.background.submit(commit, self._commit_ended)

    def _commit_ended(self, result: object) -> None:
        if isinstance(result, Exception):
            try:
                raise_for_connector("sink failed to commit", result, self.context)
            except RaystreamError as error:
                self.context.failed(error)
            return
        self._commits.committed()
        self._commit_what_is_due()
