"""The input of one subtask: its channels, read in turn, and the barriers between batches.

Every channel belongs to one input of the operator; an operator that `connect` made has several.
It may *select* the inputs that it wants to read (`Gate.select`).  The records of the others stay
in their channels, and their senders stop when the credit is used up.  Three rules keep that from
stopping the job:

    What stands between batches (barriers, the end) is taken from every channel as soon as it is
    at its head.

    While every channel of the selected inputs is blocked for a barrier, or has ended, all inputs
    are read: the barrier that is still missing stands behind their records.  Where barriers block
    nothing, all inputs are read while some barrier of a checkpoint has come and another has not.

    So an operator may get records of an input that it has not selected, and must keep them in its
    state until it wants them.
"""

from collections import deque
from collections.abc import Callable, Container

from raystream.records.batch import RowBatch
from raystream.records.elements import Barrier, Control
from raystream.runtime.in_flight import InFlight, Route
from raystream.runtime.input_channel import InputChannel

GATE_BUDGET_BYTES = 4 << 20
"""Bytes that may wait in all channels of a gate together."""


class Gate:
    """Reads the channels of a subtask round-robin and leaves blocked ones alone.

    Invariant: `_ready` holds exactly the channels that have an element and are `readable`.

    Attributes:
        arrived: barriers in channels that have a route, with their channels, in the order of arrival.
    """

    def __init__(self) -> None:
        self.channels: list[InputChannel] = []
        self.arrived: list[tuple[InputChannel, Barrier]] = []
        self._ready: deque[InputChannel] = deque()
        self._selected: Container[int] | None = None
        self._all_read = False

    def add_channel(
        self,
        window: int,
        frame_bytes_max: int,
        grant: Callable[[int], None],
        *,
        input_number: int = 0,
        route: Route | None = None,
    ) -> InputChannel:
        """Add a channel of one of the operator's inputs and return it."""
        channel = InputChannel(
            len(self.channels),
            window,
            frame_bytes_max=frame_bytes_max,
            became_ready=self._became_ready,
            grant=grant,
            input_number=input_number,
            route=route,
            barrier_arrived=lambda channel, barrier: self.arrived.append((channel, barrier)),
        )
        self.channels.append(channel)
        return channel

    @property
    def ready_count(self) -> int:
        """Number of channels that have an element to take."""
        return len(self._ready)

    @property
    def has_input(self) -> bool:
        """True when `take` would return an element."""
        return bool(self._ready)

    def take(self) -> tuple[InputChannel, RowBatch | Control]:
        """Remove and return the next element and the channel that it came through."""
        channel = self._ready.popleft()
        # A queue that this empties becomes ready by the next `put`, which the credit that goes back
        # may bring about at once.
        more = len(channel.queue) > 1
        element = channel.take()
        if more and (not channel.deferred or channel.readable):
            self._ready.append(channel)
        return channel, element

    def select(self, inputs: Container[int] | None) -> None:
        """Read records of these inputs only, as far as that cannot stop the job; None stands for all."""
        self._selected = inputs
        self._defer()

    def read_all(self, wanted: bool) -> None:
        """Read records of all inputs whatever is selected, or of the selected ones only again."""
        self._all_read = wanted
        if self._selected is not None:
            self._defer()

    def block(self, index: int) -> None:
        """Read nothing more from a channel until it is resumed."""
        channel = self.channels[index]
        channel.blocked = True
        if channel in self._ready:
            self._ready.remove(channel)
        if self._selected is not None:
            self._defer()

    def resume(self, indexes: frozenset[int]) -> None:
        """Read these channels again."""
        for index in sorted(indexes):
            channel = self.channels[index]
            channel.blocked = False
            if channel.queue and channel.readable and channel not in self._ready:
                self._ready.append(channel)
        if self._selected is not None:
            self._defer()

    def pull(self, channel: InputChannel, barrier: Barrier) -> None:
        """Remove a barrier from where it has arrived; it has overtaken what is ahead of it."""
        self.arrived.remove((channel, barrier))
        del channel.queue[next(n for n, (element, _) in enumerate(channel.queue) if element is barrier)]
        if channel in self._ready and not (channel.queue and channel.readable):
            self._ready.remove(channel)

    def capture(self, checkpoint_id: int, indexes: frozenset[int], flight: InFlight) -> None:
        """Add to a snapshot what channels have, and get, ahead of the barrier of a checkpoint."""
        for index in sorted(indexes):
            self.channels[index].capture(checkpoint_id, flight)

    def stop_capture(self) -> None:
        """Add nothing more to a snapshot."""
        for channel in self.channels:
            channel.stop_capture()

    def end(self, channel: InputChannel) -> None:
        """Take note that no records follow on a channel."""
        channel.ended = True
        if self._selected is not None:
            self._defer()

    @property
    def ended(self) -> bool:
        """True when every channel has said that no records follow."""
        return all(channel.ended for channel in self.channels)

    def _became_ready(self, channel: InputChannel) -> None:
        if channel.readable:
            self._ready.append(channel)

    def _defer(self) -> None:
        """Decide anew which channels wait until their input is selected."""
        selected = None if self._all_read else self._selected
        wanted = [c for c in self.channels if selected is None or c.input_number in selected]
        if all(channel.blocked or channel.ended for channel in wanted):
            wanted = self.channels
        for channel in self.channels:
            channel.deferred = channel not in wanted
        in_turn = [channel for channel in self._ready if channel.readable]
        others = [channel for channel in self.channels if channel.queue and channel not in in_turn]
        self._ready = deque(in_turn + [channel for channel in others if channel.readable])
