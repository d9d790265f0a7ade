"""The source operator asks for splits once, keeps them as state and tells its errors apart."""

import pytest

from raystream.errors import ConfigError, UserCodeError
from raystream.handles import Redistribution
from raystream.operators.source_operator import (
    BYTES_MAX,
    END,
    NOTHING,
    RECORDS_MAX,
    SPLITS_STATE,
    SourceOperator,
)
from raystream.records.batch import RowBatch
from raystream.records.elements import WATERMARK_MAX_MS, Active, Idle, Watermark
from raystream.state.operator_state import OperatorState
from tests.unit.operators.running import Run


class Reader:
    def __init__(self, results):
        self.results = list(results)
        self.splits = []
        self.told_end = False
        self.wants_splits = True
        self.completed = []
        self.closed = False

    def poll(self, records_max, bytes_max):
        assert (records_max, bytes_max) == (RECORDS_MAX, BYTES_MAX)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def add_splits(self, splits):
        self.splits += splits

    def no_more_splits(self):
        self.told_end = True

    def snapshot(self):
        return self.splits

    def checkpoint_complete(self, checkpoint_id):
        self.completed.append(checkpoint_id)

    def close(self):
        self.closed = True


class Source:
    def __init__(self, *results):
        self.results = results

    def open_reader(self, context):
        assert (context.uid, context.subtask, context.parallelism, context.attempt) == ("the-uid", 3, 4, 2)
        self.reader = Reader(self.results)
        return self.reader


def opened(*results, restored=None):
    source = Source(*results)
    operator = SourceOperator(source)
    running = Run(operator, restored=restored)
    operator.open()
    return operator, running, source.reader


def test_poll_emits_a_batch_and_says_how_long_it_was():
    operator, running, _ = opened(RowBatch([1, 2]), NOTHING, END)

    assert [operator.poll() for _ in range(3)] == [2, NOTHING, END]
    assert running.values == [1, 2]


def test_empty_batch_of_a_reader_is_not_passed_on():
    operator, running, _ = opened(RowBatch([]))

    assert operator.poll() == 0
    assert running.batches == []


def test_splits_are_asked_for_once_until_they_come():
    operator, running, reader = opened(*[NOTHING] * 6)

    operator.poll()
    operator.poll()
    assert running.requests == 1

    operator.splits_assigned([b"split"], no_more=False)
    operator.poll()
    assert running.requests == 2
    assert reader.splits == [b"split"]

    operator.splits_assigned([], no_more=True)
    operator.poll()
    assert running.requests == 2
    assert reader.told_end


def test_splits_are_not_asked_for_while_the_reader_has_enough():
    operator, running, reader = opened(NOTHING)
    reader.wants_splits = False

    operator.poll()

    assert running.requests == 0


def test_splits_are_state_and_come_back():
    operator, _, reader = opened(restored={SPLITS_STATE: [b"one", b"two"]})
    operator.checkpoint_complete(7)

    assert operator.snapshot(7) == [
        OperatorState(name="_splits", mode=Redistribution.SPLIT, elements=[b"one", b"two"])
    ]
    assert reader.completed == [7]


def test_error_of_a_reader_names_the_operator():
    operator, _, _ = opened(OSError("disk is gone"))

    with pytest.raises(UserCodeError, match="source failed") as raised:
        operator.poll()

    assert raised.value.context["operator"] == "the operator"
    assert raised.value.context["cause"] == "OSError: disk is gone"


def test_error_of_ours_passes_as_it_is():
    operator, _, _ = opened(ConfigError("no such file"))

    with pytest.raises(ConfigError, match="no such file"):
        operator.poll()


def test_source_that_does_not_open_names_the_operator():
    class Broken:
        def open_reader(self, context):
            raise OSError("no device")

    operator = SourceOperator(Broken())
    Run(operator)

    with pytest.raises(UserCodeError, match="source failed to open"):
        operator.open()
    operator.close()


def test_close_closes_the_reader():
    operator, _, reader = opened()

    operator.close()

    assert reader.closed


def test_event_time_of_a_reader_is_handed_on_and_a_record_makes_it_active_again():
    operator, running, _ = opened(Watermark(5), Idle(), RowBatch(["a"]), Idle(), Watermark(7), NOTHING)

    assert [operator.poll() for _ in range(6)] == [0, 0, 1, 0, 0, NOTHING]
    kinds = [Watermark(5), Idle(), Active(), ["a"], Idle(), Active(), Watermark(7)]
    assert [getattr(element, "values", element) for element in running.log] == kinds


def test_end_of_the_input_is_the_end_of_event_time():
    operator, running, _ = opened(Idle(), END)
    operator.poll()
    operator.poll()
    operator.end_input()

    assert running.log == [Idle(), Watermark(WATERMARK_MAX_MS)]
