"""Channels keep the order, obey credit, and send what is larger than the window."""

import random
from typing import NamedTuple

import pytest

from raystream.errors import ProtocolError, UserCodeError
from raystream.records.batch import RowBatch
from raystream.records.elements import Barrier, CancelBarrier, EndOfInput, SnapshotKind
from raystream.runtime import channel as channels
from raystream.runtime.channel import (
    COALESCE_RECORDS,
    LOCAL_BYTES_MAX,
    LocalOutput,
    RemoteOutput,
    estimated_bytes,
)
from raystream.runtime.frame import FRAME_BYTES_MAX, FrameKind
from raystream.runtime.gate import Gate

WINDOW = 64 * 1024


def barrier(checkpoint_id):
    return Barrier(checkpoint_id=checkpoint_id, kind=SnapshotKind.CHECKPOINT, created_ms=0, directory="")


class Remote:
    """A channel over a connection that moves frames only when told to."""

    def __init__(self, gate, window=WINDOW):
        self.frames = []
        self.grants = []
        self.output = RemoteOutput(window, lambda *frame: self.frames.append(frame), "words")
        self.input = gate.add_channel(window, FRAME_BYTES_MAX, self.grants.append)

    def deliver(self):
        """Move every frame and every grant that is on the way."""
        frames, self.frames[:] = self.frames[:], []
        for kind, payload in frames:
            self.input.frame_received(kind, memoryview(payload))
        grants, self.grants[:] = self.grants[:], []
        for size in grants:
            self.output.granted(size)
        return bool(frames or grants)


class Local:
    """A channel inside a slot; it moves by itself."""

    def __init__(self, gate, window=WINDOW):
        self.output = LocalOutput(window)
        self.input = gate.add_channel(window, LOCAL_BYTES_MAX, self.output.granted)
        self.output.attach(self.input)

    def deliver(self):
        return False


KINDS = [Remote, Local]


def received(gate, channel):
    """Take everything, as a fast subtask would; return records and control elements in order."""
    elements = []
    while channel.deliver() or gate.has_input:
        while gate.has_input:
            _, element = gate.take()
            elements += element.values if isinstance(element, RowBatch) else [element]
    return elements


# ---- order ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_control_elements_keep_their_place_among_records(kind):
    gate = Gate()
    channel = kind(gate)
    channel.output.send(RowBatch(["a", "b"]))
    channel.output.send_control(barrier(1))
    channel.output.send(RowBatch(["c"]))
    channel.output.send_control(CancelBarrier(2))
    channel.output.send(RowBatch(["d"]))
    channel.output.send_control(EndOfInput())
    channel.output.send_control(barrier(3))

    assert received(gate, channel) == [
        "a", "b", barrier(1), "c", CancelBarrier(2), "d", EndOfInput(), barrier(3),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_control_element_waits_behind_records_that_have_no_credit(kind):
    gate = Gate()
    channel = kind(gate)
    for n in range(4):
        channel.output.send(RowBatch([str(n) * 40_000]))
        channel.output.flush()
    channel.output.send_control(barrier(1))
    channel.deliver()

    assert not channel.output.has_room
    assert len(channel.input.queue) < 5
    assert received(gate, channel) == [*(str(n) * 40_000 for n in range(4)), barrier(1)]
    assert channel.output.has_room


@pytest.mark.parametrize("kind", KINDS)
def test_control_element_needs_no_credit(kind):
    gate = Gate()
    channel = kind(gate)
    channel.output.send(RowBatch(["x" * 100_000]))
    channel.output.flush()
    channel.output.send_control(barrier(1))
    channel.deliver()

    assert channel.output.has_room
    assert len(channel.input.queue) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(30))
def test_everything_arrives_once_and_in_order(kind, seed):
    rng = random.Random(seed)
    gate = Gate()
    channel = kind(gate, window=rng.choice([1, 1000, WINDOW]))
    sent, arrived = [], []
    for step in range(200):
        action = rng.random()
        if action < 0.5 and channel.output.has_room:
            batch = [(step, n, "x" * rng.choice([0, 10, 3000])) for n in range(rng.choice([1, 5, 700]))]
            channel.output.send(RowBatch(batch))
            sent += batch
        elif action < 0.6:
            channel.output.send_control(CancelBarrier(step))
            sent.append(CancelBarrier(step))
        elif action < 0.7:
            channel.output.flush()
        elif action < 0.8:
            channel.deliver()
        elif gate.has_input:
            _, element = gate.take()
            arrived += element.values if isinstance(element, RowBatch) else [element]
    channel.output.flush()
    arrived += received(gate, channel)

    assert arrived == sent
    assert channel.output.has_room


# ---- credit -----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_sender_stops_when_the_receiver_does_not_take(kind):
    gate = Gate()
    channel = kind(gate)
    sent = 0
    while channel.output.has_room:
        channel.output.send(RowBatch(["x" * 1000] * 10))
        channel.output.flush()
        channel.deliver()
        sent += 10_000
        assert sent < 3 * WINDOW

    assert sent > WINDOW // 2


@pytest.mark.parametrize("kind", KINDS)
def test_record_larger_than_the_window_passes(kind):
    gate = Gate()
    channel = kind(gate)
    large = "x" * (5 * WINDOW)
    channel.output.send(RowBatch(["before", large, "after"]))
    channel.output.flush()

    assert received(gate, channel) == ["before", large, "after"]


