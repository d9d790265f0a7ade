"""`slot_sharing_group=` of any operation, as the plan shows it."""

import pytest

from raystream import GraphError, SlotSharingGroup, StreamEnvironment
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource

GPU = SlotSharingGroup("infer", cpus=2, gpus=1, memory="4gb", labels={"zone": "a"})


def numbers(env, **options):
    return env.from_source(DatagenSource(lambda index: index), name="numbers", uid="numbers", **options)


def test_explain_shows_the_groups_and_what_their_slots_need():
    env = StreamEnvironment(parallelism=4, slot_cpus=0.5)
    inferred = numbers(env).map(str, name="infer", uid="infer", slot_sharing_group=GPU, parallelism=2)
    inferred.sink_to(DiscardSink(), name="out", uid="out", slot_sharing_group="default")

    assert env.explain() == (
        "3 chains of operators in 6 slots\n"
        "    group default: 4 slots with 0.5 CPUs each\n"
        "    group infer: 2 slots with 2 CPUs, 1 GPU, 4gb memory, zone=a each\n"
        "\n"
        "[0] numbers\n"
        "    parallelism 4, max parallelism 128 (derived), slots 0 to 6 by 2 of group default\n"
        "    numbers  uid numbers (state)\n"
        "    -> [1] in turn, from numbers\n"
        "\n"
        "[1] infer\n"
        "    parallelism 2, max parallelism 128 (derived), slots 1 to 3 by 2 of group infer\n"
        "    infer  uid infer\n"
        "    -> [2] in turn, from infer\n"
        "\n"
        "[2] out\n"
        "    parallelism 4, max parallelism 128 (derived), slots 0 to 6 by 2 of group default\n"
        "    out  uid out"
    )


def test_sources_and_connected_streams_have_groups_too():
    env = StreamEnvironment()
    first, second = numbers(env, slot_sharing_group=GPU), env.from_collection([1])
    first.connect(second).map(str, str, slot_sharing_group="infer").sink_to(DiscardSink())

    assert env.explain().count("of group infer") == 2


def test_group_that_is_neither_a_group_nor_a_name_is_refused_where_it_is_given():
    with pytest.raises(GraphError, match="slot-sharing group is neither a group nor a name"):
        numbers(StreamEnvironment(), slot_sharing_group=7)
