"""Channels: one sending subtask to one receiving subtask, with credit in bytes.

An `InputChannel` is a queue in the receiver's gate.  A `LocalOutput` puts batches into it
by reference; a `RemoteOutput` encodes them and sends frames.  Both follow the same rules:
a batch needs credit, which comes back when the receiver *takes* the batch; a control
element needs none but keeps its place in the order.  What has no credit waits in the
output, and a subtask whose output waits is not run.

On a channel that has a *route* a barrier may overtake batches, in the output (`send_ahead`) and in the
queue; the snapshot then has them (`raystream.runtime.in_flight`).
"""

import pickle
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import Any, Protocol, TypeVar

from raystream.errors import UserCodeError
from raystream.operators.user_code import cut_repr
from raystream.protocol.credit import SendCredit
from raystream.records.batch import RowBatch
from raystream.records.codec import BatchEncoder
from raystream.records.elements import Barrier, Control
from raystream.runtime.frame import FRAME_BYTES_MAX, FrameKind, encode_control
from raystream.runtime.in_flight import Route
from raystream.runtime.input_channel import InputChannel

E = TypeVar("E")
S = TypeVar("S")

COALESCE_RECORDS = 512
"""A remote output sends when it holds this many records, or when it is flushed."""
LOCAL_BYTES_MAX = 1 << 62
"""No batch is too large to be handed over inside a slot."""
_RECORD_OVERHEAD_BYTES = 64
_UNPICKLABLE_RECORD_BYTES = 1024


class Backlog:
    """What waits in the outputs of one subtask, so that nobody has to look at every channel.

    Attributes:
        stuck: channels in which something waits for credit.
        held: channels that have held something back since they were taken from here, each once.
    """

    __slots__ = ("held", "stuck")

    def __init__(self) -> None:
        self.stuck = 0
        self.held: list[OutputChannel] = []


class OutputChannel(Protocol):
    """The sending end of a channel."""

    backlog: Backlog
    """Where the channel tells what waits in it; its own until it is one of several outputs."""
    route: Route | None
    """Set where barriers may overtake batches."""

    def send(self, batch: RowBatch) -> None:
        """Hand over a batch; it waits here when there is no credit."""

    def send_control(self, control: Control) -> None:
        """Hand over a control element behind everything sent before."""

    def send_ahead(self, barrier: Barrier) -> list[tuple[RowBatch, int]]:
        """Hand over a barrier ahead of what waits here, or ahead of that before it when it waits itself.

        Returns:
            The batches that it has overtaken, with their sizes.
        """

    def holds(self, barrier: Barrier) -> bool:
        """Return whether a barrier waits here."""

    def flush(self) -> bool:
        """Send what was held back to make larger frames; True when there was any."""

    def granted(self, size_bytes: int) -> None:
        """Take credit from the receiver and send what waited for it."""

    def take_held(self) -> bool:
        """Do as `flush`, for a channel that was taken from the backlog."""

    @property
    def has_room(self) -> bool:
        """False while something waits for credit."""


class LocalOutput:
    """A channel inside one slot: batches go over as references."""

    def __init__(self, window_bytes: int, route: Route | None = None) -> None:
        self.backlog = Backlog()
        self.route = route
        self._credit = SendCredit(window_bytes, LOCAL_BYTES_MAX)
        self._stuck = False
        self._waiting: deque[tuple[RowBatch | Control, int]] = deque()
        self._input: InputChannel | None = None

    def attach(self, channel: InputChannel) -> None:
        """Set the receiving end."""
        self._input = channel

    def send(self, batch: RowBatch) -> None:
        self._waiting.append((batch, estimated_bytes(batch)))
        self._move()

    def send_control(self, control: Control) -> None:
        self._waiting.append((control, 0))
        self._move()

    def send_ahead(self, barrier: Barrier) -> list[tuple[RowBatch, int]]:
        assert self._input is not None, "local output is not attached"
        before = _pull(self._waiting, barrier)
        self._input.put(barrier, 0)
        self._move()
        return [(element, size) for element, size in before if isinstance(element, RowBatch)]

    def holds(self, barrier: Barrier) -> bool:
        return any(element is barrier for element, _ in self._waiting)

    def flush(self) -> bool:
        return False

    take_held = flush

    def granted(self, size_bytes: int) -> None:
        self._credit.granted(size_bytes)
        self._move()

    @property
    def has_room(self) -> bool:
        return not self._waiting

    def _move(self) -> None:
        assert self._input is not None, "local output is not attached"
        while self._waiting and (not self._waiting[0][1] or self._credit.can_send(self._waiting[0][1])):
            element, size_bytes = self._waiting.popleft()
            if size_bytes:
                self._credit.sent(size_bytes)
            self._input.put(element, size_bytes)
        if self._stuck is not bool(self._waiting):
            self._stuck = not self._stuck
            self.backlog.stuck += 1 if self._stuck else -1


