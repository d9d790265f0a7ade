"""Jobs whose output is made by timers, and what it is by plain Python.

Every record waits in the state of its key until a timer emits it, once.  Which timer that is depends on
the order of things, and on how late a record is after a restart; that each comes out once does not.
"""

from typing import Any

from raystream import KeyedProcessFunction, ListStateDescriptor, MapStateDescriptor, WatermarkStrategy
from raystream.connectors.datagen import DatagenSource
from raystream.testing import Idle, Pause, TestSource, Watermark
from tests.simulation.jobs import COUNT, KEYS, RATE, number

STEP_MS = 10
WINDOW_MS = 70


def reading(index: int) -> tuple[int, int]:
    return index * STEP_MS, number(index)


READINGS = [reading(index) for index in range(COUNT)]


def time_of(reading: tuple[int, int]) -> int:
    return reading[0]


def key_of(reading: tuple[int, int]) -> int:
    return reading[1] % KEYS


def window_of(time_ms: int) -> int:
    return time_ms // WINDOW_MS


class Windows(KeyedProcessFunction):
    """Keeps records by window, and emits them when the window has ended."""

    def open(self, ctx):
        self.windows = ctx.get_map_state(MapStateDescriptor("windows", int))

    def process_element(self, reading, ctx):
        window = window_of(ctx.timestamp)
        self.windows[window] = [*(self.windows.get(window) or ()), reading]
        ctx.timers.register_event_time((window + 1) * WINDOW_MS - 1)

    def on_timer(self, timestamp, ctx):
        window = window_of(timestamp)
        yield from self.windows[window]
        del self.windows[window]


class Impatient(KeyedProcessFunction):
    """Emits what it holds of a key after some time, or else when the input has ended."""

    def open(self, ctx):
        self.held = ctx.get_list_state(ListStateDescriptor("held"))

    def process_element(self, reading, ctx):
        self.held.add(reading)
        timers = ctx.timers
        timers.delete_processing_time(timers.current_processing_time + 11)
        timers.register_processing_time(timers.current_processing_time + 1 + reading[1] % 40)
        timers.register_event_time(COUNT * STEP_MS)

    def on_timer(self, timestamp, ctx):
        yield from self.held.get()
        self.held.clear()


STRATEGY = WatermarkStrategy.for_bounded_out_of_orderness(STEP_MS).with_timestamp_assigner(time_of)


def readings(env, strategy=STRATEGY):
    source = DatagenSource(reading, count=COUNT, rate=RATE)
    return env.from_source(source, watermarks=strategy, name="readings", uid="readings")


def windowed(env):
    """Windows of event time, and of what they emit windows by another key, all by periodic watermarks."""
    by_key = readings(env).key_by(key_of).process(Windows(), name="windows", uid="windows")
    return by_key.key_by(lambda reading: reading[1] % 2).process(Windows(), name="again", uid="again")


def impatient(env):
    """Timers of both kinds; the input falls idle at times."""
    stream = readings(env, STRATEGY.with_idleness("3ms"))
    return stream.key_by(key_of).process(Impatient(), name="impatient", uid="impatient")


def scripted(env):
    """Watermarks and idleness by script, of lists of which some are silent for a while."""
    lists = []
    for start in range(3):
        script: list[Any] = [Idle(), Pause(15)] if start == 1 else []
        for position, item in enumerate(READINGS[start::3]):
            script.append(item)
            if position % 5 == 4:
                script.append(Watermark(item[0]))
            if position % 17 == 16:
                script += [Idle(), Pause(8)]
        lists.append(script)
    stamped = WatermarkStrategy.no_watermarks().with_timestamp_assigner(time_of)
    stream = env.from_source(TestSource(*lists), watermarks=stamped, name="lists", uid="lists")
    return stream.key_by(key_of).process(Windows(), name="windows", uid="windows")


def expected_readings() -> list[Any]:
    return READINGS
