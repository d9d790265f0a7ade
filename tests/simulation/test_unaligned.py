"""Barriers that overtake records cost none of them, whatever goes wrong."""

from dataclasses import replace

import pytest

from raystream.runtime import deployment, overtaking
from raystream.testing import NO_FAULTS, simulate
from raystream.testing.simulation_marks import Mark
from tests.simulation import connected_jobs, jobs, ordered_jobs

pytestmark = pytest.mark.simulation

JOBS = {
    "keyed": (jobs.keyed, jobs.expected_keyed),
    "keyed twice": (jobs.twice_keyed, jobs.expected_twice_keyed),
    "united": (jobs.united, jobs.expected_united),
    "paired": (connected_jobs.paired, connected_jobs.expected_paired),
}
LIMITS = ("0ms", "15ms")


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", JOBS)
def test_back_pressure_costs_no_record_and_much_is_in_flight(name, limit, monkeypatch):
    """The credit of each channel is a few records, and batches are processed in small pieces."""
    monkeypatch.setattr(deployment, "window_bytes_of", lambda budget, channels: 400)
    monkeypatch.setattr(overtaking, "PIECE_MS", 0.01)
    job, expected = JOBS[name]
    report = simulate(
        job,
        seeds=range(15),
        expected=expected(),
        execution_checkpointing_unaligned_enabled=True,
        execution_checkpointing_aligned_checkpoint_timeout=limit,
    )

    report.check()
    stored = [row for row in report.rows if Mark.IN_FLIGHT_STORED in row.marks]
    assert len(stored) >= len(report.rows) // 3
    assert any(Mark.IN_FLIGHT_RESTORED in row.marks for row in report.rows)


@pytest.mark.parametrize("limit", LIMITS)
def test_records_of_a_key_keep_their_order_at_every_parallelism(limit, seeds, monkeypatch):
    monkeypatch.setattr(deployment, "window_bytes_of", lambda budget, channels: ordered_jobs.RECORD_BYTES)

    simulate(
        ordered_jobs.ordered,
        seeds=seeds[: len(seeds) // 12],
        faults=replace(NO_FAULTS, cancels=4, slow_slots=6),
        expected=ordered_jobs.expected_ordered(),
        execution_checkpointing_unaligned_enabled=True,
        execution_checkpointing_aligned_checkpoint_timeout=limit,
        execution_checkpointing_interval="5ms",
    ).check()
