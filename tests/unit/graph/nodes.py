"""A logical graph in one expression, for tests."""

from dataclasses import replace
from typing import Any

from raystream.graph.logical import ChainHint, LogicalGraph, LogicalNode, NodeId, OperatorKind, Upstream
from raystream.graph.physical import Partitioning, PhysicalPlan


def key_of(record: Any) -> Any:
    return record[0]


class GraphBuilder:
    """Adds operators by name; upstreams are names, `name/tag` for side outputs."""

    def __init__(self) -> None:
        self.graph = LogicalGraph()
        self.ids: dict[str, NodeId] = {}

    def source(self, name: str, **options: Any) -> "GraphBuilder":
        return self._add(name, OperatorKind.SOURCE, (), **options)

    def map(self, name: str, *upstreams: str, **options: Any) -> "GraphBuilder":
        return self._add(name, OperatorKind.MAP, self._upstreams(upstreams, Partitioning.FORWARD), **options)

    def rebalanced(self, name: str, *upstreams: str, **options: Any) -> "GraphBuilder":
        return self._add(
            name, OperatorKind.MAP, self._upstreams(upstreams, Partitioning.REBALANCE), **options
        )

    def keyed(self, name: str, *upstreams: str, **options: Any) -> "GraphBuilder":
        inputs = self._upstreams(upstreams, Partitioning.HASH)
        return self._add(name, OperatorKind.KEYED_PROCESS, inputs, stateful=True, **options)

    def connected(
        self, name: str, first: tuple[str, Partitioning], second: tuple[str, Partitioning], **options: Any
    ) -> "GraphBuilder":
        upstreams = [self._upstreams((upstream,), partitioning) for upstream, partitioning in (first, second)]
        inputs = tuple(replace(u, input=number) for number, us in enumerate(upstreams) for u in us)
        return self._add(name, OperatorKind.CO_PROCESS, inputs, **options)

    def exchanged(
        self, name: str, upstream: str, partitioning: Partitioning, **options: Any
    ) -> "GraphBuilder":
        return self._add(name, OperatorKind.MAP, self._upstreams((upstream,), partitioning), **options)

    def _upstreams(self, names: tuple[str, ...], partitioning: Partitioning) -> tuple[Upstream, ...]:
        selector = key_of if partitioning is Partitioning.HASH else None
        return tuple(
            Upstream(
                node=self.ids[name.partition("/")[0]],
                tag=name.partition("/")[2] or None,
                partitioning=partitioning,
                key_selector=selector,
            )
            for name in names
        )

    def _add(
        self,
        name: str,
        kind: OperatorKind,
        upstreams: tuple[Upstream, ...],
        *,
        chain: str = "always",
        **options: Any,
    ) -> "GraphBuilder":
        node = LogicalNode(
            id=self.graph.next_id(),
            kind=kind,
            name=name,
            factory=list,
            upstreams=upstreams,
            chain=ChainHint(chain),
            source=object() if kind is OperatorKind.SOURCE else None,
            **options,
        )
        self.graph.add(node)
        self.ids[name] = node.id
        return self


def chains(plan: PhysicalPlan) -> list[list[str]]:
    """Return the names of the operators in each vertex."""
    return [[operator.name for operator in vertex.operators] for vertex in plan.vertices]


def edges(plan: PhysicalPlan) -> list[tuple[str, str | None, str, str]]:
    """Return (sending operator, tag, receiving operator, partitioning) of each edge."""
    return [
        (
            plan.vertices[edge.source].operators[edge.source_operator].name,
            edge.tag,
            plan.vertices[edge.target].operators[0].name,
            edge.partitioning.value,
        )
        for edge in plan.edges
    ]
