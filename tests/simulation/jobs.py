"""Jobs that are simulated, and what their output is by plain Python.

Every value is a number from a generated source.  Outputs do not depend on the order in which
records of different splits arrive: a keyed function tells how many records its key has had,
and, at the last one, all that it holds of them.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from raystream import (
    KeyedProcessFunction,
    ListStateDescriptor,
    MapStateDescriptor,
    StreamEnvironment,
    ValueStateDescriptor,
)
from raystream.connectors.datagen import DatagenSource
from raystream.testing import TestSource

COUNT = 160
RATE = 900
KEYS = 12


def number(index: int) -> int:
    return index * 7919 % 1000


NUMBERS = [number(index) for index in range(COUNT)]


def key_of(value: int) -> str:
    return f"key {value % KEYS}"


def parity(value: tuple[str, int]) -> int:
    return value[1] % 2


TOTALS = Counter(map(key_of, NUMBERS))


class Remember(KeyedProcessFunction):
    """Keeps what its key has had in a state of every kind."""

    def open(self, ctx):
        self.hits = ctx.get_state(ValueStateDescriptor("hits", int, default=0))
        self.values = ctx.get_list_state(ListStateDescriptor("values", int))
        self.by_digit = ctx.get_map_state(MapStateDescriptor("by digit", int, int))

    def process_element(self, value, ctx):
        hits = self.hits.value() + 1
        self.hits.update(hits)
        self.values.add(value)
        self.by_digit[value % 10] = (self.by_digit.get(value % 10) or 0) + 1
        yield ctx.current_key, hits
        if hits == TOTALS[ctx.current_key]:
            yield ctx.current_key, *remembered(self.values.get(), self.by_digit.items())


class Tally(KeyedProcessFunction):
    """Counts, in a value that is changed in place."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen"))

    def process_element(self, value, ctx):
        seen = self.seen.value() or []
        seen.append(value)
        self.seen.update(seen)
        yield "tally", ctx.current_key, len(seen)


def remembered(values: Iterable[int], by_digit: Iterable[tuple[int, int]]) -> tuple[Any, ...]:
    return tuple(sorted(values)), tuple(sorted(by_digit))


def numbers(env: StreamEnvironment, *, rate: int = RATE):
    return env.from_source(DatagenSource(number, count=COUNT, rate=rate), name="numbers", uid="numbers")


# ---- the jobs ----------------------------------------------------------------------


def keyed(env):
    return numbers(env).key_by(key_of).process(Remember(), name="remember", uid="remember")


def chained(env):
    return numbers(env).map(str).filter(lambda text: not text.endswith("3"))


def twice_keyed(env):
    counts = numbers(env).key_by(key_of).process(Remember(), name="remember", uid="remember")
    pairs = counts.filter(lambda record: len(record) == 2)
    return pairs.key_by(parity).process(Tally(), name="tally", uid="tally")


def united(env):
    lists = TestSource(*(NUMBERS[start::3] for start in range(3)))
    listed = env.from_source(lists, name="lists", uid="lists")
    rebalanced = numbers(env).rebalance().map(lambda value: value, name="same", uid="same")
    return listed.union(rebalanced).key_by(key_of).process(Tally(), name="tally", uid="tally")


@dataclass(frozen=True)
class Hit:
    path: str
    size: int


class Sums(NamedTuple):
    hits: int = 0
    bytes: int = 0


class AddUp(KeyedProcessFunction):
    """Keeps an object of a class of its own; the first record of each key goes aside."""

    def open(self, ctx):
        self.sums = ctx.get_state(ValueStateDescriptor("sums", default=Sums()))

    def process_element(self, hit, ctx):
        before = self.sums.value()
        after = Sums(before.hits + 1, before.bytes + hit.size)
        self.sums.update(after)
        if after.hits == TOTALS[hit.path]:
            yield "sums", hit.path, after.bytes
        if after.hits == 1:
            ctx.output("first", ("first", hit.path))


def typed(env):
    hits = numbers(env).map(lambda value: Hit(key_of(value), value))
    sums = hits.key_by(lambda hit: hit.path).process(AddUp(), name="add up", uid="add-up")
    return sums.union(sums.get_side_output("first"))


def heavy(env):
    """Records so large that few of them fit into the credit of a channel."""
    source = DatagenSource(number, count=HEAVY_COUNT)
    fat = env.from_source(source, uid="numbers").map(lambda value: (value, bytes(HEAVY_BYTES)))
    keyed = fat.key_by(lambda record: record[0]).process(Weigh(), name="weigh", uid="weigh")
    return keyed.rebalance().map(lambda record: record, name="same", uid="same")


class Weigh(KeyedProcessFunction):
    def process_element(self, record, ctx):
        yield record[0], len(record[1])


HEAVY_COUNT = 60
HEAVY_BYTES = 900_000


# ---- their outputs -------------------------------------------------------------------


def expected_keyed() -> list[Any]:
    counts: list[Any] = [(key, hits + 1) for key, total in TOTALS.items() for hits in range(total)]
    for key in TOTALS:
        values = [value for value in NUMBERS if key_of(value) == key]
        counts.append((key, *remembered(values, Counter(value % 10 for value in values).items())))
    return counts


def expected_chained() -> list[Any]:
    return [str(value) for value in NUMBERS if value % 10 != 3]


def expected_twice_keyed() -> list[Any]:
    hits = [hits + 1 for total in TOTALS.values() for hits in range(total)]
    totals = Counter(count % 2 for count in hits)
    return [("tally", key, n + 1) for key, total in totals.items() for n in range(total)]


def expected_united() -> list[Any]:
    return [("tally", key, n + 1) for key, total in TOTALS.items() for n in range(2 * total)]


def expected_typed() -> list[Any]:
    sums = [("sums", key, sum(value for value in NUMBERS if key_of(value) == key)) for key in TOTALS]
    return [*sums, *(("first", key) for key in TOTALS)]


def expected_heavy() -> list[Any]:
    return [(value, HEAVY_BYTES) for value in NUMBERS[:HEAVY_COUNT]]
