"""What an operator is to the subtask that runs it.

An operator is driven by one thread.  It gets batches through `process`, hands its own
on through `self.emit` (main output) and `self.emit_side`, and never blocks: what has to
wait goes through `context.background`.

Life: `setup` -> `open` -> (`start`) -> `process`* with `prepare_barrier`, `snapshot`,
`checkpoint_complete` in between -> `end_input` -> `commit_at_end` or a last checkpoint ->
`close`.  `close` is also called, alone, when the attempt is cancelled or failed.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from raystream.clock import Clock
from raystream.metrics.user import MetricGroup
from raystream.records.batch import RowBatch
from raystream.records.elements import EventTime, Watermark
from raystream.state.backend import KeyedStateBackend
from raystream.state.operator_state import OperatorState
from raystream.state.operator_store import OperatorStore

Emit = Callable[[RowBatch], None]
EmitEventTime = Callable[[EventTime], None]


def drop(element: RowBatch | EventTime) -> None:
    """Take a batch, or what moves event time, that nobody consumes."""


def _nothing_to_select(_: Container[int] | None) -> None:
    raise AssertionError("inputs selected by an operator that has none of its own")


class Sent:
    """Counts the records that an operator hands to one of its outputs.

    Attributes:
        records: since the start of the attempt.
    """

    __slots__ = ("_emit", "records")

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.records = 0

    def emit(self, batch: RowBatch) -> None:
        """Count a batch and hand it on."""
        self.records += len(batch.values)
        self._emit(batch)


class SentEventTime:
    """Remembers how far event time has come in what an operator emits.

    Attributes:
        watermark_ms: the last watermark; None before the first one.
    """

    __slots__ = ("_emit", "watermark_ms")

    def __init__(self, emit: EmitEventTime) -> None:
        self._emit = emit
        self.watermark_ms: int | None = None

    def emit(self, element: EventTime) -> None:
        """Look at what moves event time and hand it on."""
        if type(element) is Watermark:
            self.watermark_ms = element.timestamp_ms
        self._emit(element)


class Background(Protocol):
    """Runs what may block outside the loop."""

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Call `work` in a thread, then `done` with its result on the owner's loop.

        When `work` raises, `done` gets the exception instead, or an `Exception` that stands for what is none.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorContext:
    """What an operator knows of its subtask, and its ways to the slot.

    Attributes:
        name: name of the operator for people, `count hits`.
        restored: operator state by name; empty when the job starts new.
        operator_store: operator state that the user's function declares.
        keyed_backend: backend of the keyed state, None where the input is not keyed.
        request_splits: asks the job master for more splits (source operators only).
        select_inputs: has the gate read the records of some inputs only (`raystream.runtime.gate`); None
            stands for all.  Only the head of a chain may call it.
        wake: makes the loop poll this subtask again soon; may be called from any thread.
        wake_at: calls the operator's `time_reached` soon after a time of `clock.monotonic_ms`, once for the
            earliest time asked for; the loop's thread only.
        tell_client: passes printed lines to the client of the job; any thread.
        deliver: passes collected bytes to the client of the job; any thread.
        failed: reports an error that occurred outside of a call, and fails the attempt.
        emitted: is called with each record when it is emitted and returns what is handed on in its
            place, a copy say; None hands on the record itself.
        metrics: what user code counts with.
    """

    job_id: str
    uid: str
    name: str
    subtask: int
    parallelism: int
    max_parallelism: int
    attempt: int
    clock: Clock
    background: Background
    restored: Mapping[str, list[bytes]] = field(default_factory=dict)
    operator_store: OperatorStore = field(default_factory=OperatorStore)
    keyed_backend: KeyedStateBackend | None = None
    select_inputs: Callable[[Container[int] | None], None] = _nothing_to_select
    request_splits: Callable[[], None]
    wake: Callable[[], None]
    wake_at: Callable[[float], None]
    tell_client: Callable[[list[str]], None]
    deliver: Callable[[bytes], None]
    failed: Callable[[Exception], None]
    emitted: Callable[[Any], Any] | None = None
    metrics: MetricGroup = field(default_factory=MetricGroup)


class Operator:
    """Base of all operators; every method does nothing by default.

    Attributes:
        sent: counts what is emitted to each output, by tag, where a slot runs the operator; None is the main
            output.
        sent_event_time: knows the last watermark that was emitted, likewise.
    """

    emit: Emit = staticmethod(drop)
    emit_side: Mapping[str, Emit] = {}
    emit_event_time: EmitEventTime = staticmethod(drop)
    context: OperatorContext
    sent: Mapping[str | None, Sent] = {}
    sent_event_time: SentEventTime

    def setup(
        self,
        context: OperatorContext,
        emit: Emit,
        emit_side: Mapping[str, Emit],
        emit_event_time: EmitEventTime = drop,
    ) -> None:
        """Wire the operator into its chain; called once, before `open`.

        `emit_event_time` reaches all that the outputs reach, the side outputs too.
        """
        self.context = context
        self.emit = emit
        self.emit_side = emit_side
        self.emit_event_time = emit_event_time

    def open(self) -> None:
        """Prepare for records: open the user's function, register state, take restored state."""

    @property
    def opened(self) -> bool:
        """True when nothing that `open` began in the background is still under way."""
        return True

    @property
    def dead_letters(self) -> int:
        """How many records have gone to the dead letters since the start of the attempt."""
        return 0

    @property
    def records_out(self) -> int:
        """How many records it has emitted, or written to the outside, since the start of the attempt."""
        return sum(sent.records for sent in self.sent.values())

    def start(self) -> None:
        """Called when every subtask of the job is open, before the first record."""

    def process(self, batch: RowBatch) -> None:
        """Handle the records of a batch that is not empty."""

    @property
    def inputs(self) -> tuple[Emit, ...]:
        """What takes the batches of each input, by the number of the input."""
        return (self.process,)

    def process_event_time(self, element: EventTime) -> None:
        """Handle a watermark or a change of idleness, and hand it on behind what it makes the operator emit.

        An operator that does not get that done at once is `catching_up`, and gets no batches meanwhile.
        """
        self.emit_event_time(element)

    @property
    def catching_up(self) -> bool:
        """True while something is left to do for event time; heads of chains only."""
        return False

    def catch_up(self) -> None:
        """Do some more of it; may emit."""

    def time_reached(self) -> None:
        """Handle that a time has come which was asked for with `context.wake_at`; may emit."""

    def end_input(self) -> None:
        """Handle the end of all input; may emit."""

    def prepare_barrier(self, checkpoint_id: int) -> None:
        """Called before the barrier is forwarded; may emit."""

    def snapshot(self, checkpoint_id: int, *, savepoint: bool = False) -> list[OperatorState]:
        """Return the operator state at the barrier (keyed state is the backend's affair).

        Args:
            checkpoint_id: of the barrier.
            savepoint: the snapshot may outlive the job; what it refers to must be kept.
        """
        return []

    def sync(self) -> None:
        """Make durable what the snapshots so far refer to outside of the checkpoint.

        Blocks; called in a thread after `snapshot`, before the snapshot is acknowledged.
        """

    def checkpoint_complete(self, checkpoint_id: int) -> None:
        """The checkpoint is durable."""

    def checkpoint_aborted(self, checkpoint_id: int) -> None:
        """The checkpoint will never complete."""

    def commit_at_end(self) -> None:
        """Checkpointing is off and all input of the job has ended: publish everything."""

    @property
    def committed(self) -> bool:
        """True when no commit is under way."""
        return True

    def abort(self) -> None:
        """The attempt is given up: remove output that no snapshot refers to; `close` follows."""

    def close(self) -> None:
        """Free resources; publishes and removes nothing that a snapshot may refer to."""
