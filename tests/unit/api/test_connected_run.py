"""Connected and broadcast streams give the right records on the local runner, over crashes and rescaling."""

import operator
from collections import Counter

import pytest

from raystream import (
    BroadcastProcessFunction,
    CheckpointedFunction,
    FlatMapFunction,
    JobStatus,
    KeyedBroadcastProcessFunction,
    KeyedCoProcessFunction,
    ListStateDescriptor,
    MapFunction,
    MapStateDescriptor,
    StreamEnvironment,
)
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink
from raystream.testing import Barrier, Crash, TestSource
from tests.held_source import HeldSource
from tests.published import records

first = operator.itemgetter(0)

FACTORS = MapStateDescriptor("factors", str, int)
WAITING = ListStateDescriptor("waiting", int)


class Join(KeyedCoProcessFunction):
    """Emits every pair of records of one key, once."""

    def open(self, ctx):
        self.sides = [ctx.get_list_state(ListStateDescriptor(name, int)) for name in ("left", "right")]

    def join(self, own, other, value):
        key, number = value
        self.sides[own].add(number)
        return [(key, *sorted((number, seen))) for seen in self.sides[other].get()]

    def process_element1(self, value, ctx):
        return self.join(0, 1, value)

    def process_element2(self, value, ctx):
        return self.join(1, 0, value)


class Scale(BroadcastProcessFunction):
    """Waits with its records until there is a factor; then emits them."""

    def open(self, ctx):
        self.waiting = []

    def process_element(self, value, ctx):
        factor = ctx.get_broadcast_state(FACTORS).get("factor")
        if factor is None:
            self.waiting.append(value)
        else:
            yield value * factor

    def process_broadcast_element(self, value, ctx):
        ctx.get_broadcast_state(FACTORS)["factor"] = value
        yield from (waiting * value for waiting in self.waiting)
        self.waiting.clear()


class ScaleKeyed(KeyedBroadcastProcessFunction):
    """Holds the records of each key back until there is a factor, then emits them."""

    def open(self, ctx):
        self.waiting = ctx.get_list_state(WAITING)

    def process_element(self, value, ctx):
        factor = ctx.get_broadcast_state(FACTORS).get("factor")
        if factor is not None:
            return [value * factor]
        self.waiting.add(value)
        return ()

    def process_broadcast_element(self, value, ctx):
        ctx.get_broadcast_state(FACTORS)["factor"] = value
        scaled = []

        def take(_, waiting):
            scaled.extend(number * value for number in waiting.get())
            waiting.clear()

        ctx.apply_to_keyed_state(WAITING, take)
        return scaled


@pytest.fixture(params=[1, 3])
def env(request):
    return StreamEnvironment(runner="local", parallelism=request.param)


def exact(tmp_path, parallelism, **options):
    return StreamEnvironment(
        runner="local",
        parallelism=parallelism,
        execution_checkpointing_dir=str(tmp_path / "checkpoints"),
        execution_checkpointing_savepoint_dir=str(tmp_path / "savepoints"),
        execution_checkpointing_interval="20ms",
        execution_checkpointing_min_pause="0ms",
        restart_strategy_type="fixed-delay",
        restart_strategy_fixed_delay_delay="1ms",
        **options,
    )


def test_connected_streams_share_the_state_of_their_keys(env):
    lefts = env.from_collection([("a", 1), ("b", 2), ("a", 3)])
    rights = env.from_collection([("a", 10), ("c", 11)])

    joined = lefts.connect(rights).key_by(first, first).process(Join())

    assert sorted(joined.execute_and_collect()) == [("a", 1, 10), ("a", 3, 10)]


def test_plain_callables_serve_both_inputs(env):
    numbers, texts = env.from_collection([1, 2]), env.from_collection(["3"])

    assert sorted(numbers.connect(texts).map(float, int).execute_and_collect()) == [1.0, 2.0, 3]

    keyed = env.from_collection(["ab"]).connect(env.from_collection(["ac"])).key_by(first, first)
    shown = keyed.process(
        lambda value, ctx: [(1, ctx.current_key)], lambda value, ctx: [(2, ctx.current_key)]
    )

    assert sorted(shown.execute_and_collect()) == [(1, "a"), (2, "a")]


def test_broadcast_record_is_in_every_subtask(env):
    rules = env.from_collection([7], parallelism=1)

    scaled = env.from_collection(range(50)).rebalance().connect(rules.broadcast(FACTORS)).process(Scale())

    assert sorted(scaled.execute_and_collect()) == [7 * n for n in range(50)]


def test_broadcast_stream_without_state_comes_once_in_every_subtask(env):
    copies = env.from_collection(["a", "b"], parallelism=1).broadcast().map(str.upper)

    assert Counter(copies.execute_and_collect()) == {
        "A": env.config.parallelism,
        "B": env.config.parallelism,
    }


