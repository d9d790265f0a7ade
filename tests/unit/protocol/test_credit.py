"""Credit bounds what a channel holds, and never lets both of its ends wait."""

import random
from collections import deque

import pytest

from raystream.errors import ProtocolError
from raystream.protocol.credit import (
    HISTORY_MAX,
    WINDOW_BYTES_MIN,
    FrameTooLarge,
    ReceiveCredit,
    SendCredit,
    window_bytes_of,
)

FRAME_MAX = 10_000


def test_frames_are_sent_until_the_window_is_full():
    credit = SendCredit(100, FRAME_MAX)
    for size in (40, 40, 20):
        assert credit.can_send(size)
        credit.sent(size)

    assert not credit.can_send(1)
    credit.granted(30)
    assert credit.can_send(30)
    assert not credit.can_send(31)


def test_a_channel_with_full_credit_sends_one_frame_that_is_larger_than_the_window():
    sender, receiver = SendCredit(100, FRAME_MAX), ReceiveCredit(100, FRAME_MAX)
    assert sender.can_send(1000)
    sender.sent(1000)
    receiver.received(1000)

    assert not sender.can_send(1)
    grant = receiver.consumed(1000)
    assert grant == 1000
    sender.granted(grant)
    assert sender.can_send(1000)


def test_a_large_frame_is_sent_although_less_than_a_quarter_was_not_granted_back():
    sender, receiver = SendCredit(100, FRAME_MAX), ReceiveCredit(100, FRAME_MAX)
    sender.sent(24)
    receiver.received(24)

    assert receiver.consumed(24) == 0
    assert sender.can_send(1000)
    sender.sent(1000)
    receiver.received(1000)
    assert receiver.consumed(1000) == 1024


def test_a_large_frame_waits_while_a_quarter_is_outstanding():
    credit = SendCredit(100, FRAME_MAX)
    credit.sent(25)

    assert credit.can_send(75)
    assert not credit.can_send(76)


def test_a_frame_above_the_limit_is_never_sent():
    sender, receiver = SendCredit(100, 1000), ReceiveCredit(100, 1000)

    assert sender.too_large(1000) is None
    assert sender.too_large(1001) == FrameTooLarge(1001, 1000)
    assert sender.can_send(1000)
    assert not sender.can_send(1001)
    with pytest.raises(ProtocolError, match="peer sent a frame without credit"):
        receiver.received(1001)


def test_channels_share_the_budget_of_their_gate_above_a_floor():
    assert window_bytes_of(1 << 20, 4) == 1 << 18
    assert window_bytes_of(1 << 20, 1000) == WINDOW_BYTES_MIN


@pytest.mark.parametrize(("window", "part"), [(100, 50), (3, 1), (1, 1)])
def test_parts_are_cut_to_half_a_window(window, part):
    assert SendCredit(window, FRAME_MAX).part_bytes_max == part


def test_grants_come_in_quarters_of_the_window():
    sender, receiver, grants = SendCredit(1000, FRAME_MAX), ReceiveCredit(1000, FRAME_MAX), []
    for _ in range(100):
        sender.sent(10)
        receiver.received(10)
        if grant := receiver.consumed(10):
            sender.granted(grant)
            grants.append(grant)

    assert grants == [250, 250, 250, 250]
    assert sender.outstanding_bytes == receiver.outstanding_bytes == receiver.held_bytes == 0


def test_sending_without_credit_is_a_protocol_error():
    credit = SendCredit(100, FRAME_MAX)
    credit.sent(80)

    with pytest.raises(ProtocolError, match="frame was sent without credit") as caught:
        credit.sent(21)
    assert caught.value.context["history"] == [("sent", 80)]


def test_a_peer_that_overruns_its_window_is_a_protocol_error():
    credit = ReceiveCredit(100, FRAME_MAX)
    credit.received(80)

    with pytest.raises(ProtocolError, match="peer sent a frame without credit"):
        credit.received(21)
    assert credit.held_bytes == 80


@pytest.mark.parametrize("size", [-1, 0, 41])
def test_a_grant_of_what_is_not_outstanding_is_a_protocol_error(size):
    credit = SendCredit(100, FRAME_MAX)
    credit.sent(40)

    with pytest.raises(ProtocolError, match="peer granted credit that was not outstanding"):
        credit.granted(size)


def test_consuming_what_was_not_received_is_a_protocol_error():
    credit = ReceiveCredit(100, FRAME_MAX)
    credit.received(10)

    with pytest.raises(ProtocolError, match="more was consumed than was received"):
        credit.consumed(11)


def test_history_is_bounded():
    credit = SendCredit(10, FRAME_MAX)
    for _ in range(100):
        credit.sent(10)
        credit.granted(10)
    credit.validate()

    with pytest.raises(ProtocolError) as caught:
        credit.granted(1)
    assert len(caught.value.context["history"]) == HISTORY_MAX


@pytest.mark.parametrize("seed", range(300))
def test_every_frame_arrives_within_the_bound_whatever_the_sizes_and_delays(seed):
    """Frames and grants are on their way for a random time; the seed reproduces a failure."""
    rng = random.Random(seed)
    window = rng.choice([1, 2, 3, 4, 7, 64, 1000])
    largest = rng.choice([1, max(window // 2, 1), window, 10 * window])
    frames = deque(rng.randint(1, largest) for _ in range(200))
    total, consumed_bytes = sum(frames), 0
    bound = max(window, max(window // 4, 1) - 1 + largest)
    sender, receiver = SendCredit(window, largest), ReceiveCredit(window, largest)
    on_the_way, queue, grants = deque(), deque(), deque()

    while consumed_bytes < total:
        steps = []
        if frames and sender.can_send(frames[0]):
            steps.append("send")
        steps += [
            step for step, items in (("arrive", on_the_way), ("consume", queue), ("grant", grants)) if items
        ]
        assert steps, "both ends wait"
        match rng.choice(steps):
            case "send":
                sender.sent(frames[0])
                on_the_way.append(frames.popleft())
            case "arrive":
                receiver.received(on_the_way[0])
                queue.append(on_the_way.popleft())
            case "consume":
                consumed_bytes += queue[0]
                if grant := receiver.consumed(queue.popleft()):
                    grants.append(grant)
            case "grant":
                sender.granted(grants.popleft())
        sender.validate()
        receiver.validate()
        assert receiver.held_bytes + sum(on_the_way) <= sender.outstanding_bytes <= bound
        assert receiver.outstanding_bytes <= sender.outstanding_bytes

    assert not frames
    assert not on_the_way
    assert not queue
