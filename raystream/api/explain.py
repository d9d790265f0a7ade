"""The plan of a job as text for people."""

from collections.abc import Iterator

from raystream.graph.physical import Edge, OperatorNode, Partitioning, PhysicalPlan, Vertex
from raystream.graph.slot_sharing import DEFAULT, needs_text

_EXCHANGES = {
    Partitioning.FORWARD: "subtask to subtask",
    Partitioning.HASH: "by key",
    Partitioning.REBALANCE: "in turn",
    Partitioning.RESCALE: "in turn, to some",
    Partitioning.SHUFFLE: "at random",
    Partitioning.GLOBAL: "to the first subtask",
    Partitioning.CUSTOM: "as the partitioner says",
    Partitioning.BROADCAST: "to every subtask",
}


def explain_plan(plan: PhysicalPlan, *, slot_cpus: float) -> str:
    """Return one paragraph for each chain of operators: its counts, operators and outputs.

    Args:
        plan: of the job.
        slot_cpus: CPUs of a slot whose slot-sharing group does not say.
    """
    slots = "1 slot" if plan.slot_count == 1 else f"{plan.slot_count} slots"
    vertices = "1 chain" if len(plan.vertices) == 1 else f"{len(plan.vertices)} chains"
    paragraphs = ["\n".join(_vertex_lines(plan, vertex)) for vertex in plan.vertices]
    head = "\n".join([f"{vertices} of operators in {slots}", *_group_lines(plan, slot_cpus)])
    return "\n\n".join([head, *paragraphs])


def _group_lines(plan: PhysicalPlan, slot_cpus: float) -> Iterator[str]:
    """Yield what each slot-sharing group needs, unless there is nothing but the default one."""
    if plan.groups == (DEFAULT,):
        return
    for group in plan.groups:
        count = sum(plan.group(slot) is group for slot in plan.slots)
        needs = needs_text(group.needs(slot_cpus), group.labels)
        yield f"    group {group.name}: {count} slot{'' if count == 1 else 's'} with {needs} each"


def _vertex_lines(plan: PhysicalPlan, vertex: Vertex) -> Iterator[str]:
    origin = "" if vertex.max_parallelism_explicit else " (derived)"
    keyed = ", keyed" if vertex.keyed else ""
    yield f"[{vertex.id}] {vertex.name}"
    yield (
        f"    parallelism {vertex.parallelism}, max parallelism {vertex.max_parallelism}{origin}, "
        f"slots {_slots(vertex)}{_in_group(plan, vertex)}{keyed}"
    )
    width = max(len(operator.name) for operator in vertex.operators)
    for operator in vertex.operators:
        yield f"    {operator.name:<{width}}  {_uid(operator)}"
    for edge in plan.edges:
        if edge.source == vertex.id:
            yield f"    -> {_edge(vertex, edge)}"


def _slots(vertex: Vertex) -> str:
    first, last = vertex.slot(0), vertex.slot(vertex.parallelism - 1)
    every = "" if vertex.slot_step == 1 else f" by {vertex.slot_step}"
    return f"{first}" if first == last else f"{first} to {last}{every}"


def _in_group(plan: PhysicalPlan, vertex: Vertex) -> str:
    group = plan.groups[vertex.slot_offset]
    return "" if len(plan.groups) == 1 else f" of group {group.name}"


def _uid(operator: OperatorNode) -> str:
    marks = ["generated"] * operator.uid_generated + ["state"] * operator.stateful
    return f"uid {operator.uid}" + (f" ({', '.join(marks)})" if marks else "")


def _edge(vertex: Vertex, edge: Edge) -> str:
    operator = vertex.operators[edge.source_operator].name
    output = operator if edge.tag is None else f"{operator}, side output {edge.tag}"
    into = f", into input {edge.input + 1}" if edge.input else ""
    return f"[{edge.target}] {_EXCHANGES[edge.partitioning]}, from {output}{into}"
