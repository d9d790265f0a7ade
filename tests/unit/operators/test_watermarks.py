"""Watermark strategies: timestamps, watermarks in intervals, and idleness."""

from datetime import timedelta

import pytest

from raystream import WatermarkStrategy
from raystream.errors import GraphError, UserCodeError
from raystream.operators.watermarks import WatermarkOperator
from raystream.records.batch import RowBatch
from raystream.records.elements import WATERMARK_MAX_MS, Active, Idle, Watermark
from tests.unit.operators.running import Run

INTERVAL_MS = 200


class Ticking(Run):
    """A watermark operator that is woken when it wants to be."""

    def __init__(self, strategy):
        super().__init__(WatermarkOperator(strategy, INTERVAL_MS))
        self.operator.open()
        self.operator.start()

    def process(self, *timestamps):
        self.operator.process(RowBatch(list(timestamps), list(timestamps)))

    def pass_time(self, duration_ms):
        """Let time pass, with every wake-up on the way; return what moved event time."""
        clock, before = self.context.clock, len(self.log)
        end_ms = clock.now_ms + duration_ms
        while self.wakes and self.wakes[0] <= end_ms:
            clock.now_ms = max(clock.now_ms, self.wakes.pop(0))
            self.operator.time_reached()
        clock.now_ms = end_ms
        return [element for element in self.log[before:] if not isinstance(element, RowBatch)]


MONOTONOUS = WatermarkStrategy.for_monotonous_timestamps()


def test_watermark_is_just_below_the_highest_timestamp():
    running = Ticking(MONOTONOUS)
    running.process(10, 30, 20)

    assert running.pass_time(INTERVAL_MS) == [Watermark(29)]


@pytest.mark.parametrize("bound", [5, "5ms", timedelta(milliseconds=5)])
def test_watermark_stays_behind_by_the_bound_of_out_of_orderness(bound):
    running = Ticking(WatermarkStrategy.for_bounded_out_of_orderness(bound))
    running.process(10, 30, 20)

    assert running.pass_time(INTERVAL_MS) == [Watermark(24)]


def test_watermarks_come_in_intervals_and_not_with_each_batch():
    running = Ticking(MONOTONOUS)
    for timestamp in range(1, 50):
        running.process(timestamp)

    assert running.pass_time(INTERVAL_MS - 1) == []
    assert running.pass_time(1) == [Watermark(48)]
    running.process(60)
    assert running.pass_time(INTERVAL_MS) == [Watermark(59)]


def test_watermark_that_has_not_grown_is_not_emitted_again():
    running = Ticking(MONOTONOUS)
    running.process(50)
    running.pass_time(INTERVAL_MS)
    running.process(40)

    assert running.pass_time(INTERVAL_MS) == []


def test_silent_operator_asks_for_no_time():
    running = Ticking(MONOTONOUS)
    assert running.wakes == []
    running.process(1)
    running.pass_time(INTERVAL_MS)

    assert running.wakes == []


@pytest.mark.parametrize("interval_counts", [1, 3, 10])
def test_input_without_records_is_idle_after_the_time_out_and_active_with_the_next_record(interval_counts):
    running = Ticking(MONOTONOUS.with_idleness(interval_counts * INTERVAL_MS))
    running.process(10)

    assert running.pass_time(INTERVAL_MS) == [Watermark(9)]
    assert running.pass_time(interval_counts * INTERVAL_MS - 1) == []
    assert running.pass_time(1) == [Idle()]
    assert running.pass_time(100 * INTERVAL_MS) == []

    running.process(20)
    assert [type(element) for element in running.log[-2:]] == [Active, RowBatch]
    assert running.pass_time(INTERVAL_MS) == [Watermark(19)]


def test_input_that_is_silent_from_the_start_becomes_idle():
    running = Ticking(MONOTONOUS.with_idleness("1s"))

    assert running.pass_time(999) == []
    assert running.pass_time(1) == [Idle()]


def test_input_that_goes_on_is_never_idle():
    running = Ticking(MONOTONOUS.with_idleness("1s"))
    for timestamp in range(0, 40_000, 400):
        running.process(timestamp)
        running.pass_time(400)

    assert Idle() not in running.log


