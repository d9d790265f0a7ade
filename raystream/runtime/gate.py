"""The input of one subtask: its channels, read in turn, and the barriers between batches."""

from collections import deque
from collections.abc import Callable

from raystream.records.batch import RowBatch
from raystream.records.elements import Control
from raystream.runtime.channel import InputChannel

GATE_BUDGET_BYTES = 4 << 20
"""Bytes that may wait in all channels of a gate together."""


class Gate:
    """Reads the channels of a subtask round-robin and leaves blocked ones alone.

    Invariant: `_ready` holds exactly the channels that have an element and are not blocked.
    """

    def __init__(self) -> None:
        self.channels: list[InputChannel] = []
        self._ready: deque[InputChannel] = deque()

    def add_channel(self, window: int, frame_bytes_max: int, grant: Callable[[int], None]) -> InputChannel:
        """Add a channel and return it."""
        channel = InputChannel(
            len(self.channels),
            window,
            frame_bytes_max=frame_bytes_max,
            became_ready=self._became_ready,
            grant=grant,
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
        if more:
            self._ready.append(channel)
        return channel, element

    def block(self, index: int) -> None:
        """Read nothing more from a channel until it is resumed."""
        channel = self.channels[index]
        channel.blocked = True
        if channel in self._ready:
            self._ready.remove(channel)

    def resume(self, indexes: frozenset[int]) -> None:
        """Read these channels again."""
        for index in sorted(indexes):
            channel = self.channels[index]
            channel.blocked = False
            if channel.queue and channel not in self._ready:
                self._ready.append(channel)

    @property
    def ended(self) -> bool:
        """True when every channel has said that no records follow."""
        return all(channel.ended for channel in self.channels)

    def _became_ready(self, channel: InputChannel) -> None:
        if not channel.blocked:
            self._ready.append(channel)
