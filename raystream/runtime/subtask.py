"""Shell of one subtask: a chain of operators between a gate and its outputs.

Batches go straight through the chain.  What stands between batches is decided by
`raystream.protocol.alignment` (barriers) and `raystream.protocol.watermark` (event time); this
module executes their commands.  At a barrier the order is always: pre-barrier hooks (may still
emit), forward the barrier, synchronous part of the snapshot, unblock; the rest of the snapshot is
the snapshotter's.  A watermark is forwarded behind what the timers emit that it fires; until they
have all fired, in slices, nothing else is taken from the gate.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol, assert_never

from raystream.clock import Clock
from raystream.graph.physical import Vertex
from raystream.ids import CheckpointId
from raystream.operators.operator import Operator
from raystream.operators.source import END
from raystream.operators.source_operator import SourceOperator
from raystream.protocol import alignment as align
from raystream.protocol import watermark as wm
from raystream.protocol.tracking import BarrierTracker
from raystream.records.batch import RowBatch
from raystream.records.elements import (
    WATERMARK_MAX_MS,
    Active,
    Barrier,
    CancelBarrier,
    EndOfInput,
    Idle,
    Watermark,
)
from raystream.runtime.gate import Gate
from raystream.runtime.in_flight import TakenInput
from raystream.runtime.output import Outputs
from raystream.runtime.overtaking import Overtaking
from raystream.runtime.snapshotter import Snapshotter

BarrierMachine = align.BarrierAligner | BarrierTracker
"""Decides when a subtask takes its snapshots."""


class SubtaskListener(Protocol):
    """What a subtask tells its slot."""

    def input_ended(self, subtask: "Subtask") -> None:
        """All input was processed and the end was passed on."""

    def snapshot_declined(self, subtask: "Subtask", checkpoint_id: CheckpointId, reason: str) -> None:
        """The subtask cannot take part in a checkpoint."""


class Subtask:
    """One parallel instance of a vertex.

    Args:
        machine: decides when snapshots are taken; None where there is no input.
        overtaking: set where barriers may overtake records, in the input or the outputs.
        in_flight: records that a snapshot had in flight; processed before all others.

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
        machine: BarrierMachine | None,
        overtaking: Overtaking | None = None,
        in_flight: Iterable[TakenInput] = (),
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
        inputs = operators[0].inputs
        self._process = [inputs[channel.input_number] for channel in gate.channels]
        self._head = operators[0]
        self._aligner = machine
        self._valve = wm.WatermarkValve(len(gate.channels)) if gate.channels else None
        self._overtaking = overtaking
        self._in_flight = deque(in_flight)
        self._woken: deque[Operator] = deque()
        self._barriers: dict[CheckpointId, Barrier] = {}  # Of the checkpoints that the machine has under way.
        self._ended = False
        self._asleep = False
        self._stopped_by: CheckpointId | None = None

    @property
    def source(self) -> SourceOperator | None:
        """The head, when this is a source subtask."""
        head = self.operators[0]
        return head if isinstance(head, SourceOperator) else None

    @property
    def watermark_ms(self) -> int | None:
        """Event time of the input; None for a source, which has none."""
        return None if self._valve is None else self._valve.event_time_ms

    @property
    def committed(self) -> bool:
        """True when no commit of a sink in this chain is under way."""
        return all(operator.committed for operator in self.operators)

    @property
    def ready_count(self) -> int:
        """Number of channels that have an element to process, at least 1 when `run` has something to do."""
        return self.gate.ready_count or int(self._head.catching_up or bool(self._in_flight))

    @property
    def can_run(self) -> bool:
        """True when `run` would process an element."""
        return self.outputs.has_room and self.has_work

    @property
    def has_work(self) -> bool:
        """True when there is something to process, or may be, whether there is room for more or not."""
        if self._valve is None:
            return not (self._asleep or self._ended or self._stopped_by is not None)
        return bool(self.gate.has_input or self._head.catching_up or self._in_flight)

    def run(self) -> None:
        """Process the next element of the gate, or some more of the last one."""
        if self._in_flight:
            self._run_in_flight()
            return
        if self._head.catching_up:
            self._head.catch_up()
            self._end_when_all_ended()
            return
        channel, element = self.gate.take()
        if type(element) is RowBatch:
            self.records_in += len(element.values)
            if self._overtaking is None:
                self._process[channel.index](element)
            else:
                self._in_flight.append((0, channel.input_number, element))
                self._run_in_flight()
            return
        assert self._aligner is not None, "a subtask without inputs has no gate to take from"
        assert self._valve is not None, "a subtask without inputs has no gate to take from"
        match element:
            case Barrier():
                if channel.route is not None:
                    self.gate.arrived.remove((channel, element))
                self._barriers[element.checkpoint_id] = element
                self._execute(
                    self._aligner.barrier_received(
                        channel.index, element.checkpoint_id, self._clock.monotonic_ms()
                    )
                )
            case CancelBarrier(checkpoint_id):
                self._execute(self._aligner.cancel_received(channel.index, checkpoint_id))
            case Watermark(timestamp_ms):
                self._pass_on(self._valve.watermark_received(channel.index, timestamp_ms))
            case Idle():
                self._pass_on(self._valve.idle_received(channel.index))
            case Active():
                self._pass_on(self._valve.active_received(channel.index))
            case EndOfInput():
                self.gate.end(channel)
                self._pass_on(self._valve.channel_ended(channel.index))
                self._end_when_all_ended()
            case _:
                raise AssertionError(f"element on a channel: {element!r}")

    def _run_in_flight(self) -> None:
        position, input_number, batch = self._in_flight.popleft()
        process = self.operators[position].inputs[input_number]
        if self._overtaking is None:
            process(batch)
            return
        piece, rest = self._overtaking.pace.cut(batch)
        if rest is not None:
            self._in_flight.appendleft((position, input_number, rest))
        self._overtaking.pace.run(process, piece)

    @property
    def can_poll(self) -> bool:
        """True when `poll_source` may find records."""
        return self.has_work and self.outputs.has_room

    def poll_source(self) -> bool:
        """Read one batch from the source; True when something happened."""
        assert isinstance(self.operators[0], SourceOperator), "poll of a subtask with inputs"
        if self._in_flight:
            self._run_in_flight()
            return True
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

    def time_reached(self, position: int) -> None:
        """Take note that a time has come which an operator waits for."""
        operator = self.operators[position]
        if isinstance(operator, SourceOperator):
            self.wake()
        elif operator not in self._woken:
            self._woken.append(operator)

    @property
    def can_run_woken(self) -> bool:
        """True when `run_woken` would do something."""
        return bool(self._woken) and self._stopped_by is None and self.outputs.has_room

    def run_woken(self) -> None:
        """Tell the next operator that its time has come; after the end of the input it comes no more."""
        operator = self._woken.popleft()
        if not self._ended:
            operator.time_reached()

    def _pass_on(self, commands: Sequence[wm.Command]) -> None:
        if self._ended:  # In the snapshot that was restored: timers had their last time then.
            return
        for command in commands:
            match command:
                case wm.ForwardWatermark(timestamp_ms):
                    self._head.process_event_time(Watermark(timestamp_ms))
                case wm.ForwardIdle():
                    self._head.process_event_time(Idle())
                case wm.ForwardActive():
                    self._head.process_event_time(Active())
                case _:
                    assert_never(command)

    def _end_when_all_ended(self) -> None:
        if self.gate.ended and not self._head.catching_up:
            self._end_input()

    def _end_input(self) -> None:
        if self._ended:
            return
        self._ended = True
        for operator in self.operators:
            operator.end_input()
        self._pass_end_on()

    def had_ended(self) -> None:
        """The subtask had ended in the snapshot that is restored: say so again, and run nothing of it."""
        self._ended = True
        self.outputs.broadcast(Watermark(WATERMARK_MAX_MS))
        self._pass_end_on()

    def _pass_end_on(self) -> None:
        self.outputs.broadcast(EndOfInput())
        self._listener.input_ended(self)

    # ---- checkpoints ------------------------------------------------------

    def trigger(self, barrier: Barrier, *, drain: bool = False) -> None:
        """Emit a barrier from this source subtask, now; with `drain` behind the end of its input.

        The snapshot holds the splits as they are at this moment, since the job master gives new ones
        behind it.  So nothing is left for later of what was restored in flight, whatever room there is.
        """
        while self._in_flight:
            self._run_in_flight()
        if barrier.stop:
            self._stopped_by = barrier.checkpoint_id
        if drain:
            self._end_input()
        self._forward(barrier)
        self._snapshot(barrier, alignment_ms=0.0)

    def checkpoint_completed(self, checkpoint_id: CheckpointId) -> None:
        """Tell the operators that the checkpoint is durable."""
        for operator in self.operators:
            if operator.context.keyed_backend is not None:
                operator.context.keyed_backend.checkpoint_completed(checkpoint_id)
            operator.checkpoint_complete(checkpoint_id)

    def checkpoint_aborted(self, checkpoint_id: CheckpointId) -> None:
        """Unblock what waits for this checkpoint, and take a stop at it back."""
        if self._stopped_by == checkpoint_id:
            self._stopped_by = None
        if self._overtaking is not None:
            self._overtaking.drop(checkpoint_id)
        if self._aligner is not None:
            self._execute(self._aligner.barrier_aborted(checkpoint_id))
        for operator in self.operators:
            operator.checkpoint_aborted(checkpoint_id)

    def see_to_barriers(self) -> None:
        """Take the barriers that overtake now; nothing is half processed when this is called."""
        overtaking, aligner = self._overtaking, self._aligner
        if overtaking is None:
            return
        if isinstance(aligner, align.BarrierAligner):
            now_ms = self._clock.monotonic_ms()
            for channel, barrier in overtaking.due_in_input():
                self._barriers[barrier.checkpoint_id] = barrier
                self._execute(aligner.barrier_overtook(channel.index, barrier.checkpoint_id, now_ms))
                self.gate.pull(channel, barrier)  # Last, since it tells what is ahead of it.
            aligning = self._aligning
            if aligning is not None and overtaking.is_due(aligning):
                self._execute(aligner.alignment_timed_out(aligning.checkpoint_id, now_ms))
        overtaking.hurry_outputs()
        if (refused := overtaking.refused) is not None:
            self.checkpoint_aborted(refused[0])
            self._listener.snapshot_declined(self, *refused)

    def next_barrier_ms(self) -> float | None:
        """Return when `see_to_barriers` has something to do by itself, in ms of the monotonic clock."""
        return None if self._overtaking is None else self._overtaking.next_due_ms(self._aligning)

    @property
    def _aligning(self) -> Barrier | None:
        """The barrier that channels are blocked for, where it need not wait for the others."""
        aligner = self._aligner
        if not isinstance(aligner, align.BarrierAligner) or not (aligner.overtaking and aligner.aligning):
            return None
        return self._barriers[CheckpointId(aligner.checkpoint_in_progress or 0)]

    def _execute(self, commands: Sequence[align.Command]) -> None:
        for command in commands:
            match command:
                case align.BlockChannel(channel):
                    self.gate.block(channel)
                case align.ResumeChannels(channels):
                    self.gate.resume(channels)
                case align.CaptureInput(checkpoint_id, channels):
                    assert self._overtaking is not None, "captured where no barrier overtakes"
                    self._overtaking.capture(CheckpointId(checkpoint_id), channels)
                case align.FinishCapture():
                    assert self._overtaking is not None, "captured where no barrier overtakes"
                    self._overtaking.captured()
                case align.DropCapture(checkpoint_id):
                    assert self._overtaking is not None, "captured where no barrier overtakes"
                    self._overtaking.drop(checkpoint_id)
                case align.ReadInputs(all_of_them):
                    self.gate.read_all(all_of_them)
                case align.ForwardBarrier(checkpoint_id):
                    self._forward(self._barriers[CheckpointId(checkpoint_id)])
                case align.TakeSnapshot(checkpoint_id, alignment_ms):
                    self._snapshot(self._barriers[CheckpointId(checkpoint_id)], alignment_ms)
                case align.ForwardCancel(checkpoint_id):
                    self.outputs.broadcast(CancelBarrier(CheckpointId(checkpoint_id)))
                case align.DeclineCheckpoint(checkpoint_id):
                    self._listener.snapshot_declined(
                        self, CheckpointId(checkpoint_id), "a newer barrier overtook it"
                    )
                case _:
                    assert_never(command)
        # Not those that have come too late, which nothing else would ever take away.
        under_way = () if self._aligner is None else self._aligner.under_way
        self._barriers = {number: kept for number, kept in self._barriers.items() if number in under_way}

    def _forward(self, barrier: Barrier) -> None:
        for operator in self.operators:
            operator.prepare_barrier(barrier.checkpoint_id)
        if self._overtaking is None:
            self.outputs.broadcast(barrier)
        else:
            self._overtaking.forward(barrier)

    def _snapshot(self, barrier: Barrier, alignment_ms: float) -> None:
        flight = None if self._overtaking is None else self._overtaking.flight_of(barrier)
        if flight is not None:
            uids = [node.uid for node in self.vertex.operators]
            flight.taken(self._in_flight, uids, self.index)
        else:
            assert not self._in_flight, "snapshot ahead of records that were restored in flight"
        self._snapshotter.take(
            self.vertex,
            self.index,
            self.operators,
            barrier,
            alignment_ms=alignment_ms,
            flight=flight,
            ended=self._ended,
        )
