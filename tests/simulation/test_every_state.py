"""State of every kind is exactly once on both backends, whatever goes wrong."""

import gc

import pytest

from raystream.connectors.datagen import DatagenSource
from raystream.testing import TestSource, simulate
from tests.every_state import RULES, add_everything, expected

pytestmark = pytest.mark.simulation

COUNT = 90


def number(index: int) -> int:
    return index


def everything(env):
    numbers = DatagenSource(number, count=COUNT, rate=900)
    return add_everything(env, numbers, TestSource(RULES[:3], RULES[3:]))


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_every_key_of_every_kind_and_every_timer_is_there_whatever_goes_wrong(backend, seeds, local_path):
    simulate(
        everything,
        seeds=seeds[: len(seeds) // 15],
        expected=expected(COUNT),
        pipeline_auto_watermark_interval="5ms",
        state_backend_type=backend,
        state_backend_rocksdb_localdir=str(local_path),
        state_backend_rocksdb_cache_size="0b",
        state_backend_rocksdb_memory_managed_size="8mb",
    ).check()

    gc.collect()  # Nobody closes what a slot had that crashed, and the process lives on.
    assert list(local_path.iterdir()) == []
