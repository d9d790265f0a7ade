"""At the n-th call of the store it fails, or its caller dies: for every n, before the effect or after it."""

import pytest

from raystream.connectors.datagen import DatagenSource
from raystream.testing import NO_FAULTS, simulate
from raystream.testing.faults import CrashAtCall, StorageFailure
from raystream.testing.simulation_job import Simulation
from tests.simulation import jobs

pytestmark = pytest.mark.simulation

COUNT = 50


def few(env):
    numbers = env.from_source(
        DatagenSource(jobs.number, count=COUNT, rate=900), name="numbers", uid="numbers"
    )
    return numbers.key_by(jobs.key_of).process(jobs.Tally(), name="tally", uid="tally")


@pytest.mark.parametrize("effective", [False, True])
@pytest.mark.parametrize("kind", [StorageFailure, CrashAtCall])
def test_no_call_costs_or_repeats_a_record(kind, effective):
    simulation = Simulation(few)
    calls = simulation.run(0, ()).storage_calls
    rows = [simulation.run(0, [kind(call=call, effective=effective)]) for call in range(calls)]

    assert calls > 30
    assert [(row.planned, row.problems) for row in rows if not row.ok] == []
    assert all(row.faults == row.planned for row in rows), "it has happened at every call"


def test_number_of_calls_is_that_of_the_run_without_faults():
    first, second = simulate(few, seeds=[0, 0], faults=NO_FAULTS).rows

    assert first.storage_calls == second.storage_calls
