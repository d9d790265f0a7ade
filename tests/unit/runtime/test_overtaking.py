"""A subtask whose barriers overtake: what is in flight goes to the snapshot, and on to the operator."""

import pytest

from raystream.graph.physical import OperatorNode, Vertex
from raystream.handles import ChannelStage
from raystream.operators.operator import Operator
from raystream.protocol.alignment import BarrierAligner
from raystream.records.batch import RowBatch
from raystream.records.elements import Barrier, EndOfInput, SnapshotKind, Watermark
from raystream.runtime import overtaking as overtaking_module
from raystream.runtime.channel import LOCAL_BYTES_MAX, LocalOutput, RemoteOutput
from raystream.runtime.frame import FrameKind
from raystream.runtime.gate import Gate
from raystream.runtime.in_flight import Route
from raystream.runtime.output import ForwardWriter, Outputs
from raystream.runtime.overtaking import Overtaking, OvertakingPolicy
from raystream.runtime.subtask import Subtask
from raystream.testing.source_run import ManualClock

WINDOW = 200
LIMIT_MS = 100


class PassOn(Operator):
    """Hands every record on, and remembers it; perhaps takes its time."""

    def __init__(self, clock):
        self.clock = clock
        self.seen = []
        self.record_ms = 0.0

    def process(self, batch):
        self.seen += batch.values
        self.clock.now_ms += self.record_ms * len(batch.values)
        self.emit(batch)


def route(sender, receiver, *, owner="op"):
    return Route(owner=owner, target="op", input=0, sender=sender, receiver=receiver, keyed=False)


def barrier(checkpoint_id, kind=SnapshotKind.CHECKPOINT, created_ms=0):
    return Barrier(checkpoint_id=checkpoint_id, kind=kind, created_ms=created_ms, directory="")


class World:
    """A subtask with two input channels and one output without much credit; plays the snapshotter too."""

    def __init__(self, *, timeout_ms=0, in_flight=()):
        self.clock = ManualClock()
        self.gate, self.senders = Gate(), []
        for sender in range(2):
            output = LocalOutput(1 << 20)
            output.attach(
                self.gate.add_channel(1 << 20, LOCAL_BYTES_MAX, output.granted, route=route(sender, 0))
            )
            self.senders.append(output)
        self.frames = []
        self.output = RemoteOutput(WINDOW, lambda *frame: self.frames.append(frame), "op", route(0, 1))
        self.operator = PassOn(self.clock)
        outputs = Outputs([ForwardWriter([self.output])])
        self.operator.emit = self.output.send
        node = OperatorNode(uid="op", uid_generated=False, name="op", factory=None, stateful=False)
        vertex = Vertex(
            id=0, name="op", parallelism=1, max_parallelism=4, slot_offset=0, operators=(node,), keyed=False
        )
        policy = OvertakingPolicy(timeout_ms=timeout_ms, copied=None)
        self.taken, self.declined = {}, []
        self.machine = BarrierAligner(2, overtaking=True)
        self.subtask = Subtask(
            vertex,
            0,
            operators=[self.operator],
            gate=self.gate,
            outputs=outputs,
            snapshotter=self,
            machine=self.machine,
            listener=self,
            clock=self.clock,
            overtaking=Overtaking(policy, self.gate, outputs, self.clock),
            in_flight=in_flight,
        )

    def take(self, vertex, subtask, operators, barrier, *, flight, **measured):
        self.taken[barrier.checkpoint_id] = list(self.operator.seen), flight

    def snapshot_declined(self, subtask, checkpoint_id, reason):
        self.declined.append(checkpoint_id)

    def input_ended(self, subtask):
        """Nothing follows."""

    def send(self, sender, *values):
        self.senders[sender].send(RowBatch(list(values)))

    def run(self):
        while self.subtask.can_run:
            self.subtask.run()

    def in_flight(self, checkpoint_id, stage):
        """Return the records of a stage, by sender and receiver."""
        _, flight = self.taken[checkpoint_id]
        return {
            (channel.route.sender, channel.route.receiver): [
                value for batch in channel.batches() for value in batch.values
            ]
            for stored in flight.stored_by("op")
            for channel in stored.channels
            if stored.stage is stage
        }

    def fill_output(self):
        """Take all of its credit, so that what follows waits."""
        while self.output.has_room:
            self.output.send(RowBatch(["filling" * 40] * 600))


