"""What slots need, what the nodes of a cluster have, and what a job that waits lacks, in words."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from raystream.cluster import _ray_compat as compat
from raystream.graph.physical import PhysicalPlan
from raystream.graph.slot_sharing import DEFAULT_GROUP, needs_text
from raystream.ids import SlotId


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotNeeds:
    """What a slot reserves."""

    group: str
    """Name of its slot-sharing group."""
    amounts: Mapping[str, float]
    """By Ray's names of resources; nothing that is 0."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Ray's label selector."""

    @property
    def actor_options(self) -> dict[str, Any]:
        """Options of an actor that reserves it."""
        amounts = dict(self.amounts)
        options: dict[str, Any] = {"num_cpus": amounts.pop("CPU", 0), "num_gpus": amounts.pop("GPU", 0)}
        if memory_bytes := amounts.pop("memory", 0):
            options["memory"] = int(memory_bytes)
        if self.labels:
            options["label_selector"] = dict(self.labels)
        return {**options, "resources": amounts}


Needs = Callable[[SlotId], SlotNeeds]


def needs_of(plan: PhysicalPlan, slot_cpus: float) -> Needs:
    """Return what tells the needs of each slot of a job, at any parallelism of it.

    Args:
        plan: of the job.
        slot_cpus: CPUs of a slot whose group does not say.
    """

    def needs(slot: SlotId) -> SlotNeeds:
        group = plan.group(slot)
        return SlotNeeds(group=group.name, amounts=group.needs(slot_cpus), labels=group.labels)

    return needs


def cpus_of(plan: PhysicalPlan, slot_cpus: float) -> float:
    """Return the CPUs that all slots of a job reserve together."""
    return sum(plan.group(slot).needs(slot_cpus).get("CPU", 0.0) for slot in plan.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node that is alive."""

    node_id: str = ""
    total: Mapping[str, float]
    """What it has, by Ray's names of resources."""
    free: Mapping[str, float]
    """What nobody has reserved of it."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def fits(self, needs: SlotNeeds) -> bool:
        """Return whether the labels are those that a slot wants."""
        return all(_selected(wanted, self.labels.get(label)) for label, wanted in needs.labels.items())


def cluster_nodes() -> tuple[Node, ...]:
    """Ask Ray for the nodes that take slots; blocks."""
    free, draining = compat.free_resources_by_node(), compat.draining_nodes()
    return tuple(
        Node(
            node_id=node["NodeID"],
            total=node["Resources"],
            free=free.get(node["NodeID"], {}),
            labels=node.get("Labels") or {},
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["NodeID"] not in draining
    )


def cluster_cpus() -> float:
    """Return the CPUs of all nodes; blocks."""
    return sum(node.total.get("CPU", 0.0) for node in cluster_nodes())


def waiting_text(missing: Sequence[SlotNeeds], wanted: Sequence[SlotNeeds], nodes: Sequence[Node]) -> str:
    """Return what the missing slots wait for, and what helps if nothing will change by itself.

    Args:
        missing: needs of the slots without a process.
        wanted: needs of all slots of the job.
        nodes: what there is.

    Example:
        >>> one = SlotNeeds(group="default", amounts={"CPU": 1.0})
        >>> waiting_text([one] * 2, [one] * 4, [Node(total={"CPU": 2.0}, free={})])
        '2 of 4 slots with 1 CPU each: the cluster has 2 CPUs on 1 node, room for 2 slots in all; \
add nodes, or lower the parallelism or slot.cpus'
    """
    groups = {needs.group: needs for needs in missing}
    return "; ".join(
        _group_text(
            needs,
            missing=sum(other.group == group for other in missing),
            wanted=sum(other.group == group for other in wanted),
            nodes=[node for node in nodes if node.fits(needs)],
        )
        for group, needs in groups.items()
    )


def _group_text(needs: SlotNeeds, *, missing: int, wanted: int, nodes: Sequence[Node]) -> str:
    group = "" if needs.group == DEFAULT_GROUP else f" of group {needs.group}"
    slots = f"{missing} of {wanted} slots{group} with {needs_text(needs.amounts)} each"
    less = f"what a slot of group {needs.group} needs" if group else "slot.cpus"
    room = sum(room_for(needs, node.total, at_most=wanted) for node in nodes)
    has = ", ".join(_counted(_sum(name, [n.total for n in nodes]), name) for name in needs.amounts)
    if room < wanted:
        return (
            f"{slots}: the cluster has {has or 'no room'} on {_counted(len(nodes), 'node')}"
            f"{_with_labels(needs)}, room for {_counted(room, 'slot')} in all; "
            f"add nodes, or lower the parallelism or {less}"
        )
    if sum(room_for(needs, node.free, at_most=wanted) for node in nodes) < missing:
        free = ", ".join(
            f"{_sum(name, [n.free for n in nodes]):g} of the cluster's "
            f"{_counted(_sum(name, [n.total for n in nodes]), name)}"
            for name in needs.amounts
        )
        return (
            f"{slots}: {free} are free{_with_labels(needs)}; "
            f"wait for other jobs to end, or lower the parallelism or {less}"
        )
    return f"{slots}: their processes are starting"


def room_for(needs: SlotNeeds, amounts: Mapping[str, float], *, at_most: int) -> int:
    """Return how many slots have room in some amounts."""
    rooms = [math.floor(amounts.get(name, 0.0) / need) for name, need in needs.amounts.items()]
    return min([*rooms, at_most])


def _sum(name: str, nodes: Sequence[Mapping[str, float]]) -> float:
    return sum(amounts.get(name, 0.0) for amounts in nodes)


def _counted(amount: float, name: str) -> str:
    if name == "memory":
        return needs_text({name: amount})
    plural = "s" if name in ("CPU", "GPU", "node", "slot") and amount != 1 else ""
    return f"{amount:g} {name}{plural}"


def _with_labels(needs: SlotNeeds) -> str:
    return " with " + ", ".join(f"{k}={v}" for k, v in needs.labels.items()) if needs.labels else ""


def _selected(wanted: str, label: str | None) -> bool:
    """Return whether a label is what Ray's selector wants: `a`, `!a`, `in(a, b)` or `!in(a, b)`."""
    text = wanted.removeprefix("!")
    inner = text.removeprefix("in(").removesuffix(")") if text.startswith("in(") else text
    values = [value.strip() for value in inner.split(",")]
    return (label in values) is not wanted.startswith("!")
