"""From the logical graph to the physical plan: which operators fuse, and what connects the rest.

An operator joins the chain of the operator that it reads when

    it reads exactly one output, and that without an exchange (`key_by`, `rebalance`, ...),
    both are in one slot-sharing group,
    both have the same parallelism, and the same max parallelism as far as it is given,
    it says chain="always", and the operator before it does not say chain="never".

Several consumers of one operator may all join, so a chain is a tree; side outputs chain
like main outputs.  Every other connection becomes an edge: HASH behind `key_by`, the one
that was asked for behind `rebalance`, `broadcast` and so on, REBALANCE where the parallelism
changes, else FORWARD.

Source: Flink's `StreamingJobGraphGenerator`, except that operators with different given
max parallelism never share a chain.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from raystream.errors import ConfigError, GraphError
from raystream.graph.logical import ChainHint, LogicalGraph, LogicalNode, NodeId, Upstream
from raystream.graph.physical import (
    Edge,
    OperatorNode,
    Partitioning,
    PhysicalPlan,
    Vertex,
    chain_name,
)
from raystream.graph.slot_sharing import SlotSharingGroup, inherited, specified
from raystream.graph.uid import assign_uids
from raystream.ids import ChannelId, OperatorUid, VertexId
from raystream.keygroup import check_parallelism, default_max_parallelism


def plan_job(graph: LogicalGraph, *, parallelism: int, max_parallelism: int | None = None) -> PhysicalPlan:
    """Return the plan of a logical graph.

    Args:
        graph: the operators of the job.
        parallelism: number of subtasks of operators that do not say one.
        max_parallelism: number of key groups of operators that do not say one; None derives
            it from the parallelism.

    Raises:
        GraphError: there is nothing to run, or two operators have one uid.
        ConfigError: a parallelism is below 1 or above its max parallelism.
    """
    if not len(graph):
        raise GraphError(
            "job has no operators",
            hint="begin with env.from_source(...) or env.from_collection(...) on this environment",
        )
    uids = assign_uids(graph)
    group_of = _groups(graph)
    groups = [*dict.fromkeys(group.name for group in group_of.values())]
    chains = _chains(graph, parallelism, group_of)
    numbered = sorted(chains, key=lambda chain: (bool(chain.head.upstreams), chain.head.id))
    vertices = tuple(
        replace(
            _vertex(VertexId(number), chain, uids, max_parallelism),
            slot_offset=groups.index(group_of[chain.head.id].name),
            slot_step=len(groups),
        )
        for number, chain in enumerate(numbered)
    )
    places = {
        node.id: _Place(VertexId(number), position)
        for number, chain in enumerate(numbered)
        for position, node in enumerate(chain.nodes)
    }
    return PhysicalPlan(
        vertices=vertices,
        edges=_edges(numbered, vertices, places),
        groups=tuple({group.name: group for group in group_of.values()}.values()),
    )


@dataclass(slots=True)
class _Chain:
    """Operators that become one vertex, the head first, in the order of their ids."""

    parallelism: int
    nodes: list[LogicalNode]
    children: dict[NodeId, list[tuple[str | None, NodeId]]] = field(default_factory=dict)
    """By operator: (tag, operator) of everything that it hands its batches to directly."""

    @property
    def head(self) -> LogicalNode:
        return self.nodes[0]

    def join(self, node: LogicalNode) -> None:
        (upstream,) = node.upstreams
        self.nodes.append(node)
        self.children.setdefault(upstream.node, []).append((upstream.tag, node.id))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an operator stands in the plan."""

    vertex: VertexId
    position: int


def _groups(graph: LogicalGraph) -> dict[NodeId, SlotSharingGroup]:
    """Return the slot-sharing group of every operator.

    Source: Flink's `StreamGraphGenerator`: without a word an operator is where all its inputs are.

    Raises:
        GraphError: two groups of one name need different things.
    """
    names: dict[NodeId, str] = {}
    for node in graph:
        given = node.slot_sharing_group
        names[node.id] = given.name if given else inherited(names[u.node] for u in node.upstreams)
    given_groups = (node.slot_sharing_group for node in graph)
    groups = specified(group for group in given_groups if group is not None)
    return {node: groups.get(name, SlotSharingGroup(name)) for node, name in names.items()}


