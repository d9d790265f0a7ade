"""Barriers that overtake records cost none of them, whatever goes wrong."""

import pytest

from raystream.testing import simulate
from tests.simulation import connected_jobs, jobs

pytestmark = pytest.mark.simulation

JOBS = {
    "keyed": (jobs.keyed, jobs.expected_keyed),
    "chained": (jobs.chained, jobs.expected_chained),
    "keyed twice": (jobs.twice_keyed, jobs.expected_twice_keyed),
    "united": (jobs.united, jobs.expected_united),
    "heavy": (jobs.heavy, jobs.expected_heavy),
    "paired": (connected_jobs.paired, connected_jobs.expected_paired),
    "scaled": (connected_jobs.scaled, connected_jobs.expected_scaled),
}
LIMITS = ("0ms", "15ms")


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", JOBS)
def test_output_is_there_exactly_once(name, limit, seeds):
    job, expected = JOBS[name]

    simulate(
        job,
        seeds=seeds[: len(seeds) // 5],
        expected=expected(),
        execution_checkpointing_unaligned_enabled=True,
        execution_checkpointing_aligned_checkpoint_timeout=limit,
    ).check()
