"""What each subtask of a program reads back of the records in flight that a snapshot has.

They are found by the operator that they were for, whoever stored them, and given to that operator
wherever it stands in its chain: at another parallelism it may have joined the chain before it.
Pure, like `raystream.runtime.coordinator_restore`, of which this is a part.
"""

from collections.abc import Sequence

from raystream.graph.physical import OperatorNode, Partitioning, PhysicalPlan, Vertex
from raystream.handles import ChannelStateHandle, InlineHandle
from raystream.ids import OperatorUid
from raystream.protocol.redistribution import BatchRun, KeyGroupLayout, deal_in_flight
from raystream.runtime.messages import ChannelRun
from raystream.storage.metadata import OperatorMetadata, SnapshotMetadata


def targets_of(metadata: SnapshotMetadata) -> frozenset[OperatorUid]:
    """Return the operators that records in flight are for."""
    return frozenset(handle.target for subtask in metadata.subtasks for handle in subtask.channels)


def in_flight_problems(plan: PhysicalPlan, metadata: SnapshotMetadata) -> list[str]:
    """Return why records in flight do not fit the program, for people; but for operators that are gone."""
    problems = []
    for vertex in plan.vertices:
        head = vertex.operators[0]
        hashed = {
            edge.input
            for edge in plan.edges
            if edge.target == vertex.id and edge.partitioning is Partitioning.HASH
        }
        if any(handle.input in hashed and not handle.keyed for handle in _handles(metadata, head)):
            problems.append(
                f"operator {head.name!r} (uid {head.uid!r}) reads a stream with keys now, and records in"
                " flight to it have none: take a savepoint with the old program, and restore that"
            )
    return problems


def restore_in_flight(
    plan: PhysicalPlan,
    vertex: Vertex,
    node: OperatorNode,
    stored: OperatorMetadata,
    metadata: SnapshotMetadata,
) -> list[tuple[ChannelRun, ...]]:
    """Return what each subtask of an operator reads.

    Args:
        plan: the program.
        vertex: that the operator is in, with its max parallelism.
        node: the operator.
        stored: what the snapshot says of it.
        metadata: the snapshot.
    """
    old = KeyGroupLayout(max_parallelism=stored.max_parallelism, parallelism=stored.parallelism)
    new = KeyGroupLayout(max_parallelism=vertex.max_parallelism, parallelism=vertex.parallelism)
    entering = [edge.partitioning for edge in plan.edges if edge.target == vertex.id]
    only_first = vertex.operators[0] is node and Partitioning.GLOBAL in entering
    dealt = deal_in_flight(_handles(metadata, node), old, new, only_first=only_first)
    return [tuple(_run(run, old, new, subtask) for run in runs) for subtask, runs in enumerate(dealt)]


def _handles(metadata: SnapshotMetadata, node: OperatorNode) -> Sequence[ChannelStateHandle]:
    return [
        handle for subtask in metadata.subtasks for handle in subtask.channels if handle.target == node.uid
    ]


def _run(run: BatchRun, old: KeyGroupLayout, new: KeyGroupLayout, subtask: int) -> ChannelRun:
    data, offset, size_bytes = run.handle.data, run.slice.offset, run.slice.size_bytes
    if isinstance(data, InlineHandle):  # It travels with the command: only what is read of it.
        data, offset = InlineHandle(data=data.data[offset : offset + size_bytes]), 0
    anew = run.handle.keyed and old != new
    return ChannelRun(
        data=data,
        offset=offset,
        size_bytes=size_bytes,
        start=run.start,
        stop=run.stop,
        input=run.handle.input,
        groups=new.groups(subtask) if anew else None,
        max_parallelism=new.max_parallelism if old.max_parallelism != new.max_parallelism else None,
    )
