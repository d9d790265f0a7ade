"""The RocksDB backend keeps the contract of keyed state backends, whatever its cache holds."""

import pytest

from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.state.snapshot_files import SnapshotForm
from raystream.testing.state_contracts import KeyedStateContract
from raystream.testing.state_expiry import ExpiryContract
from raystream.testing.state_kinds import KindsContract
from raystream.testing.state_kit import BackendContract
from raystream.testing.state_rescale import HistoryContract
from raystream.testing.state_snapshots import SnapshotContract
from tests.unit.state.canonical_parts import AsCanonicalSavepoints

MEMORY = RocksDbMemory(8 << 20)


class OnRocksDb(BackendContract):
    """Makes RocksDB backends; a subclass says how much they cache."""

    cache_bytes: int

    @pytest.fixture(autouse=True)
    def settings(self, local_path):
        self.made = []
        parent = local_path / "local"
        self.settings = RocksDbSettings(parent=parent, memory=MEMORY, cache_bytes=self.cache_bytes)
        yield
        for backend in self.made:
            backend.close()
        assert not parent.exists() or list(parent.iterdir()) == []

    def make_backend(self, groups, max_parallelism, cursor, *, clock):
        backend = RocksDbBackend(groups, max_parallelism, cursor, settings=self.settings, clock=clock)
        self.made.append(backend)
        return backend

    def clean_up(self, backend):
        backend.write_out()
        for sweep in backend.sweeps.values():
            sweep.look()

    def count_held(self, backend, name):
        return backend.held(name)


class TestRocksDbBackend(OnRocksDb, KeyedStateContract):
    """Caches nothing beyond a record: each begins with a cache that is written out and dropped."""

    cache_bytes = 0


class TestRocksDbBackendThatCachesAFewKeys(OnRocksDb, SnapshotContract, HistoryContract):
    """The parts with so many keys that some are found in the cache, and others not."""

    cache_bytes = 2_000


class TestRocksDbBackendThatCachesEverything(OnRocksDb, SnapshotContract, ExpiryContract, HistoryContract):
    """The parts in which what is cached changes without being written, or grows old there."""

    cache_bytes = 64 << 20


class TestIncrementalSnapshots(OnRocksDb, KeyedStateContract):
    """Every snapshot refers to the files of the store."""

    form = SnapshotForm.INCREMENTAL
    cache_bytes = 2_000


class TestCanonicalSavepoints(AsCanonicalSavepoints, OnRocksDb, KindsContract, SnapshotContract):
    """What is stored is a canonical savepoint."""

    cache_bytes = 2_000
