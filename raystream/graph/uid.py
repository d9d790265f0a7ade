"""Uids of operators: those that the user gave, and generated ones for the rest.

State is stored under the uid of its operator, so a generated one must come out the same
as long as the program says the same about the operator.  It is a digest of the
operator's kind and name and of where its input comes from:

    digest(kind, name, [(uid of upstream, tag, partitioning[, input]), ...], ordinal)

The input is left out where it is the first, which most operators have alone.
An upstream that has a given uid stands for everything above it.  The ordinal, from 0 in
the order of declaration, tells operators apart that agree in all of this.  Nothing
downstream, no parallelism and no unrelated branch goes in, so changing those keeps the
uid; inserting an operator above changes it, which is why stateful operators want a
given uid.

Source: the idea of Flink's `StreamGraphHasherV2`, which also hashes what is chained
behind an operator and therefore changes more often.
"""

import json
from collections import defaultdict

import xxhash

from raystream.errors import GraphError
from raystream.graph.logical import LogicalGraph, LogicalNode, NodeId
from raystream.ids import OperatorUid


def assign_uids(graph: LogicalGraph) -> dict[NodeId, OperatorUid]:
    """Return the uid of every operator, given or generated.

    Raises:
        GraphError: two operators have the same uid; the message names both.
    """
    uids: dict[NodeId, OperatorUid] = {}
    alike: defaultdict[str, int] = defaultdict(int)
    for node in graph:
        if node.uid is not None:
            uids[node.id] = OperatorUid(node.uid)
            continue
        structure = _structure(node, uids)
        uids[node.id] = _digest(structure, ordinal=alike[structure])
        alike[structure] += 1
    _check_distinct(graph, uids)
    return uids


def _structure(node: LogicalNode, uids: dict[NodeId, OperatorUid]) -> str:
    upstreams = [
        (uids[u.node], u.tag, u.partitioning.value, *([u.input] if u.input else [])) for u in node.upstreams
    ]
    return json.dumps([node.kind.value, node.name, upstreams])


def _digest(structure: str, *, ordinal: int) -> OperatorUid:
    return OperatorUid(xxhash.xxh3_128_hexdigest(f"{structure}#{ordinal}".encode()))


def _check_distinct(graph: LogicalGraph, uids: dict[NodeId, OperatorUid]) -> None:
    owners: dict[OperatorUid, LogicalNode] = {}
    for node in graph:
        other = owners.setdefault(uids[node.id], node)
        if other is not node:
            raise GraphError(
                "two operators have one uid",
                hint="give each operator a uid of its own; state is stored under it",
                uid=uids[node.id],
                operators=[other.name, node.name],
            )
