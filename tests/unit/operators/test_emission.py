"""With `pipeline.copy-records` a record is copied in the moment in which it is emitted."""

import pytest

from raystream.clock import SystemClock
from raystream.keygroup import groups_of_subtask
from raystream.operators.emission import copy_of, emitting
from raystream.operators.map import FilterOperator, FlatMapOperator, MapOperator
from raystream.operators.process import KeyedProcessOperator, ProcessOperator, ReduceOperator
from raystream.operators.source_operator import SourceOperator
from raystream.records.batch import RowBatch
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.heap import HeapBackend
from tests.unit.operators.running import Run


def emitted_by(operator, values, timestamps=None, tags=()):
    """Return what is emitted for one batch of records that have one key."""
    backend = None
    if isinstance(operator, ProcessOperator):
        backend = HeapBackend(groups_of_subtask(0, 128, 1), 128, operator.cursor, clock=SystemClock())
    running = Run(operator, tags=tags, keyed_backend=backend, emitted=copy_of)
    operator.open()
    operator.process(RowBatch(values, timestamps, ["key"] * len(values), [0] * len(values)))
    return running


class Reused:
    """Emits one list again and again, and clears it in between."""

    def __init__(self):
        self.buffer = []

    def open(self, ctx):
        pass

    def process_element(self, value, ctx):
        self.buffer.append(value)
        ctx.output("side", self.buffer)
        yield self.buffer
        self.buffer.clear()

    def close(self):
        pass


class Kept(Reused):
    """Emits the list that it keeps in state and changes with every record."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen"))

    def process_element(self, value, ctx):
        seen = self.seen.value() or []
        seen.append(value)
        self.seen.update(seen)
        yield seen


@pytest.mark.parametrize("operator", [ProcessOperator, KeyedProcessOperator])
@pytest.mark.parametrize("timestamps", [None, [10, 20, 30]])
def test_buffer_that_is_cleared_after_the_yield_was_copied_before(operator, timestamps):
    running = emitted_by(operator(Reused()), [1, 2, 3], timestamps, tags=["side"])

    assert running.values == [[1], [2], [3]]
    assert running.timestamps == [timestamps]
    assert [batch.values for batch in running.side["side"]] == [[[1], [2], [3]]]


@pytest.mark.parametrize("timestamps", [None, [10, 20, 30]])
def test_list_in_state_is_emitted_as_it_was(timestamps):
    running = emitted_by(KeyedProcessOperator(Kept()), [1, 2, 3], timestamps)

    assert running.values == [[1], [1, 2], [1, 2, 3]]


def test_reduction_in_place_is_emitted_as_it_was():
    def add(first, second):
        first.extend(second)
        return first

    assert emitted_by(ReduceOperator(add), [[1], [2], [3]]).values == [[1], [1, 2], [1, 2, 3]]


@pytest.mark.parametrize("timestamps", [None, [10, 20, 30]])
def test_map_and_flat_map_may_return_one_object_again_and_again(timestamps):
    buffer, other = [], []

    mapped = emitted_by(MapOperator(lambda value: buffer.append(value) or buffer), [1, 2, 3], timestamps)
    flat = emitted_by(FlatMapOperator(lambda value: other.append(value) or [other]), [1, 2, 3], timestamps)

    assert mapped.values == flat.values == [[1], [1, 2], [1, 2, 3]]
    assert mapped.timestamps == flat.timestamps == [timestamps]


def test_filter_may_change_a_record_that_it_has_let_through():
    before = [[0]]

    def changing(record):
        before[-1].append("changed")
        before.append(record)
        return record != [2]

    assert emitted_by(FilterOperator(changing), [[1], [2], [3]]).values == [[1], [3]]


def test_source_keeps_what_it_emits_to_itself():
    record = [1]

    class Source:
        wants_splits = False

        def open_reader(self, context):
            return self

        def poll(self, records_max, bytes_max):
            return RowBatch([record])

    operator = SourceOperator(Source())
    running = Run(operator, emitted=copy_of)
    operator.open()
    operator.poll()

    assert running.values == [[1]]
    assert running.values[0] is not record


def test_records_that_share_an_object_share_it_no_longer_as_copies():
    shared = [1]
    taken = []

    emitting(taken.append, copy_of)(RowBatch([shared, {"list": shared}], [10, 20]))

    (batch,) = taken
    assert batch.values == [[1], {"list": [1]}]
    assert batch.timestamps == [10, 20]
    assert len({id(shared), id(batch.values[0]), id(batch.values[1]["list"])}) == 3
