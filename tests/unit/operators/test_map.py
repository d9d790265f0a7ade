"""map, flat_map and filter: what they emit, and which record an error names."""

import pytest

from raystream.errors import RaystreamError, UserCodeError
from raystream.operators.map import FilterOperator, FlatMapOperator, MapOperator
from raystream.records.batch import RowBatch
from tests.unit.operators.running import Run


def run(operator, *batches):
    running = Run(operator)
    operator.open()
    for batch in batches:
        operator.process(batch)
    operator.close()
    return running


def test_map_keeps_timestamps():
    running = run(MapOperator(str), RowBatch([1, 2], [10, 20]), RowBatch([3]))

    assert running.values == ["1", "2", "3"]
    assert running.timestamps == [[10, 20], None]


def test_map_emits_none_as_a_record():
    assert run(MapOperator(lambda value: None), RowBatch([1])).values == [None]


def test_flat_map_gives_each_record_the_timestamp_of_its_origin():
    running = run(FlatMapOperator(range), RowBatch([2, 0, 1], [10, 20, 30]))

    assert running.values == [0, 1, 0]
    assert running.timestamps == [[10, 10, 30]]


def test_flat_map_takes_none_for_no_records_and_then_emits_no_batch():
    assert run(FlatMapOperator(lambda n: None), RowBatch([1, 2], [1, 2])).batches == []


def test_filter_keeps_timestamps_and_the_records_themselves():
    records = [[], [1], [], [2]]

    running = run(FilterOperator(len), RowBatch(records, [1, 2, 3, 4]))

    assert [id(value) for value in running.values] == [id(records[1]), id(records[3])]
    assert running.timestamps == [[2, 4]]


def test_filter_that_keeps_nothing_emits_no_batch():
    assert run(FilterOperator(lambda value: False), RowBatch([1])).batches == []


def fails_on(bad, *, lazily=False):
    def function(value):
        if value == bad:
            raise ValueError("no good")
        return [value]

    def generator(value):
        yield from function(value)

    return generator if lazily else function


@pytest.mark.parametrize("bad", [0, 1, 7, 99])
@pytest.mark.parametrize(
    ("operator", "lazily"),
    [(MapOperator, False), (FilterOperator, False), (FlatMapOperator, False), (FlatMapOperator, True)],
)
def test_error_names_the_record(operator, lazily, bad):
    with pytest.raises(UserCodeError, match="user function raised") as raised:
        run(operator(fails_on(bad, lazily=lazily)), RowBatch(list(range(100))))

    context = raised.value.context
    assert context["record"] == str(bad)
    assert context["operator"] == "the operator"
    assert context["subtask"] == 3
    assert context["cause"] == "ValueError: no good"
    assert "in function" in context["traceback"]
    assert isinstance(raised.value.__cause__, ValueError)


@pytest.mark.parametrize("operator", [MapOperator, FilterOperator, FlatMapOperator])
def test_stop_iteration_of_a_function_is_an_error_and_loses_no_record(operator):
    """`list(map(f, values))` takes it for the end of the values."""

    def function(value):
        return [next(iter([value][value:]))]

    with pytest.raises(UserCodeError, match="StopIteration") as raised:
        run(operator(function), RowBatch([0, 1, 2]))

    assert raised.value.context["record"] == "1"


@pytest.mark.parametrize("operator", [MapOperator, FilterOperator, FlatMapOperator])
def test_error_of_ours_in_a_user_function_names_the_record_too(operator):
    def function(value):
        raise RaystreamError("state was misused")

    with pytest.raises(UserCodeError, match="state was misused") as raised:
        run(operator(function), RowBatch(["x"]))

    assert raised.value.context["record"] == "'x'"


def test_flat_map_result_that_is_not_iterable_names_the_record():
    with pytest.raises(UserCodeError, match="not iterable") as raised:
        run(FlatMapOperator(lambda value: value), RowBatch([1]))

    assert raised.value.context["record"] == "1"


def test_long_record_is_cut_in_the_error():
    with pytest.raises(UserCodeError) as raised:
        run(MapOperator(int), RowBatch(["x" * 1000]))

    assert raised.value.context["record"] == "'" + "x" * 199 + "..."


def test_record_whose_repr_raises_is_described():
    class Shy:
        def __repr__(self):
            raise OSError("no")

    with pytest.raises(UserCodeError) as raised:
        run(MapOperator(int), RowBatch([Shy()]))

    assert raised.value.context["record"] == "<Shy whose repr raised OSError>"


class Rich:
    """Not derived from a function class; what counts is the methods."""

    def __init__(self):
        self.log = []

    def open(self, ctx):
        self.log.append(("open", ctx.uid, ctx.subtask_index, ctx.parallelism, ctx.attempt, ctx.job_id))

    def map(self, value):
        self.log.append(("map", value))

    def close(self):
        self.log.append("close")


def test_function_object_is_opened_called_and_closed():
    function = Rich()
    run(MapOperator(function), RowBatch([1]))

    assert function.log == [("open", "the-uid", 3, 4, 2, "ab" * 16), ("map", 1), "close"]


def test_error_in_open_names_the_operator():
    class Broken(Rich):
        def open(self, ctx):
            raise ConnectionError("database is down")

    with pytest.raises(UserCodeError, match="failed to open") as raised:
        run(MapOperator(Broken()))

    assert raised.value.context["operator"] == "the operator"
    assert "database is down" in raised.value.context["cause"]
