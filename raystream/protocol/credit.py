"""Flow control of one channel by credit in bytes: both ends, without any I/O.

    sender                                    receiver
    can_send? -> sent(size)   --- batch -->   received(size), queued
    granted(size)             <-- grant ----  consumed(size) -> grant

The sender may have `window_bytes` outstanding: sent, and not yet granted back.  The receiver
grants consumed bytes back in one piece once they are a quarter of the window, so that grants
are few.  What it holds back is therefore less than a quarter, and a channel with less than
that outstanding counts as having full credit: it may send one frame of any size up to
`frame_bytes_max`, even one that is larger than the window.  So a sender never waits for a
receiver that has consumed everything, and what is outstanding stays below the larger of the
window and a quarter of it plus one frame.

Control elements need no credit and do not pass through here.  Sizes are those of whatever
moves: encoded frames, or estimates for batches that are handed over inside a slot.  Who is to
blame for a frame that is too large is for the shell.

Source: Flink's credit-based flow control (FLINK-7282), with bytes instead of buffers.
"""

from collections import deque
from dataclasses import dataclass

from raystream.errors import ProtocolError

WINDOW_BYTES_MIN = 64 * 1024
"""Least window of a channel, however many share a gate's budget."""

HISTORY_MAX = 32
"""How many of the last events an error shows."""

_GRANT_WINDOW_PARTS = 4


@dataclass(frozen=True, slots=True)
class FrameTooLarge:
    """A frame can never be sent; whoever made its record has to know."""

    size_bytes: int
    frame_bytes_max: int


def window_bytes_of(gate_budget_bytes: int, channel_count: int) -> int:
    """Return the window of each of the channels that share a gate's budget.

    Args:
        gate_budget_bytes: what may wait in all channels of the gate together.
        channel_count: channels of the gate, at least 1.

    Example:
        >>> window_bytes_of(1_048_576, 4), window_bytes_of(1_048_576, 1000)
        (262144, 65536)
    """
    return max(gate_budget_bytes // channel_count, WINDOW_BYTES_MIN)


class _Account:
    # Bytes that were sent and not granted back, as one end knows them.  The receiver's number is
    # never above the sender's: a frame counts when it arrives, and a grant when it leaves.  So both
    # ends can decide by the same rule, and a sender that keeps it is never refused.

    __slots__ = ("_frame_bytes_max", "_grant_bytes_min", "_history", "_outstanding_bytes", "_window_bytes")

    def __init__(self, window_bytes: int, frame_bytes_max: int) -> None:
        assert window_bytes > 0
        self._frame_bytes_max = frame_bytes_max
        self._window_bytes = window_bytes
        self._grant_bytes_min = max(window_bytes // _GRANT_WINDOW_PARTS, 1)
        self._outstanding_bytes = 0
        self._history: deque[tuple[str, int]] = deque(maxlen=HISTORY_MAX)

    @property
    def outstanding_bytes(self) -> int:
        """Sent and not granted back, as far as this end knows."""
        return self._outstanding_bytes

    def _covers(self, size_bytes: int) -> bool:
        if size_bytes > self._frame_bytes_max:
            return False
        full_credit = self._outstanding_bytes < self._grant_bytes_min
        return full_credit or self._outstanding_bytes + size_bytes <= self._window_bytes

    def _error(self, message: str, size_bytes: int) -> ProtocolError:
        return ProtocolError(
            message,
            size_bytes=size_bytes,
            outstanding_bytes=self._outstanding_bytes,
            window_bytes=self._window_bytes,
            frame_bytes_max=self._frame_bytes_max,
            history=list(self._history),
        )


class SendCredit(_Account):
    """What the sending end of a channel may send.

    Args:
        window_bytes: credit of the channel, at least 1; the same at both ends.
        frame_bytes_max: largest frame that can be sent at all; the same at both ends.
    """

    __slots__ = ()

    @property
    def part_bytes_max(self) -> int:
        """What batches are cut to: half a window, so that one part travels while one is processed."""
        return max(self._window_bytes // 2, 1)

    def too_large(self, size_bytes: int) -> FrameTooLarge | None:
        """Return why a frame of this size can never be sent, or None when it can."""
        return (
            FrameTooLarge(size_bytes, self._frame_bytes_max) if size_bytes > self._frame_bytes_max else None
        )

    def can_send(self, size_bytes: int) -> bool:
        """Return whether there is credit for a frame of this size now."""
        return self._covers(size_bytes)

    def sent(self, size_bytes: int) -> None:
        """Take the credit for a frame that leaves.

        Raises:
            ProtocolError: there was no credit for it.
        """
        if not self._covers(size_bytes):
            raise self._error("frame was sent without credit", size_bytes)
        self._history.append(("sent", size_bytes))
        self._outstanding_bytes += size_bytes

    def granted(self, size_bytes: int) -> None:
        """Take back credit that the receiver granted.

        Raises:
            ProtocolError: that much was not outstanding.
        """
        if not 0 < size_bytes <= self._outstanding_bytes:
            raise self._error("peer granted credit that was not outstanding", size_bytes)
        self._history.append(("granted", size_bytes))
        self._outstanding_bytes -= size_bytes

    def validate(self) -> None:
        """Assert every invariant."""
        assert self._outstanding_bytes >= 0
        assert len(self._history) <= HISTORY_MAX


class ReceiveCredit(_Account):
    """What the receiving end of a channel holds, and when it grants credit back.

    Args:
        window_bytes: credit of the channel, at least 1; the same at both ends.
        frame_bytes_max: largest frame that can be sent at all; the same at both ends.
    """

    __slots__ = ("_held_bytes",)

    def __init__(self, window_bytes: int, frame_bytes_max: int) -> None:
        super().__init__(window_bytes, frame_bytes_max)
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Received and not consumed."""
        return self._held_bytes

    def received(self, size_bytes: int) -> None:
        """Account for a frame that arrived.

        Raises:
            ProtocolError: the sender had no credit for it.
        """
        if not self._covers(size_bytes):
            raise self._error("peer sent a frame without credit", size_bytes)
        self._history.append(("received", size_bytes))
        self._outstanding_bytes += size_bytes
        self._held_bytes += size_bytes

    def consumed(self, size_bytes: int) -> int:
        """Return the bytes to grant to the sender now that these are consumed; 0 for none yet.

        Raises:
            ProtocolError: less than that was received.
        """
        if size_bytes > self._held_bytes:
            raise self._error("more was consumed than was received", size_bytes)
        self._history.append(("consumed", size_bytes))
        self._held_bytes -= size_bytes
        grant_bytes = self._outstanding_bytes - self._held_bytes
        if grant_bytes < self._grant_bytes_min:
            return 0
        self._outstanding_bytes -= grant_bytes
        return grant_bytes

    def validate(self) -> None:
        """Assert every invariant."""
        assert 0 <= self._held_bytes <= self._outstanding_bytes
        assert self._outstanding_bytes - self._held_bytes < self._grant_bytes_min
        assert len(self._history) <= HISTORY_MAX
