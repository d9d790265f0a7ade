"""The physical plan: chains of operators, their subtasks and the channels between them.

Knows nothing of processes, sockets or state; `raystream.graph.chaining` makes a plan
from the user's logical graph, `raystream.runtime` executes it.

A *vertex* is a chain: a tree of operators that hand batches to each other by direct
calls.  Subtask `i` of every vertex runs in slot `i` of its slot-sharing group.  An
*edge* leaves one operator of a chain (its main output or one side output) and enters
the head of another vertex through one channel per pair of subtasks that it connects.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from raystream.graph.slot_sharing import DEFAULT, SlotSharingGroup
from raystream.ids import ChannelId, OperatorUid, SlotId, VertexId


class Partitioning(Enum):
    """How an edge chooses the receiving subtask of a record."""

    FORWARD = "forward"
    """Subtask i to subtask i; both sides have one parallelism."""
    HASH = "hash"
    """By the key group of the record's key."""
    REBALANCE = "rebalance"
    """Whole batches in turn to every receiving subtask."""
    RESCALE = "rescale"
    """Like REBALANCE, but each sender has receivers of its own, or each receiver senders of its own."""
    SHUFFLE = "shuffle"
    """Every record to a subtask chosen at random."""
    GLOBAL = "global"
    """Everything to subtask 0."""
    CUSTOM = "custom"
    """To the subtask that the user's function says."""
    BROADCAST = "broadcast"
    """Everything to every receiving subtask."""


_OVERTAKEN = frozenset({Partitioning.HASH, Partitioning.REBALANCE, Partitioning.SHUFFLE, Partitioning.GLOBAL})

