"""Barrier alignment of one subtask in exactly-once mode: the state machine, without any I/O.

         barrier on the first channel            barrier on the last channel
    IDLE ----------------------------> ALIGNING ----------------------------> IDLE
      ^                                 |  |  ^
      |   cancel or abort of the same   |  |  |  newer barrier: decline, start again
      +-- or a newer checkpoint --------+  +--+

It knows checkpoint ids and channel numbers.  It does not know what a barrier asks for, what
is in a snapshot, or what time it is: the shell keeps the barrier, feeds events and executes
the returned commands in order.  Every channel stays until the end of the attempt, because
barriers follow the end of its records; so alignment always waits for all of them.

The ids of the barriers on one channel increase.  A checkpoint is *settled* here when its
snapshot was taken or when it can no longer complete; its later barriers are ignored, and if
nobody else may have told the coordinator, it is declined.

Source: Chandy and Lamport, Distributed Snapshots (1985); Carbone et al., Lightweight
Asynchronous Snapshots (2015); Flink `SingleCheckpointBarrierHandler`.
"""

from collections import deque
from dataclasses import dataclass

from raystream.errors import ProtocolError

HISTORY_MAX = 32
"""How many of the last events an error shows."""

GIVEN_UP_MAX = 64
"""How many checkpoints that did not complete are remembered; forgetting one costs a needless decline."""


@dataclass(frozen=True, slots=True)
class BlockChannel:
    """Read nothing more from the channel until it is resumed."""

    channel: int


@dataclass(frozen=True, slots=True)
class ResumeChannels:
    """Read from these channels again."""

    channels: frozenset[int]


@dataclass(frozen=True, slots=True)
class ForwardBarrier:
    """Run the pre-barrier hook, then send the barrier to every output."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Do the synchronous part of the snapshot."""

    checkpoint_id: int
    alignment_ms: float
    """From the first barrier to the last one."""


@dataclass(frozen=True, slots=True)
class DeclineCheckpoint:
    """Tell the coordinator that this subtask takes no part in the checkpoint."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class ForwardCancel:
    """Send the cancel barrier to every output."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class ReadInputs:
    """Read all inputs, also those that the operator has not selected; or the selected ones again.

    Only for barriers that are counted: where channels are blocked, the gate does so by itself.
    """

    all_of_them: bool


Command = (
    BlockChannel | ResumeChannels | ForwardBarrier | TakeSnapshot | DeclineCheckpoint | ForwardCancel
    | ReadInputs
)  # fmt: skip


