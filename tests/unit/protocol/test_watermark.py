"""Event time of a subtask: the minimum of its inputs, without those that are idle or have ended."""

import random

import pytest

from raystream.errors import ProtocolError
from raystream.protocol.watermark import (
    BEGINNING_MS,
    END_MS,
    ForwardActive,
    ForwardIdle,
    ForwardWatermark,
    WatermarkValve,
)
from raystream.records.elements import WATERMARK_MAX_MS, WATERMARK_MIN_MS


@pytest.fixture
def valve():
    """A valve with three channels, checked at the end of the test."""
    made = WatermarkValve(channel_count=3)
    yield made
    made.validate()


def test_event_time_is_the_minimum_of_all_channels(valve):
    assert valve.watermark_received(0, 10) == []
    assert valve.watermark_received(1, 20) == []
    assert valve.watermark_received(2, 15) == [ForwardWatermark(10)]
    assert valve.watermark_received(0, 17) == [ForwardWatermark(15)]


def test_watermark_never_goes_back(valve):
    for channel in range(3):
        valve.watermark_received(channel, 10)

    assert valve.watermark_received(1, 5) == []
    assert valve.event_time_ms == 10


def test_idle_channel_does_not_hold_up_the_others(valve):
    valve.watermark_received(0, 10)
    valve.watermark_received(1, 20)

    assert valve.idle_received(2) == [ForwardWatermark(10)]
    assert valve.watermark_received(0, 30) == [ForwardWatermark(20)]


def test_channel_that_is_silent_from_the_start_holds_up_nobody_when_it_says_so(valve):
    valve.idle_received(0)
    valve.idle_received(1)

    assert valve.watermark_received(2, 7) == [ForwardWatermark(7)]


def test_all_idle_from_the_start_is_forwarded_without_a_watermark(valve):
    assert valve.idle_received(0) == []
    assert valve.idle_received(1) == []
    assert valve.idle_received(2) == [ForwardIdle()]
    assert valve.active_received(1) == [ForwardActive()]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_event_time_before_all_are_idle_does_not_depend_on_the_order(valve, order):
    for channel, timestamp_ms in enumerate((10, 20, 30)):
        valve.watermark_received(channel, timestamp_ms)

    commands = [command for channel in order for command in valve.idle_received(channel)]

    assert commands[-2:] == [ForwardWatermark(30), ForwardIdle()]
    assert valve.event_time_ms == 30


def test_idleness_is_forwarded_once(valve):
    for channel in range(3):
        valve.idle_received(channel)

    assert valve.idle_received(0) == []
    assert valve.active_received(0) == [ForwardActive()]
    assert valve.active_received(0) == []


def test_channel_that_comes_back_behind_counts_when_it_has_caught_up(valve):
    valve.idle_received(1)
    valve.idle_received(2)
    valve.watermark_received(0, 50)

    assert valve.active_received(1) == []
    assert valve.watermark_received(0, 60) == [ForwardWatermark(60)]
    assert valve.watermark_received(1, 55) == []
    assert valve.watermark_received(1, 61) == []
    assert valve.watermark_received(0, 70) == [ForwardWatermark(61)]


def test_channel_that_has_ended_holds_up_nobody(valve):
    valve.watermark_received(0, 10)
    valve.watermark_received(1, 20)

    assert valve.channel_ended(2) == [ForwardWatermark(10)]
    assert valve.channel_ended(0) == [ForwardWatermark(20)]
    assert valve.channel_ended(1) == [ForwardWatermark(END_MS)]


def test_last_watermark_of_one_channel_does_not_end_the_time_of_an_idle_one(valve):
    valve.channel_ended(2)
    valve.watermark_received(0, 10)
    valve.idle_received(0)

    assert valve.watermark_received(1, END_MS) == [ForwardWatermark(10), ForwardIdle()]
    assert valve.active_received(0) == [ForwardActive()]
    assert valve.watermark_received(0, 30) == [ForwardWatermark(30)]


def test_idle_channel_may_end(valve):
    for channel in range(3):
        valve.idle_received(channel)
    valve.channel_ended(0)
    valve.watermark_received(1, END_MS)

    assert valve.channel_ended(2) == [ForwardActive(), ForwardWatermark(END_MS)]


def test_watermark_of_a_channel_that_said_it_is_idle_is_a_protocol_error(valve):
    valve.idle_received(0)

    with pytest.raises(ProtocolError, match="watermark on an idle channel") as raised:
        valve.watermark_received(0, 5)

    assert raised.value.context["history"] == ["idle_received 0 -> nothing"]


def test_beginning_and_end_are_those_of_the_elements():
    assert (BEGINNING_MS, END_MS) == (WATERMARK_MIN_MS, WATERMARK_MAX_MS)


class Model:
    """What one channel of a random history has said."""

    def __init__(self):
        self.watermark_ms, self.idle, self.ended = BEGINNING_MS, False, False


def say_something(rng, valve, channels):
    """Let one open channel say what it may say; return what is forwarded."""
    number = rng.choice([i for i, channel in enumerate(channels) if not channel.ended])
    channel = channels[number]
    saying = rng.choice(["watermark", "watermark", "watermark", "idle", "active", "end"])
    if saying == "end" and rng.random() < 0.7:
        saying = "watermark"
    if saying == "watermark" and channel.idle:
        saying = "active"
    match saying:
        case "watermark":
            timestamp_ms = rng.randrange(1000)
            channel.watermark_ms = max(channel.watermark_ms, timestamp_ms)
            return valve.watermark_received(number, timestamp_ms)
        case "idle":
            channel.idle = True
            return valve.idle_received(number)
        case "active":
            channel.idle = False
            return valve.active_received(number)
    channel.ended, channel.watermark_ms = True, END_MS
    return valve.channel_ended(number)


@pytest.mark.parametrize("seed", range(200))
def test_event_time_follows_every_channel_that_counts_and_waits_for_no_other(seed):
    """Random histories against the definition: the seed reproduces a failure."""
    rng = random.Random(seed)
    channels = [Model() for _ in range(rng.randint(1, 5))]
    valve = WatermarkValve(len(channels))
    event_time_ms, idle = BEGINNING_MS, False
    while not all(channel.ended for channel in channels):
        for command in say_something(rng, valve, channels):
            match command:
                case ForwardWatermark(timestamp_ms):
                    assert timestamp_ms > event_time_ms, "event time grows"
                    assert not idle, "nothing passes while idle"
                    event_time_ms = timestamp_ms
                case ForwardIdle():
                    assert not idle
                    idle = True
                case ForwardActive():
                    assert idle
                    idle = False
        valve.validate()
        still_open = [channel for channel in channels if not channel.ended]
        active = [channel for channel in still_open if not channel.idle]
        assert idle == (bool(still_open) and not active)
        ahead = [channel.watermark_ms for channel in active if channel.watermark_ms >= event_time_ms]
        if ahead:
            assert event_time_ms == min(ahead), "nobody who has caught up is waited for in vain"
        if idle:
            assert event_time_ms >= max(channel.watermark_ms for channel in still_open)

    assert event_time_ms == END_MS
    assert not idle