@pytest.fixture
def world():
    return World()


def test_barrier_overtakes_the_input_of_its_channel_and_of_those_without_it(world):
    world.send(0, 1, 2)
    world.senders[0].send_control(barrier(1))
    world.send(0, 3)
    world.send(1, 10)
    world.subtask.see_to_barriers()

    seen, flight = world.taken[1]
    assert seen == []
    assert flight.open
    world.send(1, 11)
    world.senders[1].send_control(barrier(1))
    world.send(1, 12)
    world.subtask.see_to_barriers()

    assert not flight.open
    assert world.in_flight(1, ChannelStage.INPUT) == {(0, 0): [1, 2], (1, 0): [10, 11]}
    world.run()
    assert sorted(world.operator.seen) == [1, 2, 3, 10, 11, 12]
    world.machine.validate()


def test_what_stands_between_records_is_no_part_of_a_snapshot_and_is_processed(world):
    world.senders[0].send_control(Watermark(5))
    world.send(0, 1)
    for sender in world.senders:
        sender.send_control(EndOfInput())
        sender.send_control(barrier(1))
    world.subtask.see_to_barriers()

    assert world.in_flight(1, ChannelStage.INPUT) == {(0, 0): [1]}
    world.run()
    assert world.gate.ended


def test_barrier_goes_ahead_of_what_waits_in_an_output(world):
    world.fill_output()
    world.output.send(RowBatch(["held back"]))
    sent = len(world.frames)
    for sender in world.senders:
        sender.send_control(barrier(1))
    world.subtask.see_to_barriers()

    assert len(world.frames) == sent + 1, "the barrier, and nothing else"
    (stored,) = world.in_flight(1, ChannelStage.OUTPUT).values()
    assert stored[-1] == "held back"
    assert set(stored[:-1]) == {"filling" * 40}
    assert not world.taken[1][1].open


def test_barrier_that_waits_in_an_output_overtakes_when_it_is_too_old():
    """That of a source is emitted whatever room there is."""
    world = World(timeout_ms=LIMIT_MS)
    world.fill_output()
    sent = len(world.frames)
    world.subtask.trigger(barrier(1, created_ms=world.clock.wall_ms()))
    world.output.send(RowBatch(["behind"]))
    world.subtask.see_to_barriers()
    _, flight = world.taken[1]
    assert flight.open
    assert len(world.frames) == sent
    assert world.subtask.next_barrier_ms() == world.clock.monotonic_ms() + LIMIT_MS

    world.clock.now_ms += LIMIT_MS
    world.subtask.see_to_barriers()

    assert not flight.open
    assert [kind for kind, _ in world.frames[sent:]] == [FrameKind.CONTROL]
    (stored,) = world.in_flight(1, ChannelStage.OUTPUT).values()
    assert set(stored) == {"filling" * 40}


def test_barrier_that_leaves_an_output_in_time_overtakes_nothing():
    world = World(timeout_ms=LIMIT_MS)
    world.fill_output()
    world.subtask.trigger(barrier(1, created_ms=world.clock.wall_ms()))
    while not world.output.has_room:
        world.output.granted(world.output._credit.outstanding_bytes)
    world.subtask.see_to_barriers()

    _, flight = world.taken[1]
    assert not flight.open
    assert flight.stored_by("op") == ()


def test_alignment_gives_way_when_the_barrier_is_too_old():
    world = World(timeout_ms=LIMIT_MS)
    created_ms = world.clock.wall_ms()
    world.senders[0].send_control(barrier(1, created_ms=created_ms))
    world.send(0, 1)
    world.run()
    world.send(1, 10)
    world.subtask.see_to_barriers()
    assert world.taken == {}

    due_ms = world.subtask.next_barrier_ms()
    assert due_ms == world.clock.monotonic_ms() + LIMIT_MS
    world.clock.now_ms += LIMIT_MS
    world.subtask.see_to_barriers()
    world.send(1, 11)
    world.senders[1].send_control(barrier(1, created_ms=created_ms))
    world.subtask.see_to_barriers()

    assert world.taken[1][0] == []
    assert world.in_flight(1, ChannelStage.INPUT) == {(1, 0): [10, 11]}
    assert world.subtask.next_barrier_ms() is None


