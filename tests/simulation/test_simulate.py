"""`simulate` is exact: a seed is a run, and a run that fails says how to see it again."""

import os
import shlex
import subprocess
import sys

import pytest

from raystream import KeyedProcessFunction, ValueStateDescriptor
from raystream.errors import ConfigError
from raystream.testing import NO_FAULTS, Crash, Delivery, Faults, SimulationReport, TestSource, simulate
from raystream.testing.faults import CheckpointPhase, ClockJump, SlotCrash, SlowConnections, StorageFailure
from raystream.testing.simulation_shrink import shortest_failing
from raystream.testing.simulation_world import SimulationError
from tests.simulation import jobs

pytestmark = pytest.mark.simulation


def hashes(report):
    return [row.trace_hash for row in report.rows]


def test_the_same_seed_gives_the_same_trace_hash_twice():
    seeds = range(6)

    assert hashes(simulate(jobs.united, seeds=seeds)) == hashes(simulate(jobs.united, seeds=seeds))


def test_another_seed_gives_another_trace_hash():
    report = simulate(jobs.keyed, seeds=range(12), faults=NO_FAULTS)

    assert len(set(hashes(report))) == 12


@pytest.mark.slow
def test_trace_hashes_depend_neither_on_the_process_nor_on_its_hash_salt():
    script = (
        "from tests.simulation import jobs; from raystream.testing import simulate;"
        "print(*[row.trace_hash for row in simulate(jobs.united, seeds=range(3)).rows])"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for salt in ("1", "2")
    ]

    assert printed[0] == printed[1]
    assert printed[0].split() == hashes(simulate(jobs.united, seeds=range(3)))


class Forgetful(KeyedProcessFunction):
    """Counts in an attribute, which no snapshot knows."""

    def open(self, ctx):
        self.state = ctx.get_state(ValueStateDescriptor("unused", int))
        self.hits = {}

    def process_element(self, value, ctx):
        self.hits[ctx.current_key] = self.hits.get(ctx.current_key, 0) + 1
        yield ctx.current_key, self.hits[ctx.current_key]


def forgetful(env):
    return jobs.numbers(env).key_by(jobs.key_of).process(Forgetful())


def test_state_outside_of_the_state_backend_is_found_and_the_failure_says_how_to_repeat_it():
    report = simulate(forgetful, seeds=range(10), parallelism=3)

    with pytest.raises(SimulationError, match="missing from the output") as caught:
        report.check()

    seed = report.failed[0].seed
    assert f"the last events of seed {seed}" in str(caught.value)
    assert f"simulate(forgetful, seeds=[{seed}], parallelism=3).check()" in caught.value.hint
    again = simulate(forgetful, seeds=[seed], parallelism=3)
    assert again.rows[0] == report.failed[0]


def test_the_command_that_repeats_a_seed_finds_the_same(monkeypatch):
    faults = [SlotCrash(checkpoint_id=2, phase=CheckpointPhase.LOGGED), StorageFailure(call=30, where="/log")]
    report = simulate(jobs.keyed, seeds=[1], faults=faults, expected=[], parallelism=3)
    with pytest.raises(SimulationError) as caught:
        report.check()

    repeat, _ = caught.value.hint.splitlines()
    command = shlex.split(repeat.removeprefix("repeat it with: "))
    assert command[:2] == ["python", "-c"]
    repeated = {}
    monkeypatch.setattr(SimulationReport, "check", lambda self: repeated.update(hash=self.rows[0].trace_hash))
    exec(command[2], {})
    assert repeated["hash"] == report.rows[0].trace_hash


def test_failing_seed_is_shrunk_to_the_faults_that_it_takes_and_they_are_in_the_command():
    crash = SlotCrash(checkpoint_id=2, phase=CheckpointPhase.LOGGED)
    others = [
        StorageFailure(call=30, where="/log"),
        SlowConnections(at_ms=20.0, duration_ms=50.0, delay_ms=5.0),
        ClockJump(at_ms=60.0, by_ms=-5000.0),
    ]
    report = simulate(forgetful, seeds=[1], faults=[*others, crash], parallelism=2)
    with pytest.raises(SimulationError, match="with these faults alone") as caught:
        report.check()

    assert report.shrink(report.rows[0]) == (crash,)
    _, shorter = caught.value.hint.splitlines()
    assert f"simulate(forgetful, seeds=[1], faults={(crash,)!r}, parallelism=2).check()" in shorter


def test_run_that_fails_without_faults_is_shrunk_to_none():
    report = simulate(jobs.chained, seeds=[1], expected=[])

    assert report.shrink(report.rows[0]) == ()


def test_shortest_list_keeps_faults_that_only_fail_together():
    faults = [StorageFailure(call=call) for call in range(16)]
    together = (faults[3], faults[12])

    assert shortest_failing(faults, lambda some: set(together) <= set(some)) == together


def test_output_that_may_be_repeated_may_hold_nothing_else():
    def job(env):
        return env.from_collection([1, 2, 2, 3])

    def problems(delivery, expected):
        return simulate(job, seeds=[0], faults=(), expected=expected, delivery=delivery).rows[0].problems

    assert problems(Delivery.REPEATED, [1, 2, 3]) == ()
    assert problems(Delivery.REPEATED, [1, 2]) == ("wrong in the output: 3",)
    assert problems(Delivery.AT_LEAST_ONCE, [1, 2]) == ()
    assert problems(Delivery.AT_LEAST_ONCE, [1, 4]) == ("missing from the output: 4",)


def test_output_of_a_test_source_that_crashes_is_there_once():
    def job(env):
        return env.from_source(TestSource([1, 2, Crash(), 3]), uid="source").map(lambda value: value * 2)

    report = simulate(job, seeds=range(5), faults=(), expected=[2, 4, 6])

    report.check()
    assert {row.attempts for row in report.rows} == {2}


def test_job_that_always_fails_is_reported_before_any_seed():
    def job(env):
        return env.from_collection([1, 2]).map(lambda value: 1 // 0)

    with pytest.raises(SimulationError, match="without faults"):
        simulate(job, seeds=range(5), restart_strategy_fixed_delay_attempts=2)


def test_wrong_expectation_is_shown_record_by_record():
    def job(env):
        return env.from_collection([1, 2, 3])

    report = simulate(job, seeds=[0], faults=(), expected=[1, 2, 4])

    assert report.rows[0].problems == ("missing from the output: 4", "too much in the output: 3")


def test_job_that_never_ends_is_refused():
    def job(env):
        from raystream.connectors.datagen import DatagenSource

        return env.from_source(DatagenSource(lambda index: index))

    with pytest.raises(ConfigError, match="never ends"):
        simulate(job, seeds=[0])


def test_report_is_a_table_with_a_row_for_each_seed():
    report = simulate(jobs.chained, seeds=[3, 4], faults=Faults())

    lines = str(report).splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:2] == ["3", "ok"]
    assert lines[1].endswith(report.rows[0].trace_hash)
