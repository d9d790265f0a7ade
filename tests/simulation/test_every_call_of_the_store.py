"""The store fails at the n-th call, for every n of a run, before the call has an effect or after it."""

import pytest

from raystream.connectors.datagen import DatagenSource
from raystream.testing import NO_FAULTS, simulate
from raystream.testing.faults import StorageFailure
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
def test_storage_error_at_any_call_costs_and_repeats_no_record(effective):
    simulation = Simulation(few)
    calls = simulation.run(0, ()).storage_calls
    rows = [simulation.run(0, [StorageFailure(call=call, effective=effective)]) for call in range(calls)]

    assert calls > 30
    assert [(row.planned, row.problems) for row in rows if not row.ok] == []
    assert all(row.faults == row.planned for row in rows), "every call has failed once"


def test_number_of_calls_is_that_of_the_run_without_faults():
    first, second = simulate(few, seeds=[0, 0], faults=NO_FAULTS).rows

    assert first.storage_calls == second.storage_calls
