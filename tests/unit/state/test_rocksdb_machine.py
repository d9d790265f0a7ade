"""Random histories on the RocksDB backend, with steps of one key and caches from none to everything."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from raystream.state import rocksdb_collections, rocksdb_full, rocksdb_restore, rocksdb_tables
from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.state.snapshot_files import SnapshotForm
from raystream.testing.state_kit import BackendContract
from raystream.testing.state_machine import SETTINGS, StateMachine
from tests.memory import MEMORY


class Contract(BackendContract):
    """Makes backends that tend their cache at every miss, in a directory that goes at the end."""

    def __init__(self, cache_bytes, *, form=SnapshotForm.FULL):
        self.cache_bytes = cache_bytes
        self.form = form
        self.memory = RocksDbMemory(8 << 20)
        self.made = []

    def make_backend(self, groups, max_parallelism, cursor, *, clock):
        if not self.made:
            self.parent = Path(tempfile.mkdtemp(dir=MEMORY))
        settings = RocksDbSettings(parent=self.parent, memory=self.memory, cache_bytes=self.cache_bytes)
        backend = RocksDbBackend(groups, max_parallelism, cursor, settings=settings, clock=clock)
        self.made.append(backend)
        return backend

    def count_held(self, backend, name):
        return backend.held(name)

    def close(self):
        for backend in self.made:
            backend.close()
        if self.made:
            shutil.rmtree(self.parent)
        self.made.clear()


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    """Cut steps and chunks so small that every history crosses their edges."""
    monkeypatch.setattr(rocksdb_tables, "STEP_KEYS", 1)
    monkeypatch.setattr(rocksdb_tables, "MISSES_MAX", 1)
    monkeypatch.setattr(rocksdb_collections, "KEPT_ITEMS_MAX", 1)
    monkeypatch.setattr(rocksdb_full, "CHUNK_ITEMS_MAX", 2)
    monkeypatch.setattr(rocksdb_full, "SPILL_BYTES", 100)
    monkeypatch.setattr(rocksdb_restore, "WRITE_ITEMS", 2)


class RocksDbMachine(StateMachine):
    def teardown(self):
        super().teardown()
        self.contract.close()


class MachineWithoutCache(RocksDbMachine):
    contract = Contract(0)


class MachineWithSmallCache(RocksDbMachine):
    contract = Contract(1_500)


class MachineWithLargeCache(RocksDbMachine):
    contract = Contract(64 << 20)


class IncrementalMachine(RocksDbMachine):
    contract = Contract(1_500, form=SnapshotForm.INCREMENTAL)


class TestMachineWithoutCache(MachineWithoutCache.TestCase):
    settings = settings(SETTINGS, max_examples=45)


class TestMachineWithSmallCache(MachineWithSmallCache.TestCase):
    settings = settings(SETTINGS, max_examples=45)


class TestMachineWithLargeCache(MachineWithLargeCache.TestCase):
    settings = settings(SETTINGS, max_examples=45)


class TestIncrementalMachine(IncrementalMachine.TestCase):
    settings = settings(SETTINGS, max_examples=45)
