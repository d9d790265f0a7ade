"""Operators fuse wherever records may stay in their subtask; the rest is connected by edges."""

import pytest

from raystream.errors import ConfigError, GraphError
from raystream.graph.chaining import plan_job
from raystream.graph.logical import LogicalGraph
from raystream.graph.physical import Partitioning
from tests.unit.graph.nodes import GraphBuilder, chains, edges


def test_forward_neighbours_of_one_parallelism_share_a_chain():
    graph = GraphBuilder().source("s").map("a", "s").map("b", "a").graph

    plan = plan_job(graph, parallelism=2)

    assert chains(plan) == [["s", "a", "b"]]
    assert plan.edges == ()
    assert plan.vertices[0].name == "s -> a -> b"
    assert [operator.chained for operator in plan.vertices[0].operators] == [((None, 1),), ((None, 2),), ()]


def test_key_by_cuts_the_chain_and_makes_the_vertex_keyed():
    graph = GraphBuilder().source("s").keyed("count", "s").map("out", "count").graph

    plan = plan_job(graph, parallelism=2)

    assert chains(plan) == [["s"], ["count", "out"]]
    assert edges(plan) == [("s", None, "count", "hash")]
    assert plan.edges[0].key_selector is not None
    assert [vertex.keyed for vertex in plan.vertices] == [False, True]


def test_rebalance_cuts_the_chain_even_when_the_parallelism_stays():
    plan = plan_job(GraphBuilder().source("s").rebalanced("a", "s").graph, parallelism=2)

    assert edges(plan) == [("s", None, "a", "rebalance")]


def test_change_of_parallelism_without_key_by_becomes_a_rebalance():
    graph = GraphBuilder().source("s", parallelism=1).map("a", "s").graph

    plan = plan_job(graph, parallelism=3)

    assert chains(plan) == [["s"], ["a"]]
    assert edges(plan) == [("s", None, "a", "rebalance")]
    assert [vertex.parallelism for vertex in plan.vertices] == [1, 3]
    assert plan.slot_count == 3


def test_every_forward_consumer_of_an_operator_joins_its_chain():
    graph = GraphBuilder().source("s").map("a", "s").map("b", "s").map("c", "b").graph

    (vertex,) = plan_job(graph, parallelism=1).vertices

    assert [operator.name for operator in vertex.operators] == ["s", "a", "b", "c"]
    assert vertex.operators[0].chained == ((None, 1), (None, 2))
    assert vertex.operators[2].chained == ((None, 3),)
    assert vertex.name == "s -> (a, b -> c)"


def test_side_output_chains_under_its_tag():
    graph = GraphBuilder().source("s").map("a", "s").map("late", "a/late").graph

    (vertex,) = plan_job(graph, parallelism=1).vertices

    assert vertex.operators[1].chained == (("late", 2),)


def test_side_output_behind_key_by_is_an_edge_with_its_tag():
    graph = GraphBuilder().source("s").map("a", "s").keyed("late", "a/late").graph

    assert edges(plan_job(graph, parallelism=1)) == [("a", "late", "late", "hash")]


def test_union_enters_one_vertex_by_several_edges():
    graph = GraphBuilder().source("s").source("t").map("both", "s", "t").graph

    plan = plan_job(graph, parallelism=2)

    assert chains(plan) == [["s"], ["t"], ["both"]]
    assert edges(plan) == [("s", None, "both", "forward"), ("t", None, "both", "forward")]


def test_key_by_after_union_makes_a_keyed_vertex():
    plan = plan_job(GraphBuilder().source("s").source("t").keyed("count", "s", "t").graph, parallelism=2)

    assert [edge.partitioning.value for edge in plan.edges] == ["hash", "hash"]
    assert plan.vertices[2].keyed


def test_connected_streams_enter_one_vertex_by_their_inputs():
    graph = GraphBuilder().source("s").source("t")
    graph.connected("join", ("s", Partitioning.HASH), ("t", Partitioning.FORWARD))

    plan = plan_job(graph.graph, parallelism=2)

    assert [(edge.source, edge.target, edge.input) for edge in plan.edges] == [(0, 2, 0), (1, 2, 1)]
    assert not plan.vertices[2].keyed


@pytest.mark.parametrize(("side", "keyed"), [(Partitioning.HASH, True), (Partitioning.FORWARD, False)])
def test_vertex_beside_a_broadcast_stream_is_keyed_as_its_other_input_is(side, keyed):
    graph = GraphBuilder().source("s").source("rules")
    graph.connected("apply", ("s", side), ("rules", Partitioning.BROADCAST))

    assert plan_job(graph.graph, parallelism=2).vertices[2].keyed is keyed


def test_broadcast_alone_makes_no_vertex_keyed():
    graph = GraphBuilder().source("s").exchanged("all", "s", Partitioning.BROADCAST).graph

    plan = plan_job(graph, parallelism=2)

    assert edges(plan) == [("s", None, "all", "broadcast")]
    assert not plan.vertices[1].keyed


