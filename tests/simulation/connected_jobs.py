"""Jobs with several inputs and operator state, and what their output is by plain Python."""

from typing import Any

from raystream import (
    CheckpointedFunction,
    FlatMapFunction,
    KeyedBroadcastProcessFunction,
    KeyedCoProcessFunction,
    ListStateDescriptor,
    MapStateDescriptor,
    ValueStateDescriptor,
)
from raystream.api.connected import two_inputs
from raystream.api.factories import OperatorFactory
from raystream.graph.logical import OperatorKind
from raystream.operators.co_process import KeyedCoProcessOperator
from raystream.testing import TestSource
from tests.simulation.jobs import NUMBERS, TOTALS, key_of, numbers

LISTED = NUMBERS[::5]
FACTORS = MapStateDescriptor("factors", str, int)
WAITING = ListStateDescriptor("waiting", int)
RULES = [(key, number + 2) for number, key in enumerate(sorted(TOTALS))]


class Pair(KeyedCoProcessFunction):
    """Emits every pair of records of one key, once, whichever came first."""

    def open(self, ctx):
        self.firsts = ctx.get_list_state(ListStateDescriptor("firsts", int))
        self.seconds = ctx.get_list_state(ListStateDescriptor("seconds", int))

    def process_element1(self, value, ctx):
        self.firsts.add(value)
        return [(ctx.current_key, value, other) for other in self.seconds.get()]

    def process_element2(self, value, ctx):
        self.seconds.add(value)
        return [(ctx.current_key, other, value) for other in self.firsts.get()]


def paired(env):
    listed = env.from_source(TestSource(LISTED[::2], LISTED[1::2]), name="lists", uid="lists")
    connected = numbers(env).connect(listed).key_by(key_of, key_of)
    return connected.process(Pair(), name="pair", uid="pair")


class InTurn(KeyedCoProcessOperator):
    """Selects the other input after every batch, so that a barrier often comes through one that is not."""

    def process(self, batch):
        super().process(batch)
        self.context.select_inputs({1})

    def process_second(self, batch):
        super().process_second(batch)
        self.context.select_inputs({0})


def paired_in_turn(env):
    listed = env.from_source(TestSource(LISTED[::2], LISTED[1::2]), name="lists", uid="lists").key_by(key_of)
    keyed = numbers(env).key_by(key_of)
    return keyed._derive(
        kind=OperatorKind.KEYED_CO_PROCESS,
        operation="process",
        name="pair",
        factory=OperatorFactory(InTurn, Pair()),
        stateful=True,
        options={"uid": "pair"},
        upstreams=two_inputs(keyed, listed),
    )


def expected_paired() -> list[Any]:
    return [(key_of(one), one, other) for one in NUMBERS for other in LISTED if key_of(one) == key_of(other)]


class Scale(KeyedBroadcastProcessFunction):
    """Multiplies each number by the factor of its key; holds it back until that factor has come."""

    def open(self, ctx):
        self.waiting = ctx.get_list_state(WAITING)
        self.hits = ctx.get_state(ValueStateDescriptor("hits", int, default=0))

    def process_element(self, value, ctx):
        self.hits.update(self.hits.value() + 1)
        yield "hit", ctx.current_key, self.hits.value()
        factor = ctx.get_broadcast_state(FACTORS).get(ctx.current_key)
        if factor is None:
            self.waiting.add(value)
        else:
            yield ctx.current_key, value * factor

    def process_broadcast_element(self, value, ctx):
        ruled, factor = value
        ctx.get_broadcast_state(FACTORS)[ruled] = factor
        scaled = []

        def take(key, waiting):
            if key == ruled:
                scaled.extend((key, number * factor) for number in waiting.get())
                waiting.clear()

        ctx.apply_to_keyed_state(WAITING, take)
        return scaled


def scaled(env):
    rules = env.from_source(TestSource(RULES[:3], RULES[3:]), name="rules", uid="rules")
    keyed = numbers(env).key_by(key_of)
    return keyed.connect(rules.broadcast(FACTORS)).process(Scale(), name="scale", uid="scale")


def expected_scaled() -> list[Any]:
    factors = dict(RULES)
    hits = [("hit", key, hit + 1) for key, total in TOTALS.items() for hit in range(total)]
    return [*hits, *((key_of(number), number * factors[key_of(number)]) for number in NUMBERS)]


class InFours(FlatMapFunction, CheckpointedFunction):
    """Holds records back in operator state until there are four; stores how many there were in raw state."""

    def initialize_state(self, ctx):
        self.stored = ctx.get_list_state(ListStateDescriptor("held", int))
        self.counted = ctx.get_raw_state("counted")
        self.held = self.stored.get()
        self.count = sum(map(int, self.counted.get()))

    def snapshot_state(self, ctx):
        self.stored.update(self.held)
        self.counted.update([str(self.count).encode()])

    def flat_map(self, value):
        self.held.append(value)
        if len(self.held) == 4:
            yield from self.held
            self.count += 4
            self.held.clear()
            yield "count", self.count


def held(env):
    return numbers(env).rebalance().flat_map(InFours(), name="in fours", uid="in-fours", parallelism=1)


def expected_held() -> list[Any]:
    return [*NUMBERS, *(("count", count) for count in range(4, len(NUMBERS) + 1, 4))]
