"""The scripted source: records, and what its script makes happen between them."""

import pytest

from raystream.errors import ConfigError, UserCodeError
from raystream.operators.source import END, NOTHING, EnumeratorContext, ReaderContext
from raystream.records.batch import RowBatch
from raystream.testing.contracts import SourceContract
from raystream.testing.source_run import ManualClock
from raystream.testing.sources import Barrier, Crash, Idle, Pause, TestSource, Watermark


class TestScriptContract(SourceContract):
    def source(self):
        return TestSource(
            ["a", Barrier(), "b", "c", Pause(500), "d"],
            [*range(50), Barrier()],
            [],
            [Pause(10), Barrier(), Watermark(5), Idle(), "z", Watermark(7)],
        )

    def expected(self):
        return ["a", "b", "c", "d", "z", *range(50)]


class Playing:
    """A reader of one subtask that plays the scripts of a source."""

    def __init__(self, *scripts, attempt=1, splits=None):
        self.clock = ManualClock(0.0)
        self.woken = 0
        self.wake_at_ms = None
        source = TestSource(*scripts)
        context = ReaderContext(
            uid="source", subtask=0, parallelism=1, attempt=attempt, clock=self.clock,
            wake=self._wake, wake_at=self._wake_at,
        )  # fmt: skip
        self.reader = source.open_reader(context)
        if splits is None:
            enumerator = source.enumerator(
                EnumeratorContext(parallelism=1, max_parallelism=128, restored=False), None
            )
            splits = [split for _ in scripts for split in enumerator.next_splits(0)]
        self.reader.add_splits(splits)
        self.reader.no_more_splits()

    def poll(self):
        result = self.reader.poll(1024, 1 << 20)
        return result.values if isinstance(result, RowBatch) else result

    def _wake(self):
        self.woken += 1

    def _wake_at(self, at_ms):
        self.wake_at_ms = at_ms


def test_a_barrier_waits_for_a_checkpoint_that_then_lies_exactly_there():
    playing = Playing(["a", "b", Barrier(), "c"])
    assert playing.poll() == ["a", "b"]
    assert playing.poll() is NOTHING
    assert playing.poll() is NOTHING
    woken = playing.woken
    splits = playing.reader.snapshot()
    assert playing.woken == woken + 1

    assert playing.poll() == ["c"]
    assert playing.poll() is END
    assert Playing(["a", "b", Barrier(), "c"], splits=splits).poll() == ["c"]


def test_an_earlier_checkpoint_does_not_satisfy_a_barrier():
    playing = Playing([1, 2, Barrier(), 3])
    playing.reader.snapshot()
    assert playing.poll() == [1, 2]

    assert playing.poll() is NOTHING


def test_each_barrier_takes_a_checkpoint_of_its_own():
    playing = Playing([Barrier(), Barrier(), 1])
    playing.reader.snapshot()
    assert playing.poll() is NOTHING
    playing.reader.snapshot()

    assert playing.poll() == [1]


def test_a_crash_comes_once_in_the_first_attempt():
    playing = Playing([1, Crash(), 2, Crash(), 3])
    assert playing.poll() == [1]
    splits = playing.reader.snapshot()
    with pytest.raises(UserCodeError, match="as its script says"):
        playing.poll()

    again = Playing([1, Crash(), 2, Crash(), 3], attempt=2, splits=splits)
    assert [again.poll(), again.poll(), again.poll()] == [[2], [3], END]


def test_a_pause_is_silent_for_its_time():
    playing = Playing([1, Pause(200), 2])
    assert playing.poll() == [1]
    playing.clock.now_ms = 50.0
    assert playing.poll() is NOTHING
    assert playing.wake_at_ms == 250.0
    playing.clock.now_ms = 249.0
    assert playing.poll() is NOTHING
    playing.clock.now_ms = 250.0

    assert playing.poll() == [2]


def test_lists_are_dealt_out_by_number():
    source = TestSource(["a"], ["b"], ["c"])
    context = EnumeratorContext(parallelism=2, max_parallelism=128, restored=False)
    enumerator = source.enumerator(context, None)
    assert len(enumerator.next_splits(1)) == 1
    assert enumerator.next_splits(1) == []
    assert not enumerator.exhausted
    assert len(enumerator.next_splits(0)) == 1

    restored = source.enumerator(context, enumerator.snapshot())
    assert len(restored.next_splits(0)) == 1
    assert restored.exhausted


def test_a_reader_asks_for_a_list_only_when_it_has_none():
    playing = Playing([1])
    assert not playing.reader.wants_splits


def test_a_source_without_lists_is_refused():
    with pytest.raises(ConfigError, match="at least one list"):
        TestSource()


def test_watermarks_and_idleness_come_between_the_records_of_the_script():
    playing = Playing(["a", Watermark(3), "b", "c", Idle(), Watermark(9)])

    played = [playing.poll() for _ in range(6)]

    assert played == [["a"], Watermark(3), ["b", "c"], Idle(), Watermark(9), END]


def test_watermark_that_was_emitted_is_not_emitted_again_after_a_restore():
    playing = Playing(["a", Watermark(3), "b"])
    playing.poll()
    playing.poll()

    assert Playing(["a", Watermark(3), "b"], splits=playing.reader.snapshot()).poll() == ["b"]
