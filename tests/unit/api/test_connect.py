"""Connected and broadcast streams, and the ways to distribute records: what they add to a plan."""

import pytest

from raystream import (
    BroadcastProcessFunction,
    CheckpointedFunction,
    CoFlatMapFunction,
    CoMapFunction,
    CoProcessFunction,
    GraphError,
    KeyedBroadcastProcessFunction,
    KeyedCoProcessFunction,
    MapFunction,
    MapStateDescriptor,
    StreamEnvironment,
    ValueStateDescriptor,
)
from raystream.graph.chaining import plan_job
from tests.unit.api.fakes import FakeRunner, FakeSource
from tests.unit.graph.nodes import chains, edges

RULES = MapStateDescriptor("rules", str, int)


class Texts(CoMapFunction):
    def map1(self, value):
        return value

    map2 = map1


class Words(CoFlatMapFunction):
    def flat_map1(self, value):
        return value

    flat_map2 = flat_map1


class Merge(CoProcessFunction):
    def process_element1(self, value, ctx):
        return ()

    process_element2 = process_element1


class Join(KeyedCoProcessFunction, Merge):
    pass


class Apply(BroadcastProcessFunction):
    def process_element(self, value, ctx):
        return ()

    process_broadcast_element = process_element


class KeyedApply(KeyedBroadcastProcessFunction):
    def process_element(self, value, ctx):
        return ()

    process_broadcast_element = process_element


class Buffer(MapFunction, CheckpointedFunction):
    def map(self, value):
        return value

    def initialize_state(self, ctx):
        pass

    def snapshot_state(self, ctx):
        pass


@pytest.fixture
def env():
    return StreamEnvironment(runner=FakeRunner(), parallelism=2)


@pytest.fixture
def orders(env):
    return env.from_source(FakeSource(), name="orders")


@pytest.fixture
def payments(env):
    return env.from_source(FakeSource(), name="payments")


def plan_of(env):
    return plan_job(env._graph, parallelism=2)


def inputs(plan):
    return [(edge.source, edge.input, edge.partitioning.value) for edge in plan.edges]


@pytest.mark.parametrize(
    ("apply", "name"),
    [
        (lambda connected: connected.map(Texts()), "map(Texts)"),
        (lambda connected: connected.flat_map(Words()), "flat_map(Words)"),
        (lambda connected: connected.process(Merge()), "process(Merge)"),
        (lambda connected: connected.map(len, str), "map(len)"),
        (lambda connected: connected.flat_map(list, list), "flat_map(list)"),
        (lambda connected: connected.process(lambda value, ctx: (), lambda value, ctx: ()), "process"),
    ],
)
def test_two_streams_enter_one_operator_by_an_input_each(env, orders, payments, apply, name):
    apply(orders.connect(payments)).map(len)

    plan = plan_of(env)

    assert chains(plan) == [["orders"], ["payments"], [name, "map(len)"]]
    assert inputs(plan) == [(0, 0, "forward"), (1, 1, "forward")]
    assert not plan.vertices[2].operators[0].stateful


def test_united_streams_enter_by_one_input_together(env, orders, payments):
    orders.connect(payments.union(orders)).map(Texts())

    assert inputs(plan_of(env)) == [(0, 0, "forward"), (1, 1, "forward"), (0, 1, "forward")]


def test_stream_connected_with_itself_enters_by_both_inputs(env, orders):
    orders.connect(orders).map(Texts())

    assert inputs(plan_of(env)) == [(0, 0, "forward"), (0, 1, "forward")]


@pytest.mark.parametrize("keyed_before", [False, True])
def test_keyed_streams_share_a_keyed_vertex(env, orders, payments, keyed_before):
    if keyed_before:
        connected = orders.key_by(len).connect(payments.key_by(str))
    else:
        connected = orders.connect(payments).key_by(len, str)
    connected.process(Join(), uid="join")

    plan = plan_of(env)

    assert inputs(plan) == [(0, 0, "hash"), (1, 1, "hash")]
    assert [edge.key_selector for edge in plan.edges] == [len, str]
    assert plan.vertices[2].keyed
    assert plan.vertices[2].operators[0].stateful


def test_stream_with_keys_beside_one_without_shares_no_keyed_state(env, orders, payments):
    orders.key_by(len).connect(payments).process(Merge())

    plan = plan_of(env)

    assert inputs(plan) == [(0, 0, "hash"), (1, 1, "forward")]
    assert not plan.vertices[2].keyed


