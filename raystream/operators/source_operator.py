"""The head of a source chain: polls a reader, keeps its splits as operator state and makes its event time."""

from collections.abc import Collection, Hashable, Sequence

from raystream.handles import Redistribution
from raystream.operators.emission import emitting
from raystream.operators.operator import Operator
from raystream.operators.source import (
    END,
    NOTHING,
    PerSplitReader,
    ReaderContext,
    ReaderSignal,
    Source,
    SplitBatch,
    SplitReader,
)
from raystream.operators.user_code import raise_for_connector
from raystream.operators.watermarks import EventTimeMaker, WatermarkStrategy
from raystream.protocol.split_watermarks import WHOLE
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
    """Reads the splits of one subtask.

    Args:
        source: where the records come from.
        strategy: how their event time is found; None leaves it to the reader.
        interval_ms: time between two watermarks.
    """

    reader: SplitReader

    def __init__(
        self, source: Source, strategy: WatermarkStrategy | None = None, interval_ms: int = 0
    ) -> None:
        self._source = source
        self._strategy = strategy
        self._interval_ms = interval_ms
        self._maker: EventTimeMaker | None = None
        self._per_split: PerSplitReader | None = None
        self._no_more_splits = False
        self._request_pending = False
        self._idle = False

    def open(self) -> None:
        context = self.context
        if context.emitted is not None:
            self.emit = emitting(self.emit, context.emitted)
        if self._strategy is not None:
            self._maker = EventTimeMaker(
                self._strategy, self._interval_ms, context, self.emit, self.emit_event_time
            )
        reader_context = ReaderContext(
            uid=context.uid,
            subtask=context.subtask,
            parallelism=context.parallelism,
            attempt=context.attempt,
            clock=context.clock,
            wake=context.wake,
            wake_at=context.wake_at,
            per_split=self._strategy is not None and self._strategy.makes_watermarks,
        )
        try:
            self.reader = self._source.open_reader(reader_context)
            if reader_context.per_split and isinstance(self.reader, PerSplitReader):
                self._per_split = self.reader
            restored = context.restored.get(SPLITS_STATE)
            if restored:
                self.reader.add_splits(restored)
        except BaseException as error:
            raise_for_connector("source failed to open", error, context)

    def start(self) -> None:
        if self._maker is not None:
            self._maker.start()

    def poll(self) -> int | ReaderSignal:
        """Read and emit one batch, or a watermark that is due.

        Returns:
            The number of records emitted, `NOTHING` or `END`.
        """
        maker = self._maker
        if maker is not None and maker.due:
            maker.tick(self._active_splits())
            return 0
        try:
            result = self.reader.poll(RECORDS_MAX, BYTES_MAX)
        except BaseException as error:
            raise_for_connector("source failed", error, self.context)
        if not self._no_more_splits and not self._request_pending and self.reader.wants_splits:
            self._request_pending = True
            self.context.request_splits()
        if isinstance(result, ReaderSignal):
            if maker is not None and result is NOTHING:
                self._wait_for_tick(maker)
            return result
        if not isinstance(result, RowBatch):
            (self._move_event_time if maker is None else maker.take_event_time)(result)
            return 0
        if result.values:
            if maker is not None:
                maker.take(result, result.split if isinstance(result, SplitBatch) else WHOLE)
            else:
                self._be_active()
                self.emit(result if type(result) is RowBatch else RowBatch(result.values, result.timestamps))
        return len(result.values)

    def _wait_for_tick(self, maker: EventTimeMaker) -> None:
        """See to it that the reader, which has nothing, is polled when a watermark is due, if not before."""
        if maker.due_ms is None:
            maker.splits_changed(self._active_splits())
        else:  # Whatever has woken the subtask may have been asked for in the place of the tick.
            self.context.wake_at(maker.due_ms)

    def _active_splits(self) -> Collection[Hashable]:
        if self._per_split is None:
            return (WHOLE,)
        try:
            return self._per_split.active_splits()
        except BaseException as error:
            raise_for_connector("source failed", error, self.context)

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
