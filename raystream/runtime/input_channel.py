"""The receiving end of a channel: a queue in the gate of its subtask.

What arrives stays encoded until it is taken, and its credit goes back then.  Where the channel has a
*route*, barriers may overtake what is queued: the gate is told of each one as it arrives, and a snapshot
may capture what is here and what still comes ahead of its barrier (`raystream.runtime.in_flight`).
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from raystream.handles import ChannelStage
from raystream.protocol.credit import ReceiveCredit
from raystream.records.batch import RowBatch
from raystream.records.codec import BatchDecoder
from raystream.records.elements import Barrier, Control
from raystream.runtime.frame import FrameKind, decode_control
from raystream.runtime.in_flight import CapturedChannel, InFlight, Route


class InputChannel:
    """Elements that have arrived and are not yet taken, in order.

    Args:
        index: position of the channel in its gate.
        input_number: input of the operator that it belongs to, 0-based.
        became_ready: called when an element arrives in the empty queue.
        grant: gives credit back to the sender, in bytes.
        barrier_arrived: called with each barrier that arrives, where the channel has a route.

    Attributes:
        route: set where barriers may overtake batches.
    """

    __slots__ = (
        "_barrier_arrived", "_became_ready", "_captured", "_credit", "_decoder", "_grant", "blocked",
        "deferred", "ended", "index", "input_number", "queue", "route",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        window_bytes: int,
        *,
        frame_bytes_max: int,
        became_ready: Callable[["InputChannel"], None],
        grant: Callable[[int], None],
        input_number: int = 0,
        route: Route | None = None,
        barrier_arrived: Callable[["InputChannel", Barrier], None] | None = None,
    ) -> None:
        self.index = index
        self.input_number = input_number
        self.blocked = False
        self.deferred = False
        self.ended = False
        self.queue: deque[tuple[Any, int]] = deque()
        self._became_ready = became_ready
        self._credit = ReceiveCredit(window_bytes, frame_bytes_max)
        self._grant = grant
        self._decoder = BatchDecoder()
        self.route = route
        self._barrier_arrived = barrier_arrived
        self._captured: tuple[CapturedChannel, int] | None = None

    def put(self, element: Any, size_bytes: int) -> None:
        """Append a batch, an encoded batch (memoryview) or a control element."""
        if size_bytes:
            self._credit.received(size_bytes)
        self.queue.append((element, size_bytes))
        if self.route is not None:
            self._watch(element, size_bytes)
        if len(self.queue) == 1:
            self._became_ready(self)

    def frame_received(self, kind: FrameKind, payload: memoryview) -> None:
        """Append what a frame carries; a batch stays encoded until it is taken."""
        if kind is FrameKind.BATCH:
            self.put(payload, len(payload))
        else:
            self.put(decode_control(payload), 0)

    def capture(self, checkpoint_id: int, flight: InFlight) -> None:
        """Add to a snapshot what is here, and what comes, ahead of the barrier of a checkpoint."""
        assert self.route is not None, "channel on which nothing is overtaken"
        captured = flight.channel(self.route, ChannelStage.INPUT, (), self._decoder.copy())
        for element, size_bytes in self.queue:
            if type(element) is Barrier and element.checkpoint_id == checkpoint_id:
                return
            if size_bytes:
                captured.add(element, size_bytes)
        self._captured = captured, checkpoint_id

    def stop_capture(self) -> None:
        """Add nothing more to a snapshot."""
        self._captured = None

    def _watch(self, element: Any, size_bytes: int) -> None:
        if type(element) is Barrier:
            if self._captured is not None and element.checkpoint_id >= self._captured[1]:
                self._captured = None
            if self._barrier_arrived is not None:
                self._barrier_arrived(self, element)
        elif self._captured is not None and size_bytes:
            self._captured[0].add(element, size_bytes)

    @property
    def readable(self) -> bool:
        """True when its gate may take the oldest element, which is there."""
        return not self.blocked and (not self.deferred or not self.queue[0][1])

    def take(self) -> RowBatch | Control:
        """Remove and return the oldest element, and give its credit back."""
        element, size_bytes = self.queue.popleft()
        if size_bytes:
            granted = self._credit.consumed(size_bytes)
            if granted:
                self._grant(granted)
        if type(element) is memoryview:
            return self._decoder.decode(element)
        return element  # type: ignore[no-any-return]
