"""Barriers of one subtask in exactly-once mode, aligned or not: the state machine, without any I/O.

         barrier on the first channel            barrier on the last channel
    IDLE ----------------------------> ALIGNING ----------------------------> IDLE
      |  ^                              |  |  ^                                ^
      |  | cancel or abort of the same  |  |  |  newer barrier: decline,        |
      |  +-- or a newer checkpoint -----+  +--+  start again                   |
      |                                 |                                      |
      |   a barrier overtakes           | too old, or a barrier overtakes      |
      +-----------> CAPTURING <---------+                                      |
                        +-------------------- barrier on the last channel -----+

ALIGNING: channels whose barrier has come are blocked; the snapshot follows the last barrier.
CAPTURING: the snapshot was taken, ahead of what waits in the channels whose barrier has overtaken it
or is still missing.  That is *captured*, records that still come ahead of a missing barrier too, and
belongs to the snapshot.  Nothing is blocked.

It knows checkpoint ids and channel numbers.  It does not know what a barrier asks for, what
is in a snapshot, or what time it is: the shell keeps the barrier, feeds events and executes
the returned commands in order.  Every channel stays until the end of the attempt, because
barriers follow the end of its records; so alignment always waits for all of them.

The ids of the barriers on one channel increase.  A checkpoint is *settled* here when its
snapshot was taken or when it can no longer complete; its later barriers are ignored, and if
nobody else may have told the coordinator, it is declined.

Whether a barrier overtakes is for the shell to say, for each one anew: both kinds may meet in a
checkpoint, and the cut is right for every mixture.  An aligned barrier that others have overtaken may
follow a newer one on its channel.

Source: Chandy and Lamport, Distributed Snapshots (1985); Carbone et al., Lightweight
Asynchronous Snapshots (2015); Flink `SingleCheckpointBarrierHandler` and FLIP-76.
"""

from collections import deque
from collections.abc import Collection
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
class CaptureInput:
    """Add to the snapshot that is taken next what these channels have, and get, ahead of the barrier."""

    checkpoint_id: int
    channels: frozenset[int]


