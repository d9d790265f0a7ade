"""A store that does not say whether an entry is in the job log costs time, not the job, and no restart."""

import pytest

from raystream.runtime.coordinator_recovery import RECOVERY_RETRY_MS
from raystream.storage.job_log import StaleLogError
from tests.unit.runtime.coordinator_world import INTERVAL_MS, World, running


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def raise_(error):
    raise error


def test_store_that_is_away_for_minutes_with_an_entry_in_doubt_is_waited_for(directory):
    world = running(directory)
    seconds = 300
    create, away = world.storage.log._create, [StaleLogError("outcome is not known")]
    world.storage.log._create = lambda *entry: raise_(away.pop()) if away else create(*entry)
    world.faults = {"append_again": [StaleLogError("job log does not answer") for _ in range(seconds)]}
    world.run_for(INTERVAL_MS)
    assert world.completed == []

    world.run_for((seconds + 1) * 1_000)

    assert world.status == "RUNNING"
    assert world.completed[-1] > 1


def test_entry_that_takes_the_log_over_counts_once_when_its_answers_are_lost(directory):
    options = {"restart_strategy__fixed_delay__attempts": 1}
    running(directory, **options)
    world = World(directory, **options)
    append, unsure = world.storage.log.append, [StaleLogError("outcome is not known")] * 3

    def answer_is_lost(entry):
        append(entry)
        if unsure:
            raise unsure.pop()

    world.storage.log.append = answer_is_lost
    world.start().run_for(3 * RECOVERY_RETRY_MS).restart()

    assert world.status == "RUNNING", world.view.error
