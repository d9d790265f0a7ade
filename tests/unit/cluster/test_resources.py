"""What a job waits for is said so that a person knows whether it will come."""

import pytest

from raystream.cluster.resources import Node, SlotNeeds, waiting_text


def node(total, free=None, **labels):
    return Node(total=total, free=total if free is None else free, labels=labels)


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
    needs = SlotNeeds(group="default", amounts={"CPU": cpus} if cpus else {})
    nodes = [node({"CPU": total}, {"CPU": min(total, free)}) for total in by_node]

    text = waiting_text([needs] * count, [needs] * wanted, nodes)

    assert text.startswith(f"{missing} slots with {expected}")


def test_text_names_each_group_that_waits_and_only_nodes_with_the_labels_count():
    plain = SlotNeeds(group="default", amounts={"CPU": 1.0})
    gpu = SlotNeeds(group="infer", amounts={"CPU": 2.0, "GPU": 1.0}, labels={"zone": "in(a, b)"})
    nodes = [node({"CPU": 8.0, "GPU": 4.0}, zone="c"), node({"CPU": 4.0, "GPU": 1.0}, zone="b")]

    text = waiting_text([gpu, gpu], [plain, gpu, gpu], nodes)

    assert text == (
        "2 of 2 slots of group infer with 2 CPUs, 1 GPU each: the cluster has 4 CPUs, 1 GPU on 1 node "
        "with zone=in(a, b), room for 1 slot in all; "
        "add nodes, or lower the parallelism or what a slot of group infer needs"
    )


@pytest.mark.parametrize(
    ("wanted", "label", "fits"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", None, False),
        ("!a", "b", True),
        ("!a", None, True),
        ("in(a, b)", "b", True),
        ("!in(a, b)", "b", False),
    ],
)
def test_label_selector_means_what_it_means_to_ray(wanted, label, fits):
    needs = SlotNeeds(group="default", amounts={"CPU": 1.0}, labels={"zone": wanted})

    assert node({}, **({} if label is None else {"zone": label})).fits(needs) is fits


def test_room_that_is_free_only_in_pieces_is_not_free():
    needs = SlotNeeds(group="default", amounts={"CPU": 2.0})
    nodes = [node({"CPU": 2.0}, {"CPU": 1.0}), node({"CPU": 2.0}, {"CPU": 1.0})]

    assert waiting_text([needs], [needs] * 2, nodes).startswith(
        "1 of 2 slots with 2 CPUs each: 2 of the cluster's 4 CPUs are free; wait for other jobs"
    )