@pytest.mark.parametrize(
    "distribute",
    [
        lambda stream: stream.rescale(),
        lambda stream: stream.shuffle(),
        lambda stream: stream.global_(),
        lambda stream: stream.partition_custom(lambda key, subtasks: key % subtasks, lambda n: n // 2),
    ],
)
@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_every_distribution_delivers_every_record_once(env, distribute, parallelism):
    numbers = distribute(env.from_collection(range(300))).map(lambda n: n, parallelism=parallelism)

    assert sorted(numbers.execute_and_collect()) == list(range(300))


class Subtask(MapFunction):
    def open(self, ctx):
        self.index = ctx.subtask_index

    def map(self, value):
        return self.index, value


def test_global_and_custom_distribution_reach_the_subtasks_that_they_say():
    env = StreamEnvironment(runner="local", parallelism=3)
    numbers = env.from_collection(range(30))

    assert set(map(first, numbers.global_().map(Subtask()).execute_and_collect())) == {0}

    numbers = env.from_collection(range(30))
    custom = numbers.partition_custom(lambda key, subtasks: key % subtasks, lambda n: n).map(Subtask())
    assert sorted(custom.execute_and_collect()) == sorted((n % 3, n) for n in range(30))


def joined_exactly(lefts, rights):
    return sorted((key, *sorted((a, b))) for key, a in lefts for other, b in rights if key == other)


def join(env, lefts, rights, out):
    connected = env.from_source(lefts, uid="lefts").connect(env.from_source(rights, uid="rights"))
    pairs = connected.key_by(first, first).process(Join(), name="join", uid="join")
    pairs.sink_to(FileSink.json_lines(str(out)), uid="out")


def test_crash_costs_neither_input_a_record(tmp_path):
    lefts = [("abc"[n % 3], n) for n in range(60)]
    rights = [("bcd"[n % 3], 100 + n) for n in range(60)]
    env = exact(tmp_path, 2)
    join(
        env,
        TestSource([*lefts[:20], Barrier(), *lefts[20:40], Crash(), *lefts[40:]]),
        TestSource([*rights[:30], Barrier(), *rights[30:]]),
        tmp_path / "out",
    )

    assert env.execute("join").restarts == 1
    assert sorted(map(tuple, records(tmp_path / "out"))) == joined_exactly(lefts, rights)


def left(index):
    return index % 7, index


def right(index):
    return index % 5, -index - 1


@pytest.mark.parametrize("parallelism", [1, 3])
def test_both_inputs_go_on_from_a_savepoint_at_another_parallelism(tmp_path, go, parallelism):
    both = DatagenSource(left, count=3_000), DatagenSource(right, count=2_000)
    sources = [HeldSource(source, go, records=1) for source in both]
    env = exact(tmp_path, 2)
    join(env, *sources, tmp_path / "out")
    client = env.submit("join")
    path = client.stop()
    stopped = client.wait(30)
    go.touch()

    env = exact(tmp_path, parallelism, execution_state_recovery_path=path)
    join(env, *sources, tmp_path / "out")

    assert env.execute("join").status is JobStatus.FINISHED
    assert stopped.records_in < 5_000
    expected = joined_exactly(map(left, range(3_000)), list(map(right, range(2_000))))
    assert sorted(map(tuple, records(tmp_path / "out"))) == expected


class InThrees(FlatMapFunction, CheckpointedFunction):
    """Holds records back until there are three."""

    def initialize_state(self, ctx):
        self.stored = ctx.get_list_state(ListStateDescriptor("held", int))
        self.held = self.stored.get()

    def snapshot_state(self, ctx):
        self.stored.update(self.held)

    def flat_map(self, value):
        self.held.append(value)
        if len(self.held) >= 3:
            yield from self.held
            self.held.clear()


def test_records_held_in_operator_state_outlive_a_crash(tmp_path):
    numbers = list(range(60))
    env = exact(tmp_path, 1)
    script = [*numbers[:20], Barrier(), *numbers[20:40], Crash(), *numbers[40:]]
    held = env.from_source(TestSource(script), uid="numbers").flat_map(InThrees(), uid="threes")
    held.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="out")

    assert env.execute("threes").restarts == 1
    assert sorted(records(tmp_path / "out")) == numbers


@pytest.mark.parametrize("rules", [[5, Barrier(), Barrier()], [Barrier(), Barrier(), 5]])
def test_broadcast_and_keyed_state_outlive_a_crash(tmp_path, rules):
    numbers = list(range(60))
    script = [*numbers[:20], Barrier(), *numbers[20:40], Crash(), *numbers[40:], Barrier()]
    env = exact(tmp_path, 2)
    stream = env.from_source(TestSource(script), uid="numbers").key_by(lambda number: number % 4)
    factors = env.from_source(TestSource(rules), uid="factors").broadcast(FACTORS)
    scaled = stream.connect(factors).process(ScaleKeyed(), name="scale", uid="scale")
    scaled.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="out")

    assert env.execute("scale").restarts == 1
    assert sorted(records(tmp_path / "out")) == [5 * number for number in numbers]
