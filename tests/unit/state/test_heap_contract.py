"""The heap backend keeps the contract of keyed state backends."""

from raystream.state.heap import HeapBackend
from raystream.testing.state_contracts import KeyedStateContract


class TestHeapBackend(KeyedStateContract):
    def make_backend(self, groups, max_parallelism, cursor, *, clock):
        return HeapBackend(groups, max_parallelism, cursor, clock=clock)

    def count_held(self, backend, name):
        return backend.held(name)
