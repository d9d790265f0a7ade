"""What a job waits for is said so that a person knows whether it will come."""

import pytest

from raystream.cluster.resources import ClusterCpus, waiting_text


@pytest.mark.parametrize(
    ("missing", "cpus", "cluster", "expected"),
    [
        ("2 of 4", 1.0, ([2.0], 0.0), "1 CPU each: the cluster has 2 CPUs on 1 node, room for 2 slots "),
        ("2 of 2", 2.0, ([3.0, 1.0], 4.0), "2 CPUs each: the cluster has 4 CPUs on 2 nodes, room for 1 "),
        ("1 of 2", 0.5, ([1.0], 0.25), "0.5 CPUs each: 0.25 of the cluster's 1 CPU are free"),
        ("1 of 1", 1.0, ([], 0.0), "1 CPU each: the cluster has 0 CPUs on 0 nodes, room for 0 slots in all"),
        ("1 of 2", 0.0, ([1.0], 0.0), "0 CPUs each: their processes are starting"),
        ("1 of 2", 1.0, ([4.0], 3.0), "1 CPU each: their processes are starting"),
    ],
)  # fmt: skip
def test_text_tells_what_is_missing(missing, cpus, cluster, expected):
    by_node, free = cluster
    count, wanted = map(int, missing.split(" of "))

    text = waiting_text(count, wanted, cpus, ClusterCpus(by_node=by_node, free=free))

    assert text.startswith(f"{missing} slots with {expected}")
