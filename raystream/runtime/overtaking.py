"""Barriers of one subtask that may overtake records: when they do, and what their snapshot then has.

A barrier overtakes as soon as its checkpoint is older than the limit, wherever it waits: in an output
without credit, in the queue of an input, or in alignment.  With a limit of zero none ever waits.  The
age counts from the creation of the barrier, by the wall clocks of two machines; how far these are apart
can make a barrier wait a little longer, or less long, and nothing else: every mixture of barriers that
overtake and barriers that do not is a consistent cut (`raystream.protocol.alignment`).

Which channels may be overtaken is decided by the plan.  Savepoints never overtake.  A barrier cannot
overtake a batch that is being processed: batches are cut, so that this does not take long.
"""

from dataclasses import dataclass

from raystream.clock import Clock
from raystream.handles import ChannelStage
from raystream.ids import CheckpointId
from raystream.operators.emission import Pass
from raystream.operators.operator import Emit
from raystream.records.batch import RowBatch
from raystream.records.elements import Barrier, SnapshotKind
from raystream.runtime.gate import Gate
from raystream.runtime.in_flight import IN_FLIGHT_BYTES_MAX, InFlight
from raystream.runtime.input_channel import InputChannel
from raystream.runtime.output import Outputs

PIECE_MS = 50.0
"""Longest time that a piece of a batch should take: a barrier can overtake the rest only behind it."""
_RESOLUTION_MS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class OvertakingPolicy:
    """How barriers overtake in a job.

    Attributes:
        timeout_ms: age from which a barrier overtakes.
        copied: makes a copy of a record, where user code may change those that it gets.
    """

    timeout_ms: int
    copied: Pass | None


class Pace:
    """Cuts batches into pieces that take no longer than a barrier may wait for them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records_max: int | None = None

    def cut(self, batch: RowBatch) -> tuple[RowBatch, RowBatch | None]:
        """Return the first piece of a batch, and the rest if there is any."""
        count, most = len(batch.values), self._records_max
        if most is None or count <= most:
            return batch, None
        return batch.part(0, most), batch.part(most, count)

    def run(self, process: Emit, piece: RowBatch) -> None:
        """Have a piece processed, and take note of how long it takes."""
        started_ms = self._clock.monotonic_ms()
        process(piece)
        took_ms = max(self._clock.monotonic_ms() - started_ms, _RESOLUTION_MS)
        self._records_max = max(int(len(piece.values) * PIECE_MS / took_ms), 1)


class Overtaking:
    """What one subtask does beside alignment when barriers may overtake."""

    def __init__(self, policy: OvertakingPolicy, gate: Gate, outputs: Outputs, clock: Clock) -> None:
        self._policy = policy
        self._gate = gate
        self._outputs = outputs
        self._clock = clock
        self.pace = Pace(clock)
        self._flight: InFlight | None = None
        self._leaving: Barrier | None = None  # It waits for credit in some output.
        self._due: tuple[int, float] = (0, 0.0)  # Newest checkpoint looked at, and when it overtakes.

    def is_due(self, barrier: Barrier) -> bool:
        """Return whether a barrier overtakes now."""
        if barrier.kind is SnapshotKind.SAVEPOINT:
            return False
        return not self._policy.timeout_ms or self.due_ms(barrier) <= self._clock.monotonic_ms()

    def due_ms(self, barrier: Barrier) -> float:
        """Return when a barrier of a checkpoint overtakes, in ms of the monotonic clock."""
        checkpoint_id, due_ms = self._due
        if checkpoint_id != barrier.checkpoint_id:
            limit_ms = self._policy.timeout_ms
            left_ms = barrier.created_ms + limit_ms - self._clock.wall_ms()
            due_ms = self._clock.monotonic_ms() + min(max(left_ms, 0), limit_ms)
            self._due = barrier.checkpoint_id, due_ms
        return due_ms

    def next_due_ms(self, aligning: Barrier | None) -> float | None:
        """Return when the next barrier overtakes that now waits.

        Args:
            aligning: barrier of the checkpoint that is being aligned.
        """
        waiting = [barrier for _, barrier in self._gate.arrived if barrier.kind is SnapshotKind.CHECKPOINT]
        waiting += [barrier for barrier in (aligning, self._leaving) if barrier is not None]
        return min((self.due_ms(one) for one in waiting if one.kind is SnapshotKind.CHECKPOINT), default=None)

    def due_in_input(self) -> list[tuple[InputChannel, Barrier]]:
        """Return the barriers in the input that overtake now, with their channels."""
        return [(channel, barrier) for channel, barrier in self._gate.arrived if self.is_due(barrier)]

    def forward(self, barrier: Barrier) -> None:
        """Send a barrier to all outputs, and begin to collect what its snapshot has of records in flight."""
        if barrier.kind is SnapshotKind.SAVEPOINT:
            self._outputs.broadcast(barrier)
            return
        if self._flight is not None:
            self.drop(self._flight.checkpoint_id)
        flight = self._flight = InFlight(barrier.checkpoint_id, self._policy.copied)
        if self.is_due(barrier):
            self._outputs.send_ahead(barrier, flight)
            return
        self._outputs.broadcast(barrier)
        if self._outputs.holds(barrier):
            self._leaving = barrier
            flight.expect(ChannelStage.OUTPUT)

    def hurry_outputs(self) -> None:
        """See to a barrier that waits for credit: it overtakes, or it has left by itself."""
        barrier, flight = self._leaving, self._flight
        if flight is not None and not flight.open:
            self._flight = None  # The snapshot has it: its records are not kept until the next one.
        if barrier is None or flight is None:
            return
        if self.is_due(barrier):
            self._outputs.hurry(barrier, flight)
        elif self._outputs.holds(barrier):
            return
        self._leaving = None
        flight.have_all(ChannelStage.OUTPUT)

    def capture(self, checkpoint_id: int, channels: frozenset[int]) -> None:
        """Add the input of channels to the snapshot that is taken next."""
        flight = self._flight
        assert flight is not None, "input captured before the barrier was forwarded"
        flight.expect(ChannelStage.INPUT)
        self._gate.capture(checkpoint_id, channels, flight)

    def captured(self) -> None:
        """All input of the snapshot is there."""
        if self._flight is not None:
            self._flight.have_all(ChannelStage.INPUT)

    def flight_of(self, barrier: Barrier) -> InFlight | None:
        """Return what the snapshot at a barrier has of records in flight; None for a savepoint."""
        flight = self._flight
        return flight if flight is not None and flight.checkpoint_id == barrier.checkpoint_id else None

    @property
    def refused(self) -> tuple[CheckpointId, str] | None:
        """The checkpoint for which more is collected than a snapshot may have, and why it is refused."""
        flight = self._flight
        if flight is None or not flight.open or flight.size_bytes <= IN_FLIGHT_BYTES_MAX:
            return None
        return flight.checkpoint_id, f"more than {IN_FLIGHT_BYTES_MAX} bytes of records are in flight"

    def drop(self, checkpoint_id: int) -> None:
        """Collect nothing more for a checkpoint."""
        if self._flight is not None and self._flight.checkpoint_id == checkpoint_id:
            self._flight = self._leaving = None
            self._gate.stop_capture()
