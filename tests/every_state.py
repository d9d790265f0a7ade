"""A job that keeps state of every kind, typed and pickled, with and without a time to live.

At the end of its input it publishes all that it holds, so that whoever has killed and restored it meanwhile
can compare each key of each state and each timer with plain Python (`expected`).
"""

from typing import Any

from raystream import (
    AggregateFunction,
    AggregatingStateDescriptor,
    CheckpointedFunction,
    KeyedBroadcastProcessFunction,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    StateTtl,
    TimeDomain,
    ValueStateDescriptor,
    WatermarkStrategy,
)

KEYS = 11
END_MS = 1 << 60
DAY = StateTtl("1d")
KINDS = tuple((typed, ttl) for typed in (True, False) for ttl in (None, DAY))
"""Of keyed states: whether they are typed, and how long they live."""
RULES = [(f"rule {n}", n) for n in range(6)]
TYPED_RULES = MapStateDescriptor("typed rules", str, int)
PICKLED_RULES = MapStateDescriptor("pickled rules")
STRATEGY = WatermarkStrategy.for_bounded_out_of_orderness("1s").with_timestamp_assigner(lambda number: number)


def key_of(number: int) -> int:
    return number % KEYS


class Opaque:
    """Something that only pickle can store."""

    def __init__(self, numbers):
        self.numbers = numbers


class SumAndCount(AggregateFunction):
    def create_accumulator(self):
        return [0, 0]

    def add(self, value, accumulator):
        return [accumulator[0] + value, accumulator[1] + 1]

    def get_result(self, accumulator):
        return tuple(accumulator)

    def merge(self, first, second):
        return [first[0] + second[0], first[1] + second[1]]


class KeyedStates:
    """Keyed states of all kinds, all typed or all pickled."""

    def __init__(self, ctx, name, ttl, *, typed):
        number, text, numbers = (int, str, list[int]) if typed else (None, None, None)
        self.typed = typed
        self.value = ctx.get_state(ValueStateDescriptor(f"value {name}", numbers, ttl=ttl))
        self.elements = ctx.get_list_state(ListStateDescriptor(f"list {name}", number, ttl=ttl))
        self.counts = ctx.get_map_state(MapStateDescriptor(f"map {name}", text, number, ttl=ttl))
        self.total = ctx.get_reducing_state(
            ReducingStateDescriptor(f"reducing {name}", lambda first, second: first + second, number, ttl=ttl)
        )
        self.mean = ctx.get_aggregating_state(
            AggregatingStateDescriptor(f"aggregating {name}", SumAndCount(), numbers, ttl=ttl)
        )

    def add(self, number):
        if self.typed:
            self.value.update([*(self.value.value() or ()), number])
        else:  # Changed in place.
            held = self.value.value() or Opaque([])
            held.numbers.append(number)
            self.value.update(held)
        self.elements.add(number)
        digit = str(number % 10)
        self.counts[digit] = self.counts.get(digit, 0) + 1
        self.total.add(number)
        self.mean.add(number)

    def content(self):
        value = self.value.value()
        return (
            tuple(sorted(value if self.typed else value.numbers)),
            tuple(sorted(self.elements.get())),
            tuple(sorted(self.counts.items())),
            self.total.get(),
            self.mean.get(),
        )


