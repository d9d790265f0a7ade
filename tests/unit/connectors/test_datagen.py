"""Generated records: every index once under any history, at the rate that was asked for."""

import pytest

from raystream.connectors import datagen
from raystream.connectors.datagen import CATCH_UP_MS, PACE_MS, DatagenSource, IndexSplit, Pace
from raystream.connectors.versioned import encode
from raystream.errors import ConfigError, StateRestoreError, UserCodeError
from raystream.operators.source import END, NOTHING, EnumeratorContext
from raystream.testing.contracts import SourceContract
from raystream.testing.source_run import ManualClock, ReaderRun, SourceRun


class TestDatagenContract(SourceContract):
    seeds = range(60)

    def source(self):
        return DatagenSource(lambda index: f"record {index}", count=1000)

    def expected(self):
        return [f"record {index}" for index in range(1000)]


class TestPacedDatagenContract(SourceContract):
    def source(self):
        return DatagenSource(lambda index: index * index, count=500, rate=2000)

    def expected(self):
        return [index * index for index in range(500)]


class TestEmptyDatagenContract(SourceContract):
    def source(self):
        return DatagenSource(str, count=0)

    def expected(self):
        return []


def readers_of(source, parallelism, clock=None):
    """Return the readers of a job with all their splits."""
    context = EnumeratorContext(parallelism=parallelism, max_parallelism=1024, restored=False)
    enumerator = source.enumerator(context, None)
    runs = []
    for subtask in range(parallelism):
        run = ReaderRun(source, subtask, parallelism, clock)
        run.reader.add_splits(enumerator.next_splits(subtask))
        runs.append(run)
    assert enumerator.exhausted
    return runs


def poll(run, records_max=1024, bytes_max=1 << 20):
    return run.reader.poll(records_max, bytes_max).values


def test_one_subtask_generates_in_order():
    [run] = readers_of(DatagenSource(int, count=10_000), 1)

    assert run.read_all() == list(range(10_000))


@pytest.mark.parametrize("parallelism", [2, 3, 7, 128, 200])
def test_every_subtask_has_an_equal_part_in_order(parallelism):
    runs = readers_of(DatagenSource(int, count=12_800), parallelism)

    parts = [run.read_all() for run in runs]

    assert sorted(index for part in parts for index in part) == list(range(12_800))
    assert all(part == sorted(part) for part in parts)
    assert max(map(len, parts)) <= min(map(len, parts)) * 2


def test_batches_are_nearly_full_for_any_share_of_the_splits():
    for parallelism in (1, 2, 3, 5, 11):
        run = readers_of(DatagenSource(int), parallelism)[0]
        assert min(len(poll(run)) for _ in range(50)) >= 512


def test_splits_that_lag_behind_catch_up_first():
    run = ReaderRun(DatagenSource(int, count=60))
    run.reader.add_splits([encode(1, IndexSplit(position, 10)) for position in (53, 11, 44, 2)])

    assert run.read_all() == sorted([53, *range(11, 60, 10), *range(44, 60, 10), *range(2, 60, 10)])


def test_a_snapshot_holds_the_next_index_of_every_split_that_is_not_done():
    run = ReaderRun(DatagenSource(int, count=25))
    run.reader.add_splits([encode(1, IndexSplit(position, 10)) for position in (2, 7)])
    assert poll(run, 3) == [2, 7]
    assert poll(run, 1) == [12]

    assert run.reader.snapshot() == [encode(1, IndexSplit(17, 10)), encode(1, IndexSplit(22, 10))]
    assert run.read_all() == [17, 22]
    assert run.reader.snapshot() == []


def test_large_records_make_small_batches():
    [run] = readers_of(DatagenSource(lambda index: bytes(100_000), count=2000), 1)

    assert len(poll(run, 1024, 1 << 20)) == 10
    assert len(poll(run, 1024, 1)) == 1


def test_an_unbounded_source_goes_on():
    [run] = readers_of(DatagenSource(int), 1)
    assert not DatagenSource(int).bounded
    run.reader.no_more_splits()

    assert poll(run, 10) == list(range(10))


def test_splits_of_different_jobs_are_refused():
    run = ReaderRun(DatagenSource(int))

    with pytest.raises(StateRestoreError, match="different jobs"):
        run.reader.add_splits([encode(1, IndexSplit(0, 10)), encode(1, IndexSplit(1, 11))])


