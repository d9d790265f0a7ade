"""Faults planted in production code are found: a simulation that never fails proves nothing."""

from dataclasses import replace

import pytest

from raystream.keygroup import default_max_parallelism
from raystream.keys import KeyGroupCache, key_groups
from raystream.operators.sink_operator import SinkOperator
from raystream.runtime.frame import FrameReader
from raystream.runtime.gate import Gate
from raystream.runtime.logged_job import _Reader
from raystream.state import heap_snapshot
from raystream.testing import NO_FAULTS, simulate
from raystream.testing.faults import Damage, FrameDamage
from raystream.testing.simulation_storage import SimulatedFileSystem
from tests.simulation import jobs

pytestmark = pytest.mark.simulation

DOZEN = range(12)


def problems_of(job, expected, **arguments):
    report = simulate(job, seeds=DOZEN, expected=expected(), steps_max=6_000, **arguments)
    return [problem for row in report.failed for problem in row.problems]


def test_without_a_plant_nothing_is_found():
    assert problems_of(jobs.keyed, jobs.expected_keyed) == []


def test_snapshot_that_leaves_out_a_key_group_is_found(monkeypatch):
    cache = KeyGroupCache(default_max_parallelism(2))
    _, (forgotten,) = key_groups([jobs.key_of(jobs.NUMBERS[0])], cache)
    freeze_table = heap_snapshot.freeze_table
    monkeypatch.setattr(
        heap_snapshot,
        "freeze_table",
        lambda tables, group, encode: group != forgotten and freeze_table(tables, group, encode),
    )

    problems = problems_of(jobs.keyed, jobs.expected_keyed)

    assert any("missing from the output" in problem for problem in problems)


def test_missing_alignment_is_found(monkeypatch):
    monkeypatch.setattr(Gate, "block", lambda gate, index: None)

    problems = problems_of(jobs.keyed, jobs.expected_keyed)

    assert any("missing from the output" in problem for problem in problems)


def test_commit_before_the_checkpoint_is_complete_is_found(monkeypatch):
    snapshot = SinkOperator.snapshot

    def snapshot_and_commit(self, checkpoint_id, **options):
        states = snapshot(self, checkpoint_id, **options)
        self.checkpoint_complete(checkpoint_id)
        return states

    monkeypatch.setattr(SinkOperator, "snapshot", snapshot_and_commit)

    problems = problems_of(jobs.keyed, jobs.expected_keyed)

    assert any("too much in the output" in problem for problem in problems)
    assert any("published before it was complete" in problem for problem in problems)


@pytest.mark.parametrize(
    ("damage", "symptom"),
    [(Damage.LOST, "missing from the output"), (Damage.REPEATED, "too much in the output")],
)
def test_sequence_check_that_is_off_is_found(monkeypatch, damage, symptom):
    check = FrameReader._check

    def check_all_but_the_sequence(self, length, attempt, sequence):
        self._sequence = sequence
        check(self, length, attempt, sequence)

    monkeypatch.setattr(FrameReader, "_check", check_all_but_the_sequence)
    faults = [FrameDamage(frame=frame, damage=damage) for frame in range(20, 100, 20)]

    problems = problems_of(jobs.keyed, jobs.expected_keyed, faults=faults)

    assert any(symptom in problem for problem in problems)


def test_log_in_which_an_old_job_master_may_overwrite_is_found(monkeypatch):
    create_exclusive = SimulatedFileSystem.create_exclusive

    def create_or_overwrite(self, url, data):
        if "/log/" not in url:
            return create_exclusive(self, url, data)
        self.write(url, data)
        return True

    monkeypatch.setattr(SimulatedFileSystem, "create_exclusive", create_or_overwrite)
    two_masters = replace(NO_FAULTS, masters_presumed_dead=2)

    problems = problems_of(jobs.keyed, jobs.expected_keyed, faults=two_masters)

    assert any("too much in the output" in problem for problem in problems)


def test_job_master_that_goes_back_to_where_an_attempt_began_is_found(monkeypatch):
    completed = _Reader._completed

    def completed_for_nothing(self, number, directory, *, ends_job):
        point = self.point
        completed(self, number, directory, ends_job=ends_job)
        self.point = point

    monkeypatch.setattr(_Reader, "_completed", completed_for_nothing)
    dying_masters = replace(NO_FAULTS, master_crashes=2, master_kills=2)

    problems = problems_of(jobs.keyed, jobs.expected_keyed, faults=dying_masters)

    assert any("too much in the output" in problem for problem in problems)
