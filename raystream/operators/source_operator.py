"""The head of a source chain: polls a reader and keeps its splits as operator state."""

from collections.abc import Sequence

from raystream.handles import Redistribution
from raystream.operators.emission import emitting
from raystream.operators.operator import Operator, OperatorState
from raystream.operators.source import END, NOTHING, ReaderContext, ReaderSignal, Source, SplitReader
from raystream.operators.user_code import raise_for_connector
from raystream.records.batch import RowBatch

SPLITS_STATE = "_splits"
"""Name of the operator state that holds a reader's splits."""

RECORDS_MAX = 1024
"""A source cuts its batches at this many records ..."""
BYTES_MAX = 1 << 20
"""... or at this many bytes, whichever comes first."""


class SourceOperator(Operator):
    """Reads the splits of one subtask."""

    reader: SplitReader

    def __init__(self, source: Source) -> None:
        self._source = source
        self._no_more_splits = False
        self._request_pending = False

    def open(self) -> None:
        context = self.context
        if context.emitted is not None:
            self.emit = emitting(self.emit, context.emitted)
        reader_context = ReaderContext(
            uid=context.uid,
            subtask=context.subtask,
            parallelism=context.parallelism,
            attempt=context.attempt,
            clock=context.clock,
            wake=context.wake,
            wake_at=context.wake_at,
        )
        try:
            self.reader = self._source.open_reader(reader_context)
            restored = context.restored.get(SPLITS_STATE)
            if restored:
                self.reader.add_splits(restored)
        except BaseException as error:
            raise_for_connector("source failed to open", error, context)

    def poll(self) -> int | ReaderSignal:
        """Read and emit one batch.

        Returns:
            The number of records emitted, `NOTHING` or `END`.
        """
        try:
            result = self.reader.poll(RECORDS_MAX, BYTES_MAX)
        except BaseException as error:
            raise_for_connector("source failed", error, self.context)
        if not self._no_more_splits and not self._request_pending and self.reader.wants_splits:
            self._request_pending = True
            self.context.request_splits()
        if isinstance(result, RowBatch):
            count = len(result.values)
            if count:
                self.emit(result)
            return count
        return result

    def splits_assigned(self, splits: Sequence[bytes], *, no_more: bool) -> None:
        """Take in the answer to a request for splits."""
        self._request_pending = False
        if splits:
            self.reader.add_splits(splits)
        if no_more:
            self._no_more_splits = True
            self.reader.no_more_splits()

    def snapshot(self, checkpoint_id: int, *, savepoint: bool = False) -> list[OperatorState]:
        splits = self.reader.snapshot()
        return [OperatorState(name=SPLITS_STATE, mode=Redistribution.SPLIT, elements=splits)]

    def checkpoint_complete(self, checkpoint_id: int) -> None:
        self.reader.checkpoint_complete(checkpoint_id)

    def close(self) -> None:
        if hasattr(self, "reader"):
            self.reader.close()


__all__ = ["BYTES_MAX", "END", "NOTHING", "RECORDS_MAX", "SPLITS_STATE", "SourceOperator"]
