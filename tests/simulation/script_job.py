"""A job script, as `raystream run` executes it: its classes are records, keys' parts and state."""

import collections
import enum
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from raystream import KeyedProcessFunction, ListStateDescriptor, ValueStateDescriptor
from raystream.connectors.datagen import DatagenSource

COUNT = 120
PLACES = ("north", "south", "west")


class Level(enum.Enum):
    CALM = "calm"
    STORM = "storm"


@dataclass(frozen=True)
class Reading:
    place: str
    number: int
    level: Level


class Peak(NamedTuple):
    number: int
    level: Level


class Summary(msgspec.Struct, frozen=True):
    place: str
    readings: int
    peak: Peak


def reading(index: int) -> Reading:
    number = index * 37 % 101
    return Reading(PLACES[index % len(PLACES)], number, Level.STORM if number > 90 else Level.CALM)


def by_place(value: Reading) -> tuple[str, bool]:
    return value.place, value.level is Level.STORM


TOTALS = collections.Counter(by_place(reading(index)) for index in range(COUNT))


class Summarise(KeyedProcessFunction):
    def __init__(self, totals):
        self.totals = totals

    def open(self, ctx):
        self.peak = ctx.get_state(ValueStateDescriptor("peak", Peak))
        self.readings = ctx.get_list_state(ListStateDescriptor("readings"))

    def process_element(self, value, ctx):
        self.readings.add(value)
        peak = self.peak.value()
        if peak is None or peak.number < value.number:
            self.peak.update(Peak(value.number, value.level))
        readings = list(self.readings.get())
        if len(readings) == self.totals[ctx.current_key]:
            yield Summary(value.place, len(readings), self.peak.value())


def job(env):
    class Marked(NamedTuple):
        reading: Reading
        mark: str

    readings = env.from_source(DatagenSource(reading, count=COUNT, rate=900), uid="readings")
    marked = readings.rebalance().map(lambda value: Marked(value, PLACES[0]))
    calm_or_not = marked.map(lambda value: value.reading)
    return calm_or_not.key_by(by_place).process(Summarise(TOTALS), uid="summarise")


def expected():
    readings = collections.defaultdict(list)
    for index in range(COUNT):
        readings[by_place(reading(index))].append(reading(index))
    peaks = {key: max(values, key=lambda value: value.number) for key, values in readings.items()}
    return [
        Summary(place, len(values), Peak(peaks[place, storm].number, peaks[place, storm].level))
        for (place, storm), values in readings.items()
    ]