def test_savepoint_waits_for_its_turn(world):
    world.send(0, 1)
    world.send(1, 2)
    for sender in world.senders:
        sender.send_control(barrier(1, SnapshotKind.SAVEPOINT))
    world.subtask.see_to_barriers()
    assert world.taken == {}

    world.run()

    seen, flight = world.taken[1]
    assert sorted(seen) == [1, 2]
    assert flight is None


def test_newer_barrier_overtakes_an_aborted_savepoint(world):
    world.send(0, 1)
    world.senders[0].send_control(barrier(1, SnapshotKind.SAVEPOINT))
    world.senders[1].send_control(barrier(1, SnapshotKind.SAVEPOINT))
    world.subtask.checkpoint_aborted(1)
    for sender in world.senders:
        sender.send_control(barrier(2))
    world.subtask.see_to_barriers()
    world.run()

    assert list(world.taken) == [2]
    assert world.in_flight(2, ChannelStage.INPUT) == {(0, 0): [1]}
    assert world.operator.seen == [1]


def test_an_abort_forgets_what_was_captured(world):
    world.send(1, 10)
    world.senders[0].send_control(barrier(1))
    world.subtask.see_to_barriers()
    _, flight = world.taken[1]
    size_bytes = flight.size_bytes

    world.subtask.checkpoint_aborted(1)
    world.send(1, 11)

    assert flight.size_bytes == size_bytes
    assert world.machine.checkpoint_in_progress is None


def test_too_much_in_flight_declines_the_checkpoint(world, monkeypatch):
    monkeypatch.setattr(overtaking_module, "IN_FLIGHT_BYTES_MAX", 100)
    world.senders[0].send_control(barrier(1))
    world.subtask.see_to_barriers()
    world.send(1, "x" * 200)
    world.subtask.see_to_barriers()

    assert world.declined == [1]
    world.senders[1].send_control(barrier(1))
    world.subtask.see_to_barriers()
    world.run()
    assert world.operator.seen == ["x" * 200]


def test_restored_records_come_first_and_are_in_flight_until_they_are_processed():
    world = World(in_flight=[(0, 0, RowBatch([1])), (0, 0, RowBatch([2]))])
    world.send(0, 3)
    world.subtask.run()
    for sender in world.senders:
        sender.send_control(barrier(1))
    world.subtask.see_to_barriers()

    assert world.taken[1][0] == [1]
    assert world.in_flight(1, ChannelStage.TAKEN) == {(0, 0): [2]}
    assert world.in_flight(1, ChannelStage.INPUT) == {(0, 0): [3]}
    world.run()
    assert world.operator.seen == [1, 2, 3]


def test_savepoint_waits_behind_restored_records():
    world = World(in_flight=[(0, 0, RowBatch([1])), (0, 0, RowBatch([2]))])
    for sender in world.senders:
        sender.send_control(barrier(1, SnapshotKind.SAVEPOINT))
    world.run()

    assert world.taken[1] == ([1, 2], None)


def test_slow_batch_is_cut_and_a_barrier_overtakes_its_rest(world):
    world.operator.record_ms = 10.0
    world.send(0, *range(10))
    world.subtask.run()
    assert world.operator.seen == list(range(10)), "nobody knew yet"
    world.send(0, *range(10, 20))
    world.subtask.run()
    assert world.operator.seen == list(range(15))
    for sender in world.senders:
        sender.send_control(barrier(1))
    world.subtask.see_to_barriers()

    assert world.taken[1][0] == list(range(15))
    assert world.in_flight(1, ChannelStage.TAKEN) == {(0, 0): [15, 16, 17, 18, 19]}
