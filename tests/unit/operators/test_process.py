"""process, keyed process and reduce: context, side outputs, timestamps and errors."""

import pytest

from raystream.clock import SystemClock
from raystream.errors import StateError, UserCodeError
from raystream.keygroup import KeyGroupRange
from raystream.operators.process import KeyedProcessOperator, ProcessOperator, ReduceOperator
from raystream.records.batch import RowBatch
from raystream.state.descriptor import MapStateDescriptor, ValueStateDescriptor
from raystream.state.heap import HeapBackend
from tests.unit.operators.running import Run


class Function:
    """A process function around a plain one."""

    def __init__(self, process_element):
        self.process_element = process_element


def run(operator, *batches, tags=()):
    backend = HeapBackend(KeyGroupRange(0, 128), 128, operator.cursor, clock=SystemClock())
    running = Run(operator, tags=tags, keyed_backend=backend)
    operator.open()
    for batch in batches:
        operator.process(batch)
    operator.close()
    return running


def keyed(values, timestamps=None):
    return RowBatch(values, timestamps, [f"key {v}" for v in values], [v % 128 for v in values])


OPERATORS = [ProcessOperator, KeyedProcessOperator]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("timestamps", [None, [10, 20, 30]])
def test_results_of_every_shape_are_emitted(operator, timestamps):
    results = {1: [1, 1], 2: None, 3: iter("ab")}

    running = run(operator(Function(lambda value, ctx: results[value])), keyed([1, 2, 3], timestamps))

    assert running.values == [1, 1, "a", "b"]
    assert running.timestamps == [timestamps and [10, 10, 30, 30]]


@pytest.mark.parametrize("operator", OPERATORS)
def test_context_tells_timestamps_and_never_an_old_one(operator):
    function = Function(lambda value, ctx: [(value, ctx.timestamp)])

    running = run(operator(function), keyed([1, 2], [10, 20]), keyed([3]), keyed([4], [40]))

    assert running.values == [(1, 10), (2, 20), (3, None), (4, 40)]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("timestamps", [None, [10, 20, 30]])
def test_side_outputs_keep_their_order_and_timestamps(operator, timestamps):
    def split(value, ctx):
        ctx.output("odd" if value % 2 else "even", value)
        ctx.output("nobody reads", value)

    running = run(operator(Function(split)), keyed([1, 2, 3], timestamps), tags=["odd", "even", "none"])

    assert running.batches == []
    assert [(b.values, b.timestamps) for b in running.side["odd"]] == [([1, 3], timestamps and [10, 30])]
    assert [(b.values, b.timestamps) for b in running.side["even"]] == [([2], timestamps and [20])]
    assert running.side["none"] == []


def test_tag_may_be_an_object_with_a_name():
    class Tag:
        name = "late"

    running = run(
        ProcessOperator(Function(lambda v, ctx: ctx.output(Tag(), v))), RowBatch([1]), tags=["late"]
    )

    assert [batch.values for batch in running.side["late"]] == [[1]]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("timestamps", [None, [1, 2, 3]])
@pytest.mark.parametrize("lazily", [False, True])
def test_error_names_the_record_also_when_a_generator_raises(operator, timestamps, lazily):
    def eager(value, ctx):
        if value == 2:
            raise KeyError("missing")
        return [value]

    def lazy(value, ctx):
        yield value
        yield from eager(value, ctx)

    with pytest.raises(UserCodeError, match="user function raised") as raised:
        run(operator(Function(lazy if lazily else eager)), keyed([1, 2, 3], timestamps))

    assert raised.value.context["record"] == "2"
    assert raised.value.context["cause"] == "KeyError: 'missing'"


def test_keyed_function_sees_the_key_of_its_record():
    running = run(KeyedProcessOperator(Function(lambda v, ctx: [(v, ctx.current_key)])), keyed([5, 7]))

    assert running.values == [(5, "key 5"), (7, "key 7")]


class Counting:
    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        yield self.seen.value()
        self.seen.update(self.seen.value() + 1)

    def close(self):
        pass


@pytest.mark.parametrize("timestamps", [None, [1, 2, 3]])
def test_state_used_by_a_generator_belongs_to_the_record_in_hand(timestamps):
    running = run(
        KeyedProcessOperator(Counting()), keyed([1, 2, 1], timestamps), keyed([2, 2, 3], timestamps)
    )

    assert running.values == [0, 0, 1, 1, 2, 0]


@pytest.mark.parametrize("fails", [False, True])
def test_there_is_no_current_key_between_two_batches(fails):
    function = Counting()
    operator = KeyedProcessOperator(function)
    run(operator, keyed([1]))
    if fails:
        function.process_element = None
        with pytest.raises(UserCodeError):
            operator.process(keyed([2]))

    assert operator.cursor.current_key is None
    with pytest.raises(StateError):
        function.seen.value()


@pytest.mark.parametrize(
    ("method", "given", "hint"),
    [
        ("get_state", MapStateDescriptor("sums", str, float), "call get_map_state(...) for it"),
        ("get_map_state", ValueStateDescriptor("seen", int), "call get_state(...) for it"),
        ("get_list_state", "seen", "give a descriptor with a name and a type"),
    ],
)
def test_state_of_another_kind_than_its_descriptor_is_refused_with_the_right_call(method, given, hint):
    class Wrong(Counting):
        def open(self, ctx):
            getattr(ctx, method)(given)

    with pytest.raises(StateError) as refused:
        run(KeyedProcessOperator(Wrong()), keyed([1]))
    assert hint in refused.value.hint


def test_reduce_emits_the_reduction_so_far_of_each_key():
    batch = RowBatch([1, 10, 2, 20], [1, 2, 3, 4], ["a", "b", "a", "b"], [1, 2, 1, 2])

    running = run(ReduceOperator(lambda a, b: a + b), batch, batch)

    assert running.values == [1, 10, 3, 30, 4, 40, 6, 60]
    assert running.timestamps == [[1, 2, 3, 4]] * 2


def test_reduce_function_object_is_opened_and_closed():
    log = []

    class Reduce:
        def open(self, ctx):
            log.append("open")

        def reduce(self, first, second):
            return first + second

        def close(self):
            log.append("close")

    assert run(ReduceOperator(Reduce()), keyed([1, 1])).values == [1, 2]
    assert log == ["open", "close"]


def test_reduce_error_names_the_record():
    def reduce(first, second):
        raise ArithmeticError("overflow")

    with pytest.raises(UserCodeError, match="overflow") as raised:
        run(ReduceOperator(reduce), RowBatch([1, 2], None, ["a", "a"], [1, 1]))

    assert raised.value.context["record"] == "2"
