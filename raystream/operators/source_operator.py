"""The head of a source chain: polls a reader and keeps its splits as operator state."""

from collections.abc import Sequence

from raystream.handles import Redistribution
from raystream.operators.emission import emitting
from raystream.operators.operator import Operator
from raystream.operators.source import END, NOTHING, ReaderContext, ReaderSignal, Source, SplitReader
from raystream.operators.user_code import raise_for_connector
from raystream.records.batch import RowBatch
from raystream.records.elements import WATERMARK_MAX_MS, Active, Idle, Watermark
from raystream.state.operator_state import OperatorState

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
        self._idle = False

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
        if isinstance(result, ReaderSignal):
            return result
        if not isinstance(result, RowBatch):
            self._move_event_time(result)
            return 0
        if result.values:
            self._be_active()
            self.emit(result)
        return len(result.values)

    def _move_event_time(self, element: Watermark | Idle) -> None:
        if isinstance(element, Watermark):
            self._be_active()
        self._idle = isinstance(element, Idle)
        self.emit_event_time(element)

    def _be_active(self) -> None:
        if self._idle:
            self._idle = False
            self.emit_event_time(Active())

    def end_input(self) -> None:
        """Say that event time is over, for nothing can come any more."""
        self.emit_event_time(Watermark(WATERMARK_MAX_MS))

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
