"""Processing time never runs backwards."""

from raystream.clock import ProcessingTime
from raystream.testing.source_run import ManualClock


def test_processing_time_does_not_follow_a_clock_that_is_set_back():
    clock = ManualClock(1000)
    time = ProcessingTime(clock)
    shown = []
    for clock.now_ms in (1000, 1005, 900, 1004, 1006):
        shown.append(time.now_ms())
    assert shown == [1000, 1005, 1005, 1005, 1006]


def test_processing_time_goes_on_from_the_floor_of_the_restored_snapshot():
    clock = ManualClock(1000)
    time = ProcessingTime(clock)
    time.raise_floor(5000)
    time.raise_floor(3000)
    assert time.now_ms() == 5000
    clock.now_ms = 5001
    assert time.now_ms() == 5001
