"""Shell of one subtask: a chain of operators between a gate and its outputs.

Batches go straight through the chain.  What stands between batches is decided by
`raystream.protocol.alignment`; this module executes its commands.  At a barrier the order
is always: pre-barrier hooks (may still emit), forward the barrier, synchronous part of
the snapshot, unblock; the rest of the snapshot is the snapshotter's.
"""

from collections.abc import Sequence
from typing import Protocol, assert_never

from raystream.clock import Clock
from raystream.graph.physical import Vertex
from raystream.ids import CheckpointId
from raystream.operators.operator import Operator
from raystream.operators.sink_operator import SinkOperator
from raystream.operators.source import END
from raystream.operators.source_operator import SourceOperator
from raystream.protocol import alignment as align
from raystream.records.batch import RowBatch
from raystream.records.elements import Barrier, CancelBarrier, EndOfInput
from raystream.runtime.gate import Gate
from raystream.runtime.output import Outputs
from raystream.runtime.snapshotter import Snapshotter


class SubtaskListener(Protocol):
    """What a subtask tells its slot."""

    def input_ended(self, subtask: "Subtask") -> None:
        """All input was processed and the end was passed on."""

    def snapshot_declined(self, subtask: "Subtask", checkpoint_id: CheckpointId, reason: str) -> None:
        """The subtask cannot take part in a checkpoint."""


class Subtask:
    """One parallel instance of a vertex.

    Attributes:
        operators: the chain, head first, in the order of `Vertex.operators`.
        records_in: records that entered the head since the start of the attempt.
    """

    def __init__(
        self,
        vertex: Vertex,
        index: int,
        *,
        operators: Sequence[Operator],
        gate: Gate,
        outputs: Outputs,
        snapshotter: Snapshotter,
        listener: SubtaskListener,
        clock: Clock,
    ) -> None:
        self.vertex = vertex
        self.index = index
        self.operators = operators
        self.gate = gate
        self.outputs = outputs
        self.records_in = 0
        self._snapshotter = snapshotter
        self._listener = listener
        self._clock = clock
        self._process = operators[0].process
        self._aligner = align.BarrierAligner(len(gate.channels)) if gate.channels else None
        self._barriers: dict[CheckpointId, Barrier] = {}
        self._ended = False
        self._asleep = False
        self._stopped_by: CheckpointId | None = None

    @property
    def source(self) -> SourceOperator | None:
        """The head, when this is a source subtask."""
        head = self.operators[0]
        return head if isinstance(head, SourceOperator) else None

    @property
    def records_out(self) -> int:
        """Records given to the sinks of this chain."""
        return sum(o.records_written for o in self.operators if isinstance(o, SinkOperator))

    @property
    def committed(self) -> bool:
        """True when no commit of a sink in this chain is under way."""
        return all(operator.committed for operator in self.operators)

    # ---- records ----------------------------------------------------------

    @property
    def can_run(self) -> bool:
        """True when `run` would process an element."""
        return self.gate.has_input and self.outputs.has_room

    def run(self) -> None:
        """Process the next element of the gate."""
        channel, element = self.gate.take()
        if type(element) is RowBatch:
            self.records_in += len(element.values)
            self._process(element)
            return
        assert self._aligner is not None, "a subtask without inputs has no gate to take from"
        match element:
            case Barrier():
                self._barriers[element.checkpoint_id] = element
                self._execute(
                    self._aligner.barrier_received(
                        channel.index, element.checkpoint_id, self._clock.monotonic_ms()
                    )
                )
            case CancelBarrier(checkpoint_id):
                self._execute(self._aligner.cancel_received(channel.index, checkpoint_id))
            case EndOfInput():
                channel.ended = True
                if self.gate.ended:
                    self._end_input()
            case _:
                raise AssertionError(f"element on a channel: {element!r}")

    @property
    def can_poll(self) -> bool:
        """True when `poll_source` may find records."""
        return not (self._asleep or self._ended or self._stopped_by is not None) and self.outputs.has_room

    def poll_source(self) -> bool:
        """Read one batch from the source; True when something happened."""
        assert isinstance(self.operators[0], SourceOperator), "poll of a subtask with inputs"
        self._asleep = True  # A wake-up that comes during the poll must not be lost.
        result = self.operators[0].poll()
        if isinstance(result, int):
            self._asleep = False
            self.records_in += result
        elif result is END:
            self._end_input()
        else:
            return not self._asleep
        return True

    def wake(self) -> None:
        """Poll the source again, which had nothing."""
        self._asleep = False

    def _end_input(self) -> None:
        if self._ended:
            return
        self._ended = True
        for operator in self.operators:
            operator.end_input()
        self.outputs.broadcast(EndOfInput())
        self._listener.input_ended(self)

    # ---- checkpoints ------------------------------------------------------

    def trigger(self, barrier: Barrier) -> None:
        """Emit a barrier from this source subtask, now."""
        if barrier.stop:
            self._stopped_by = barrier.checkpoint_id
        self._take_snapshot(barrier, alignment_ms=0.0)

    def checkpoint_completed(self, checkpoint_id: CheckpointId) -> None:
        """Tell the operators that the checkpoint is durable."""
        for operator in self.operators:
            operator.checkpoint_complete(checkpoint_id)

    def checkpoint_aborted(self, checkpoint_id: CheckpointId) -> None:
        """Unblock what waits for this checkpoint, and take a stop at it back."""
        if self._stopped_by == checkpoint_id:
            self._stopped_by = None
        if self._aligner is not None:
            self._execute(self._aligner.barrier_aborted(checkpoint_id))
        for operator in self.operators:
            operator.checkpoint_aborted(checkpoint_id)

    def _execute(self, commands: Sequence[align.Command]) -> None:
        for command in commands:
            match command:
                case align.BlockChannel(channel):
                    self.gate.block(channel)
                case align.ResumeChannels(channels):
                    self.gate.resume(channels)
                case align.ForwardBarrier(checkpoint_id):
                    self._forward(self._barriers[CheckpointId(checkpoint_id)])
                case align.TakeSnapshot(checkpoint_id, alignment_ms):
                    self._snapshot(self._barriers.pop(CheckpointId(checkpoint_id)), alignment_ms)
                case align.ForwardCancel(checkpoint_id):
                    self.outputs.broadcast(CancelBarrier(CheckpointId(checkpoint_id)))
                case align.DeclineCheckpoint(checkpoint_id):
                    self._barriers.pop(CheckpointId(checkpoint_id), None)
                    self._listener.snapshot_declined(
                        self, CheckpointId(checkpoint_id), "a newer barrier overtook it"
                    )
                case _:
                    assert_never(command)

    def _take_snapshot(self, barrier: Barrier, alignment_ms: float) -> None:
        self._forward(barrier)
        self._snapshot(barrier, alignment_ms)

    def _forward(self, barrier: Barrier) -> None:
        for operator in self.operators:
            operator.prepare_barrier(barrier.checkpoint_id)
        self.outputs.broadcast(barrier)

    def _snapshot(self, barrier: Barrier, alignment_ms: float) -> None:
        for stale in [n for n in self._barriers if n < barrier.checkpoint_id]:
            del self._barriers[stale]
        self._snapshotter.take(self.vertex, self.index, self.operators, barrier, alignment_ms)