def test_side_output_of_a_co_process_function_is_read(env, orders, payments):
    orders.connect(payments).process(Merge()).get_side_output("late").map(len)

    assert plan_of(env).vertices[2].operators[0].chained == (("late", 1),)


@pytest.mark.parametrize("keyed", [False, True])
def test_broadcast_stream_enters_by_the_second_input(env, orders, payments, keyed):
    rules = payments.broadcast(RULES)
    if keyed:
        orders.key_by(len).connect(rules).process(KeyedApply())
    else:
        orders.connect(rules).process(Apply())

    plan = plan_of(env)

    assert inputs(plan) == [(0, 0, "hash" if keyed else "forward"), (1, 1, "broadcast")]
    assert plan.vertices[2].keyed is keyed
    assert plan.vertices[2].operators[0].stateful


def test_broadcast_without_state_is_a_stream(env, orders):
    orders.broadcast().map(len)

    assert edges(plan_of(env)) == [("orders", None, "map(len)", "broadcast")]


@pytest.mark.parametrize(
    ("distribute", "partitioning"),
    [
        (lambda stream: stream.rescale(), "rescale"),
        (lambda stream: stream.shuffle(), "shuffle"),
        (lambda stream: stream.global_(), "global"),
        (lambda stream: stream.partition_custom(lambda key, subtasks: 0, len), "custom"),
    ],
)
def test_records_are_distributed_as_asked_for(env, orders, distribute, partitioning):
    distribute(orders.key_by(len)).map(len)

    plan = plan_of(env)

    assert edges(plan) == [("orders", None, "map(len)", partitioning)]
    assert plan.edges[0].key_selector is None
    assert (plan.edges[0].partitioner is None) is (partitioning != "custom")


def test_key_by_takes_the_partitioner_away(env, orders):
    orders.partition_custom(lambda key, subtasks: 0, len).key_by(len).map(len)

    assert plan_of(env).edges[0].partitioner is None


def test_function_with_operator_state_is_marked_as_stateful(env, orders):
    orders.map(Buffer())

    assert plan_of(env).vertices[0].operators[1].stateful


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda orders, _: orders.connect([1]), "connect of something that is not a stream"),
        (lambda orders, _: orders.connect(orders.connect(orders)), "connect of something that is not"),
        (
            lambda orders, _: orders.connect(StreamEnvironment(runner=FakeRunner()).from_collection([1])),
            "different jobs",
        ),
        (
            lambda orders, _: orders.connect(
                StreamEnvironment(runner=FakeRunner()).from_collection([1]).broadcast(RULES)
            ),
            "different jobs",
        ),
        (lambda orders, other: orders.connect(other).process(Join()), "not both keyed"),
        (lambda orders, other: orders.key_by(len).connect(other).process(Join()), "not both keyed"),
        (lambda orders, other: orders.connect(other).map(len), "one function for two inputs"),
        (lambda orders, other: orders.connect(other).map(Texts(), len), "second function"),
        (lambda orders, other: orders.connect(other).map(Words()), "does not fit the operation"),
        (lambda orders, other: orders.connect(other).map(len, 7), "cannot be called"),
        (lambda orders, other: orders.map(Texts()), "does not fit the operation"),
        (lambda orders, other: orders.broadcast(ValueStateDescriptor("rules")), "not declared as a map"),
        (lambda orders, other: orders.connect(other.broadcast(RULES)).process(KeyedApply()), "without keys"),
        (
            lambda orders, other: orders.key_by(len).connect(other.broadcast(RULES)).process(Apply()),
            "with keys",
        ),
        (lambda orders, _: orders.partition_custom(7, len), "cannot be called"),
    ],
)
def test_what_cannot_work_is_refused(orders, payments, use, message):
    with pytest.raises(GraphError, match=message):
        use(orders, payments)


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (Texts(), "a CoMapFunction goes to map(...) of connected streams"),
        (Join(), "a KeyedCoProcessFunction goes to process(...) of two connected keyed streams"),
        (Apply(), "a BroadcastProcessFunction goes to process(...) of stream.connect(rules.broadcast("),
    ],
)
def test_function_in_the_wrong_place_is_sent_to_the_right_one(orders, function, advice):
    with pytest.raises(GraphError) as raised:
        orders.map(function)

    assert advice in raised.value.hint


def test_explained_plan_says_which_input_a_stream_enters(env, orders, payments):
    orders.connect(payments.broadcast(RULES)).process(Apply()).print()

    assert "-> [2] subtask to subtask, from orders\n" in env.explain()
    assert "-> [2] to every subtask, from payments, into input 2\n" in env.explain()