Partitioner = Callable[[Any, int], int]
"""Returns the receiving subtask, 0-based, of a record, given the number of receiving subtasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorNode:
    """One operator inside a chain.

    `chained` lists, per output tag (None is the main output), the positions in
    `Vertex.operators` of the operators that it hands its batches to directly.
    """

    uid: OperatorUid
    uid_generated: bool
    name: str
    factory: Callable[[], Any]
    """Makes the `raystream.operators.operator.Operator`; called once per subtask."""
    stateful: bool
    """True for operators that may register keyed or operator state."""
    transactional: bool = False
    """True for a sink whose output becomes visible by a commit, or that does not say how."""
    parallelism_given: bool = False
    """True when the user gave the operator its parallelism, which a rescale of the job leaves alone."""
    chained: tuple[tuple[str | None, int], ...] = ()
    source: Any = None
    """The `Source` when this is a source operator, else None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A connection between an operator of one vertex and the head of another."""

    position: int
    """Index in `PhysicalPlan.edges`."""
    source: VertexId
    source_operator: int
    """Position of the sending operator in its vertex."""
    tag: str | None
    """Side output tag, None for the main output."""
    target: VertexId
    partitioning: Partitioning
    key_selector: Callable[[Any], Any] | None
    """Set exactly when `partitioning` is HASH."""
    partitioner: Partitioner | None = None
    """Set exactly when `partitioning` is CUSTOM."""
    input: int = 0
    """The input of the target's head that it enters, 0-based."""
    first_channel: ChannelId
    """Channels of the edge are numbered from here: sending subtask major, receiving subtask minor
    (a FORWARD edge has one channel per subtask)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """A chain of operators; `operators[0]` is its head."""

    id: VertexId
    name: str
    parallelism: int
    max_parallelism: int
    max_parallelism_explicit: bool = True
    """False when it was derived from the parallelism, so that a restored snapshot's number replaces it."""
    slot_offset: int
    """Subtask 0 runs in this slot; also the position of the vertex's group in `PhysicalPlan.groups`."""
    slot_step: int = 1
    """Subtask i runs in slot `slot_offset + i * slot_step`; the number of slot-sharing groups."""
    operators: tuple[OperatorNode, ...]
    keyed: bool
    """True when the head is entered by HASH edges, and perhaps BROADCAST ones: it may use keyed state."""

    @property
    def source(self) -> Any:
        """The head's `Source`, or None when the vertex has inputs."""
        return self.operators[0].source

    def slot(self, subtask: int) -> SlotId:
        """Return the slot that runs this subtask."""
        return SlotId(self.slot_offset + subtask * self.slot_step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One (edge, sending subtask, receiving subtask)."""

    id: ChannelId
    edge: Edge
    sender: int
    receiver: int
    sender_slot: SlotId
    receiver_slot: SlotId


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalPlan:
    """All vertices in topological order (sources first) and all edges of a job."""

    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    groups: tuple[SlotSharingGroup, ...] = (DEFAULT,)
    """Slot-sharing groups of the vertices; `Vertex.slot_offset` is a position here."""

    @property
    def slots(self) -> tuple[SlotId, ...]:
        """Numbers of all slots, ascending; with gaps where groups differ in parallelism."""
        longest = {vertex.slot_offset: 0 for vertex in self.vertices}
        for vertex in self.vertices:
            longest[vertex.slot_offset] = max(longest[vertex.slot_offset], vertex.parallelism)
        step = len(self.groups)
        return tuple(
            sorted(SlotId(group + i * step) for group, count in longest.items() for i in range(count))
        )

    @property
    def slot_count(self) -> int:
        """Number of slots."""
        return len(self.slots)

    def group(self, slot: SlotId) -> SlotSharingGroup:
        """Return the group of a slot, be it one of this plan or of one at another parallelism."""
        return self.groups[slot % len(self.groups)]

    @property
    def transactional(self) -> bool:
        """True when some sink commits: going back behind a commit brings what it published twice."""
        return any(node.transactional for vertex in self.vertices for node in vertex.operators)

    def channel(self, edge: Edge, sender: int, receiver: int) -> Channel:
        """Return the channel of an edge between two of its subtasks."""
        source, target = self.vertices[edge.source], self.vertices[edge.target]
        forward = edge.partitioning is Partitioning.FORWARD
        offset = sender if forward else sender * target.parallelism + receiver
        return Channel(
            id=ChannelId(edge.first_channel + offset),
            edge=edge,
            sender=sender,
            receiver=receiver,
            sender_slot=source.slot(sender),
            receiver_slot=target.slot(receiver),
        )

    def outgoing(self, edge: Edge, sender: int) -> list[Channel]:
        """Return the channels of an edge that leave one subtask, by receiver."""
        return [self.channel(edge, sender, receiver) for receiver in self._receivers(edge, sender)]

    def incoming(self, vertex: Vertex, receiver: int) -> list[Channel]:
        """Return all channels that enter one subtask, by edge, then by sender."""
        return [
            self.channel(edge, sender, receiver)
            for edge in self.edges
            if edge.target == vertex.id
            for sender in self._senders(edge, receiver)
        ]

    def incoming_count(self, vertex: Vertex, receiver: int) -> int:
        """Return how many channels enter one subtask."""
        return sum(len(self._senders(edge, receiver)) for edge in self.edges if edge.target == vertex.id)

    def _receivers(self, edge: Edge, sender: int) -> range:
        senders, receivers = self._parallelism(edge)
        return _peers(edge.partitioning, sender, senders, receivers)

    def _senders(self, edge: Edge, receiver: int) -> range:
        senders, receivers = self._parallelism(edge)
        return _peers(edge.partitioning, receiver, receivers, senders)

    def _parallelism(self, edge: Edge) -> tuple[int, int]:
        return self.vertices[edge.source].parallelism, self.vertices[edge.target].parallelism

    def overtaken(self, vertex: Vertex) -> bool:
        """Return whether unaligned barriers may overtake records on the way into a vertex.

        They may where every record in flight has a place at any other parallelism: with its key, with
        subtask 0, or anywhere.  They wait for their turn in all channels of a vertex of which one edge is
        BROADCAST (its copies would no longer be the same everywhere), FORWARD or RESCALE (records
        follow the subtask that has sent them) or CUSTOM (only the user knows where they belong).
        """
        entering = [edge for edge in self.edges if edge.target == vertex.id]
        return bool(entering) and all(edge.partitioning in _OVERTAKEN for edge in entering)

    def subtasks(self) -> Iterator[tuple[Vertex, int]]:
        """Yield every (vertex, subtask), vertices in topological order."""
        for vertex in self.vertices:
            for subtask in range(vertex.parallelism):
                yield vertex, subtask


def _peers(partitioning: Partitioning, subtask: int, own: int, other: int) -> range:
    """Return the subtasks that one subtask is connected with by an edge; the same from both ends.

    Args:
        partitioning: of the edge.
        subtask: of the vertex at this end.
        own: parallelism at this end.
        other: parallelism at the other end.
    """
    match partitioning:
        case Partitioning.FORWARD:
            return range(subtask, subtask + 1)
        case Partitioning.RESCALE if own < other:
            # Subtask j of the other end belongs to subtask j * own // other of this one.
            return range(-(-subtask * other // own), -(-(subtask + 1) * other // own))
        case Partitioning.RESCALE:
            peer = subtask * other // own
            return range(peer, peer + 1)
        case _:
            return range(other)


def chain_name(operators: Sequence[OperatorNode], position: int) -> str:
    """Return `a -> b -> c` for a line of operators and `a -> (b, c -> d)` for a tree."""
    node = operators[position]
    branches = [chain_name(operators, child) for _, child in node.chained]
    match branches:
        case []:
            return node.name
        case [only]:
            return f"{node.name} -> {only}"
        case _:
            return f"{node.name} -> ({', '.join(branches)})"
