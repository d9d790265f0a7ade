"""The heap backend keeps the contract of keyed state."""

from raystream.state.heap import HeapBackend
from tests.unit.state.contract import KeyedStateContract


class TestHeapBackend(KeyedStateContract):
    def make_backend(self, groups, max_parallelism, cursor):
        return HeapBackend(groups, max_parallelism, cursor)
