"""The RocksDB backend keeps the contract of keyed state backends, whatever its cache holds."""

import pytest

from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.testing.state_contracts import KeyedStateContract

CACHE_BYTES = [
    pytest.param(0, id="cache of nothing"),
    pytest.param(2_000, id="cache of a few keys"),
    pytest.param(64 << 20, id="cache of everything"),
]


class TestRocksDbBackend(KeyedStateContract):
    @pytest.fixture(autouse=True, params=CACHE_BYTES)
    def settings(self, request, local_path):
        yield from self.settings_of(request.param, local_path)

    def settings_of(self, cache_bytes, local_path):
        self.made = []
        parent = local_path / "local"
        self.settings = RocksDbSettings(parent=parent, memory=RocksDbMemory(8 << 20), cache_bytes=cache_bytes)
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


class TestIncrementalSnapshots(TestRocksDbBackend):
    incremental = True

    @pytest.fixture(autouse=True, params=CACHE_BYTES[1:2])
    def settings(self, request, local_path):
        yield from self.settings_of(request.param, local_path)
