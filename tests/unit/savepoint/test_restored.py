"""A job goes on from a savepoint that was written from tables, on either backend and at any parallelism."""

import pytest

import raystream.savepoint
from raystream import (
    AggregatingStateDescriptor,
    CheckpointedFunction,
    KeyedProcessFunction,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    StateTtl,
    StreamEnvironment,
    ValueStateDescriptor,
)
from raystream.savepoint import KeyedState, OperatorState, Timers
from raystream.testing import TestSource
from tests.unit.savepoint.jobs import Total, Visit

HITS = ValueStateDescriptor("hits", int)
PATHS = ListStateDescriptor("paths", Visit)
DAYS = MapStateDescriptor("days", int, float)
LONGEST = ReducingStateDescriptor("longest", max, int)
TOTAL = AggregatingStateDescriptor("total", Total(), list[int])
ANY = ValueStateDescriptor("any")
LIVED = ValueStateDescriptor("lived", str, ttl=StateTtl("1d"))
POSITIONS = ListStateDescriptor("positions", int)
RULES = MapStateDescriptor("rules", str, int)
KEYS = [("k", n) for n in range(20)]


class TellAll(KeyedProcessFunction, CheckpointedFunction):
    """Tells at the time of a timer what the key has, and in the end what the subtask has."""

    def open(self, ctx):
        self.hits, self.any = ctx.get_state(HITS), ctx.get_state(ANY)
        self.lived = ctx.get_state(LIVED)
        self.paths, self.days = ctx.get_list_state(PATHS), ctx.get_map_state(DAYS)
        self.longest, self.total = ctx.get_reducing_state(LONGEST), ctx.get_aggregating_state(TOTAL)

    def initialize_state(self, ctx):
        self.positions = ctx.get_list_state(POSITIONS).get()
        self.rules = dict(ctx.get_broadcast_state(RULES).items())
        self.raw = ctx.get_raw_state("raw").get()

    def snapshot_state(self, ctx): ...

    def process_element(self, value, ctx): ...

    def on_timer(self, timestamp, ctx):
        days = dict(self.days.items())
        yield (
            ctx.current_key, timestamp, self.hits.value(), self.paths.get(), days, self.longest.get(),
            self.total.get(), self.any.value(), self.lived.value(), self.rules,
        )  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    numbers = [n for _, n in KEYS]
    paths = [{"path": f"/{n}", "seconds": 0.5} for n in numbers]
    states = [
        KeyedState("a", HITS, {"key": KEYS, "value": numbers}),
        KeyedState("a", PATHS, {"key": KEYS * 2, "value": paths * 2}),
        KeyedState("a", DAYS, {"key": KEYS, "map_key": numbers, "value": [0.5] * len(KEYS)}),
        KeyedState("a", LONGEST, {"key": KEYS, "value": numbers}),
        KeyedState("a", TOTAL, {"key": KEYS, "value": [[2, n] for n in numbers]}),
        KeyedState("a", ANY, {"key": KEYS, "value": [{"n": n} for n in numbers]}),
        KeyedState("a", LIVED, {"key": KEYS, "value": [str(n) for n in numbers]}),
        Timers("a", {"key": KEYS, "time_ms": [n + 100 for n in numbers]}),
        OperatorState("a", POSITIONS, {"value": [1, 2, 3]}),
        OperatorState("a", RULES, {"map_key": ["limit"], "value": [7]}),
        OperatorState("a", "raw", {"value": [b"\0"]}),
    ]
    return raystream.savepoint.write(str(tmp_path_factory.mktemp("written") / "one"), states)


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
@pytest.mark.parametrize("parallelism", [1, 3])
def test_every_state_and_timer_is_what_the_tables_said(path, tmp_path, backend, parallelism):
    env = StreamEnvironment(
        {
            "execution.runner": "local",
            "execution.state-recovery.path": path,
            "state.backend.type": backend,
            "state.backend.rocksdb.localdir": str(tmp_path),
        },
        parallelism=parallelism,
    )
    keyed = env.from_source(TestSource([("k", 0)]), uid="source").key_by(lambda key: key)

    found = keyed.process(TellAll(), uid="a").execute_and_collect()

    assert sorted(found, key=lambda one: one[1]) == [
        (
            key, n + 100, n, [Visit(f"/{n}", 0.5)] * 2, {n: 0.5}, n, n / 2, {"n": n}, str(n), {"limit": 7},
        )
        for key, n in zip(KEYS, range(len(KEYS)), strict=True)
    ]  # fmt: skip
