"""Whatever goes wrong, what timers emit is there exactly once."""

import pytest

from raystream.testing import simulate
from raystream.testing.faults import StopAndResume, StorageFailure
from tests.simulation import event_time_jobs as jobs

pytestmark = pytest.mark.simulation

INTERVAL = {"pipeline_auto_watermark_interval": "5ms"}  # Some watermarks in the short life of these jobs.


@pytest.mark.parametrize("job", [jobs.windowed, jobs.impatient, jobs.scripted])
def test_what_timers_emit_is_there_exactly_once_whatever_goes_wrong(job, seeds):
    chosen = seeds[: len(seeds) // 10]

    simulate(job, seeds=chosen, expected=jobs.expected_readings(), **INTERVAL).check()


def test_no_split_makes_the_records_of_another_late_whatever_goes_wrong(seeds):
    """Crashes, restores and other subtasks for the same splits: none begins behind the watermark."""
    chosen = seeds[: len(seeds) // 10]

    simulate(jobs.side_by_side, seeds=chosen, expected=jobs.expected_in_time(), **INTERVAL).check()


@pytest.mark.parametrize("at_ms", range(20, 170, 25))
def test_drain_that_fails_leaves_nothing_of_what_its_timers_emitted(at_ms):
    drain = StopAndResume(at_ms=at_ms, parallelism=2, drain=True)
    refusal = StorageFailure(call=0, count=100, where="simulated-savepoints")
    report = simulate(
        jobs.windowed,
        seeds=range(3),
        faults=(drain, refusal),
        expected=jobs.expected_readings(),
        restart_strategy_type="none",
        **INTERVAL,
    )

    report.check()
    assert all(drain in row.faults and row.attempts == 2 for row in report.rows)


def test_one_seed_runs_the_same_way_twice():
    """Watermarks are made in intervals of the virtual clock, and not of another."""
    first, second = (simulate(jobs.windowed, seeds=range(5), **INTERVAL) for _ in range(2))

    assert [row.trace_hash for row in first.rows] == [row.trace_hash for row in second.rows]
