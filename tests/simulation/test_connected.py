"""Whatever goes wrong, jobs with several inputs and operator state have each record exactly once."""

import pytest

from raystream.testing import simulate
from tests.simulation import connected_jobs as jobs

pytestmark = pytest.mark.simulation

JOBS = {
    "paired": (jobs.paired, jobs.expected_paired),
    "paired in turn": (jobs.paired_in_turn, jobs.expected_paired),
    "scaled": (jobs.scaled, jobs.expected_scaled),
    "held": (jobs.held, jobs.expected_held),
}


@pytest.mark.parametrize("name", JOBS)
def test_connected_and_broadcast_streams_are_exactly_once_whatever_goes_wrong(name, seeds):
    job, expected = JOBS[name]

    simulate(job, seeds=seeds[: len(seeds) // 10], expected=expected()).check()
