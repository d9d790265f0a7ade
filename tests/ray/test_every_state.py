"""State of every kind outlives the death of a slot's process, behind a checkpoint and within one."""

from collections import Counter

import pytest

from raystream import JobStatus
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink
from raystream.testing import TestSource
from tests.every_state import RULES, add_everything, expected
from tests.held_source import HeldSource
from tests.published import records, tuples
from tests.ray.conftest import PATIENCE_S, handle_of, wait_until
from tests.ray.test_exactly_once import Kill, KillingSink, Moment

COUNT = 2_500


def number(index: int) -> int:
    return index


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_every_key_of_every_kind_and_every_timer_outlives_killed_slots(environment, tmp_path, go, backend):
    env = environment(2, state_backend_type=backend, state_backend_rocksdb_localdir=str(tmp_path / "local"))
    numbers = HeldSource(DatagenSource(number, count=COUNT), go, records=4)
    stream = add_everything(env, numbers, TestSource(RULES[:3], RULES[3:]))
    kills = {1: Kill(0, 100, Moment.PUBLISHED), 2: Kill(1, 300, Moment.PENDING)}
    stream.sink_to(KillingSink(FileSink.json_lines(tmp_path / "out"), kills), uid="sink")

    client = env.submit("everything")
    wait_until(handle_of(client.job_id), lambda view: view.restarts == 2)
    go.touch()
    result = client.wait(PATIENCE_S)

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 2)
    assert Counter(map(tuples, records(tmp_path / "out"))) == Counter(expected(COUNT))
