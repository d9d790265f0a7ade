"""Operators share slots by group; slots keep their numbers whatever the parallelism."""

import pytest

from raystream import SlotSharingGroup
from raystream.errors import GraphError
from raystream.graph.chaining import plan_job
from raystream.graph.rescaling import rescaled
from raystream.graph.uid import assign_uids
from tests.unit.graph.nodes import GraphBuilder, chains, edges

GPU = SlotSharingGroup("gpu", cpus=2, gpus=1)


def plan_of(graph, parallelism=2):
    return plan_job(graph, parallelism=parallelism, max_parallelism=128)


def test_operators_of_different_groups_never_share_a_slot_nor_a_chain():
    graph = GraphBuilder().source("s").map("infer", "s", slot_sharing_group=GPU).map("out", "infer").graph

    plan = plan_of(graph)

    assert chains(plan) == [["s"], ["infer", "out"]], "without a word an operator is where its inputs are"
    assert edges(plan) == [("s", None, "infer", "forward")]
    slots = [{vertex.slot(i) for i in range(vertex.parallelism)} for vertex in plan.vertices]
    assert slots == [{0, 2}, {1, 3}]
    assert plan.slots == (0, 1, 2, 3)
    assert [plan.group(slot).name for slot in plan.slots] == ["default", "gpu", "default", "gpu"]


def test_inputs_of_different_groups_meet_in_the_default_one():
    builder = GraphBuilder().source("a", slot_sharing_group=GPU)
    builder.source("b", slot_sharing_group=SlotSharingGroup("io")).keyed("both", "a", "b")
    plan = plan_of(builder.graph)

    assert [plan.groups[vertex.slot_offset].name for vertex in plan.vertices] == ["gpu", "io", "default"]


def test_default_group_may_be_named_and_sized():
    sized = SlotSharingGroup("default", cpus=4)
    builder = GraphBuilder().source("s", slot_sharing_group=GPU)
    plan = plan_of(builder.map("back", "s", slot_sharing_group=sized).graph)

    assert plan.group(plan.vertices[1].slot(0)) == sized
    assert sized.needs(1.0) == {"CPU": 4.0}


def test_group_is_found_by_its_name_alone_wherever_it_is_specified():
    named = SlotSharingGroup("gpu")
    builder = GraphBuilder().source("s", slot_sharing_group=named)
    plan = plan_of(
        builder.map("a", "s", slot_sharing_group=GPU).map("b", "a", slot_sharing_group=named).graph
    )

    assert plan.groups == (GPU,)
    assert chains(plan) == [["s", "a", "b"]]


def test_one_name_with_two_specifications_is_refused():
    other = SlotSharingGroup("gpu", cpus=1)
    builder = GraphBuilder().source("s", slot_sharing_group=GPU).map("a", "s", slot_sharing_group=other)

    with pytest.raises(GraphError, match="two slot-sharing groups have one name"):
        plan_of(builder.graph)


def test_rescaled_plan_keeps_numbers_and_groups_of_slots():
    graph = GraphBuilder().source("s").keyed("infer", "s", slot_sharing_group=GPU, parallelism=1).graph
    before = plan_of(graph, 2)

    after = rescaled(before, 4)

    assert after == plan_of(graph, 4)
    assert before.slots == (0, 1, 2)
    assert after.slots == (0, 1, 2, 4, 6), "slots with gaps, where only one group has grown"
    assert {slot: after.group(slot) for slot in before.slots} == {s: before.group(s) for s in before.slots}


def test_group_does_not_change_uids():
    plain = GraphBuilder().source("s").keyed("count", "s").graph
    grouped = GraphBuilder().source("s").keyed("count", "s", slot_sharing_group=GPU).graph

    assert assign_uids(plain) == assign_uids(grouped)


def test_needs_hold_what_is_not_zero_under_the_names_of_ray():
    group = SlotSharingGroup("g", cpus=0, gpus=0.5, memory="1gb", resources={"tpu": 2}, labels={"zone": "a"})

    assert group.needs(1.0) == {"GPU": 0.5, "memory": float(1 << 30), "tpu": 2.0}
    assert SlotSharingGroup("g").needs(1.5) == {"CPU": 1.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus": -1}, "amount is not a number"),
        ({"gpus": 1.5}, "GPUs are whole ones"),
        ({"memory": "much"}, "size"),
        ({"resources": {"CPU": 1}}, "CPU is no custom resource"),
        ({"resources": {"tpu": 0}}, "custom resource is not a name"),
        ({"labels": {"zone": 1}}, "label selector is not a text"),
    ],
)
def test_wrong_specification_names_the_group(options, message):
    with pytest.raises(GraphError, match=message) as caught:
        SlotSharingGroup("mine", **options)

    assert caught.value.context["group"] == "mine"
