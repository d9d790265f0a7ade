"""Jobs that keep their state in RocksDB have each record exactly once, and leave no local files."""

import gc

import pytest

from raystream.errors import CheckpointError
from raystream.protocol.shared_files import SharedFiles
from raystream.runtime.upload import Upload
from raystream.state.rocksdb_snapshot import KnownFiles
from raystream.testing import simulate
from tests.simulation import connected_jobs, event_time_jobs, jobs

pytestmark = pytest.mark.simulation

JOBS = {
    "keyed": (jobs.keyed, jobs.expected_keyed),
    "united": (jobs.united, jobs.expected_united),
    "paired": (connected_jobs.paired, connected_jobs.expected_paired),
    "windowed": (event_time_jobs.windowed, event_time_jobs.expected_readings),
}


@pytest.mark.parametrize("cache_size", ["0b", "64mb"])
@pytest.mark.parametrize("name", JOBS)
def test_state_in_rocksdb_is_exactly_once_whatever_goes_wrong(name, cache_size, seeds, local_path):
    job, expected = JOBS[name]

    simulate(
        job,
        seeds=seeds[: len(seeds) // 30],
        expected=expected(),
        pipeline_auto_watermark_interval="5ms",
        state_backend_type="rocksdb",
        state_backend_rocksdb_localdir=str(local_path),
        state_backend_rocksdb_cache_size=cache_size,
        state_backend_rocksdb_memory_managed_size="8mb",
    ).check()

    gc.collect()  # Nobody closes what a slot had that crashed, and the process lives on.
    assert list(local_path.iterdir()) == []


def test_the_same_seed_gives_the_same_trace_hash_when_checkpoints_share_files(monkeypatch, local_path):
    uploaded, referred = [], []
    monkeypatch.setattr(Upload, "_store_shared", told(uploaded, Upload._store_shared))
    monkeypatch.setattr(KnownFiles, "refer", told(referred, KnownFiles.refer))

    first, second = (
        simulate(
            jobs.keyed,
            seeds=range(4),
            expected=jobs.expected_keyed(),
            state_backend_type="rocksdb",
            state_backend_rocksdb_localdir=str(local_path),
            state_backend_rocksdb_memory_managed_size="8mb",
        )
        for _ in range(2)
    )

    first.check()
    assert [row.trace_hash for row in first.rows] == [row.trace_hash for row in second.rows]
    assert len(uploaded) > 20
    assert sum(map(len, referred)) > 20


def test_checkpoints_that_overlap_refer_to_no_file_that_is_gone(monkeypatch, local_path):
    verified, verify = [], SharedFiles.verify

    def refused(shared, checkpoint_id, files):
        try:
            verify(shared, checkpoint_id, files)
        except CheckpointError as error:
            verified.append(error)
            raise
        verified.append(None)

    monkeypatch.setattr(SharedFiles, "verify", refused)

    simulate(
        jobs.keyed,
        seeds=range(4, 10),
        expected=jobs.expected_keyed(),
        execution_checkpointing_max_concurrent_checkpoints=4,
        state_backend_type="rocksdb",
        state_backend_rocksdb_localdir=str(local_path),
        state_backend_rocksdb_memory_managed_size="8mb",
    ).check()

    assert len(verified) > 20
    assert set(verified) == {None}


def told(results, call):
    def called(*arguments):
        results.append(call(*arguments))
        return results[-1]

    return called
