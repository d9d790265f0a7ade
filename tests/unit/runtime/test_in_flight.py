"""What a subtask does with records in flight: of its own snapshot, and of the one that it restores."""

import weakref

import pytest

from raystream.handles import InlineHandle
from raystream.keys import KeyGroupCache
from raystream.operators.operator import Operator
from raystream.protocol.alignment import BarrierAligner
from raystream.records.batch import RowBatch
from raystream.records.elements import Barrier, SnapshotKind
from raystream.runtime.channel import LOCAL_BYTES_MAX
from raystream.runtime.gate import Gate
from raystream.runtime.in_flight import Route
from raystream.runtime.messages import ChannelRun, CheckpointCompleted, OperatorRestore
from raystream.runtime.output import Outputs
from raystream.runtime.overtaking import Overtaking, OvertakingPolicy
from raystream.runtime.subtask import Subtask
from raystream.state.channel_state import encode_slice
from raystream.testing import TestSource
from raystream.testing.source_run import ManualClock
from tests.unit.runtime.slot_world import Count, VisibleSink, World, first_letter, program

ROUTE = Route(owner="one", target="one", input=0, sender=0, receiver=0, keyed=False)
BARRIER = Barrier(checkpoint_id=1, kind=SnapshotKind.CHECKPOINT, created_ms=0, directory="")


class Record:
    """What can be seen to be forgotten."""


class Waiting:
    """A subtask with two channels that nobody reads; plays the snapshotter itself."""

    def __init__(self, route=ROUTE):
        gate, outputs, clock = Gate(), Outputs([]), ManualClock()
        self.channels = [
            gate.add_channel(1 << 20, LOCAL_BYTES_MAX, lambda size: None, route=route) for _ in range(2)
        ]
        policy = OvertakingPolicy(timeout_ms=0, copied=None)
        self.flights = []
        self.subtask = Subtask(
            type("Vertex", (), {"operators": ()}),
            0,
            operators=[Operator()],
            gate=gate,
            outputs=outputs,
            snapshotter=self,
            machine=BarrierAligner(2, overtaking=route is not None),
            overtaking=Overtaking(policy, gate, outputs, clock),
            listener=self,
            clock=clock,
        )

    def take(self, *_, flight, **__):
        self.flights.append(flight)


@pytest.fixture
def visible():
    VisibleSink.visible.clear()
    return VisibleSink.visible


def test_records_in_flight_are_forgotten_when_the_snapshot_is_done_with_them():
    waiting = Waiting()
    record = Record()
    known = weakref.ref(record)
    waiting.channels[0].put(RowBatch([record]), 1)
    del record
    for channel in waiting.channels:
        channel.put(BARRIER, 0)
    waiting.subtask.see_to_barriers()
    waiting.subtask.run()
    assert known() is not None

    waiting.flights.clear()
    waiting.subtask.see_to_barriers()

    assert known() is None


def test_alignment_that_nothing_can_end_early_does_not_wake_the_slot():
    waiting = Waiting(route=None)
    waiting.channels[0].put(BARRIER, 0)
    waiting.subtask.run()

    assert waiting.channels[0].blocked
    assert waiting.subtask.next_barrier_ms() is None


def test_records_in_flight_to_the_end_of_a_chain_come_before_what_its_head_makes_of_its_own(visible):
    def build(env):
        counted = env.from_source(TestSource(["fox"]), uid="words").key_by(first_letter)
        counted = counted.process(Count(), name="count", uid="count")
        counted.map(lambda record: record, name="same", uid="same").sink_to(VisibleSink(), uid="out")

    world = World(program(build, parallelism=1, execution_checkpointing_unaligned_enabled=True), slots=1)
    (vertex,) = (one for one in world.program.plan.vertices if one.keyed)
    group = KeyGroupCache(vertex.max_parallelism)["a"]
    in_flight = {
        "count": RowBatch(["ape"], None, ["a"], [group]),
        "same": RowBatch([("ape", "counted long ago")]),
    }
    world.begin(restore={(vertex.id, 0): {uid: _restore(batch) for uid, batch in in_flight.items()}})
    world.trigger(1)
    world.send(CheckpointCompleted, checkpoint_id=1)

    assert visible == [("ape", "counted long ago"), ("ape", 1), ("fox", 1)]


def _restore(batch):
    data = encode_slice([batch])
    run = ChannelRun(data=InlineHandle(data=data), offset=0, size_bytes=len(data), start=0, stop=1, input=0)
    return OperatorRestore(directory="memory://snapshot", channels=(run,))
