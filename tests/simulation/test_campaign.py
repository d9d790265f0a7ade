"""A campaign runs many seeds of many jobs, and a seed of it can be repeated alone."""

import pytest
from click.testing import CliRunner

from raystream.runtime.gate import Gate
from raystream.testing.simulation_campaign import CampaignReport, run_campaign
from raystream.testing.simulation_marks import Mark
from tests.simulation.__main__ import main
from tests.simulation.cases import case_of

pytestmark = pytest.mark.simulation

SEEDS = range(40)
FEW = SEEDS[:20]


@pytest.mark.slow
def test_every_seed_is_exactly_once_and_does_in_another_process_what_it_does_here():
    reports = []
    report = run_campaign(case_of, FEW, processes=2, seconds_max=float("inf"), progress=reports.append)

    assert report.failed == []
    assert report.seeds == len(FEW)
    assert sum(report.cases.values()) == len(FEW)
    assert len(reports) == 2
    for seed in FEW[:3]:
        case = case_of(seed)
        assert case.run(seed).trace_hash == report.hashes[seed]


def test_no_seed_is_begun_when_the_time_is_over():
    report = run_campaign(case_of, SEEDS, processes=1, seconds_max=0, progress=lambda report: None)

    assert report.seeds == 0


def test_marks_that_no_seed_has_reached_are_named():
    report = CampaignReport()
    case = case_of(0)
    report.add(case.name, case.run(0))

    reached = set(Mark) - set(report.missed(Mark))
    assert reached == set(case.run(0).marks)
    assert any(line.endswith(Mark.OLDER_CHECKPOINT.value) for line in report.lines())


def test_failed_seed_is_shown_with_the_commands_that_repeat_it(monkeypatch):
    monkeypatch.setattr(Gate, "block", lambda gate, index: None)
    seed = next(seed for seed in SEEDS if not (case := case_of(seed)).run(seed).ok and len(case.faults) > 1)

    shown = CliRunner().invoke(main, ["--seed", str(seed)])

    assert shown.exit_code == 1
    assert f"repeat it with: python -m tests.simulation --seed {seed}" in shown.output
    shorter = shown.output.splitlines()[-1]
    assert shorter.startswith(f"or, shorter: python -m tests.simulation --seed {seed} --faults ")
    again = CliRunner().invoke(main, ["--seed", str(seed), "--faults", shorter.split('"')[1]])
    assert again.exit_code == 1
    assert "problem: " in again.output
    monkeypatch.undo()
    mended = CliRunner().invoke(main, ["--seed", str(seed)])
    assert mended.exit_code == 0
