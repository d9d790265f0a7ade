"""Any history of accesses, snapshots and restores leaves the heap backend equal to plain dicts."""

import pytest

from raystream.state import heap_snapshot, heap_tables
from raystream.testing.state_machine import SETTINGS, StateMachine
from tests.unit.state.test_heap_contract import TestHeapBackend as HeapContract


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    """Cut chunks and folds so small that every history crosses their edges."""
    monkeypatch.setattr(heap_snapshot, "CHUNK_ENTRIES_MAX", 2)
    monkeypatch.setattr(heap_snapshot, "FOLD_ENTRIES_MAX", 1)
    monkeypatch.setattr(heap_tables, "FOLD_ENTRIES_MAX", 1)
    monkeypatch.setattr(heap_snapshot.HeapState, "__init__", _small_chunks(heap_snapshot.HeapState.__init__))


def _small_chunks(original):
    def init(self, **fields):
        original(self, **fields)
        self.entries_per_chunk = 1

    return init


class HeapMachine(StateMachine):
    contract = HeapContract()


class TestHeapMachine(HeapMachine.TestCase):
    settings = SETTINGS
