"""The contract of a keyed state backend, as a test class: needs pytest.

Derive a test class and say how to make a backend; each test is one promise of
`raystream.state.backend`, and says which rules of `raystream.testing.state_rows` it proves:

    class TestHeapBackend(KeyedStateContract):
        def make_backend(self, groups, max_parallelism, cursor, *, clock):
            return HeapBackend(groups, max_parallelism, cursor, clock=clock)

        def count_held(self, backend, name):
            return backend.held(name)

Random histories against plain dicts are in `raystream.testing.state_machine`.
"""

from raystream.testing.state_access import AccessContract
from raystream.testing.state_clean_up import CleanUpContract
from raystream.testing.state_event_time_expiry import EventTimeExpiryContract
from raystream.testing.state_evolution import EvolutionContract
from raystream.testing.state_kinds import KindsContract
from raystream.testing.state_registration import RegistrationContract
from raystream.testing.state_rescale import HistoryContract, RescaleContract
from raystream.testing.state_snapshots import SnapshotContract
from raystream.testing.state_timers import TimerContract

__all__ = ["KeyedStateContract"]


class KeyedStateContract(
    AccessContract,
    RegistrationContract,
    KindsContract,
    SnapshotContract,
    CleanUpContract,
    EventTimeExpiryContract,
    TimerContract,
    EvolutionContract,
    HistoryContract,
    RescaleContract,
):
    """Everything that a keyed state backend promises."""
