"""The shell of one subtask: what it does with elements between batches and with times that have come."""

import gc
import weakref

import pytest

from raystream.operators.operator import Operator
from raystream.protocol.alignment import BarrierAligner
from raystream.protocol.tracking import BarrierTracker
from raystream.records.batch import RowBatch
from raystream.records.elements import (
    WATERMARK_MAX_MS,
    Active,
    Barrier,
    EndOfInput,
    Idle,
    SnapshotKind,
    Watermark,
)
from raystream.runtime.channel import LOCAL_BYTES_MAX
from raystream.runtime.gate import Gate
from raystream.runtime.subtask import Subtask
from raystream.testing.source_run import ManualClock


class Slow(Operator):
    """Notes what it is told, and takes as many steps for each watermark as its test says."""

    def __init__(self, log, steps=0):
        self.log = log
        self.steps = self.left = steps
        self.arrived = []

    def process(self, batch):
        self.log.append(batch.values)

    def process_event_time(self, element):
        self.arrived.append(element)
        self.left = self.steps
        if not self.steps:
            self.catch_up()

    @property
    def catching_up(self):
        return bool(self.arrived)

    def catch_up(self):
        if self.left:
            self.left -= 1
        else:
            self.log.append(self.arrived.pop(0))

    def time_reached(self):
        self.log.append("time")


class Outputs:
    has_room = True

    def __init__(self, log):
        self.log = log

    def broadcast(self, control):
        self.log.append(control)


class Running:
    """A subtask with two channels, which plays the parts of outputs and listener itself."""

    def __init__(self, steps=0, machine=BarrierAligner):
        self.log = []
        self.outputs = Outputs(self.log)
        gate = Gate()
        self.channels = [gate.add_channel(1 << 20, LOCAL_BYTES_MAX, lambda size: None) for _ in range(2)]
        self.subtask = Subtask(
            None,
            0,
            operators=[Slow(self.log, steps), Slow(self.log)],
            gate=gate,
            outputs=self.outputs,
            snapshotter=None,
            machine=machine(2),
            listener=self,
            clock=ManualClock(),
        )

    def put(self, channel, *elements):
        for element in elements:
            self.channels[channel].put(element, isinstance(element, RowBatch))

    def run(self):
        """Do all that can be done; return what was done."""
        while self.subtask.can_run:
            assert self.subtask.ready_count > 0
            self.subtask.run()
        return self.log

    def input_ended(self, subtask):
        self.log.append("ended")


@pytest.fixture
def running():
    return Running()


def test_event_time_of_all_channels_reaches_the_head(running):
    running.put(0, Watermark(10), Idle())
    running.put(1, Watermark(5), Watermark(20), Idle())
    assert running.run() == [Watermark(5), Watermark(20), Idle()]

    running.put(0, Active())
    assert running.run()[-1] == Active()


def test_channel_that_has_ended_does_not_hold_up_the_other(running):
    running.put(0, EndOfInput())
    running.put(1, Watermark(10))

    assert running.run() == [Watermark(10)]


def test_last_watermark_comes_before_the_end_of_the_input(running):
    running.put(0, EndOfInput())
    running.put(1, EndOfInput())

    assert running.run() == [Watermark(WATERMARK_MAX_MS), EndOfInput(), "ended"]


def test_nothing_is_taken_from_the_gate_while_the_head_is_catching_up():
    running = Running(steps=3)
    running.put(0, Watermark(10), RowBatch(["later"]))
    running.put(1, Watermark(10))
    for _ in range(2):
        running.subtask.run()
    running.put(1, EndOfInput())
    while running.subtask.operators[0].catching_up:
        assert "later" not in running.log
        running.subtask.run()

    assert running.log == [Watermark(10)]
    assert running.run() == [Watermark(10), ["later"]]


def test_input_ends_when_the_head_has_caught_up():
    running = Running(steps=3)
    running.put(0, EndOfInput())
    running.put(1, EndOfInput())

    assert running.run() == [Watermark(WATERMARK_MAX_MS), EndOfInput(), "ended"]


def test_head_that_is_catching_up_waits_for_room_in_the_outputs():
    running = Running(steps=3)
    running.put(0, Watermark(10))
    running.put(1, Watermark(10))
    running.subtask.run()
    running.subtask.run()
    running.outputs.has_room = False

    assert running.run() == []
    running.outputs.has_room = True
    assert running.run() == [Watermark(10)]


def test_operator_is_told_once_that_its_time_has_come_and_not_before_there_is_room(running):
    running.outputs.has_room = False
    for position in (1, 0, 1):
        running.subtask.time_reached(position)
    assert not running.subtask.can_run_woken

    running.outputs.has_room = True
    while running.subtask.can_run_woken:
        running.subtask.run_woken()
    assert running.log == ["time", "time"]


def test_time_that_comes_after_the_end_of_the_input_is_told_to_nobody(running):
    running.put(0, EndOfInput())
    running.put(1, EndOfInput())
    running.run()
    running.subtask.time_reached(0)
    running.subtask.run_woken()

    assert "time" not in running.log


def test_barrier_behind_a_watermark_waits_for_all_that_the_watermark_brings_about():
    running = Running(steps=3)
    barrier = Barrier(checkpoint_id=1, kind=SnapshotKind.CHECKPOINT, created_ms=0, directory="")
    running.put(0, Watermark(10), barrier)
    running.put(1, Watermark(10))

    assert running.run() == [Watermark(10)]
    assert running.channels[0].blocked


class Watched(Barrier):
    """A barrier that tells whether somebody still has it."""


@pytest.mark.parametrize("machine", [BarrierAligner, BarrierTracker])
def test_barriers_of_checkpoints_that_never_complete_are_forgotten(machine):
    running, kept = Running(machine=machine), []

    def barrier(number):
        made = Watched(checkpoint_id=number, kind=SnapshotKind.CHECKPOINT, created_ms=0, directory="")
        kept.append(weakref.ref(made))
        return made

    for number in range(1, 4):
        running.put(0, barrier(number))
        running.run()
        running.subtask.checkpoint_aborted(number)
        running.put(1, barrier(number))
        running.run()
    running.put(0, barrier(4))
    running.run()
    gc.collect()

    assert [made().checkpoint_id for made in kept if made() is not None] == [4]
