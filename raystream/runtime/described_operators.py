"""What `_metadata` says of the operators of a plan, made of what their subtasks acknowledged."""

from collections.abc import Iterable

from raystream.graph.physical import PhysicalPlan
from raystream.handles import OperatorSnapshot, SubtaskSnapshot
from raystream.ids import OperatorUid, VertexId
from raystream.storage.metadata import OperatorMetadata


def describe_operators(
    plan: PhysicalPlan, snapshots: Iterable[SubtaskSnapshot]
) -> tuple[OperatorMetadata, ...]:
    """Return every operator of a plan with what its subtasks stored, in the plan's order."""
    snapshots = list(snapshots)
    running = {snapshot.vertex for snapshot in snapshots if not snapshot.ended}
    parts: dict[tuple[VertexId, int, OperatorUid], OperatorSnapshot] = {
        (snapshot.vertex, snapshot.subtask, operator.uid): operator
        for snapshot in snapshots
        for operator in snapshot.operators
    }
    described = []
    for vertex in plan.vertices:
        for node in vertex.operators:
            subtasks = tuple(
                parts.get((vertex.id, i, node.uid), OperatorSnapshot(uid=node.uid, subtask=i))
                for i in range(vertex.parallelism)
            )
            described.append(
                OperatorMetadata(
                    uid=node.uid,
                    uid_generated=node.uid_generated,
                    name=node.name,
                    max_parallelism=vertex.max_parallelism,
                    parallelism=vertex.parallelism,
                    states=tuple(dict.fromkeys(state for part in subtasks for state in part.states)),
                    subtasks=subtasks,
                    ended=vertex.id not in running,
                )
            )
    return tuple(described)