@dataclass(frozen=True, slots=True)
class FinishCapture:
    """The last barrier has come: the snapshot has all that it will have."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class DropCapture:
    """Forget what was captured: the checkpoint will not complete."""

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
    | ReadInputs | CaptureInput | FinishCapture | DropCapture
)  # fmt: skip


class BarrierAligner:
    """Decides when a subtask may snapshot, given the barriers on its input channels.

    Invariant: a channel is blocked exactly while its barrier for the checkpoint in progress
    has arrived and the snapshot was not taken.

    Args:
        channel_count: input channels of the subtask, at least 1.

    Attributes:
        overtaking: barriers may overtake records, and other barriers, on the channels.
    """

    def __init__(self, channel_count: int, *, overtaking: bool = False) -> None:
        assert channel_count > 0, "a subtask without inputs has nothing to align"
        self._last_ids = [0] * channel_count  # Newest barrier of each channel; 0 before the first.
        # The newest checkpoint is being aligned while something has arrived, and captured while something
        # is missing; else it is settled.
        self._arrived: set[int] = set()
        self._missing: set[int] = set()
        self.overtaking = overtaking
        self._newest_id = 0
        self._first_ms = 0.0
        self._given_up: deque[int] = deque(maxlen=GIVEN_UP_MAX)
        self._history: deque[tuple[str, list[Command]]] = deque(maxlen=HISTORY_MAX)

    @property
    def checkpoint_in_progress(self) -> int | None:
        """The checkpoint of which some barriers have come and others have not."""
        return self._newest_id if self._arrived or self._missing else None

    @property
    def under_way(self) -> Collection[int]:
        """The checkpoints that a command to come may be about, but for their abort."""
        return {self._newest_id} if self._arrived or self._missing else ()

    @property
    def aligning(self) -> bool:
        """True while channels are blocked."""
        return bool(self._arrived)

    def barrier_received(self, channel: int, checkpoint_id: int, now_ms: float) -> list[Command]:
        """Handle a barrier whose turn has come: all records ahead of it were processed.

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
            if not self.overtaking:
                raise self._error("barrier is not newer than the one before it on its channel", event)
            return self._recorded(event, self._decline_once(checkpoint_id))
        self._last_ids[channel] = checkpoint_id
        return self._recorded(event, self._align(channel, checkpoint_id, now_ms))

    def barrier_overtook(self, channel: int, checkpoint_id: int, now_ms: float) -> list[Command]:
        """Handle a barrier that does not wait for its turn, but goes ahead of the records before it.

        Args:
            channel: where it is, 0-based; perhaps behind a barrier that blocks the channel.
            checkpoint_id: its checkpoint.
            now_ms: monotonic time.
        """
        event = f"barrier_overtook(channel={channel}, checkpoint_id={checkpoint_id}, now_ms={now_ms})"
        assert self.overtaking, "no barrier overtakes here"
        if checkpoint_id <= self._last_ids[channel] or self._settled(checkpoint_id):
            self._last_ids[channel] = max(self._last_ids[channel], checkpoint_id)
            return self._recorded(event, self._decline_once(checkpoint_id))
        self._last_ids[channel] = checkpoint_id
        if checkpoint_id == self._newest_id and self._missing:
            return self._recorded(event, self._captured(channel))
        commands = self._begin(checkpoint_id, now_ms)
        return self._recorded(event, [*commands, *self._capture({channel}, now_ms)])

    def alignment_timed_out(self, checkpoint_id: int, now_ms: float) -> list[Command]:
        """Handle that a checkpoint has waited too long for its barriers: take it ahead of the records."""
        event = f"alignment_timed_out(checkpoint_id={checkpoint_id}, now_ms={now_ms})"
        assert self.overtaking, "no barrier overtakes here"
        if not self._arrived or checkpoint_id != self._newest_id:
            return self._recorded(event, [])
        return self._recorded(event, self._capture(set(), now_ms))

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
        assert not (self._arrived and self._missing)
        assert self._missing < set(channels), "capturing before the first barrier"
        at_newest = {c for c in channels if self._last_ids[c] == self._newest_id}
        if self._arrived:
            assert at_newest == self._arrived
            assert self._newest_id not in self._given_up
        if self._missing:
            assert at_newest == set(channels) - self._missing
            assert self._newest_id not in self._given_up
        assert len(self._given_up) <= GIVEN_UP_MAX
        assert len(self._history) <= HISTORY_MAX

    def _align(self, channel: int, checkpoint_id: int, now_ms: float) -> list[Command]:
        if self._settled(checkpoint_id):
            return self._decline_once(checkpoint_id)
        if checkpoint_id == self._newest_id and self._missing:
            return self._captured(channel)
        commands = self._begin(checkpoint_id, now_ms)
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

    def _begin(self, checkpoint_id: int, now_ms: float) -> list[Command]:
        """Begin a checkpoint with its first barrier; any later one changes nothing."""
        if checkpoint_id == self._newest_id:
            return []
        commands = self._end_declined()
        self._newest_id, self._first_ms = checkpoint_id, now_ms
        return commands

    def _capture(self, overtaken: set[int], now_ms: float) -> list[Command]:
        """Take the snapshot now; of the channels of `overtaken` the barrier is there, behind records."""
        blocked, self._arrived = frozenset(self._arrived), set()
        self._missing = set(range(len(self._last_ids))) - blocked - overtaken
        newest_id = self._newest_id
        commands: list[Command] = [
            ForwardBarrier(newest_id),
            CaptureInput(newest_id, frozenset(self._missing | overtaken)),
            TakeSnapshot(newest_id, now_ms - self._first_ms),
        ]
        commands += [ResumeChannels(blocked)] if blocked else []
        return commands if self._missing else [*commands, FinishCapture(newest_id)]

    def _captured(self, channel: int) -> list[Command]:
        """The barrier of a channel that is being captured has come."""
        self._missing.discard(channel)
        return [] if self._missing else [FinishCapture(self._newest_id)]

    def _settled(self, checkpoint_id: int) -> bool:
        if checkpoint_id == self._newest_id:
            return not self._arrived and not self._missing
        return checkpoint_id < self._newest_id

    def _give_up(self, checkpoint_id: int) -> list[Command]:
        if checkpoint_id > self._newest_id:
            commands = self._end_declined()
        else:
            commands = self._end()
        self._newest_id = checkpoint_id
        self._given_up.append(checkpoint_id)
        return commands

    def _end_declined(self) -> list[Command]:
        # What is in progress, if anything, loses to a newer checkpoint.
        if self.checkpoint_in_progress is None:
            return []
        return [*self._decline_once(self._newest_id), *self._end()]

    def _end(self) -> list[Command]:
        """Give up what is in progress."""
        if self._missing:
            self._missing = set()
            return [DropCapture(self._newest_id)]
        return [self._resume()]

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
