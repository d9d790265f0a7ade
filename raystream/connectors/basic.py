"""Sources and sinks that need nothing outside of the job: collections, the console, nothing at all."""

from collections.abc import Sequence

from raystream.connectors.collect import CollectReceiver, CollectSink
from raystream.connectors.collection import CollectionSource
from raystream.operators.sink import SinkWriter, WriterContext
from raystream.records.batch import RowBatch

__all__ = ["CollectReceiver", "CollectSink", "CollectionSource", "DiscardSink", "PrintSink"]


class PrintSink:
    """Shows each record as a line `subtask> value` on the client's standard output.

    Not transactional: after a failure lines may come again.
    """

    transactional = False

    def open_writer(self, context: WriterContext) -> SinkWriter:
        """Return the writer of one subtask."""
        return _PrintWriter(context)

    def open_committer(self, context: WriterContext) -> None:
        """Return None: lines are shown at once."""


class DiscardSink:
    """Drops every record; for measuring what comes before it."""

    transactional = False

    def open_writer(self, context: WriterContext) -> SinkWriter:
        """Return the writer of one subtask."""
        return _DiscardWriter()

    def open_committer(self, context: WriterContext) -> None:
        """Return None: there is nothing to commit."""


class _DiscardWriter:
    """A writer that keeps nothing."""

    def start(self) -> None:
        """Do nothing."""

    def write(self, batch: RowBatch) -> None:
        """Drop the records."""

    def prepare_commit(self, checkpoint_id: int) -> list[bytes]:
        """Return nothing to commit."""
        return []

    def sync(self) -> None:
        """Do nothing."""

    def keep(self, committables: Sequence[bytes]) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _PrintWriter(_DiscardWriter):
    """A writer that passes records to the client as text."""

    def __init__(self, context: WriterContext) -> None:
        self._prefix = f"{context.subtask}> "
        self._tell_client = context.tell_client

    def write(self, batch: RowBatch) -> None:
        """Show the records."""
        prefix = self._prefix
        self._tell_client([f"{prefix}{value}" for value in batch.values])