def test_a_function_that_raises_is_reported_with_its_index():
    [run] = readers_of(DatagenSource(lambda index: 1 // (77 - index), count=1000), 1)

    with pytest.raises(UserCodeError, match="function of a datagen source raised") as raised:
        poll(run)

    assert raised.value.context["record"] == 77
    assert "ZeroDivisionError" in raised.value.context["cause"]
    assert "Traceback" in str(raised.value)


def test_a_function_that_raises_stop_iteration_ends_no_batch_early():
    [run] = readers_of(DatagenSource(lambda index: next(iter([])) if index == 77 else index, count=1000), 1)

    with pytest.raises(UserCodeError, match="function of a datagen source raised") as raised:
        poll(run)

    assert raised.value.context["record"] == 77
    assert "StopIteration" in raised.value.context["cause"]


@pytest.mark.parametrize("arguments", [{"count": -1}, {"rate": 0}, {"rate": float("nan")}, {"rate": -5}])
def test_a_count_or_rate_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(ConfigError, match="generated records must be"):
        DatagenSource(int, **arguments)


# ---- rate -------------------------------------------------------------------


def read_for(runs, clock, duration_ms):
    """Poll whoever is due until so much time has passed; return the number of records and of batches."""
    stop_ms = clock.now_ms + duration_ms
    records, batches = [], 0
    while True:
        for run in runs:
            while run.poll(records, 1024, 1 << 20):
                batches += 1
        next_ms = min((run.wake_at_ms for run in runs if run.wake_at_ms is not None), default=stop_ms)
        if next_ms >= stop_ms:
            clock.now_ms = stop_ms
            return len(records), batches
        clock.now_ms = max(next_ms, clock.now_ms)


@pytest.mark.parametrize(
    ("rate", "duration_ms"), [(0.5, 10_000), (3, 10_000), (100, 10_000), (9_999, 10_000), (1_000_000, 1_000)]
)
@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_all_subtasks_together_keep_the_rate(rate, duration_ms, parallelism):
    clock = ManualClock()
    runs = readers_of(DatagenSource(int, rate=rate), parallelism, clock)

    count, batches = read_for(runs, clock, duration_ms)

    assert abs(count - rate * duration_ms / 1000) <= parallelism * (1 + rate * PACE_MS / 1000)
    assert batches <= parallelism * (duration_ms / PACE_MS + 1 + count / 512)


def test_latency_is_low_at_low_rates():
    clock = ManualClock()
    [run] = readers_of(DatagenSource(int, rate=10_000), 1, clock)
    read_for([run], clock, 1000)

    count, batches = read_for([run], clock, 1000)

    assert count / batches <= 10_000 * PACE_MS / 1000 + 1


def test_time_before_the_restart_is_not_made_up_for():
    source = DatagenSource(int, rate=1000)
    clock = ManualClock()
    [run] = readers_of(source, 1, clock)
    read_for([run], clock, 1000)
    splits = run.reader.snapshot()
    clock.now_ms += 60_000
    again = ReaderRun(source, clock=clock)
    again.reader.add_splits(splits)

    assert again.reader.poll(1024, 1 << 20) is NOTHING
    assert read_for([again], clock, 1000)[0] == pytest.approx(1000, abs=6)


def test_a_stall_is_made_up_for_by_a_bounded_time():
    clock = ManualClock()
    [run] = readers_of(DatagenSource(int, rate=1000), 1, clock)
    read_for([run], clock, 100)
    clock.now_ms += 60_000

    assert read_for([run], clock, 1)[0] == pytest.approx(CATCH_UP_MS, abs=6)
    assert read_for([run], clock, 1000)[0] == pytest.approx(1000, abs=6)


def test_something_is_due_exactly_from_the_announced_time_on():
    pace = Pace(records_per_s=3, now_ms=0.1)
    now_ms = 0.1
    for _ in range(1000):
        assert pace.due(pace.next_ms - 0.001) == 0
        now_ms = pace.next_ms
        assert pace.due(now_ms) >= 1
        pace.emitted(1, now_ms)
    assert now_ms == pytest.approx(0.1 + 1000 / 3 * 1000)


def test_subtasks_without_splits_end(monkeypatch):
    monkeypatch.setattr(datagen, "SPLITS", 4)
    source = DatagenSource(int, count=100)
    context = EnumeratorContext(parallelism=2, max_parallelism=128, restored=False)
    state = source.enumerator(context, None).snapshot()
    six = EnumeratorContext(parallelism=6, max_parallelism=128, restored=True)
    enumerator = source.enumerator(six, state)

    assert [len(enumerator.next_splits(subtask)) for subtask in range(6)] == [1, 1, 1, 1, 0, 0]
    run = ReaderRun(source)
    run.reader.no_more_splits()
    assert run.reader.poll(1, 1) is END


def test_a_job_restored_before_all_subtasks_asked_loses_no_index():
    import random

    source = DatagenSource(int, count=300)
    run = SourceRun(source, 4, random.Random(5))
    while not run.records:
        run.step()
    snapshot = run.snapshot()
    again = SourceRun(source, 3, random.Random(6), snapshot=snapshot)
    while not again.finished(0):
        again.step()

    assert sorted(run.records + again.records) == list(range(300))