class RemoteOutput:
    """A channel to another slot: batches are joined, encoded and sent as frames.

    Args:
        send_frame: queues a frame on the connection to the receiver's slot.
        describe: says which operator sends, for errors.
    """

    def __init__(
        self,
        window_bytes: int,
        send_frame: Callable[[FrameKind, bytes], None],
        describe: str,
        route: Route | None = None,
    ) -> None:
        self.backlog = Backlog()
        self.route = route
        self._credit = SendCredit(window_bytes, FRAME_BYTES_MAX)
        self._send_frame = send_frame
        self._describe = describe
        self._encoder = BatchEncoder()
        self._held: RowBatch | None = None
        self._listed = False  # In `backlog.held`.
        self._stuck = False
        # With a route, frames of batches come with the batch: it may have to be stored.
        self._waiting: deque[tuple[RowBatch | Control | None, bytes]] = deque()
        self._record_bytes = 0.0

    def send(self, batch: RowBatch) -> None:
        if self._held is not None:
            if (self._held.timestamps is None) is (batch.timestamps is None):
                batch = _joined(self._held, batch)
                self._held = None
            else:  # The records of two streams that were united.
                self.flush()
        if len(batch.values) < COALESCE_RECORDS:
            self._held = batch
            if not self._listed:
                self._listed = True
                self.backlog.held.append(self)
        else:
            self._encode(batch)

    def send_control(self, control: Control) -> None:
        self.flush()
        self._waiting.append((control, encode_control(control)))
        self._move()

    def send_ahead(self, barrier: Barrier) -> list[tuple[RowBatch, int]]:
        waited = self.holds(barrier)
        before = _pull(self._waiting, barrier)
        overtaken = [(batch, len(payload)) for batch, payload in before if isinstance(batch, RowBatch)]
        if self._held is not None and not waited:
            overtaken.append((self._held, estimated_bytes(self._held)))
        self._send_frame(FrameKind.CONTROL, encode_control(barrier))
        self._move()
        return overtaken

    def holds(self, barrier: Barrier) -> bool:
        return any(element is barrier for element, _ in self._waiting)

    def flush(self) -> bool:
        if self._held is None:
            return False
        batch, self._held = self._held, None
        self._encode(batch)
        return True

    def take_held(self) -> bool:
        self._listed = False
        return self.flush()

    def granted(self, size_bytes: int) -> None:
        self._credit.granted(size_bytes)
        self._move()

    @property
    def has_room(self) -> bool:
        return not self._waiting

    def _encode(self, batch: RowBatch) -> None:
        """Encode a batch as one frame, or as several when half a window would not hold it."""
        if not self._record_bytes:
            self._record_bytes = estimated_bytes(batch) / len(batch.values)
        records_max = max(int(self._credit.part_bytes_max / self._record_bytes), 1)
        for start in range(0, len(batch.values), records_max):
            self._enqueue(
                batch if len(batch.values) <= records_max else batch.part(start, start + records_max)
            )
        self._move()

    def _enqueue(self, part: RowBatch) -> None:
        try:
            payload = self._encoder.encode(part)
        except Exception as error:
            raise self._not_encodable(part.values, error) from error
        count = len(part.values)
        self._record_bytes = max(len(payload) / count, 1.0)
        too_large = self._credit.too_large(len(payload))
        if too_large is None:
            self._waiting.append((None if self.route is None else part, payload))
            return
        if count == 1:
            raise UserCodeError(
                "record is larger than a data frame may be",
                operator=self._describe,
                record=cut_repr(part.values[0]),
                size_bytes=too_large.size_bytes,
                size_bytes_max=too_large.frame_bytes_max,
            )
        self._encoder = BatchEncoder()  # The old one believes that the receiver has seen this payload.
        self._enqueue(part.part(0, count // 2))
        self._enqueue(part.part(count // 2, count))

    def _not_encodable(self, values: list[Any], error: Exception) -> UserCodeError:
        """Return the error with the first record that cannot leave the process."""
        record: Any = None
        for record in values:
            try:
                BatchEncoder().encode(RowBatch([record]))
            except Exception as own:
                error = own
                break
        return UserCodeError(
            "record cannot be sent to another slot",
            hint="emit records that pickle: no open files, locks, generators or classes made in a function",
            operator=self._describe,
            record=cut_repr(record),
            cause=f"{type(error).__name__}: {error}",
        )

    def _move(self) -> None:
        while self._waiting:
            element, payload = self._waiting[0]
            kind = FrameKind.BATCH if element is None or type(element) is RowBatch else FrameKind.CONTROL
            if kind is FrameKind.BATCH:
                if not self._credit.can_send(len(payload)):
                    break
                self._credit.sent(len(payload))
            self._waiting.popleft()
            self._send_frame(kind, payload)
        if self._stuck is not bool(self._waiting):
            self._stuck = not self._stuck
            self.backlog.stuck += 1 if self._stuck else -1


def _pull(waiting: deque[tuple[E, S]], barrier: Barrier) -> list[tuple[E, S]]:
    """Remove a barrier, if it is there, and return what waits before it; else all that waits."""
    before = list(takewhile(lambda entry: entry[0] is not barrier, waiting))
    if len(before) < len(waiting):
        del waiting[len(before)]
    return before


def estimated_bytes(batch: RowBatch) -> int:
    """Return about how many bytes a batch holds, judged by the record in its middle."""
    record = batch.values[len(batch.values) // 2]
    if isinstance(record, str | bytes):
        size = len(record)
    else:
        try:
            size = len(pickle.dumps(record, 5))
        except Exception:  # Records that never leave the slot need not pickle.
            size = _UNPICKLABLE_RECORD_BYTES
    return (size + _RECORD_OVERHEAD_BYTES) * len(batch.values)


def _joined(first: RowBatch, second: RowBatch) -> RowBatch:
    """Return the records of both; on one channel all or none have keys, and both or neither timestamps."""
    return RowBatch(
        first.values + second.values,
        None if first.timestamps is None else first.timestamps + (second.timestamps or []),
        None if first.keys is None else first.keys + (second.keys or []),
        None if first.groups is None else first.groups + (second.groups or []),
    )