def test_time_in_which_the_outputs_had_no_room_does_not_make_an_input_idle():
    """The operator is not woken while it could not emit; nothing was read then either."""
    running = Ticking(MONOTONOUS.with_idleness("1s"))
    running.context.clock.now_ms += 60_000

    assert running.pass_time(0) == []
    running.process(10)
    assert running.pass_time(INTERVAL_MS) == [Watermark(9)]


def test_watermarks_from_upstream_end_here_and_the_last_one_passes():
    running = Ticking(MONOTONOUS)
    for element in (Watermark(70), Idle(), Active(), Watermark(WATERMARK_MAX_MS)):
        running.operator.process_event_time(element)

    assert running.log == [Watermark(WATERMARK_MAX_MS)]


def test_strategy_without_watermarks_lets_those_from_upstream_pass():
    running = Ticking(WatermarkStrategy.no_watermarks())
    elements = [Watermark(70), Idle(), Active(), Watermark(80), Watermark(WATERMARK_MAX_MS)]
    for element in elements:
        running.operator.process_event_time(element)
    running.process(1000)

    assert running.pass_time(10 * INTERVAL_MS) == []
    assert running.log[:-1] == elements


def test_input_that_timed_out_is_active_before_a_watermark_from_upstream():
    running = Ticking(WatermarkStrategy.no_watermarks().with_idleness(INTERVAL_MS))
    running.pass_time(INTERVAL_MS)
    running.operator.process_event_time(Idle())
    running.operator.process_event_time(Watermark(5))

    assert running.log == [Idle(), Active(), Watermark(5)]


# ---- timestamps ------------------------------------------------------------------------


class Extract:
    def extract_timestamp(self, value, record_timestamp):
        return value if record_timestamp is None else record_timestamp + 1


@pytest.mark.parametrize(
    ("assigner", "before", "after"),
    [
        (lambda value: value * 10, None, [30, 10]),
        (lambda value: value * 10, [1, 2], [30, 10]),
        (bool, None, [1, 1]),
        (Extract(), None, [3, 1]),
        (Extract(), [7, 8], [8, 9]),
        (None, [7, 8], [7, 8]),
    ],
)
def test_records_get_the_timestamps_of_the_assigner(assigner, before, after):
    strategy = MONOTONOUS if assigner is None else MONOTONOUS.with_timestamp_assigner(assigner)
    running = Ticking(strategy)
    running.operator.process(RowBatch([3, 1], before))

    assert running.values == [3, 1]
    assert running.timestamps == [after]
    assert {type(timestamp) for timestamp in running.timestamps[0]} == {int}


def test_record_without_a_timestamp_is_an_error_that_says_what_to_do():
    with pytest.raises(UserCodeError, match="record has no timestamp") as raised:
        Ticking(MONOTONOUS).operator.process(RowBatch(["a"]))

    assert "with_timestamp_assigner" in raised.value.hint


def test_timestamp_that_is_not_a_whole_number_names_the_record():
    strategy = MONOTONOUS.with_timestamp_assigner(lambda value: value / 2)

    with pytest.raises(UserCodeError, match="not a whole number") as raised:
        Ticking(strategy).operator.process(RowBatch([5]))

    assert raised.value.context["record"] == "5"


def test_assigner_that_raises_names_the_record():
    strategy = MONOTONOUS.with_timestamp_assigner(int)

    with pytest.raises(UserCodeError, match="user function raised") as raised:
        Ticking(strategy).operator.process(RowBatch(["1", "one"]))

    assert raised.value.context["record"] == "'one'"


@pytest.mark.parametrize(
    "make",
    [
        lambda: WatermarkStrategy.for_bounded_out_of_orderness("soon"),
        lambda: WatermarkStrategy.for_bounded_out_of_orderness(-1),
        lambda: MONOTONOUS.with_idleness(0),
        lambda: MONOTONOUS.with_timestamp_assigner("time"),
    ],
)
def test_strategy_refuses_what_it_cannot_use(make):
    with pytest.raises(GraphError):
        make()
