"""Where barriers are only counted, no record is lost, whatever goes wrong; some come twice."""

import pytest

from raystream.testing import simulate
from tests.simulation import connected_jobs, jobs

pytestmark = pytest.mark.simulation

JOBS = {
    "chained": (jobs.chained, jobs.expected_chained),
    "keyed twice": (jobs.twice_keyed, jobs.expected_twice_keyed),
    "united": (jobs.united, jobs.expected_united),
    "paired": (connected_jobs.paired, connected_jobs.expected_paired),
    "paired in turn": (connected_jobs.paired_in_turn, connected_jobs.expected_paired),
    "scaled": (connected_jobs.scaled, connected_jobs.expected_scaled),
}


@pytest.mark.parametrize("name", JOBS)
def test_no_record_is_lost(name, seeds):
    job, expected = JOBS[name]

    simulate(
        job,
        seeds=seeds[: len(seeds) // 10],
        expected=expected(),
        execution_checkpointing_mode="at-least-once",
    ).check()


def test_overlapping_checkpoints_lose_no_record(seeds):
    simulate(
        jobs.united,
        seeds=seeds[: len(seeds) // 10],
        expected=jobs.expected_united(),
        execution_checkpointing_mode="at-least-once",
        execution_checkpointing_interval="6ms",
        execution_checkpointing_timeout="150ms",
        execution_checkpointing_max_concurrent_checkpoints=4,
        execution_checkpointing_num_retained=3,
    ).check()
