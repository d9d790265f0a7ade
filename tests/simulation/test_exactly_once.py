"""Whatever crashes, breaks, fails or is delayed, every job's output is there exactly once."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from raystream.cli.script import run_script
from raystream.testing import NO_FAULTS, Faults, simulate
from raystream.testing.drawn_faults import CHECKPOINTS
from raystream.testing.faults import CheckpointPhase, SlotCrash
from tests.simulation import jobs
from tests.simulation.cases import case_of

pytestmark = pytest.mark.simulation

ONE_CRASH = replace(NO_FAULTS, crashes=1)


def test_output_of_every_topology_is_there_as_often_as_its_mode_says_whatever_goes_wrong(seeds):
    """The first seeds of the campaign; `make test` runs many more of them."""
    rows = (case_of(seed).run(seed) for seed in seeds)

    assert [(row.seed, row.problems) for row in rows if not row.ok] == []


@pytest.mark.parametrize("seed", [1449, 6070, 7228, 200719, 504933])
def test_seed_that_has_found_a_fault_finds_none(seed):
    assert case_of(seed).run(seed).problems == ()


def test_overlapping_checkpoints_cost_no_record(seeds):
    simulate(
        jobs.united,
        seeds=seeds[: len(seeds) // 3],
        expected=jobs.expected_united(),
        execution_checkpointing_interval="6ms",
        execution_checkpointing_timeout="150ms",
        execution_checkpointing_max_concurrent_checkpoints=4,
        execution_checkpointing_num_retained=3,
        execution_checkpointing_tolerable_failed_checkpoints=0,
    ).check()


def test_checkpoints_in_the_memory_of_the_job_master_are_as_good(seeds):
    simulate(
        jobs.keyed,
        seeds=seeds[: len(seeds) // 3],
        faults=Faults(cancels=0),  # Nothing would be left to resume from.
        expected=jobs.expected_keyed(),
        execution_checkpointing_dir="none",
        restart_strategy_type="exponential-delay",
    ).check()


def test_job_without_checkpoints_commits_at_its_end():
    report = simulate(
        jobs.united,
        seeds=range(10),
        faults=(),
        expected=jobs.expected_united(),
        execution_checkpointing_interval="none",
    )

    report.check()
    assert {row.checkpoints for row in report.rows} == {0}


def test_reference_run_gives_what_plain_python_gives():
    report = simulate(jobs.keyed, seeds=[])

    assert sorted(report.reference, key=repr) == sorted(jobs.expected_keyed(), key=repr)


@pytest.mark.parametrize("job", [jobs.keyed, jobs.united])
def test_slots_crash_in_every_phase_of_the_first_three_checkpoints(job):
    wanted = {(checkpoint_id, phase) for checkpoint_id in CHECKPOINTS for phase in CheckpointPhase}
    report = simulate(job, seeds=range(len(wanted)), faults=ONE_CRASH)

    report.check()
    crashes = [fault for row in report.rows for fault in row.faults if isinstance(fault, SlotCrash)]
    assert {(crash.checkpoint_id, crash.phase) for crash in crashes} == wanted
    assert all(row.attempts == 2 for row in report.rows)
    assert all(row.checkpoints >= max(CHECKPOINTS) for row in report.rows)


def test_classes_of_a_job_script_are_records_and_state(seeds, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", None)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    run_script(Path(__file__).with_name("script_job.py"), [])
    script = sys.modules["__main__"]

    simulate(script.job, seeds=seeds[: len(seeds) // 3], expected=script.expected()).check()
