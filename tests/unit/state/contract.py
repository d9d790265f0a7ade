"""The contract of a keyed state backend; runs against every one.

A subclass named `TestXBackend` implements `make_backend`; each test is one promise of
`raystream.state.backend` or one row of the table of keyed state in the specification.
"""

from tests.unit.state.contract_access import AccessContract
from tests.unit.state.contract_snapshot import SnapshotContract


class KeyedStateContract(AccessContract, SnapshotContract):
    """Everything that a keyed state backend promises."""
