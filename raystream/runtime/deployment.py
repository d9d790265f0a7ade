"""From a plan to the running pieces of one slot: subtasks, gates, channels and edge writers.

Knows the plan and builds objects; nothing here runs after the attempt has started.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from raystream.config.options import JobConfig
from raystream.errors import ConnectionLostError
from raystream.graph.physical import Channel, Edge, Partitioning, PhysicalPlan, Vertex
from raystream.ids import OperatorUid, SlotId
from raystream.keygroup import routing_table
from raystream.operators.emission import copy_of, emitting
from raystream.operators.operator import (
    Emit,
    EmitEventTime,
    Operator,
    OperatorContext,
    Sent,
    SentEventTime,
    drop,
)
from raystream.protocol.credit import window_bytes_of
from raystream.records.batch import RowBatch
from raystream.records.elements import EventTime
from raystream.runtime.channel import LOCAL_BYTES_MAX, LocalOutput, OutputChannel, RemoteOutput
from raystream.runtime.frame import FRAME_BYTES_MAX, FrameKind
from raystream.runtime.gate import GATE_BUDGET_BYTES, Gate
from raystream.runtime.in_flight import Route
from raystream.runtime.input_channel import InputChannel
from raystream.runtime.links import Links
from raystream.runtime.output import (
    BroadcastWriter,
    CustomWriter,
    EdgeWriter,
    ForwardWriter,
    HashWriter,
    Outputs,
    RebalanceWriter,
    ShuffleWriter,
    broadcast,
)

_CREDIT = struct.Struct("<Q")


@dataclass(slots=True)
class Wiring:
    """All channels of one slot, by id.

    Attributes:
        inputs: channels that end in this slot.
        remote_outputs: channels that leave this slot.
        peers: slots at the other end of some channel.
    """

    inputs: dict[int, InputChannel] = field(default_factory=dict)
    remote_outputs: dict[int, RemoteOutput] = field(default_factory=dict)
    peers: set[SlotId] = field(default_factory=set)

    def frame_received(self, peer: SlotId, channel: int, kind: FrameKind, payload: memoryview) -> None:
        """Give a frame to the channel it is for.

        Raises:
            ConnectionLostError: no such channel ends here.
        """
        if kind is FrameKind.CREDIT:
            output = self.remote_outputs.get(channel)
            if output is not None:
                output.granted(_CREDIT.unpack(payload)[0])
                return
        elif channel in self.inputs:
            self.inputs[channel].frame_received(kind, payload)
            return
        raise ConnectionLostError("frame for a channel that does not end here", peer=peer, channel=channel)


class SlotBuilder:
    """Builds the gates and outputs of every subtask in one slot."""

    def __init__(self, plan: PhysicalPlan, slot: SlotId, links: Links, config: JobConfig) -> None:
        self._plan = plan
        self._slot = slot
        self._links = links
        self._copy_records = config.pipeline.copy_records
        self._unaligned = config.checkpointing.unaligned
        self._local_outputs: dict[int, LocalOutput] = {}
        self.wiring = Wiring()

    def subtasks(self) -> list[tuple[Vertex, int]]:
        """Return what runs in this slot, sources first."""
        return [(v, i) for v, i in self._plan.subtasks() if v.slot(i) == self._slot]

    def gate(self, vertex: Vertex, subtask: int) -> Gate:
        """Return the gate of a subtask, its channels numbered by edge, then by sender."""
        gate = Gate()
        incoming = self._plan.incoming(vertex, subtask)
        window = window_bytes_of(GATE_BUDGET_BYTES, max(len(incoming), 1))
        for channel in incoming:
            largest = LOCAL_BYTES_MAX if channel.sender_slot == self._slot else FRAME_BYTES_MAX
            self.wiring.inputs[channel.id] = gate.add_channel(
                window,
                largest,
                self._grant(channel),
                input_number=channel.edge.input,
                route=self._route(channel, vertex.operators[0].uid),
            )
        return gate

    def _route(self, channel: Channel, owner: OperatorUid) -> Route | None:
        """Return how records in flight on a channel are stored; None where no barrier overtakes any."""
        target = self._plan.vertices[channel.edge.target]
        if not self._unaligned or not self._plan.overtaken(target):
            return None
        return Route(
            owner=owner,
            target=target.operators[0].uid,
            input=channel.edge.input,
            sender=channel.sender,
            receiver=channel.receiver,
            keyed=channel.edge.partitioning is Partitioning.HASH,
        )

    def _grant(self, channel: Channel) -> Callable[[int], None]:
        if channel.sender_slot == self._slot:
            outputs = self._local_outputs
            return lambda size: outputs[channel.id].granted(size)  # noqa: PLW0108 - made later
        self.wiring.peers.add(channel.sender_slot)
        return lambda size: self._links.send(
            channel.sender_slot, channel.id, FrameKind.CREDIT, _CREDIT.pack(size)
        )

    def edge_writer(self, edge: Edge, subtask: int, context: OperatorContext) -> EdgeWriter:
        """Return the sending side of an edge in one of its subtasks."""
        target = self._plan.vertices[edge.target]
        channels = [self._output_channel(channel, context) for channel in self._plan.outgoing(edge, subtask)]
        match edge.partitioning:
            case Partitioning.FORWARD | Partitioning.GLOBAL:
                return ForwardWriter(channels)
            case Partitioning.REBALANCE | Partitioning.RESCALE:
                return RebalanceWriter(channels, first=subtask)
            case Partitioning.SHUFFLE:
                seed = f"{context.uid}/{edge.position}/{subtask}/{context.attempt}"
                return ShuffleWriter(channels, random.Random(seed))
            case Partitioning.BROADCAST:
                return BroadcastWriter(channels)
            case Partitioning.CUSTOM:
                assert edge.partitioner is not None, "custom edge without a partitioner"
                return CustomWriter(channels, edge.partitioner, context)
            case Partitioning.HASH:
                assert edge.key_selector is not None, "hash edge without a key selector"
                return HashWriter(
                    channels,
                    key_selector=edge.key_selector,
                    routing=routing_table(target.max_parallelism, target.parallelism),
                    context=context,
                )

    def _output_channel(self, channel: Channel, context: OperatorContext) -> OutputChannel:
        target = self._plan.vertices[channel.edge.target]
        route = self._route(channel, OperatorUid(context.uid))
        window = window_bytes_of(GATE_BUDGET_BYTES, self._plan.incoming_count(target, channel.receiver))
        if channel.receiver_slot == self._slot:
            local = self._local_outputs[channel.id] = LocalOutput(window, route)
            return local
        self.wiring.peers.add(channel.receiver_slot)
        remote = RemoteOutput(
            window,
            lambda kind, payload: self._links.send(channel.receiver_slot, channel.id, kind, payload),
            context.name,
            route,
        )
        self.wiring.remote_outputs[channel.id] = remote
        return remote

    def attach_local_channels(self) -> None:
        """Join both ends of the channels inside this slot; called when all gates and outputs exist."""
        for channel_id, output in self._local_outputs.items():
            output.attach(self.wiring.inputs[channel_id])

    def wire_chain(
        self,
        vertex: Vertex,
        subtask: int,
        operators: Sequence[Operator],
        contexts: Sequence[OperatorContext],
    ) -> Outputs:
        """Connect the operators of a chain with each other and with the edges that leave it."""
        writers: list[EdgeWriter] = []
        for position, (node, operator) in enumerate(zip(vertex.operators, operators, strict=True)):
            targets: dict[str | None, list[Emit]] = {}
            followers: list[EmitEventTime] = []
            for tag, chained in node.chained:
                targets.setdefault(tag, []).append(operators[chained].process)
                followers.append(operators[chained].process_event_time)
            for edge in self._plan.edges:
                if edge.source == vertex.id and edge.source_operator == position:
                    writer = self.edge_writer(edge, subtask, contexts[position])
                    writers.append(writer)
                    targets.setdefault(edge.tag, []).append(writer.write)
                    followers.append(partial(broadcast, writer.channels))
            sent = {tag: Sent(self._emit_to(emits)) for tag, emits in targets.items()}
            main = sent.setdefault(None, Sent(drop))
            side = {tag: one.emit for tag, one in sent.items() if tag is not None}
            operator.sent, operator.sent_event_time = sent, SentEventTime(_event_time_to(followers))
            operator.setup(contexts[position], main.emit, side, operator.sent_event_time.emit)
        return Outputs(writers)

    def _emit_to(self, targets: list[Emit]) -> Emit:
        if self._copy_records:  # The operator has made one copy already: the last receiver gets that.
            targets = [*(emitting(target, copy_of) for target in targets[:-1]), targets[-1]]
        if len(targets) == 1:
            return targets[0]

        def emit_to_all(batch: RowBatch) -> None:
            for target in targets:
                target(batch)

        return emit_to_all


def _event_time_to(followers: list[EmitEventTime]) -> EmitEventTime:
    if len(followers) == 1:
        return followers[0]

    def emit_to_all(element: EventTime) -> None:
        for follower in followers:
            follower(element)

    return emit_to_all


def make_operators(vertex: Vertex) -> list[Operator]:
    """Return fresh operators of a chain, head first."""
    made: list[Any] = [node.factory() for node in vertex.operators]
    return made
