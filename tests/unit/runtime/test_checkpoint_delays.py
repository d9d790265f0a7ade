"""One line says what held a checkpoint up, and names who was behind."""

import pytest

from raystream.errors import CheckpointError
from raystream.graph.physical import Edge, OperatorNode, Partitioning, PhysicalPlan, Vertex
from raystream.handles import SubtaskSnapshot
from raystream.ids import ChannelId, OperatorUid, VertexId
from raystream.runtime.checkpoint_delays import (
    failure_text,
    held_up_by,
    label,
    master_delay,
    subtask_records,
    waited_for,
)

READ, PARSE, COUNT = 0, 1, 2


def vertex(number, name, parallelism):
    node = OperatorNode(uid=OperatorUid(name), uid_generated=False, name=name, factory=object, stateful=False)
    return Vertex(
        id=VertexId(number), name=name, parallelism=parallelism, max_parallelism=8, slot_offset=0,
        operators=(node,), keyed=False,
    )  # fmt: skip


def edge(source, target, partitioning):
    return Edge(
        position=source, source=VertexId(source), source_operator=0, tag=None, target=VertexId(target),
        partitioning=partitioning, key_selector=None, first_channel=ChannelId(0),
    )  # fmt: skip


PLAN = PhysicalPlan(
    vertices=(vertex(READ, "read", 2), vertex(PARSE, "parse", 2), vertex(COUNT, "count hits", 4)),
    edges=(edge(READ, PARSE, Partitioning.FORWARD), edge(PARSE, COUNT, Partitioning.HASH)),
)


def explained(**parts):
    """Return the line for a checkpoint; what is not said took 1 ms.

    `parts` are by vertex and subtask, as in `count_2=dict(alignment_ms=5)`.
    """
    numbers = {"read": READ, "parse": PARSE, "count": COUNT}
    snapshots = []
    for name, number in numbers.items():
        for subtask in range(PLAN.vertices[number].parallelism):
            times = dict.fromkeys(("start_delay_ms", "alignment_ms", "sync_ms", "async_ms"), 1.0)
            times |= parts.get(f"{name}_{subtask}", {})
            snapshots.append(SubtaskSnapshot(vertex=VertexId(number), subtask=subtask, operators=(), **times))
    records = subtask_records(PLAN, snapshots)
    assert [record.total_ms for record in records] == sorted(
        (record.total_ms for record in records), reverse=True
    )
    return held_up_by(PLAN, records)


def test_alignment_is_the_fault_of_the_input_that_came_last():
    line = explained(
        read_1={"start_delay_ms": 4_000.0},
        parse_1={"start_delay_ms": 4_100.0},
        count_2={"alignment_ms": 4_200.0, "async_ms": 397.0},
    )
    assert line == "count hits 3/4: alignment 4.2 s of 4.6 s: input of read 2/2 is behind: its slot was busy"


def test_alignment_is_the_fault_of_a_subtask_in_between_when_its_own_input_was_in_time():
    line = explained(parse_0={"start_delay_ms": 3_000.0}, count_2={"alignment_ms": 3_100.0})

    assert line == "count hits 3/4: alignment 3.1 s of 3.1 s: input of parse 1/2 is behind"


def test_other_subtask_than_the_one_that_sends_forward_is_not_to_blame():
    line = explained(read_0={"start_delay_ms": 2_000.0}, parse_1={"start_delay_ms": 2_100.0})

    assert "parse 2/2: start delay 2.1 s" in line
    assert "read" not in line


@pytest.mark.parametrize("part", ["start_delay_ms", "alignment_ms"])
def test_subtask_whose_inputs_were_all_in_time_has_a_long_queue(part):
    assert explained(count_0={part: 900.0}).endswith(
        "records stood before the barrier: it is slower than its input, or what it sends to is"
    )


def test_source_whose_trigger_was_late_had_a_busy_slot():
    assert explained(read_1={"start_delay_ms": 700.0}) == (
        "read 2/2: start delay 700 ms of 703 ms: it is behind: its slot was busy"
    )


def test_time_in_the_subtask_itself_is_told_apart():
    frozen = explained(count_3={"sync_ms": 800.0})
    assert frozen.startswith("count hits 4/4: synchronous part 800 ms of 803 ms")
    assert explained(count_3={"async_ms": 60.0}) == (
        "count hits 4/4: asynchronous part 60 ms of 63 ms: 0 bytes of state were stored"
    )


def test_time_behind_the_last_acknowledgement_is_the_job_masters():
    record = subtask_records(
        PLAN, [SubtaskSnapshot(vertex=VertexId(READ), subtask=0, operators=(), async_ms=400.0)]
    )

    assert master_delay(record, 3_400.0) == "job master: 3.0 s of 3.4 s for the metadata and the log entry"
    assert master_delay(record, 700.0) == ""
    assert master_delay((), 700.0) == ""


def test_those_are_named_behind_whom_nobody_else_was_waited_for():
    assert waited_for(PLAN, [(READ, 1), (PARSE, 1), (COUNT, 0), (COUNT, 1)]) == (
        "read 2/2 and 3 more, most of them behind it had not acknowledged"
    )
    assert waited_for(PLAN, [(COUNT, 3)]) == "count hits 4/4 had not acknowledged"


def test_failure_names_the_subtask_whose_fault_it_was():
    declined = CheckpointError("disk is full", vertex=COUNT, subtask=1)

    assert failure_text(PLAN, "declined", declined) == "declined: disk is full (count hits 2/4)"
    assert failure_text(PLAN, "expired", CheckpointError("too late")) == "expired: too late"
    assert label(PLAN, (COUNT, 1)) == "count hits 2/4"