def test_batch_is_cut_to_half_the_window():
    gate = Gate()
    channel = Remote(gate)
    channel.output.send(RowBatch(["x" * 100] * 2000))

    sizes = [len(payload) for _, payload in channel.frames]
    assert max(sizes) <= WINDOW // 2 + 1000
    assert received(gate, channel) == ["x" * 100] * 2000


def test_frame_without_credit_is_a_protocol_error():
    gate = Gate()
    channel = Remote(gate)
    channel.input.put(memoryview(b"x" * WINDOW), WINDOW)

    with pytest.raises(ProtocolError, match="without credit"):
        channel.input.put(memoryview(b"x"), 1)


def test_grant_of_more_than_was_sent_is_a_protocol_error():
    with pytest.raises(ProtocolError, match="not outstanding"):
        Remote(Gate()).output.granted(1)


# ---- small batches ----------------------------------------------------------


def test_small_batches_are_joined_into_one_frame():
    gate = Gate()
    channel = Remote(gate, window=1 << 20)
    batches = [RowBatch([n], [n * 10], [f"k{n}"], [n]) for n in range(COALESCE_RECORDS)]
    for batch in batches[:-1]:
        channel.output.send(batch)
    assert channel.frames == []
    channel.output.send(batches[-1])

    assert len(channel.frames) == 1
    channel.deliver()
    _, joined = gate.take()
    numbers = list(range(COALESCE_RECORDS))
    assert joined.values == joined.groups == numbers
    assert joined.timestamps == [n * 10 for n in numbers]
    assert joined.keys == [f"k{n}" for n in numbers]
    assert batches[0].values == [0]  # What was sent is not changed.


def test_flush_sends_what_was_held_back():
    channel = Remote(Gate())
    channel.output.send(RowBatch([1]))

    assert channel.output.flush()
    assert len(channel.frames) == 1
    assert not channel.output.flush()


def test_records_with_and_without_timestamps_are_not_joined():
    """Both come through one channel behind a union."""
    gate = Gate()
    channel = Remote(gate)
    channel.output.send(RowBatch([1], [10]))
    channel.output.send(RowBatch([2]))
    channel.output.send(RowBatch([3], [30]))
    channel.output.flush()
    channel.deliver()

    batches = [gate.take()[1] for _ in range(3)]
    assert [(batch.values, batch.timestamps) for batch in batches] == [([1], [10]), ([2], None), ([3], [30])]


# ---- records that cannot be sent --------------------------------------------


def limited(monkeypatch, frame_bytes_max):
    monkeypatch.setattr(channels, "FRAME_BYTES_MAX", frame_bytes_max)
    gate = Gate()
    return gate, Remote(gate)


def test_record_larger_than_a_frame_is_named(monkeypatch):
    _, channel = limited(monkeypatch, 10_000)
    channel.output.send(RowBatch(["small", "x" * 10_000, "small"]))

    with pytest.raises(UserCodeError, match="larger than a data frame may be") as raised:
        channel.output.flush()

    assert raised.value.context["operator"] == "words"
    assert raised.value.context["record"].startswith("'xxx")
    assert raised.value.context["size_bytes_max"] == 10_000


def test_batch_larger_than_a_frame_is_cut_when_its_records_are_not(monkeypatch):
    """The record that the estimate is made from was a small one; the class is not named in vain."""
    gate, channel = limited(monkeypatch, 3_000)
    batch = [Word("x" * 1_000 + str(n)) for n in range(COALESCE_RECORDS)]
    batch[COALESCE_RECORDS // 2] = Word("")
    channel.output.send(RowBatch(batch))

    assert received(gate, channel) == batch


class Word(NamedTuple):
    text: str


@pytest.mark.parametrize("position", [0, 1, 300])
def test_record_that_does_not_pickle_is_named(position):
    channel = Remote(Gate())
    values = [str(n) for n in range(400)]
    values[position] = lambda: "not picklable"
    channel.output.send(RowBatch(values))

    with pytest.raises(UserCodeError, match="cannot be sent to another slot") as raised:
        channel.output.flush()

    assert raised.value.context["operator"] == "words"
    assert "<lambda>" in raised.value.context["record"]
    assert "records that pickle" in raised.value.hint


def test_record_that_does_not_pickle_may_stay_in_its_slot():
    gate = Gate()
    channel = Local(gate)
    function = lambda: None  # noqa: E731 - it is a record
    channel.output.send(RowBatch([function]))

    assert received(gate, channel) == [function]


@pytest.mark.parametrize("record", ["x" * 1000, b"x" * 1000, ["x" * 1000], lambda: "x"])
def test_size_of_a_batch_is_estimated_by_a_record(record):
    assert 10 * 1000 <= estimated_bytes(RowBatch([record] * 10)) <= 10 * 2000


def test_batch_travels_inside_a_slot_by_reference():
    gate = Gate()
    channel = Local(gate)
    batch = RowBatch([1, 2])
    channel.output.send(batch)

    assert gate.take()[1] is batch


def test_control_frame_carries_no_size():
    channel = Remote(Gate())
    channel.output.send_control(EndOfInput())

    assert [kind for kind, _ in channel.frames] == [FrameKind.CONTROL]
