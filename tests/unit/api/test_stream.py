"""Operations on streams add the right operators, and refuse what cannot work with a clear error."""

import functools

import pytest

from raystream import (
    FilterFunction,
    FlatMapFunction,
    GraphError,
    KeyedProcessFunction,
    MapFunction,
    OutputTag,
    ProcessFunction,
    ReduceFunction,
    StreamEnvironment,
)
from raystream.connectors.basic import DiscardSink
from raystream.connectors.files import FileSink
from raystream.graph.chaining import plan_job
from raystream.graph.logical import OperatorKind
from tests.unit.api.fakes import FakeRunner, FakeSink, FakeSource
from tests.unit.graph.nodes import chains, edges


class Double(MapFunction):
    def map(self, value):
        return 2 * value


class Words(FlatMapFunction):
    def flat_map(self, value):
        return value.split()


class Even(FilterFunction):
    def filter(self, value):
        return value % 2 == 0


class Larger(ReduceFunction):
    def reduce(self, first, second):
        return max(first, second)


class Split(ProcessFunction):
    def process_element(self, value, ctx):
        ctx.output("odd", value)


class Count(KeyedProcessFunction):
    def process_element(self, value, ctx):
        yield ctx.current_key, 1


def parse(line):
    return line


@pytest.fixture
def env():
    return StreamEnvironment(runner=FakeRunner(), parallelism=2)


@pytest.fixture
def lines(env):
    return env.from_source(FakeSource(), name="lines")


def plan_of(env):
    return plan_job(env._graph, parallelism=env.config.parallelism)


def test_operations_make_one_chain_until_the_stream_is_keyed(env, lines):
    lines.map(parse).filter(bool).key_by(len).process(Count()).sink_to(FakeSink(), name="hits")

    plan = plan_of(env)

    assert chains(plan) == [["lines", "map(parse)", "filter(bool)"], ["process(Count)", "hits"]]
    assert edges(plan) == [("filter(bool)", None, "process(Count)", "hash")]
    assert [node.stateful for node in plan.vertices[1].operators] == [True, True]


@pytest.mark.parametrize(
    ("function", "name"),
    [(parse, "map(parse)"), (Double(), "map(Double)"), (lambda value: value, "map"), (int, "map(int)")],
)
def test_name_is_that_of_the_function(env, lines, function, name):
    lines.map(function)

    assert chains(plan_of(env)) == [["lines", name]]


def test_partial_functions_and_bound_methods_are_functions(env, lines):
    lines.map(functools.partial(parse)).map(Double().map)

    assert chains(plan_of(env)) == [["lines", "map", "map(map)"]]


def test_options_reach_the_plan(env, lines):
    lines.map(parse, name="parse lines", uid="parse", parallelism=3, max_parallelism=12, chain="head")

    vertex = plan_of(env).vertices[1]

    assert (vertex.name, vertex.parallelism, vertex.max_parallelism) == ("parse lines", 3, 12)
    assert (vertex.operators[0].uid, vertex.operators[0].uid_generated) == ("parse", False)


def test_keyed_stream_partitions_what_needs_no_key_too(env, lines):
    lines.key_by(len).map(parse)

    (vertex,) = plan_of(env).vertices[1:]

    assert vertex.keyed
    assert not vertex.operators[0].stateful


def test_function_object_on_a_keyed_stream_may_have_state(env, lines):
    lines.key_by(len).map(Double())

    assert plan_of(env).vertices[1].operators[0].stateful


def test_key_by_of_a_keyed_stream_keys_it_anew(env, lines):
    lines.key_by(len).key_by(str).process(Count())

    assert [edge.key_selector for edge in plan_of(env).edges] == [str]


def test_rebalance_takes_the_key_away(env, lines):
    lines.key_by(len).rebalance().map(parse)

    (edge,) = plan_of(env).edges

    assert (edge.partitioning.value, edge.key_selector) == ("rebalance", None)


def test_union_of_keyed_streams_is_not_keyed(env, lines):
    both = lines.key_by(len).union(lines.map(parse).key_by(len))

    with pytest.raises(GraphError, match="keyed function on a stream that is not keyed"):
        both.process(Count())


def test_union_of_three_streams_enters_one_operator(env, lines):
    lines.union(lines.map(parse), lines.filter(bool)).key_by(len).reduce(Larger())

    assert edges(plan_of(env)) == [
        ("lines", None, "reduce(Larger)", "hash"),
        ("map(parse)", None, "reduce(Larger)", "hash"),
        ("filter(bool)", None, "reduce(Larger)", "hash"),
    ]


@pytest.mark.parametrize("tag", ["odd", OutputTag("odd")])
def test_side_output_is_read_by_its_tag(env, lines, tag):
    split = lines.process(Split())
    split.map(parse)
    split.get_side_output(tag).map(parse, name="odd ones")

    (vertex,) = plan_of(env).vertices

    assert vertex.operators[1].chained == ((None, 2), ("odd", 3))
    assert type(vertex.operators[1].chained[1][0]) is str


