"""The heap backend keeps the contract of keyed state backends."""

from raystream.state.heap import HeapBackend
from raystream.testing.state_contracts import KeyedStateContract
from raystream.testing.state_event_time_expiry import EventTimeExpiryContract
from raystream.testing.state_evolution import EvolutionContract
from raystream.testing.state_kinds import KindsContract
from raystream.testing.state_kit import BackendContract
from raystream.testing.state_rescale import RescaleContract
from raystream.testing.state_snapshots import SnapshotContract
from raystream.testing.state_timers import TimerContract
from tests.unit.state.canonical_parts import AsCanonicalSavepoints


class OnHeap(BackendContract):
    """Makes heap backends."""

    def make_backend(self, groups, max_parallelism, cursor, *, clock):
        return HeapBackend(groups, max_parallelism, cursor, clock=clock)

    def count_held(self, backend, name):
        return backend.held(name)


class TestHeapBackend(OnHeap, KeyedStateContract):
    pass


class TestCanonicalSavepoints(
    AsCanonicalSavepoints,
    OnHeap,
    KindsContract,
    SnapshotContract,
    TimerContract,
    EvolutionContract,
    EventTimeExpiryContract,
    RescaleContract,
):
    """What is stored is a canonical savepoint."""
