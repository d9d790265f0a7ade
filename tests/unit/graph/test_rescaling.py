"""A plan at another parallelism is the plan that the job would have had, with the uids of the old one."""

import pytest

from raystream.errors import ConfigError
from raystream.graph.chaining import plan_job
from raystream.graph.rescaling import rescaled
from tests.unit.graph.nodes import GraphBuilder, chains, edges

GROUPS = 128


def plan_of(graph, parallelism):
    return plan_job(graph, parallelism=parallelism, max_parallelism=GROUPS)


def keyed_job():
    return GraphBuilder().source("s").map("a", "s").keyed("count", "a").map("out", "count").graph


@pytest.mark.parametrize("parallelism", [1, 2, 5, GROUPS])
def test_plan_is_the_one_that_the_job_would_have_been_submitted_with(parallelism):
    graph = keyed_job()

    assert rescaled(plan_of(graph, 2), parallelism) == plan_of(graph, parallelism)


def test_operator_that_was_given_its_parallelism_keeps_it():
    graph = GraphBuilder().source("s", parallelism=1).keyed("count", "s").map("out", "count").graph

    plan = rescaled(plan_of(graph, 2), 4)

    assert [vertex.parallelism for vertex in plan.vertices] == [1, 4]
    assert plan == plan_of(graph, 4)


def test_chain_with_an_operator_of_its_own_parallelism_falls_into_pieces():
    graph = GraphBuilder().source("s").map("a", "s").map("one", "a", parallelism=1).map("b", "one").graph

    plan = rescaled(plan_of(graph, 1), 3)

    assert chains(plan) == [["s", "a"], ["one"], ["b"]]
    assert edges(plan) == [("a", None, "one", "rebalance"), ("one", None, "b", "rebalance")]
    assert plan == plan_of(graph, 3)


def test_pieces_of_a_tree_keep_their_names_and_the_order_of_their_sources():
    graph = (
        GraphBuilder()
        .source("s")
        .map("a", "s")
        .map("one", "s", parallelism=2)
        .map("b", "a")
        .source("t")
        .keyed("count", "t")
        .graph
    )

    plan = rescaled(plan_of(graph, 2), 3)

    assert [vertex.name for vertex in plan.vertices] == ["s -> a -> b", "t", "one", "count"]
    assert [edge.position for edge in plan.edges] == [0, 1]
    assert plan == plan_of(graph, 3)


def test_forward_edge_whose_ends_differ_becomes_a_rebalance_and_channels_are_numbered_anew():
    graph = GraphBuilder().source("s", parallelism=2).keyed("count", "s").rebalanced("out", "count").graph

    plan = rescaled(plan_of(graph, 2), 3)

    assert [edge.first_channel for edge in plan.edges] == [0, 6]
    assert plan == plan_of(graph, 3)


def test_back_and_forth_is_the_submitted_plan_again():
    graph = GraphBuilder().source("s").map("one", "s", parallelism=2).keyed("count", "one").graph
    submitted = plan_of(graph, 2)

    assert rescaled(submitted, 2) == submitted


def test_max_parallelism_stays_and_bounds_the_parallelism():
    plan = plan_job(keyed_job(), parallelism=2)
    assert {vertex.max_parallelism for vertex in rescaled(plan, 100).vertices} == {128}

    with pytest.raises(ConfigError, match="above the max parallelism") as caught:
        rescaled(plan, 129)

    assert caught.value.context == {"operator": "s", "parallelism": 129, "max_parallelism": 128}


def test_parallelism_below_one_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        rescaled(plan_of(keyed_job(), 2), 0)


def test_job_in_which_every_operator_was_given_its_parallelism_is_not_rescaled():
    graph = GraphBuilder().source("s", parallelism=2).map("a", "s", parallelism=2).graph

    with pytest.raises(ConfigError, match="every operator of the job was given its parallelism"):
        rescaled(plan_of(graph, 1), 3)
