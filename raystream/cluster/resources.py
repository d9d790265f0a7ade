"""What a job that waits for its slots lacks, in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ray


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCpus:
    """CPUs of a cluster, as Ray counts them."""

    by_node: Sequence[float]
    """CPUs of each node that is alive."""
    free: float
    """Those that nobody has reserved."""

    @property
    def total(self) -> float:
        """CPUs of all nodes."""
        return sum(self.by_node)


def cluster_cpus() -> ClusterCpus:
    """Ask Ray; blocks."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    free = ray.available_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]
    return ClusterCpus(by_node=[float(resources.get("CPU", 0.0)) for resources in alive], free=free)


def waiting_text(missing: int, wanted: int, cpus: float, cluster: ClusterCpus) -> str:
    """Return what the missing slots wait for, and what helps if nothing will change by itself.

    Args:
        missing: slots without a process.
        wanted: slots of the job.
        cpus: CPUs that each slot reserves.
        cluster: what there is.

    Example:
        >>> waiting_text(2, 4, 1.0, ClusterCpus(by_node=[2.0], free=0.0))
        '2 of 4 slots with 1 CPU each: the cluster has 2 CPUs on 1 node, room for 2 slots in all; \
add nodes, or lower the parallelism or slot.cpus'
    """
    slots = f"{missing} of {wanted} slots with {_number(cpus)} CPU{'' if cpus == 1 else 's'} each"
    size = f"{_number(cluster.total)} CPU{'' if cluster.total == 1 else 's'}"
    nodes = f"{len(cluster.by_node)} node{'' if len(cluster.by_node) == 1 else 's'}"
    room = sum(math.floor(node / cpus) for node in cluster.by_node) if cpus else wanted
    if room < wanted:
        return (
            f"{slots}: the cluster has {size} on {nodes}, room for {room} slot{'' if room == 1 else 's'} "
            "in all; add nodes, or lower the parallelism or slot.cpus"
        )
    if cluster.free < missing * cpus:
        return (
            f"{slots}: {_number(cluster.free)} of the cluster's {size} are free; "
            "wait for other jobs to end, or lower the parallelism or slot.cpus"
        )
    return f"{slots}: their processes are starting"


def _number(value: float) -> str:
    return f"{value:g}"
