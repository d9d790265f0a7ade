"""What a slot is made of: chains, copies at the hand-over, channels that both ends agree on."""

import pytest

from raystream import ProcessFunction
from raystream.errors import ConnectionLostError
from raystream.ids import SlotId
from raystream.operators.operator import Operator
from raystream.records.batch import RowBatch
from raystream.runtime.deployment import SlotBuilder, make_operators
from raystream.runtime.frame import FrameKind
from raystream.runtime.links import MemoryLinks, MemoryNetwork
from raystream.testing import TestSource
from tests.unit.operators.running import Run
from tests.unit.runtime.slot_world import VisibleSink, program, word_count


def builder(job, slot=0):
    links = MemoryLinks(MemoryNetwork(), lambda: None)
    return SlotBuilder(job.plan, SlotId(slot), links, job.config)


def wired(job, slot=0):
    """Return the builder of a slot with all its subtasks in place, and their gates."""
    made, gates = builder(job, slot), []
    for vertex, subtask in made.subtasks():
        gates.append(made.gate(vertex, subtask))
        contexts = [Run(Operator()).context for _ in vertex.operators]
        made.wire_chain(vertex, subtask, make_operators(vertex), contexts)
    made.attach_local_channels()
    return made, gates


def test_slot_runs_its_subtask_of_every_vertex():
    job = word_count(TestSource(["ape"]))

    assert [(v.id, subtask) for v, subtask in builder(job, slot=1).subtasks()] == [(0, 1), (1, 1)]


def test_both_ends_of_a_connection_know_the_same_channels():
    job = word_count(TestSource(["ape"]), parallelism=3)
    slots = [wired(job, slot)[0].wiring for slot in range(3)]

    sent = {channel for wiring in slots for channel in wiring.remote_outputs}
    received = {channel for wiring in slots for channel in wiring.inputs}
    assert len(sent) == 6
    assert sent < received
    assert len(received) == 9
    assert [wiring.peers for wiring in slots] == [{1, 2}, {0, 2}, {0, 1}]


def test_gate_has_a_channel_for_every_sender_of_every_edge():
    def build(env):
        one = env.from_source(TestSource(["a"]), uid="one")
        other = env.from_source(TestSource(["b"]), uid="other")
        one.union(other).key_by(str).process(lambda v, ctx: [v], uid="all").sink_to(VisibleSink(), uid="out")

    _, gates = wired(program(build, parallelism=2))

    assert [len(gate.channels) for gate in gates] == [0, 0, 4]


@pytest.mark.parametrize("kind", [FrameKind.BATCH, FrameKind.CREDIT])
def test_frame_for_a_channel_that_is_not_here_is_an_error(kind):
    made, _ = wired(word_count(TestSource(["ape"])))

    with pytest.raises(ConnectionLostError, match="does not end here"):
        made.wiring.frame_received(SlotId(1), 999, kind, memoryview(b"\x01" * 8))


class Split(ProcessFunction):
    def process_element(self, value, ctx):
        ctx.output("side", [value])
        yield [value]


@pytest.mark.parametrize("copy_records", [False, True])
def test_chain_is_a_tree_and_copies_for_every_branch_on_demand(copy_records):
    def build(env):
        split = env.from_source(TestSource(["a"]), uid="in").process(Split(), uid="split")
        split.map(list, uid="main").sink_to(VisibleSink(), uid="main-out")
        split.map(list, uid="again").sink_to(VisibleSink(), uid="again-out")
        split.get_side_output("side").map(list, uid="side").sink_to(VisibleSink(), uid="side-out")

    job = program(build, parallelism=1, pipeline_copy_records=copy_records)
    (vertex,) = job.plan.vertices
    names = [node.uid for node in vertex.operators]
    operators = make_operators(vertex)
    taken = {}
    for name, operator in zip(names, operators, strict=True):
        if name in ("main", "again", "side"):
            operator.process = lambda batch, name=name: taken.setdefault(name, batch)
    builder(job).wire_chain(vertex, 0, operators, [Run(Operator()).context for _ in names])
    operators[names.index("split")].process(RowBatch(["x"]))

    assert {name: batch.values for name, batch in taken.items()} == {name: [["x"]] for name in taken}
    assert taken.keys() == {"main", "again", "side"}
    assert (taken["main"].values[0] is taken["again"].values[0]) is not copy_records