class Everything(KeyedBroadcastProcessFunction, CheckpointedFunction):
    """Keeps each number in all kinds of state; timers publish it, and at the end everything else."""

    def __init__(self, kinds=KINDS):
        self.wanted = kinds

    def open(self, ctx):
        self.kinds = [
            KeyedStates(ctx, f"{'typed' if typed else 'pickled'}{' lived' if ttl else ''}", ttl, typed=typed)
            for typed, ttl in self.wanted
        ]
        self.waiting = ctx.get_map_state(MapStateDescriptor("waiting", int))

    def process_element(self, number, ctx):
        for states in self.kinds:
            states.add(number)
        self.waiting[number] = None
        for numbers in (self.typed_split, self.pickled_split, self.raw):
            numbers.append(number)
        timers = ctx.timers
        timers.register_event_time(number)
        timers.register_event_time(END_MS)
        timers.register_processing_time(timers.current_processing_time + number % 50)

    def process_broadcast_element(self, rule, ctx):
        name, number = rule
        ctx.get_broadcast_state(TYPED_RULES)[name] = number
        ctx.get_broadcast_state(PICKLED_RULES)[name] = Opaque([number])

    def on_timer(self, timestamp, ctx):
        if ctx.time_domain is TimeDomain.EVENT_TIME and timestamp < END_MS:
            yield "event timer", ctx.current_key, timestamp
            return
        for number in self.waiting:
            yield "processing timer", ctx.current_key, number
        self.waiting.clear()
        if ctx.time_domain is TimeDomain.EVENT_TIME:
            yield from self.everything(ctx)

    def everything(self, ctx):
        yield "rules", ctx.current_key, tuple(sorted(ctx.get_broadcast_state(TYPED_RULES).items()))
        pickled = ctx.get_broadcast_state(PICKLED_RULES).items()
        yield "rules", ctx.current_key, tuple(sorted((name, rule.numbers[0]) for name, rule in pickled))
        for states in self.kinds:
            yield "key", ctx.current_key, states.content()
        for numbers in (self.typed_split, self.pickled_split, self.raw):
            yield from (("operator", number % KEYS, number) for number in numbers)
            numbers.clear()

    # ---- operator state ----

    def initialize_state(self, ctx):
        self.index = ctx.subtask_index
        self.typed_list = ctx.get_list_state(ListStateDescriptor("typed list", int))
        self.pickled_list = ctx.get_list_state(ListStateDescriptor("pickled list"))
        self.raw_list = ctx.get_raw_state("raw list")
        self.typed_split = self.typed_list.get()
        self.pickled_split = [opaque.numbers[0] for opaque in self.pickled_list.get()]
        self.raw = [int(element) for element in self.raw_list.get()]
        self.typed_union = ctx.get_union_list_state(ListStateDescriptor("typed union", tuple[int, int, int]))
        self.pickled_union = ctx.get_union_list_state(ListStateDescriptor("pickled union"))
        check_union(self.typed_union.get())
        check_union([opaque.numbers for opaque in self.pickled_union.get()])

    def snapshot_state(self, ctx):
        self.typed_list.update(self.typed_split)
        self.pickled_list.update([Opaque([number]) for number in self.pickled_split])
        self.raw_list.update([str(number).encode() for number in self.raw])
        union = [(self.index, len(self.typed_split), n) for n in range(len(self.typed_split))]
        self.typed_union.update(union)
        self.pickled_union.update([Opaque(list(element)) for element in union])


def check_union(elements):
    """Raise unless the elements of each subtask that has any are all there, in order."""
    by_subtask: dict[int, list[Any]] = {}
    for subtask, count, n in elements:
        by_subtask.setdefault(subtask, []).append((count, n))
    for found in by_subtask.values():
        assert found == [(found[0][0], n) for n in range(found[0][0])], elements


def add_everything(env, numbers, rules, prepare=lambda number: number, *, kinds=KINDS):
    """Add the job to an environment; return what it publishes.

    Args:
        env: the environment.
        numbers: a source of distinct numbers from 0.
        rules: a source of `RULES`.
        prepare: what every number passes through.
        kinds: of keyed states.
    """
    keyed = env.from_source(numbers, watermarks=STRATEGY, name="numbers", uid="numbers").map(prepare)
    ruled = env.from_source(rules, name="rules", uid="rules").broadcast(TYPED_RULES, PICKLED_RULES)
    return keyed.key_by(key_of).connect(ruled).process(Everything(kinds), name="everything", uid="everything")


def expected(count: int, kinds: int = len(KINDS)) -> list[Any]:
    """Return what the job publishes for the numbers below `count`, in some order, with that many kinds."""
    records: list[Any] = []
    for kind, times in (("event timer", 1), ("processing timer", 1), ("operator", 3)):
        records += [(kind, key_of(number), number) for number in range(count)] * times
    for key in range(min(KEYS, count)):
        own = range(key, count, KEYS)
        digits = [str(number % 10) for number in own]
        by_digit = tuple((digit, digits.count(digit)) for digit in sorted(set(digits)))
        content = (tuple(own), tuple(own), by_digit, sum(own), (sum(own), len(own)))
        records += [("rules", key, tuple(RULES))] * 2 + [("key", key, content)] * kinds
    return records