@pytest.mark.parametrize(
    ("senders", "receivers", "pairs"),
    [
        (2, 4, [(0, 0), (0, 1), (1, 2), (1, 3)]),
        (4, 2, [(0, 0), (1, 0), (2, 1), (3, 1)]),
        (2, 3, [(0, 0), (0, 1), (1, 2)]),
        (3, 2, [(0, 0), (1, 0), (2, 1)]),
        (2, 2, [(0, 0), (1, 1)]),
    ],
)
def test_rescale_connects_each_subtask_of_the_larger_side_once(senders, receivers, pairs):
    graph = GraphBuilder().source("s", parallelism=senders)
    graph.exchanged("t", "s", Partitioning.RESCALE, parallelism=receivers)
    plan = plan_job(graph.graph, parallelism=1)
    (edge,), (_, target) = plan.edges, plan.vertices

    leaving = [channel for sender in range(senders) for channel in plan.outgoing(edge, sender)]
    entering = [channel for receiver in range(receivers) for channel in plan.incoming(target, receiver)]

    assert [(channel.sender, channel.receiver) for channel in leaving] == pairs
    assert sorted(entering, key=lambda channel: channel.id) == leaving
    for receiver in range(receivers):
        assert plan.incoming_count(target, receiver) == len(plan.incoming(target, receiver))


def test_stream_united_with_itself_has_two_edges():
    plan = plan_job(GraphBuilder().source("s").map("twice", "s", "s").graph, parallelism=1)

    assert edges(plan) == [("s", None, "twice", "forward")] * 2


def test_chain_head_begins_a_chain_that_others_join():
    graph = GraphBuilder().source("s").map("a", "s", chain="head").map("b", "a").graph

    assert chains(plan_job(graph, parallelism=1)) == [["s"], ["a", "b"]]


def test_chain_never_keeps_an_operator_alone():
    graph = GraphBuilder().source("s").map("a", "s", chain="never").map("b", "a").graph

    plan = plan_job(graph, parallelism=1)

    assert chains(plan) == [["s"], ["a"], ["b"]]
    assert edges(plan) == [("s", None, "a", "forward"), ("a", None, "b", "forward")]


def test_sources_come_first_and_every_vertex_after_those_it_reads():
    graph = GraphBuilder().source("s").keyed("a", "s").source("t").keyed("b", "a", "t").graph

    plan = plan_job(graph, parallelism=1)

    assert chains(plan) == [["s"], ["t"], ["a"], ["b"]]
    assert all(edge.source < edge.target for edge in plan.edges)
    assert [vertex.source is not None for vertex in plan.vertices] == [True, True, False, False]


def test_channels_are_numbered_without_gaps():
    graph = (
        GraphBuilder()
        .source("s")
        .source("t", parallelism=3)
        .keyed("a", "s", "t")
        .map("b", "a", chain="head")
        .graph
    )
    plan = plan_job(graph, parallelism=2)

    leaving = [
        channel
        for edge in plan.edges
        for sender in range(plan.vertices[edge.source].parallelism)
        for channel in plan.outgoing(edge, sender)
    ]
    entering = [channel for vertex, subtask in plan.subtasks() for channel in plan.incoming(vertex, subtask)]
    assert sorted(leaving, key=lambda c: c.id) == sorted(entering, key=lambda c: c.id)
    for vertex, subtask in plan.subtasks():
        assert len(plan.incoming(vertex, subtask)) == plan.incoming_count(vertex, subtask)
    ids = [channel.id for channel in leaving]

    assert ids == list(range(2 * 2 + 3 * 2 + 2))


def test_max_parallelism_is_derived_and_marked_as_such():
    graph = GraphBuilder().source("s", parallelism=100).keyed("a", "s", max_parallelism=64).graph

    source, counting = plan_job(graph, parallelism=2).vertices

    assert (source.max_parallelism, source.max_parallelism_explicit) == (256, False)
    assert (counting.max_parallelism, counting.max_parallelism_explicit) == (64, True)


def test_configured_max_parallelism_counts_as_given():
    (vertex,) = plan_job(GraphBuilder().source("s").graph, parallelism=2, max_parallelism=16).vertices

    assert (vertex.max_parallelism, vertex.max_parallelism_explicit) == (16, True)


def test_operator_with_its_own_max_parallelism_does_not_join_a_chain_with_another():
    graph = GraphBuilder().source("s").keyed("a", "s", max_parallelism=64)
    graph.map("same", "a", max_parallelism=64).map("none", "same").map("other", "none", max_parallelism=32)

    assert chains(plan_job(graph.graph, parallelism=1)) == [["s"], ["a", "same", "none"], ["other"]]


@pytest.mark.parametrize(
    ("parallelism", "max_parallelism", "message"),
    [
        (5, 4, "parallelism is above max parallelism"),
        (0, None, "parallelism is below 1"),
        (1, 0, "max parallelism is below 1"),
        (1, 32769, "max parallelism is above the limit"),
        (2.0, None, "parallelism is not a whole number"),
        (True, None, "parallelism is not a whole number"),
        (1, "64", "max_parallelism is not a whole number"),
    ],
)
def test_count_out_of_range_names_the_operator(parallelism, max_parallelism, message):
    graph = GraphBuilder().source("lines", parallelism=parallelism, max_parallelism=max_parallelism).graph

    with pytest.raises(ConfigError, match=message) as raised:
        plan_job(graph, parallelism=1)

    assert raised.value.context["operator"] == "lines"


def test_job_without_operators_is_refused():
    with pytest.raises(GraphError, match="no operators"):
        plan_job(LogicalGraph(), parallelism=1)