def _chains(
    graph: LogicalGraph, default_parallelism: int, group_of: dict[NodeId, SlotSharingGroup]
) -> list[_Chain]:
    chains: list[_Chain] = []
    chain_of: dict[NodeId, _Chain] = {}
    for node in graph:
        parallelism = default_parallelism if node.parallelism is None else node.parallelism
        chain = _chain_to_join(node, parallelism, graph, chain_of)
        if chain is None or group_of[chain.head.id] != group_of[node.id]:
            chain = _Chain(parallelism, [node])
            chains.append(chain)
        else:
            chain.join(node)
        chain_of[node.id] = chain
    return chains


def _chain_to_join(
    node: LogicalNode, parallelism: int, graph: LogicalGraph, chain_of: dict[NodeId, _Chain]
) -> _Chain | None:
    if len(node.upstreams) != 1 or node.chain is not ChainHint.ALWAYS:
        return None
    (upstream,) = node.upstreams
    if upstream.partitioning is not Partitioning.FORWARD or graph[upstream.node].chain is ChainHint.NEVER:
        return None
    chain = chain_of[upstream.node]
    same_groups = node.max_parallelism in (None, chain.head.max_parallelism)
    return chain if chain.parallelism == parallelism and same_groups else None


def _vertex(
    number: VertexId, chain: _Chain, uids: dict[NodeId, OperatorUid], configured: int | None
) -> Vertex:
    head = chain.head
    given = configured if head.max_parallelism is None else head.max_parallelism
    _check_counts(head, chain.parallelism, given)
    positions = {node.id: position for position, node in enumerate(chain.nodes)}
    operators = tuple(
        OperatorNode(
            uid=uids[node.id],
            uid_generated=node.uid is None,
            name=node.name,
            factory=node.factory,
            stateful=node.stateful,
            transactional=node.transactional,
            parallelism_given=node.parallelism is not None,
            chained=tuple((tag, positions[child]) for tag, child in chain.children.get(node.id, ())),
            source=node.source,
        )
        for node in chain.nodes
    )
    return Vertex(
        id=number,
        name=chain_name(operators, 0),
        parallelism=chain.parallelism,
        max_parallelism=default_max_parallelism(chain.parallelism) if given is None else given,
        max_parallelism_explicit=given is not None,
        slot_offset=0,
        operators=operators,
        keyed=_keyed(head),
    )


def _keyed(head: LogicalNode) -> bool:
    """Return whether every record that enters the operator has a key, broadcast ones apart."""
    partitionings = {upstream.partitioning for upstream in head.upstreams}
    return partitionings - {Partitioning.BROADCAST} == {Partitioning.HASH}


def _check_counts(node: LogicalNode, parallelism: int, max_parallelism: int | None) -> None:
    for keyword, value in (("parallelism", parallelism), ("max_parallelism", max_parallelism)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ConfigError(f"{keyword} is not a whole number", operator=node.label, value=value)
    try:
        check_parallelism(
            parallelism, default_max_parallelism(parallelism) if max_parallelism is None else max_parallelism
        )
    except ConfigError as error:
        raise ConfigError(error.message, hint=error.hint, operator=node.label, **error.context) from None


def _edges(
    chains: list[_Chain], vertices: tuple[Vertex, ...], places: dict[NodeId, _Place]
) -> tuple[Edge, ...]:
    edges: list[Edge] = []
    first_channel = 0
    for target, upstream in _unchained(chains, vertices):
        place = places[upstream.node]
        source = vertices[place.vertex]
        partitioning = upstream.partitioning
        if partitioning is Partitioning.FORWARD and source.parallelism != target.parallelism:
            partitioning = Partitioning.REBALANCE
        edges.append(
            Edge(
                position=len(edges),
                source=place.vertex,
                source_operator=place.position,
                tag=upstream.tag,
                target=target.id,
                partitioning=partitioning,
                key_selector=upstream.key_selector,
                partitioner=upstream.partitioner,
                input=upstream.input,
                first_channel=ChannelId(first_channel),
            )
        )
        receivers = 1 if partitioning is Partitioning.FORWARD else target.parallelism
        first_channel += source.parallelism * receivers
    return tuple(edges)


def _unchained(chains: list[_Chain], vertices: tuple[Vertex, ...]) -> Iterator[tuple[Vertex, Upstream]]:
    """Yield what enters each vertex; only the head of a chain has inputs from outside."""
    for chain, vertex in zip(chains, vertices, strict=True):
        for upstream in chain.head.upstreams:
            yield vertex, upstream
