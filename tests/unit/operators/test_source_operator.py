"""The source operator asks for splits once, keeps them as state and tells its errors apart."""

import pytest

from raystream import WatermarkStrategy
from raystream.errors import ConfigError, UserCodeError
from raystream.handles import Redistribution
from raystream.operators.source import SplitBatch
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
        self.per_split = context.per_split
        return self.reader


def opened(*results, restored=None):
    source = Source(*results)
    operator = SourceOperator(source)
    running = Run(operator, restored=restored)
    operator.open()
    assert not source.per_split
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


# ---- event time of splits --------------------------------------------------------------

INTERVAL_MS = 200
ORDERED = WatermarkStrategy.for_monotonous_timestamps()


class SplitsReader(Reader):
    """Returns what it is given next, and says that it reads the splits that were added."""

    wants_splits = False

    def poll(self, records_max, bytes_max):
        if not self.results:
            return NOTHING
        result = self.results.pop(0)
        if isinstance(result, str):  # The end of a split.
            self.splits.remove(result)
            return NOTHING
        return result

    def active_splits(self):
        return list(self.splits)


class Splits(Source):
    def open_reader(self, context):
        assert context.per_split
        self.reader = SplitsReader(self.results)
        return self.reader


class Timed(Run):
    """A source operator that is polled whenever it is awake or its time has come."""

    def __init__(self, strategy, *, splits, source=None, restored=None):
        self.source = source or Splits()
        super().__init__(SourceOperator(self.source, strategy, INTERVAL_MS), restored=restored)
        self.operator.open()
        self.operator.splits_assigned(splits, no_more=False)
        self.operator.start()

    def read(self, split, *timestamps):
        self.end_of(SplitBatch(split, list(timestamps), list(timestamps)))

    def end_of(self, result):
        self.source.reader.results.append(result)
        while self.operator.poll() is not NOTHING:
            pass

    def pass_time(self, duration_ms=INTERVAL_MS):
        """Let time pass, with every wake-up on the way; return what moved event time."""
        clock, before = self.context.clock, len(self.log)
        end_ms = clock.now_ms + duration_ms
        while self.wakes and min(self.wakes) <= end_ms:
            clock.now_ms = max(clock.now_ms, min(self.wakes))
            self.wakes.clear()
            while self.operator.poll() is not NOTHING:
                pass
        clock.now_ms = end_ms
        return [element for element in self.log[before:] if not isinstance(element, RowBatch)]


def test_slow_split_holds_back_the_watermark_of_its_subtask():
    running = Timed(ORDERED, splits=["fast", "slow"])
    running.read("fast", 100, 500)
    running.read("slow", 10)

    assert running.pass_time() == [Watermark(9)]
    assert running.timestamps == [[100, 500], [10]]
    assert {type(batch) for batch in running.batches} == {RowBatch}


def test_split_that_was_assigned_and_not_read_holds_the_watermark_back():
    running = Timed(ORDERED, splits=["fast", "waiting"])
    running.read("fast", 100)

    assert running.pass_time(10 * INTERVAL_MS) == []


def test_restored_split_holds_the_watermark_back_until_it_is_read():
    running = Timed(ORDERED, splits=[], restored={SPLITS_STATE: ["fast", "behind"]})
    running.read("fast", 100)
    assert running.pass_time() == []
    running.read("behind", 40)

    assert running.pass_time() == [Watermark(39)]


def test_end_of_a_silent_split_moves_the_watermark_without_a_record():
    running = Timed(ORDERED, splits=["fast", "slow"])
    running.read("fast", 100)
    running.read("slow", 10)
    running.pass_time()
    running.end_of("slow")

    assert running.pass_time() == [Watermark(99)]
    assert running.wakes == []


def test_idle_split_does_not_hold_the_watermark_back():
    running = Timed(ORDERED.with_idleness(2 * INTERVAL_MS), splits=["goes on", "silent"])
    said = []
    for step in range(1, 6):
        running.read("goes on", 100 * step)
        said += running.pass_time()

    assert said == [Watermark(299), Watermark(399), Watermark(499)]


def test_source_whose_splits_are_all_idle_says_so_and_is_active_again_with_the_next_record():
    running = Timed(ORDERED.with_idleness(2 * INTERVAL_MS), splits=["a", "b"])
    running.read("a", 100)
    running.read("b", 10)

    assert running.pass_time(10 * INTERVAL_MS) == [Watermark(9), Watermark(99), Idle()]
    running.read("b", 300)
    assert [type(element) for element in running.log[-2:]] == [Active, RowBatch]


def test_reader_that_knows_nothing_of_splits_is_one_split():
    running = Timed(ORDERED, splits=["one", "two"], source=Source())
    running.source.reader.results += [RowBatch([1, 30], [1, 30]), NOTHING]
    assert [running.operator.poll() for _ in range(2)] == [2, NOTHING]
    running.source.reader.results += [NOTHING] * 3

    assert running.pass_time() == [Watermark(29)]


def test_what_the_reader_knows_of_event_time_counts_only_where_the_strategy_makes_none():
    elements = [Watermark(70), Idle(), RowBatch([80], [80]), NOTHING]
    making = Timed(ORDERED, splits=[], source=Source())
    passing = Timed(WatermarkStrategy.no_watermarks(), splits=[], source=Source())
    for running in (making, passing):
        running.source.reader.results += elements
        while running.operator.poll() is not NOTHING:
            pass

    assert [type(element) for element in making.log] == [RowBatch]
    assert [type(element) for element in passing.log] == [Watermark, Idle, Active, RowBatch]


def test_reader_is_asked_for_splits_only_where_watermarks_are_made():
    source = Source()
    Timed(WatermarkStrategy.no_watermarks().with_idleness("1s"), splits=[], source=source)
    assert not source.per_split
    Timed(ORDERED, splits=[], source=source)
    assert source.per_split


def test_batch_of_a_split_is_a_plain_one_for_the_rest_of_the_chain():
    operator, running, _ = opened(SplitBatch("split", [1, 2], [3, 4]))
    operator.poll()

    assert [type(batch) for batch in running.batches] == [RowBatch]
    assert (running.values, running.timestamps) == ([1, 2], [[3, 4]])
