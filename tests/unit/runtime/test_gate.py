"""A gate reads its channels in turn and leaves blocked ones alone."""

import random

import pytest

from raystream.records.batch import RowBatch
from raystream.records.elements import CancelBarrier, EndOfInput
from raystream.runtime.channel import LOCAL_BYTES_MAX, LocalOutput
from raystream.runtime.gate import Gate

WINDOW = 1 << 20


def gate_of(count, window=WINDOW):
    gate, outputs = Gate(), []
    for _ in range(count):
        output = LocalOutput(window)
        output.attach(gate.add_channel(window, LOCAL_BYTES_MAX, output.granted))
        outputs.append(output)
    return gate, outputs


def take_all(gate):
    """Return (channel, value) of everything that can be taken."""
    taken = []
    while gate.has_input:
        channel, element = gate.take()
        taken.append((channel.index, element.values[0] if isinstance(element, RowBatch) else element))
    return taken


def test_channels_are_read_in_turn():
    gate, outputs = gate_of(3)
    for n in range(3):
        outputs[0].send(RowBatch([n]))
    for n in range(2):
        outputs[2].send(RowBatch([n]))
    outputs[1].send(RowBatch([0]))

    assert take_all(gate) == [(0, 0), (2, 0), (1, 0), (0, 1), (2, 1), (0, 2)]


def test_blocked_channel_is_not_read_and_the_others_are():
    gate, outputs = gate_of(2)
    for output in outputs:
        output.send(RowBatch(["before"]))
    gate.block(0)
    outputs[0].send(RowBatch(["behind"]))

    assert take_all(gate) == [(1, "before")]
    assert not gate.has_input
    assert gate.ready_count == 0


def test_resumed_channel_goes_on_where_it_stopped():
    gate, outputs = gate_of(2)
    gate.block(0)
    outputs[0].send(RowBatch(["first"]))
    outputs[0].send_control(CancelBarrier(1))
    outputs[1].send(RowBatch(["other"]))
    gate.resume(frozenset({0, 1}))

    assert take_all(gate) == [(1, "other"), (0, "first"), (0, CancelBarrier(1))]


def test_blocked_channel_that_stays_empty_is_not_ready_when_resumed():
    gate, _ = gate_of(1)
    gate.block(0)
    gate.resume(frozenset({0}))

    assert not gate.has_input


def test_gate_has_ended_when_all_its_channels_have():
    gate, _ = gate_of(2)
    gate.channels[0].ended = True
    assert not gate.ended
    gate.channels[1].ended = True
    assert gate.ended


def test_credit_that_brings_the_next_batch_at_once_does_not_make_a_channel_ready_twice():
    """Inside a slot the sender moves its next batch while the receiver still takes this one."""
    gate, (output,) = gate_of(1, window=1)
    for n in range(3):
        output.send(RowBatch([n]))
    assert not output.has_room

    assert take_all(gate) == [(0, 0), (0, 1), (0, 2)]
    assert gate.ready_count == 0


@pytest.mark.parametrize("seed", range(50))
def test_ready_channels_are_those_with_input_that_are_not_blocked(seed):
    rng = random.Random(seed)
    gate, outputs = gate_of(4, window=rng.choice([1, 500, WINDOW]))
    sent, taken, blocked = [[] for _ in outputs], [[] for _ in outputs], set()
    for step in range(300):
        index = rng.randrange(4)
        match rng.choice(("send", "send", "control", "take", "take", "block", "resume")):
            case "send" if outputs[index].has_room:
                outputs[index].send(RowBatch([step]))
                sent[index].append(step)
            case "control":
                outputs[index].send_control(EndOfInput())
                sent[index].append(EndOfInput())
            case "take" if gate.has_input:
                channel, element = gate.take()
                assert channel.index not in blocked
                taken[channel.index].append(element.values[0] if isinstance(element, RowBatch) else element)
            case "block":
                gate.block(index)
                blocked.add(index)
            case "resume":
                gate.resume(frozenset(blocked))
                blocked.clear()
        ready = [c for c in gate.channels if c.queue and not c.blocked]
        assert gate.ready_count == len(ready)
        assert gate.has_input is bool(ready)
    gate.resume(frozenset(range(4)))
    for index, value in take_all(gate):
        taken[index].append(value)

    assert taken == sent
