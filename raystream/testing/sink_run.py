"""Drives one subtask of a sink as a job does, step by step, for `SinkContract`."""

from collections.abc import Callable, Sequence
from typing import Any

from raystream.operators.sink import Sink, WriterContext
from raystream.protocol.commit import PendingCommits
from raystream.records.batch import RowBatch


class SinkSubtask:
    """One subtask of a sink with the rules of commit around it.

    Attributes:
        writer: the sink's writer.
    """

    def __init__(
        self, sink: Sink, context: WriterContext, record: Callable[[int], Any], restored: Sequence[bytes]
    ) -> None:
        self._record = record
        self._commits = PendingCommits(restored)
        self._committer = sink.open_committer(context)
        self._commit_what_is_due()
        self.writer = sink.open_writer(context)

    def write(self, *numbers: int) -> None:
        """Write the records of these numbers as one batch."""
        self.writer.write(RowBatch([self._record(number) for number in numbers]))

    def snapshot(self, checkpoint_id: int) -> list[bytes]:
        """Pre-commit durably, and return the committables that a snapshot stores."""
        self.begin_snapshot(checkpoint_id)
        self.writer.sync()
        return self._commits.state()

    def begin_snapshot(self, checkpoint_id: int) -> None:
        """Pre-commit, and leave it to a later snapshot to make that durable."""
        self._commits.prepared(checkpoint_id, self.writer.prepare_commit(checkpoint_id))

    def complete(self, checkpoint_id: int) -> None:
        """Commit what was pre-committed up to this checkpoint."""
        self._commits.checkpoint_completed(checkpoint_id)
        self._commit_what_is_due()

    def _commit_what_is_due(self) -> None:
        due = self._commits.begin()
        if due:
            assert self._committer is not None, "a sink with committables needs a committer"
            self._committer.commit(due)
            self._commits.committed()
