"""Records in flight that belong to a snapshot of one subtask: what its barriers have overtaken.

A subtask stores what its barrier has overtaken in its own outputs, and what the barriers of others
have overtaken in its input.  Batches are kept by reference, as they are: they do not change.  With
`pipeline.copy-records` user code may change what it gets, so then they are copied.  Frames are decoded
where the snapshot is written, in a thread, by a decoder that knows what the channel's own knew.

Event time is not stored.  At a restore all of this comes before the first watermark of the new attempt, so
that no record of it is late that was not; and sources say their end again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from raystream.handles import ChannelStage
from raystream.ids import CheckpointId, OperatorUid
from raystream.operators.emission import Pass, emitting
from raystream.records.batch import RowBatch
from raystream.records.codec import BatchDecoder

TakenInput = tuple[int, int, RowBatch]
"""Position of an operator in its chain, number of the input, and a batch for it."""

IN_FLIGHT_BYTES_MAX = 256 << 20
"""Largest size of it in one snapshot of a subtask; a checkpoint that would need more is declined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A channel whose records may be overtaken, as they are stored and dealt out again."""

    owner: OperatorUid
    """The operator whose subtask stores them."""
    target: OperatorUid
    input: int
    sender: int
    receiver: int
    keyed: bool


class CapturedChannel:
    """What a snapshot has of one channel at one stage."""

    def __init__(self, route: Route, stage: ChannelStage, copied: Pass | None, decoder: BatchDecoder) -> None:
        self.route = route
        self.stage = stage
        self.size_bytes = 0
        self._copied = copied
        self._decoder = decoder
        self._batches: list[RowBatch | memoryview] = []

    def add(self, batch: RowBatch | memoryview, size_bytes: int) -> None:
        """Append a batch, decoded or not."""
        if self._copied is not None and isinstance(batch, RowBatch):
            emitting(self._batches.append, self._copied)(batch)
        else:
            self._batches.append(batch)
        self.size_bytes += size_bytes

    def __bool__(self) -> bool:
        return bool(self._batches)

    def batches(self) -> list[RowBatch]:
        """Return everything, decoded; called once."""
        return [b if isinstance(b, RowBatch) else self._decoder.decode(b) for b in self._batches]


@dataclass(frozen=True, slots=True)
class CapturedInput:
    """What one operator stores of the channels to one input, at one stage: a blob."""

    target: OperatorUid
    input: int
    stage: ChannelStage
    keyed: bool
    channels: tuple[CapturedChannel, ...]


class InFlight:
    """Collects the records in flight of one snapshot; *open* until it has them all.

    Attributes:
        copied: makes a copy of a record, where user code may change those that it gets.
        when_closed: is called when the last of it is there.
    """

    def __init__(self, checkpoint_id: CheckpointId, copied: Pass | None) -> None:
        self.checkpoint_id = checkpoint_id
        self.copied = copied
        self.when_closed: Callable[[], None] | None = None
        self._channels: list[CapturedChannel] = []
        self._awaited: set[ChannelStage] = set()

    @property
    def open(self) -> bool:
        """True while something may still be added."""
        return bool(self._awaited)

    @property
    def size_bytes(self) -> int:
        """Size of what it has, about."""
        return sum(channel.size_bytes for channel in self._channels)

    def expect(self, stage: ChannelStage) -> None:
        """Stay open until `have_all` of a stage."""
        self._awaited.add(stage)

    def have_all(self, stage: ChannelStage) -> None:
        """Take note that nothing more of a stage will be added."""
        if stage in self._awaited:
            self._awaited.remove(stage)
            if not self._awaited and self.when_closed is not None:
                self.when_closed()

    def channel(
        self,
        route: Route,
        stage: ChannelStage,
        batches: Iterable[tuple[RowBatch | memoryview, int]],
        decoder: BatchDecoder | None = None,
    ) -> CapturedChannel:
        """Add batches, with their sizes in bytes, of a channel; return where more can be added."""
        captured = CapturedChannel(route, stage, self.copied, decoder or BatchDecoder())
        for batch, size_bytes in batches:
            captured.add(batch, size_bytes)
        self._channels.append(captured)
        return captured

    def taken(self, left: Iterable[TakenInput], uids: Sequence[OperatorUid], subtask: int) -> None:
        """Add what a subtask has taken, or restored, and not processed yet.

        Args:
            left: in order.
            uids: of the operators of its chain.
            subtask: its index.
        """
        channels: dict[tuple[int, int, bool], CapturedChannel] = {}
        for position, input_number, batch in left:
            keyed, uid = batch.keys is not None, uids[position]
            key = position, input_number, keyed
            if key not in channels:
                route = Route(
                    owner=uid, target=uid, input=input_number, sender=subtask, receiver=subtask, keyed=keyed
                )
                channels[key] = self.channel(route, ChannelStage.TAKEN, ())
            channels[key].add(batch, 0)  # It has been here before: no need to bound it anew.

    def stored_by(self, owner: OperatorUid) -> tuple[CapturedInput, ...]:
        """Return what one operator stores, without what is empty."""
        inputs: dict[tuple[OperatorUid, int, ChannelStage, bool], list[CapturedChannel]] = {}
        for channel in self._channels:
            route = channel.route
            if channel and route.owner == owner:
                key = route.target, route.input, channel.stage, route.keyed
                inputs.setdefault(key, []).append(channel)
        return tuple(CapturedInput(*key, tuple(channels)) for key, channels in inputs.items())
