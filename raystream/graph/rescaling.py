"""The plan of a job at another parallelism, made from the plan that it was submitted with.

What the user gave a parallelism keeps it; everything else gets the new one.  A chain in which some
operators keep theirs falls into pieces, as it would have been planned; otherwise chains stay as they are,
so that the plan at the old parallelism is the submitted one again.  Max parallelism never changes: it
deals the keys out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from raystream.errors import ConfigError
from raystream.graph.physical import Edge, Partitioning, PhysicalPlan, Vertex, chain_name
from raystream.ids import ChannelId, VertexId


def rescaled(plan: PhysicalPlan, parallelism: int) -> PhysicalPlan:
    """Return a plan at another parallelism.

    Args:
        plan: as it was submitted, perhaps with the max parallelism of restored state.
        parallelism: of every operator that was not given its own.

    Raises:
        ConfigError: it is below 1, or above the max parallelism of an operator, or changes nothing for any.
    """
    if parallelism < 1:
        raise ConfigError("parallelism of a job is at least 1", parallelism=parallelism)
    if all(node.parallelism_given for vertex in plan.vertices for node in vertex.operators):
        raise ConfigError(
            "every operator of the job was given its parallelism, so there is none to change",
            hint="leave parallelism= out of the operators that shall follow the job's parallelism",
        )
    pieces = sorted(
        (piece for vertex in plan.vertices for piece in _pieces(vertex, parallelism)),
        key=lambda piece: (not piece.reads_nothing, piece.vertex.id, piece.positions[0]),
    )
    for piece in pieces:
        _check(piece)
    places = {
        (piece.vertex.id, position): (VertexId(number), new)
        for number, piece in enumerate(pieces)
        for new, position in enumerate(piece.positions)
    }
    vertices = tuple(_vertex(VertexId(number), piece) for number, piece in enumerate(pieces))
    return replace(plan, vertices=vertices, edges=_edges(plan, pieces, vertices, places))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """Operators of one chain that stay together."""

    vertex: Vertex
    positions: tuple[int, ...]
    """Of its operators in the chain, the head first."""
    parallelism: int
    entry: tuple[int, str | None] | None
    """Operator of the chain and its output that it reads; None for the piece with the chain's own head."""

    @property
    def reads_nothing(self) -> bool:
        return self.entry is None and self.vertex.source is not None


_Places = dict[tuple[VertexId, int], tuple[VertexId, int]]
"""Vertex and position of each operator before and after."""


def _pieces(vertex: Vertex, parallelism: int) -> Iterator[_Piece]:
    wanted = [vertex.parallelism if node.parallelism_given else parallelism for node in vertex.operators]
    entries: dict[int, tuple[int, str | None]] = {}
    head_of = {0: 0}
    for position, node in enumerate(vertex.operators):
        for tag, child in node.chained:
            together = wanted[child] == wanted[position]
            head_of[child] = head_of[position] if together else child
            if not together:
                entries[child] = position, tag
    for head in sorted(set(head_of.values())):
        yield _Piece(
            vertex=vertex,
            positions=tuple(sorted(position for position, of in head_of.items() if of == head)),
            parallelism=wanted[head],
            entry=entries.get(head),
        )


def _check(piece: _Piece) -> None:
    if piece.parallelism > piece.vertex.max_parallelism:
        raise ConfigError(
            "parallelism is above the max parallelism of an operator, which a running job keeps",
            hint="stop the job with a savepoint and start it with a larger pipeline.max-parallelism",
            operator=piece.vertex.operators[piece.positions[0]].name,
            parallelism=piece.parallelism,
            max_parallelism=piece.vertex.max_parallelism,
        )


def _vertex(number: VertexId, piece: _Piece) -> Vertex:
    old = piece.vertex
    new_positions = {position: new for new, position in enumerate(piece.positions)}
    operators = tuple(
        replace(
            old.operators[position],
            chained=tuple(
                (tag, new_positions[child])
                for tag, child in old.operators[position].chained
                if child in new_positions
            ),
        )
        for position in piece.positions
    )
    return replace(
        old,
        id=number,
        name=old.name if len(operators) == len(old.operators) else chain_name(operators, 0),
        parallelism=piece.parallelism,
        operators=operators,
        keyed=old.keyed and piece.entry is None,
    )


def _edges(
    plan: PhysicalPlan, pieces: list[_Piece], vertices: tuple[Vertex, ...], places: _Places
) -> tuple[Edge, ...]:
    edges: list[Edge] = []
    first_channel = 0
    for target, piece in zip(vertices, pieces, strict=True):
        for edge in _entering(plan, piece):
            source, operator = places[edge.source, edge.source_operator]
            senders = vertices[source].parallelism
            partitioning = edge.partitioning
            if partitioning is Partitioning.FORWARD and senders != target.parallelism:
                partitioning = Partitioning.REBALANCE
            moved = replace(
                edge,
                position=len(edges),
                source=source,
                source_operator=operator,
                target=target.id,
                partitioning=partitioning,
                first_channel=ChannelId(first_channel),
            )
            edges.append(moved)
            first_channel += senders * (1 if partitioning is Partitioning.FORWARD else target.parallelism)
    return tuple(edges)


def _entering(plan: PhysicalPlan, piece: _Piece) -> Iterator[Edge]:
    """Yield the edges that enter a piece, between the vertices as they were."""
    if piece.entry is None:
        yield from (edge for edge in plan.edges if edge.target == piece.vertex.id)
        return
    operator, tag = piece.entry
    yield Edge(
        position=0,
        source=piece.vertex.id,
        source_operator=operator,
        tag=tag,
        target=piece.vertex.id,
        partitioning=Partitioning.FORWARD,
        key_selector=None,
        first_channel=ChannelId(0),
    )