def test_sum_is_a_reduce_with_a_name_of_its_own(env, lines):
    lines.key_by(len).sum("bytes")

    (node,) = [node for node in env._graph if node.kind is OperatorKind.REDUCE]

    assert node.name == "sum('bytes')"


class SaysNothing:
    def open_writer(self, context):
        raise AssertionError("never opened")


@pytest.mark.parametrize(("sink", "commits"), [(DiscardSink(), False), (SaysNothing(), True)])
def test_job_commits_when_a_sink_does_or_does_not_say(env, lines, sink, commits):
    lines.print()
    lines.sink_to(sink, uid="sink")
    assert plan_of(env).transactional == commits

    lines.sink_to(FileSink.lines("/out"), uid="files")
    assert plan_of(env).transactional


def test_sink_tells_its_name_and_uid(lines):
    sink = lines.sink_to(FakeSink(), name="hits", uid="sink")

    assert (sink.name, sink.uid) == ("hits", "sink")


def test_plain_callable_does_as_process_function(env, lines):
    lines.process(lambda value, ctx: [value])

    operator = plan_of(env).vertices[0].operators[1].factory()

    assert operator._function.process_element(7, None) == [7]


@pytest.mark.parametrize(
    ("apply", "message", "hint"),
    [
        (lambda s: s.map(41), "function cannot be called", "pass a function, not its result"),
        (lambda s: s.map(Double), "function is a class, not an instance", "write Double()"),
        (lambda s: s.map(Even()), "function does not fit", "a FilterFunction goes to filter(...)"),
        (lambda s: s.flat_map(Double()), "function does not fit", "a MapFunction goes to map(...)"),
        (lambda s: s.filter(Words()), "function does not fit", "a FlatMapFunction goes to flat_map(...)"),
        (lambda s: s.map(Count()), "function does not fit", "call key_by(...) first"),
        (lambda s: s.process(Double()), "function does not fit", "a MapFunction goes to map(...)"),
        (lambda s: s.process(Count()), "keyed function on a stream that is not keyed", "call key_by"),
        (lambda s: s.key_by("path"), "function cannot be called", "pass a function"),
        (lambda s: s.key_by(Double()), "function does not fit", "a MapFunction goes to map(...)"),
        (lambda s: s.key_by(len).reduce(Double()), "function does not fit", "map(...)"),
        (lambda s: s.key_by(len).sum(1.5), "neither an index nor a name", "sum(1)"),
        (lambda s: s.map(parse, chain="yes"), "chain= is none of its words", '"always"'),
        (lambda s: s.map(parse, name=" "), "name of an operator is not a text", ""),
        (lambda s: s.map(parse, name="\ud800"), "name of an operator is not a text", ""),
        (lambda s: s.map(parse, uid=""), "uid of an operator is not a text", "uid="),
        (lambda s: s.sink_to(FakeSink), "argument of sink_to is not a sink", "FileSink.lines"),
        (lambda s: s.sink_to("out/"), "argument of sink_to is not a sink", "FileSink.lines"),
        (lambda s: s.union("other"), "union of something that is not a stream", ""),
        (lambda s: s.map(parse).get_side_output("odd"), "something else than process", "process(...)"),
        (
            lambda s: s.process(Split()).rebalance().get_side_output("odd"),
            "something else than process",
            "keep the stream",
        ),
        (lambda s: s.process(Split()).get_side_output(7), "tag of a side output is not a text", "OutputTag"),
        (lambda s: s.execute_and_collect(limit=0), "limit of execute_and_collect is below 1", ""),
    ],
)
def test_misuse_is_one_clear_error(lines, apply, message, hint):
    with pytest.raises(GraphError, match=message) as raised:
        apply(lines)

    assert hint in raised.value.hint


def test_generator_where_one_value_is_expected_is_refused(lines):
    def words(line):
        yield from line.split()

    with pytest.raises(GraphError, match="generator where one value is expected") as raised:
        lines.map(words)

    assert "flat_map" in raised.value.hint
    assert lines.flat_map(words) is not lines


def test_coroutine_is_refused(lines):
    async def fetch(line):
        return line

    with pytest.raises(GraphError, match="function is a coroutine"):
        lines.map(fetch)


def test_keyword_that_no_operation_has_is_a_type_error(lines):
    with pytest.raises(TypeError, match=r"map\(\) got an unexpected keyword argument 'slots'"):
        lines.map(parse, slots=2)


def test_streams_of_two_environments_do_not_unite(lines):
    other = StreamEnvironment(runner=FakeRunner()).from_source(FakeSource())

    with pytest.raises(GraphError, match="union of streams of different jobs"):
        lines.union(other)


def test_stream_of_a_submitted_job_takes_no_more_operators(env, lines):
    lines.sink_to(FakeSink())
    env.execute("first")

    with pytest.raises(GraphError, match="submitted already") as raised:
        lines.map(parse)

    assert raised.value.context["job"] == "first"


def test_endless_stream_cannot_be_collected_without_a_limit(env):
    with pytest.raises(GraphError, match="never ends") as raised:
        env.from_source(FakeSource(bounded=False)).execute_and_collect()

    assert "limit=100" in raised.value.hint
