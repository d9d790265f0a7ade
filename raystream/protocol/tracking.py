"""Barriers of one subtask in at-least-once mode: counted, never waited for; without any I/O.

Several checkpoints may be under way.  Each has its snapshot taken when its barrier has come through
every channel; until then records go on from all of them.  So a snapshot also has the effects of
some records that stand behind the barrier of their channel, and a restore processes those again.

It gives the commands of `raystream.protocol.alignment`, whose shell executes them, but for those that
block.  As there, every channel stays until the end of the attempt, the ids of the barriers on one
channel increase, and a checkpoint that cannot complete here is declined if nobody else may have said
so.  As soon as a newer barrier has come through a channel, older ones cannot come through it any more.

Source: Flink `CheckpointBarrierTracker`.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from raystream.errors import ProtocolError
from raystream.protocol.alignment import (
    GIVEN_UP_MAX,
    HISTORY_MAX,
    Command,
    DeclineCheckpoint,
    ForwardBarrier,
    ForwardCancel,
    ReadInputs,
    TakeSnapshot,
)

PENDING_MAX = 64
"""Checkpoints that are counted at the same time; the oldest makes room for one more."""


@dataclass(slots=True)
class _Pending:
    first_ms: float
    arrived: set[int] = field(default_factory=set)


class BarrierTracker:
    """Decides when a subtask takes its snapshot, given the barriers on its input channels.

    Args:
        channel_count: input channels of the subtask, at least 1.
    """

    def __init__(self, channel_count: int) -> None:
        assert channel_count > 0, "a subtask without inputs has nothing to count"
        self._last_ids = [0] * channel_count  # Newest barrier of each channel; 0 before the first.
        self._pending: dict[int, _Pending] = {}
        self._taken_id = 0  # Newest checkpoint whose snapshot was taken; older ones are settled.
        self._given_up: deque[int] = deque(maxlen=GIVEN_UP_MAX)
        self._history: deque[tuple[str, list[Command]]] = deque(maxlen=HISTORY_MAX)

    @property
    def checkpoint_in_progress(self) -> int | None:
        """The newest checkpoint of which some barriers have come."""
        return max(self._pending, default=None)

    @property
    def under_way(self) -> Collection[int]:
        """The checkpoints that a command to come may be about, but for their abort."""
        return self._pending.keys()

    def barrier_received(self, channel: int, checkpoint_id: int, now_ms: float) -> list[Command]:
        """Handle a barrier.

        Args:
            channel: where it arrived, 0-based.
            checkpoint_id: its checkpoint.
            now_ms: monotonic time of the arrival.

        Raises:
            ProtocolError: the barrier is not newer than the channel's last one.
        """
        event = f"barrier_received(channel={channel}, checkpoint_id={checkpoint_id}, now_ms={now_ms})"
        if checkpoint_id <= self._last_ids[channel]:
            raise ProtocolError(
                "barrier is not newer than the one before it on its channel",
                event=event,
                history=list(self._history),
            )
        self._last_ids[channel] = checkpoint_id
        was_reading_all = bool(self._pending)
        commands = self._give_up_missing(channel, checkpoint_id)
        if self._settled(checkpoint_id) or self._skipped(checkpoint_id):
            commands += self._decline_once(checkpoint_id)
        else:
            commands += self._count(channel, checkpoint_id, now_ms)
        return self._recorded(event, commands, was_reading_all=was_reading_all)

    def cancel_received(self, channel: int, checkpoint_id: int) -> list[Command]:
        """Handle a cancel barrier: the sender takes no part in the checkpoint and has declined it."""
        event = f"cancel_received(channel={channel}, checkpoint_id={checkpoint_id})"
        was_reading_all = bool(self._pending)
        self._last_ids[channel] = max(self._last_ids[channel], checkpoint_id)
        commands = self._give_up_missing(channel, checkpoint_id)
        if not self._settled(checkpoint_id):
            self._give_up(checkpoint_id)
            commands.append(ForwardCancel(checkpoint_id))
        return self._recorded(event, commands, was_reading_all=was_reading_all)

    def barrier_aborted(self, checkpoint_id: int) -> list[Command]:
        """Handle word from the coordinator that the checkpoint will not complete."""
        was_reading_all = bool(self._pending)
        self._give_up(checkpoint_id)
        return self._recorded(
            f"barrier_aborted(checkpoint_id={checkpoint_id})", [], was_reading_all=was_reading_all
        )

    def validate(self) -> None:
        """Assert every invariant."""
        channels = set(range(len(self._last_ids)))
        for checkpoint_id, pending in self._pending.items():
            assert checkpoint_id > self._taken_id
            assert pending.arrived < channels, "all have arrived, but nothing was done"
            assert pending.arrived, "counted without a barrier"
            missing = channels - pending.arrived
            assert all(self._last_ids[channel] < checkpoint_id for channel in missing)
        assert len(self._pending) <= PENDING_MAX
        assert len(self._given_up) <= GIVEN_UP_MAX
        assert len(self._history) <= HISTORY_MAX

    def _count(self, channel: int, checkpoint_id: int, now_ms: float) -> list[Command]:
        commands: list[Command] = []
        if checkpoint_id not in self._pending:
            self._pending[checkpoint_id] = _Pending(now_ms)
            if len(self._pending) > PENDING_MAX:
                commands = self._decline_once(min(self._pending))
        pending = self._pending.get(checkpoint_id)
        if pending is None:
            return commands  # It was itself the oldest.
        pending.arrived.add(channel)
        if len(pending.arrived) == len(self._last_ids):
            del self._pending[checkpoint_id]
            self._taken_id = checkpoint_id
            alignment_ms = now_ms - pending.first_ms
            commands += [ForwardBarrier(checkpoint_id), TakeSnapshot(checkpoint_id, alignment_ms)]
        return commands

    def _give_up_missing(self, channel: int, checkpoint_id: int) -> list[Command]:
        """Decline the older checkpoints whose barrier has not come through a channel, and now cannot."""
        missing = [
            n for n, pending in self._pending.items() if n < checkpoint_id and channel not in pending.arrived
        ]
        return [command for n in sorted(missing) for command in self._decline_once(n)]

    def _skipped(self, checkpoint_id: int) -> bool:
        """Return whether a channel has gone on to a newer checkpoint before the first barrier of this one."""
        return checkpoint_id not in self._pending and max(self._last_ids) > checkpoint_id

    def _settled(self, checkpoint_id: int) -> bool:
        return checkpoint_id <= self._taken_id or checkpoint_id in self._given_up

    def _give_up(self, checkpoint_id: int) -> None:
        self._pending.pop(checkpoint_id, None)
        self._given_up.append(checkpoint_id)

    def _decline_once(self, checkpoint_id: int) -> list[Command]:
        if checkpoint_id in self._given_up:
            return []
        self._give_up(checkpoint_id)
        return [DeclineCheckpoint(checkpoint_id)]

    def _recorded(self, event: str, commands: list[Command], *, was_reading_all: bool) -> list[Command]:
        if bool(self._pending) is not was_reading_all:
            commands.append(ReadInputs(all_of_them=not was_reading_all))
        self._history.append((event, commands))
        return commands
