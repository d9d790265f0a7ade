"""Jobs whose output is made by timers, and what it is by plain Python.

Every record waits in the state of its key until a timer emits it, once.  Which timer that is depends on
the order of things, and on how late a record is after a restart; that each comes out once does not.
"""

from collections import deque
from typing import Any

import msgspec

from raystream import (
    KeyedProcessFunction,
    ListStateDescriptor,
    MapStateDescriptor,
    ProcessFunction,
    WatermarkStrategy,
)
from raystream.connectors.datagen import DatagenSource
from raystream.operators.source import END, NOTHING, SplitBatch
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


# ---- splits at different times ---------------------------------------------------------


class Range(msgspec.Struct, array_like=True):
    """The readings of one split that are left: its number and the index of the next one."""

    split: int
    next: int = 0


class SideBySide:
    """Readings of several splits, each in order, one far behind the others; read by turns in each subtask.

    Split `i` has the indices `i, i + SPLITS, ...`; the last split rests a while between any two records.
    """

    SPLITS = 5
    bounded = True
    rewindable = True

    def enumerator(self, context, state):
        return SideBySideEnumerator(self.SPLITS, context.parallelism, state)

    def open_reader(self, context):
        return SideBySideReader(context)


class SideBySideEnumerator:
    discovery_interval_ms = None

    def __init__(self, count, parallelism, state):
        self._parallelism = parallelism
        self._left = list(range(count)) if state is None else list(state)

    def discover(self):
        pass

    def discovered(self, found):
        pass

    def next_splits(self, subtask):
        given = [split for split in self._left if split % self._parallelism == subtask]
        self._left = [split for split in self._left if split not in given]
        return [msgspec.msgpack.encode(Range(split)) for split in given]

    @property
    def exhausted(self):
        return not self._left

    def snapshot(self):
        return bytes(self._left)


class SideBySideReader:
    def __init__(self, context):
        self._context = context
        self._ranges: deque[Range] = deque()
        self._rests_until_ms = 0.0
        self._complete = False

    def poll(self, records_max, bytes_max):
        for _ in range(len(self._ranges)):
            current = self._ranges[0]
            self._ranges.rotate(-1)
            slow = current.split == SideBySide.SPLITS - 1
            if slow and self._context.clock.monotonic_ms() < self._rests_until_ms:
                continue
            self._rests_until_ms = self._context.clock.monotonic_ms() + 4 if slow else self._rests_until_ms
            mine = READINGS[current.split :: SideBySide.SPLITS]
            values = mine[current.next : current.next + 2]
            current.next += 2
            if current.next >= len(mine):
                self._ranges.remove(current)
            return SplitBatch(current.split, values)
        if self._ranges:
            self._context.wake_at(self._rests_until_ms)
        return END if self._complete and not self._ranges else NOTHING

    def add_splits(self, splits):
        self._ranges.extend(msgspec.msgpack.decode(raw, type=Range) for raw in splits)
        self._context.wake()

    def no_more_splits(self):
        self._complete = True
        self._context.wake()

    @property
    def wants_splits(self):
        return not self._complete

    def active_splits(self):
        return [current.split for current in self._ranges]

    def snapshot(self):
        return [msgspec.msgpack.encode(current) for current in self._ranges]

    def checkpoint_complete(self, checkpoint_id):
        pass

    def close(self):
        pass


class InTime(ProcessFunction):
    """Tells of each record whether it was late."""

    def process_element(self, reading, ctx):
        yield reading, ctx.timestamp <= ctx.timers.current_watermark


def side_by_side(env):
    """No record is late, although those of one split come long after those of the others."""
    strategy = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(time_of)
    stream = env.from_source(SideBySide(), watermarks=strategy, name="splits", uid="splits")
    return stream.rebalance().process(InTime(), name="in time", uid="in time")


def expected_in_time() -> list[Any]:
    return [(reading, False) for reading in READINGS]