class BarrierAligner:
    """Decides when a subtask may snapshot, given the barriers on its input channels.

    Invariant: a channel is blocked exactly while its barrier for the checkpoint in progress
    has arrived and that checkpoint is not settled.

    Args:
        channel_count: input channels of the subtask, at least 1.
    """

    def __init__(self, channel_count: int) -> None:
        assert channel_count > 0, "a subtask without inputs has nothing to align"
        self._last_ids = [0] * channel_count  # Newest barrier of each channel; 0 before the first.
        self._arrived: set[int] = set()  # Not empty: the newest checkpoint is in progress; empty: settled.
        self._newest_id = 0
        self._first_ms = 0.0
        self._given_up: deque[int] = deque(maxlen=GIVEN_UP_MAX)
        self._history: deque[tuple[str, list[Command]]] = deque(maxlen=HISTORY_MAX)

    @property
    def checkpoint_in_progress(self) -> int | None:
        """The checkpoint that is being aligned."""
        return self._newest_id if self._arrived else None

    def barrier_received(self, channel: int, checkpoint_id: int, now_ms: float) -> list[Command]:
        """Handle a barrier.

        Args:
            channel: where it arrived, 0-based.
            checkpoint_id: its checkpoint.
            now_ms: monotonic time of the arrival.

        Raises:
            ProtocolError: the channel is blocked, so nothing may be read from it; or the barrier is
                not newer than the channel's last one.
        """
        event = f"barrier_received(channel={channel}, checkpoint_id={checkpoint_id}, now_ms={now_ms})"
        self._check_not_blocked(channel, event)
        if checkpoint_id <= self._last_ids[channel]:
            raise self._error("barrier is not newer than the one before it on its channel", event)
        self._last_ids[channel] = checkpoint_id
        return self._recorded(event, self._align(channel, checkpoint_id, now_ms))

    def cancel_received(self, channel: int, checkpoint_id: int) -> list[Command]:
        """Handle a cancel barrier: the sender takes no part in the checkpoint and has declined it.

        Raises:
            ProtocolError: the channel is blocked, so nothing may be read from it.
        """
        event = f"cancel_received(channel={channel}, checkpoint_id={checkpoint_id})"
        self._check_not_blocked(channel, event)
        if self._settled(checkpoint_id):
            return self._recorded(event, [])
        return self._recorded(event, [ForwardCancel(checkpoint_id), *self._give_up(checkpoint_id)])

    def barrier_aborted(self, checkpoint_id: int) -> list[Command]:
        """Handle word from the coordinator that the checkpoint will not complete.

        All barriers up to it are ignored from now on, so that an older checkpoint that is in
        progress, or arrives later, cannot complete here either and is declined.
        """
        event = f"barrier_aborted(checkpoint_id={checkpoint_id})"
        if self._settled(checkpoint_id):
            self._given_up.append(checkpoint_id)
            return self._recorded(event, [])
        return self._recorded(event, self._give_up(checkpoint_id))

    def validate(self) -> None:
        """Assert every invariant."""
        channels = range(len(self._last_ids))
        assert self._arrived < set(channels), "all have arrived, but nothing was done"
        assert all(last_id <= self._newest_id for last_id in self._last_ids)
        if self._arrived:
            at_newest = {c for c in channels if self._last_ids[c] == self._newest_id}
            assert at_newest == self._arrived
            assert self._newest_id not in self._given_up
        assert len(self._given_up) <= GIVEN_UP_MAX
        assert len(self._history) <= HISTORY_MAX

    def _align(self, channel: int, checkpoint_id: int, now_ms: float) -> list[Command]:
        if self._settled(checkpoint_id):
            return self._decline_once(checkpoint_id)
        commands: list[Command] = []
        if checkpoint_id > self._newest_id:
            commands = self._resume_declined()
            self._newest_id, self._first_ms = checkpoint_id, now_ms
        self._arrived.add(channel)
        commands.append(BlockChannel(channel))
        if len(self._arrived) == len(self._last_ids):
            # The barrier leaves before the snapshot, so that downstream subtasks align while
            # this one copies its state.
            alignment_ms = now_ms - self._first_ms
            commands += [
                ForwardBarrier(checkpoint_id),
                TakeSnapshot(checkpoint_id, alignment_ms),
                self._resume(),
            ]
        return commands

    def _settled(self, checkpoint_id: int) -> bool:
        if checkpoint_id == self._newest_id:
            return not self._arrived
        return checkpoint_id < self._newest_id

    def _give_up(self, checkpoint_id: int) -> list[Command]:
        if checkpoint_id > self._newest_id:
            commands = self._resume_declined()
        else:
            commands = [self._resume()]
        self._newest_id = checkpoint_id
        self._given_up.append(checkpoint_id)
        return commands

    def _resume_declined(self) -> list[Command]:
        # What is in progress, if anything, loses to a newer checkpoint.
        if not self._arrived:
            return []
        return [*self._decline_once(self._newest_id), self._resume()]

    def _decline_once(self, checkpoint_id: int) -> list[Command]:
        if checkpoint_id in self._given_up:
            return []
        self._given_up.append(checkpoint_id)
        return [DeclineCheckpoint(checkpoint_id)]

    def _resume(self) -> ResumeChannels:
        blocked, self._arrived = frozenset(self._arrived), set()
        return ResumeChannels(blocked)

    def _check_not_blocked(self, channel: int, event: str) -> None:
        if channel in self._arrived:
            raise self._error("blocked channel was read", event)

    def _recorded(self, event: str, commands: list[Command]) -> list[Command]:
        self._history.append((event, commands))
        return commands

    def _error(self, message: str, event: str) -> ProtocolError:
        return ProtocolError(message, event=event, history=list(self._history))
