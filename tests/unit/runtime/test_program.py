"""A program comes back as it was packed, and every subtask gets its own copy of the functions."""

import functools
import importlib
import sys

import pytest

from raystream import ConfigError, KeyedProcessFunction, StreamEnvironment
from raystream.connectors.basic import DiscardSink
from raystream.graph.physical import Partitioning
from raystream.operators.map import MapOperator
from raystream.runtime import job_modules
from raystream.runtime.job_modules import ShippedModule, collect_modules, install_modules
from raystream.runtime.program import PackedFactory, Program, pack, unpack
from tests.unit.api.fakes import FakeRunner, FakeSink, FakeSource
from tests.unit.runtime.shipping import functions_in, program_of


class Remember:
    """A stateful callable."""

    def __init__(self):
        self.seen = []

    def __call__(self, value):
        self.seen.append(value)
        return self.seen


class Count(KeyedProcessFunction):
    def process_element(self, value, ctx):
        yield value


def job():
    runner = FakeRunner()
    env = StreamEnvironment(runner=runner, parallelism=2)
    lines = env.from_source(FakeSource(), name="lines")
    lines.map(str.strip).key_by(lambda line: line[0]).process(Count()).sink_to(FakeSink())
    env.execute("a job")
    (submission,) = runner.submissions
    return Program(job_name=submission.name, plan=submission.plan, config=submission.config)


def test_plan_configuration_and_name_come_back():
    program = job()

    unpacked = unpack(pack(program))

    assert unpacked.job_name == "a job"
    assert unpacked.config == program.config
    assert [vertex.name for vertex in unpacked.plan.vertices] == [
        vertex.name for vertex in program.plan.vertices
    ]
    assert unpacked.plan.edges[0].partitioning is Partitioning.HASH
    assert unpacked.plan.edges[0].key_selector("abc") == "a"
    assert isinstance(unpacked.plan.vertices[0].source, FakeSource)


def test_operators_are_made_from_the_packed_factories():
    operators = unpack(pack(job())).plan.vertices[0].operators

    assert isinstance(operators[1].factory, PackedFactory)
    assert isinstance(operators[1].factory(), MapOperator)


def test_each_call_of_a_factory_copies_the_function():
    function = Remember()
    (node,) = unpack(pack(program_of(remember=function))).plan.vertices[0].operators

    first, second = node.factory(), node.factory()
    first("x")

    assert (first.seen, second.seen, function.seen) == (["x"], [], [])


def test_one_function_object_in_two_operators_becomes_two():
    function = Remember()

    functions = functions_in(pack(program_of(a=function, b=function)))

    assert functions["a"] is not functions["b"]
    assert functions["a"]("x") == ["x"]
    assert functions["b"]("y") == ["y"]


def test_closures_are_copied_too():
    def remembering():
        seen = []
        return lambda value: seen.append(value) or seen

    function = remembering()
    functions = functions_in(pack(program_of(a=function, b=functools.partial(function))))

    assert functions["a"]("x") == ["x"]
    assert functions["b"]("y") == ["y"]
    assert function("z") == ["z"]


def test_functions_of_importable_modules_are_not_copied():
    assert functions_in(pack(program_of(a=job)))["a"] is job


@pytest.mark.parametrize(
    ("connect", "operator", "variable"),
    [
        (lambda stream, select: stream.key_by(select), "key_by before count", "generator"),
        (
            lambda stream, select: stream.partition_custom(lambda key, subtasks: 0, select),
            "partition_custom before count",
            "self.key_selector.generator",
        ),
    ],
)
def test_function_of_an_exchange_that_cannot_be_shipped_is_named(connect, operator, variable):
    runner = FakeRunner()
    env = StreamEnvironment(runner=runner)
    generator = (value for value in [1])
    exchanged = connect(env.from_source(FakeSource()), lambda value: next(generator))
    exchanged.map(lambda value: value, name="count").sink_to(DiscardSink())
    env.execute("a job")
    submission = runner.submissions[0]

    with pytest.raises(ConfigError, match="cannot be shipped") as raised:
        pack(Program(job_name="a", plan=submission.plan, config=submission.config))

    assert raised.value.context["operator"] == operator
    assert raised.value.context["variable"] == variable


# ---- shipped modules


def test_modules_of_the_test_are_the_users_and_those_of_packages_are_not():
    shipped = collect_modules(None, [__name__, "pytest", "json", "raystream.errors"])

    assert __name__ in shipped
    assert "tests.unit.api.fakes" in shipped
    assert not any(name.startswith(("pytest", "json", "raystream")) for name in shipped)


def test_package_around_a_module_is_shipped_with_it():
    shipped = collect_modules(None, [__name__])

    parents = ["tests", "tests.unit", "tests.unit.runtime"]
    assert all(shipped[name].package for name in parents)
    assert not shipped[__name__].package


def test_shipped_module_that_is_loaded_with_the_same_text_stays():
    shipped = collect_modules(None, [__name__])
    before = sys.modules[__name__]

    install_modules(shipped)
    install_modules(shipped)

    assert sys.modules[__name__] is before
    assert importlib.import_module(__name__) is before


def test_too_many_modules_are_refused(monkeypatch):
    monkeypatch.setattr(job_modules, "MODULES_MAX", 1)

    with pytest.raises(ConfigError, match="too many modules of its own") as raised:
        collect_modules(None, [__name__])

    assert raised.value.context["modules_max"] == 1


def test_shipped_module_replaces_one_with_another_text(monkeypatch):
    for answer in (1, 2):
        source = ShippedModule(f"ANSWER = {answer}\n", package=False, path="/elsewhere/shipped_for_test.py")
        install_modules({"shipped_for_test": source})
        module = importlib.import_module("shipped_for_test")
        assert answer == module.ANSWER
        assert module.__file__ == "/elsewhere/shipped_for_test.py"

    monkeypatch.delitem(sys.modules, "shipped_for_test")
