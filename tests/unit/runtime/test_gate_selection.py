"""A gate reads the inputs that its operator selects, and no selection keeps a barrier from aligning."""

import random
from itertools import chain

import pytest

from raystream.protocol import alignment as align
from raystream.records.batch import RowBatch
from raystream.records.elements import Barrier, EndOfInput, SnapshotKind, Watermark
from raystream.runtime.channel import LOCAL_BYTES_MAX, LocalOutput
from raystream.runtime.gate import Gate

WINDOW = 1 << 20


def gate_of(*input_numbers, window=WINDOW):
    gate, outputs = Gate(), []
    for number in input_numbers:
        output = LocalOutput(window)
        output.attach(gate.add_channel(window, LOCAL_BYTES_MAX, output.granted, input_number=number))
        outputs.append(output)
    return gate, outputs


def take_all(gate):
    taken = []
    while gate.has_input:
        channel, element = gate.take()
        if isinstance(element, EndOfInput):
            gate.end(channel)
        taken.append((channel.index, element.values[0] if isinstance(element, RowBatch) else element))
    return taken


def barrier(checkpoint_id):
    return Barrier(checkpoint_id=checkpoint_id, kind=SnapshotKind.CHECKPOINT, created_ms=0, directory="")


def test_records_of_an_input_that_is_not_selected_wait():
    gate, outputs = gate_of(0, 1, 1)
    gate.select({1})
    for output in outputs:
        output.send(RowBatch(["first"]))
        output.send(RowBatch(["second"]))

    assert take_all(gate) == [(1, "first"), (2, "first"), (1, "second"), (2, "second")]

    gate.select({0})

    assert take_all(gate) == [(0, "first"), (0, "second")]


def test_no_selection_reads_everything_again():
    gate, outputs = gate_of(0, 1)
    gate.select({1})
    outputs[0].send(RowBatch(["record"]))
    gate.select(None)

    assert take_all(gate) == [(0, "record")]


def test_what_stands_between_batches_is_taken_from_every_channel():
    gate, outputs = gate_of(0, 1)
    gate.select({1})
    outputs[0].send_control(Watermark(1))
    outputs[0].send_control(Watermark(2))
    outputs[0].send(RowBatch(["record"]))
    outputs[0].send_control(Watermark(3))

    assert take_all(gate) == [(0, Watermark(1)), (0, Watermark(2))]
    assert gate.ready_count == 0


def test_sender_of_an_input_that_is_not_selected_stops_when_its_credit_is_used_up():
    gate, outputs = gate_of(0, 1, window=100)
    gate.select({1})
    sent = 0
    while outputs[0].has_room:
        outputs[0].send(RowBatch([sent]))
        sent += 1

    assert take_all(gate) == []
    gate.select(None)
    assert take_all(gate) == [(0, n) for n in range(sent)]


def test_barrier_behind_records_of_the_other_input_aligns_while_the_selected_one_is_blocked():
    gate, outputs = gate_of(0, 1)
    gate.select({1})
    outputs[0].send(RowBatch(["in front of the barrier"]))
    outputs[0].send_control(barrier(1))
    outputs[0].send(RowBatch(["behind the barrier"]))
    outputs[1].send_control(barrier(1))

    assert take_all(gate) == [(1, barrier(1))]
    gate.block(1)
    assert gate.take()[1].values == ["in front of the barrier"]
    assert gate.take()[1] == barrier(1)
    gate.block(0)
    gate.resume(frozenset({0, 1}))
    assert not gate.has_input


def test_selected_input_that_has_ended_leaves_the_others_to_be_read():
    gate, outputs = gate_of(0, 1)
    gate.select({1})
    outputs[0].send(RowBatch(["record"]))
    outputs[1].send(RowBatch(["last"]))
    outputs[1].send_control(EndOfInput())

    assert take_all(gate) == [(1, "last"), (1, EndOfInput()), (0, "record")]


class Reader:
    """Takes from a gate as a subtask does, and selects inputs at random."""

    def __init__(self, rng, gate):
        self.rng = rng
        self.gate = gate
        self.aligner = align.BarrierAligner(len(gate.channels))
        self.taken = [[] for _ in gate.channels]
        self.snapshots = []

    def take(self):
        channel, element = self.gate.take()
        assert not channel.blocked
        if isinstance(element, Barrier):
            self.execute(self.aligner.barrier_received(channel.index, element.checkpoint_id, 0.0))
            return
        if isinstance(element, EndOfInput):
            self.gate.end(channel)
            return
        if self.selected is not None and channel.input_number not in self.selected:
            wanted = [c for c in self.gate.channels if c.input_number in self.selected]
            assert all(c.blocked or c.ended for c in wanted)
        self.taken[channel.index] += element.values
        if self.rng.random() < 0.3:
            self.select()

    def select(self):
        self.selected = self.rng.choice([None, {0}, {1}, {0, 1}])
        self.gate.select(self.selected)

    def execute(self, commands):
        for command in commands:
            match command:
                case align.BlockChannel(channel):
                    self.gate.block(channel)
                case align.ResumeChannels(channels):
                    self.gate.resume(channels)
                case align.TakeSnapshot(checkpoint_id, _):
                    self.snapshots.append((checkpoint_id, [len(taken) for taken in self.taken]))


@pytest.mark.parametrize("seed", range(100))
def test_every_barrier_aligns_and_every_record_is_read_whatever_is_selected(seed):
    rng = random.Random(seed)
    gate, outputs = gate_of(0, 0, 1, 1, window=rng.choice([1, 300, WINDOW]))
    reader = Reader(rng, gate)
    reader.select()
    plans = [
        [("record", n) for n in range(rng.randrange(12))] + [("barrier", checkpoint_id)]
        for checkpoint_id in (1, 2, 3)
        for _ in outputs
    ]
    scripts = [[*chain(*plans[index::4]), ("end", None)] for index in range(4)]
    sent = [[value for kind, value in script if kind == "record"] for script in scripts]
    cuts = [
        (checkpoint_id, [sum(len(plans[4 * n + i]) - 1 for n in range(checkpoint_id)) for i in range(4)])
        for checkpoint_id in (1, 2, 3)
    ]
    while any(scripts) or gate.has_input:
        if gate.has_input and rng.random() < 0.5:
            reader.take()
        able = [i for i in range(4) if scripts[i] and outputs[i].has_room]
        assert able or gate.has_input or not any(scripts), "nothing can go on"
        if able:
            index = rng.choice(able)
            kind, value = scripts[index].pop(0)
            if kind == "record":
                outputs[index].send(RowBatch([value]))
            else:
                outputs[index].send_control(barrier(value) if kind == "barrier" else EndOfInput())

    assert reader.taken == sent
    assert reader.snapshots == cuts


def test_all_inputs_are_read_while_counted_barriers_are_missing():
    gate, outputs = gate_of(0, 1)
    gate.select({1})
    outputs[0].send(RowBatch(["record"]))
    outputs[0].send_control(barrier(1))
    assert not gate.has_input

    gate.read_all(True)
    assert take_all(gate) == [(0, "record"), (0, barrier(1))]

    gate.read_all(False)
    outputs[0].send(RowBatch(["next"]))
    assert not gate.has_input
