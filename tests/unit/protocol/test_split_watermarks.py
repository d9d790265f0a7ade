"""The watermark of a source subtask is the minimum over the splits that it reads."""

import random

import pytest

from raystream.protocol.split_watermarks import SplitWatermarks
from raystream.protocol.watermark import ForwardActive, ForwardIdle, ForwardWatermark

TICK_MS = 10


@pytest.fixture
def machines():
    made = []
    yield made
    for machine in made:
        machine.validate()


@pytest.fixture
def make(machines):
    def make(idleness_ms=None):
        machines.append(SplitWatermarks(tick_ms=TICK_MS, idleness_ms=idleness_ms))
        return machines[-1]

    return make


def test_slow_split_holds_the_watermark_back(make):
    machine = make()
    machine.records_read("a", 100)
    machine.records_read("b", 7)

    assert machine.ticked(["a", "b"]) == [ForwardWatermark(7)]


def test_split_of_which_nothing_has_come_holds_the_watermark_back(make):
    machine = make()
    machine.records_read("a", 100)

    assert machine.ticked(["a", "b"]) == []


def test_subtask_that_waits_for_its_next_split_makes_no_watermark(make):
    machine = make()
    machine.records_read("a", 100)

    assert machine.ticked([]) == []
    machine.records_read("b", 60)
    assert machine.ticked(["b"]) == [ForwardWatermark(60)]


def test_split_that_has_ended_no_longer_holds_the_watermark_back(make):
    machine = make()
    machine.records_read("a", 100)
    machine.records_read("b", 7)
    machine.ticked(["a", "b"])

    assert machine.ticked(["a"]) == [ForwardWatermark(100)]


def test_new_split_behind_the_watermark_holds_it_until_it_has_caught_up(make):
    machine = make()
    machine.records_read("a", 50)
    machine.ticked(["a"])
    machine.records_read("a", 100)
    machine.records_read("b", 20)

    assert machine.ticked(["a", "b"]) == []
    machine.records_read("b", 70)
    assert machine.ticked(["a", "b"]) == [ForwardWatermark(70)]


def test_idle_split_does_not_hold_the_watermark_back(make):
    machine = make(idleness_ms=2 * TICK_MS)
    machine.records_read("a", 100)
    machine.records_read("b", 7)
    machine.ticked("ab")
    machine.records_read("a", 110)
    assert machine.ticked("ab") == []
    machine.records_read("a", 120)

    assert machine.ticked("ab") == [ForwardWatermark(120)]


def test_split_that_is_idle_from_the_start_does_not_hold_the_watermark_back(make):
    machine = make(idleness_ms=TICK_MS)
    machine.records_read("a", 100)
    assert machine.ticked("ab") == []
    machine.records_read("a", 110)

    assert machine.ticked("ab") == [ForwardWatermark(110)]


def test_split_that_wakes_up_holds_the_watermark_back_again(make):
    machine = make(idleness_ms=TICK_MS)
    machine.ticked("ab")
    machine.records_read("a", 100)
    assert machine.ticked("ab") == [ForwardWatermark(100)]
    machine.records_read("a", 200)
    machine.records_read("b", 150)

    assert machine.ticked("ab") == [ForwardWatermark(150)]


@pytest.mark.parametrize("first", ["a", "b"])
def test_event_time_goes_on_to_the_highest_watermark_when_all_splits_are_idle(make, first):
    machine = make(idleness_ms=2 * TICK_MS)
    machine.records_read("a", 100)
    machine.records_read("b", 7)
    machine.ticked("ab")
    machine.records_read(first, 5)
    commands = [command for _ in range(3) for command in machine.ticked("ab")]

    assert commands == [ForwardWatermark(100), ForwardIdle()]
    assert machine.records_read("b", 120) == [ForwardActive()]
    assert machine.ticked("ab") == [ForwardWatermark(120)]


def test_end_of_a_split_counts_when_the_others_are_idle(make):
    machine = make(idleness_ms=TICK_MS)
    machine.records_read("a", 100)
    machine.records_read("b", 7)
    machine.ticked(["a", "b"])

    assert machine.ticked(["b"]) == [ForwardWatermark(100), ForwardIdle()]


def test_new_split_makes_an_idle_subtask_active(make):
    machine = make(idleness_ms=TICK_MS)
    machine.ticked("a")
    assert machine.ticked("a") == [ForwardIdle()]
    assert machine.knows("a")
    assert not machine.knows("ab")

    assert machine.ticked("ab") == [ForwardActive()]
    assert machine.ticked("ab") == [ForwardIdle()]


def test_whoever_makes_the_records_may_say_that_they_pause(make):
    machine = make(idleness_ms=TICK_MS)

    assert machine.idle_heard() == [ForwardIdle()]
    assert machine.idle_heard() == []
    assert machine.active_heard() == [ForwardActive()]
    assert machine.active_heard() == []


@pytest.mark.parametrize("seed", range(200))
def test_no_record_of_an_ordered_split_is_late_unless_the_split_was_idle(seed):
    """Splits come, go and fall silent; in each, time only grows, and none begins behind the watermark."""
    rng = random.Random(seed)
    machine = SplitWatermarks(tick_ms=TICK_MS, idleness_ms=rng.choice((None, 3 * TICK_MS)))
    reached, next_name = -1, 0
    heads: dict[int, int] = {}
    silent: dict[int, int] = {}
    for _ in range(300):
        event = rng.random()
        if event < 0.05:
            heads[next_name], silent[next_name] = reached + 2, 0
            next_name += 1
        elif event < 0.08 and heads:
            heads.pop(rng.choice([*heads]))
        elif event < 0.7 and heads:
            split = rng.choice([*heads])
            if silent[split] >= 3:  # It may have been idle, and whatever comes of it late.
                heads[split] = max(heads[split], reached + 1)
            heads[split] += rng.randrange(10)
            silent[split] = 0
            assert heads[split] > reached
            machine.records_read(split, heads[split] - 1)
        else:
            for split in heads:
                silent[split] += 1
            for command in machine.ticked(heads):
                if isinstance(command, ForwardWatermark):
                    assert command.timestamp_ms > reached
                    reached = command.timestamp_ms
        machine.validate()
