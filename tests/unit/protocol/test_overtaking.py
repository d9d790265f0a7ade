"""Barriers that overtake records: every record is in the state, in flight, or behind the barrier."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.protocol.alignment import (
    BarrierAligner,
    BlockChannel,
    CaptureInput,
    DeclineCheckpoint,
    DropCapture,
    FinishCapture,
    ForwardBarrier,
    ForwardCancel,
    ResumeChannels,
    TakeSnapshot,
)


@pytest.fixture
def aligner():
    machine = BarrierAligner(channel_count=3, overtaking=True)
    yield machine
    machine.validate()


def capture(checkpoint_id, *channels):
    return CaptureInput(checkpoint_id, frozenset(channels))


def resume(*channels):
    return ResumeChannels(frozenset(channels))


def test_first_barrier_takes_the_snapshot_and_the_others_end_it(aligner):
    assert aligner.barrier_overtook(1, 7, now_ms=100.0) == [
        ForwardBarrier(7),
        capture(7, 0, 1, 2),
        TakeSnapshot(7, alignment_ms=0.0),
    ]
    assert aligner.checkpoint_in_progress == 7
    assert not aligner.aligning
    assert aligner.barrier_overtook(2, 7, now_ms=103.0) == []
    assert aligner.barrier_overtook(0, 7, now_ms=104.0) == [FinishCapture(7)]
    assert aligner.checkpoint_in_progress is None


def test_one_channel_has_all_it_needs_at_once():
    aligner = BarrierAligner(channel_count=1, overtaking=True)

    assert aligner.barrier_overtook(0, 1, now_ms=5.0) == [
        ForwardBarrier(1),
        capture(1, 0),
        TakeSnapshot(1, alignment_ms=0.0),
        FinishCapture(1),
    ]


def test_worked_example_of_the_semantics_blocks_nothing(aligner):
    """D0 D2 D0 B1(1) B1(2) D0 B1(0), then B2(0) B2(2) D1 X2(1); records do not reach the machine."""
    commands = [c for channel in (1, 2, 0) for c in aligner.barrier_overtook(channel, 1, now_ms=0.0)]
    assert commands == [ForwardBarrier(1), capture(1, 0, 1, 2), TakeSnapshot(1, 0.0), FinishCapture(1)]

    aligner.barrier_overtook(0, 2, now_ms=1.0)
    aligner.barrier_overtook(2, 2, now_ms=1.0)
    assert aligner.cancel_received(1, 2) == [ForwardCancel(2), DropCapture(2)]
    assert aligner.checkpoint_in_progress is None


def test_a_barrier_whose_turn_comes_ends_what_another_has_begun(aligner):
    aligner.barrier_overtook(0, 1, now_ms=0.0)

    assert aligner.barrier_received(1, 1, now_ms=1.0) == []
    assert aligner.barrier_received(2, 1, now_ms=2.0) == [FinishCapture(1)]


def test_a_barrier_that_overtakes_ends_alignment(aligner):
    aligner.barrier_received(0, 1, now_ms=10.0)

    assert aligner.barrier_overtook(2, 1, now_ms=15.0) == [
        ForwardBarrier(1),
        capture(1, 1, 2),
        TakeSnapshot(1, alignment_ms=5.0),
        resume(0),
    ]


def test_alignment_that_takes_too_long_is_ended(aligner):
    aligner.barrier_received(0, 1, now_ms=10.0)
    aligner.barrier_received(2, 1, now_ms=11.0)

    assert aligner.alignment_timed_out(1, now_ms=40.0) == [
        ForwardBarrier(1),
        capture(1, 1),
        TakeSnapshot(1, alignment_ms=30.0),
        resume(0, 2),
    ]
    assert aligner.alignment_timed_out(1, now_ms=41.0) == []
    assert aligner.barrier_overtook(1, 1, now_ms=42.0) == [FinishCapture(1)]
    assert aligner.alignment_timed_out(1, now_ms=43.0) == []


def test_newer_barrier_drops_what_is_captured(aligner):
    aligner.barrier_overtook(0, 1, now_ms=0.0)

    assert aligner.barrier_overtook(1, 2, now_ms=1.0) == [
        DeclineCheckpoint(1),
        DropCapture(1),
        ForwardBarrier(2),
        capture(2, 0, 1, 2),
        TakeSnapshot(2, 0.0),
    ]


def test_aligned_savepoint_drops_what_is_captured(aligner):
    aligner.barrier_overtook(0, 1, now_ms=0.0)

    assert aligner.barrier_received(0, 2, now_ms=1.0) == [
        DeclineCheckpoint(1), DropCapture(1), BlockChannel(0),
    ]  # fmt: skip


def test_newer_barrier_overtakes_a_blocked_channel(aligner):
    aligner.barrier_received(0, 1, now_ms=0.0)

    assert aligner.barrier_overtook(0, 2, now_ms=1.0)[:3] == [
        DeclineCheckpoint(1), resume(0), ForwardBarrier(2),
    ]  # fmt: skip


def test_an_abort_drops_what_is_captured_and_later_barriers_are_ignored(aligner):
    aligner.barrier_overtook(0, 1, now_ms=0.0)

    assert aligner.barrier_aborted(1) == [DropCapture(1)]
    assert aligner.barrier_overtook(1, 1, now_ms=1.0) == []
    assert aligner.barrier_received(2, 1, now_ms=1.0) == []


def test_an_aborted_barrier_that_others_have_overtaken_is_ignored(aligner):
    aligner.barrier_aborted(1)
    for channel in range(3):
        aligner.barrier_overtook(channel, 2, now_ms=0.0)

    assert [aligner.barrier_received(channel, 1, now_ms=1.0) for channel in range(3)] == [[], [], []]


# ---- any history ---------------------------------------------------------------


class Input:
    """Channels whose barriers may overtake, driven like the gate of a subtask.

    A record is (channel, number).  `sent` has what a channel will still deliver: records and barriers.
    """

    def __init__(self, contents):
        self.sent = [list(content) for content in contents]
        self.queues = [[] for _ in contents]
        self.machine = BarrierAligner(len(contents), overtaking=True)
        self.blocked, self.captured, self.recording = set(), {}, set()
        self.processed, self.snapshots, self.finished, self.dropped = [], {}, set(), set()
        self.current = 0

    def deliver(self, channel):
        element = self.sent[channel].pop(0)
        if element == self.current:
            self.recording.discard(channel)
        elif channel in self.recording and not isinstance(element, int):
            self.captured[self.current].append(element)
        self.queues[channel].append(element)

    def take(self, channel):
        element = self.queues[channel].pop(0)
        if isinstance(element, int):
            self.execute(self.machine.barrier_received(channel, element, now_ms=0.0))
        else:
            self.processed.append(element)

    def overtake(self, channel, checkpoint_id):
        self.execute(self.machine.barrier_overtook(channel, checkpoint_id, now_ms=0.0))
        self.queues[channel].remove(checkpoint_id)

    def execute(self, commands):
        for command in commands:
            match command:
                case BlockChannel(channel):
                    self.blocked.add(channel)
                case ResumeChannels(channels):
                    assert channels == self.blocked
                    self.blocked = set()
                case CaptureInput(n, channels):
                    self.current, self.captured[n], self.recording = n, [], set()
                    for channel in channels:
                        queue = self.queues[channel]
                        ahead = queue[: queue.index(n)] if n in queue else queue
                        self.captured[n] += [element for element in ahead if not isinstance(element, int)]
                        if n not in queue:
                            self.recording.add(channel)
                case TakeSnapshot(n, _):
                    self.snapshots[n] = list(self.processed)
                    if n not in self.captured:
                        self.finished.add(n)
                case FinishCapture(n):
                    assert not self.recording
                    self.finished.add(n)
                case DropCapture(n):
                    self.recording = set()
                    self.dropped.add(n)
        self.machine.validate()


@given(st.data())
def test_every_record_is_in_the_state_or_in_flight_or_behind_the_barrier(data):
    ids = (1, 2, 3)
    contents = []
    for channel in range(data.draw(st.integers(1, 3), label="channels")):
        content = []
        for n in ids:
            content += [(channel, len(content) + k) for k in range(data.draw(st.integers(0, 3)))] + [n]
        contents.append([*content, (channel, 99)])
    subject = Input(contents)
    while True:
        steps = [("deliver", c) for c, sent in enumerate(subject.sent) if sent]
        steps += [("take", c) for c, queue in enumerate(subject.queues) if queue and c not in subject.blocked]
        steps += [
            ("overtake", c)
            for c, queue in enumerate(subject.queues)
            if any(isinstance(element, int) for element in queue)
        ]
        if subject.machine.aligning:
            steps.append(("too late", 0))
        if not steps:
            break
        step, channel = data.draw(st.sampled_from(steps))
        match step:
            case "deliver":
                subject.deliver(channel)
            case "take":
                subject.take(channel)
            case "overtake":
                barriers = [element for element in subject.queues[channel] if isinstance(element, int)]
                subject.overtake(channel, data.draw(st.sampled_from(barriers)))
            case _:
                n = subject.machine.checkpoint_in_progress
                subject.execute(subject.machine.alignment_timed_out(n, now_ms=0.0))

    assert not subject.blocked
    for n in subject.finished:
        before = {record for content in contents for record in content[: content.index(n)]} - set(ids)
        has = subject.snapshots[n] + subject.captured.get(n, [])
        assert len(has) == len(set(has)), "a record is there twice"
        assert set(has) == before
        for channel in range(len(contents)):  # And in the order of its channel.
            own = [record for record in has if record[0] == channel]
            assert own == sorted(own)
    assert subject.finished | subject.dropped <= set(ids)
    assert 3 in subject.finished
