"""A generated uid stays the same as long as the program says the same about the operator."""

import subprocess
import sys
from pathlib import Path

import pytest

from raystream.errors import GraphError
from raystream.graph.logical import UID_BYTES_MAX
from raystream.graph.physical import Partitioning
from raystream.graph.uid import assign_uids
from tests.unit.graph.nodes import GraphBuilder

ROOT = Path(__file__).resolve().parents[3]


def uid_of(builder: GraphBuilder, name: str) -> str:
    return assign_uids(builder.graph)[builder.ids[name]]


def plain() -> GraphBuilder:
    return GraphBuilder().source("lines").map("parse", "lines").keyed("count", "parse")


def test_given_uid_is_taken_as_it_is():
    assert uid_of(GraphBuilder().source("lines", uid="source"), "lines") == "source"


def test_same_structure_gives_the_same_uid():
    assert uid_of(plain(), "count") == uid_of(plain(), "count")


def test_generated_uid_is_the_same_in_every_process():
    code = "from tests.unit.graph.test_uid import *; print(uid_of(plain(), 'count'))"

    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }

    assert outputs == {uid_of(plain(), "count") + "\n"}


def test_generated_uids_are_those_of_earlier_versions():
    builder = GraphBuilder().source("lines").source("more").map("parse", "lines").map("late", "parse/late")
    builder.rebalanced("spread", "parse").keyed("count", "parse", "more")

    assert assign_uids(builder.graph) == {
        builder.ids["lines"]: "21b8e4d8dea1d736800e17492548acd3",
        builder.ids["more"]: "f7303f7623c26c82da5eec357af6adcf",
        builder.ids["parse"]: "b819c6a3be0c144716f9863ae73c565a",
        builder.ids["late"]: "a3c7cddd7bc7c061ce97f8106451dba8",
        builder.ids["spread"]: "abca4c5db36c8b5f440f1e5701a5ed4c",
        builder.ids["count"]: "9a09004ae309e0653e59c1039aa10328",
    }


def test_inputs_are_told_apart():
    one = GraphBuilder().source("a").source("b")
    one.connected("join", ("a", Partitioning.HASH), ("b", Partitioning.HASH))
    other = GraphBuilder().source("a").source("b")
    other.connected("join", ("b", Partitioning.HASH), ("a", Partitioning.HASH))
    united = GraphBuilder().source("a").source("b").keyed("join", "a", "b")

    assert len({uid_of(builder, "join") for builder in (one, other, united)}) == 3


def test_operators_downstream_and_beside_change_nothing():
    more = GraphBuilder().source("other").map("parse", "other").source("lines").map("parse", "lines")
    more.keyed("count", "parse", parallelism=7, chain="head").map("out", "count").map("again", "parse")

    assert uid_of(more, "count") == uid_of(plain(), "count")


def test_operator_inserted_upstream_changes_it():
    longer = (
        GraphBuilder().source("lines").map("clean", "lines").map("parse", "clean").keyed("count", "parse")
    )

    assert uid_of(longer, "count") != uid_of(plain(), "count")


def test_given_uid_shields_what_is_below_from_what_is_above():
    short = GraphBuilder().source("lines").map("parse", "lines", uid="parse").keyed("count", "parse")
    longer = GraphBuilder().source("lines").map("clean", "lines").map("parse", "clean", uid="parse")
    longer.keyed("count", "parse")

    assert uid_of(short, "count") == uid_of(longer, "count")


def test_operators_that_agree_in_everything_get_different_uids():
    builder = GraphBuilder().source("lines")
    for _ in range(3):
        builder.map("parse", "lines")

    assert len(set(assign_uids(builder.graph).values())) == 4


def test_side_outputs_are_told_apart():
    builder = GraphBuilder().source("lines").map("parse", "lines").map("keep", "parse/odd")
    odd = uid_of(builder, "keep")

    assert uid_of(builder.map("keep", "parse/even"), "keep") != odd


def test_two_operators_with_one_uid_are_both_named():
    builder = GraphBuilder().source("lines").map("parse", "lines", uid="x").map("clean", "parse", uid="x")

    with pytest.raises(GraphError, match="two operators have one uid") as raised:
        assign_uids(builder.graph)

    assert raised.value.context == {"uid": "x", "operators": ["parse", "clean"]}


@pytest.mark.parametrize("uid", ["", "  ", 7])
def test_uid_that_is_no_short_text_is_refused(uid):
    with pytest.raises(GraphError, match="uid of an operator"):
        GraphBuilder().source("lines", uid=uid)


def test_uid_that_is_too_long_for_a_file_name_is_refused():
    assert uid_of(GraphBuilder().source("lines", uid="x" * UID_BYTES_MAX), "lines") == "x" * UID_BYTES_MAX

    for uid in ("x" * (UID_BYTES_MAX + 1), "語" * (UID_BYTES_MAX // 9 + 1)):
        with pytest.raises(GraphError, match="uid of an operator is too long") as raised:
            GraphBuilder().source("lines", uid=uid)
        assert raised.value.context["uid"] == uid


def test_uid_that_is_not_text_is_refused():
    with pytest.raises(GraphError, match="uid is not UTF-8 text"):
        GraphBuilder().source("lines", uid="\udcff")
