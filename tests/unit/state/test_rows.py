"""Every rule of state has a test that says that it proves it, and both backends keep the whole contract."""

import pytest

from raystream.testing.state_contracts import KeyedStateContract
from raystream.testing.state_rows import ROWS, rows_of
from raystream.testing.state_stories import BATCH_SIZES
from tests.unit.api import test_environment
from tests.unit.operators import test_broadcast, test_every_state, test_timers
from tests.unit.protocol import test_redistribution
from tests.unit.state.test_heap_contract import TestHeapBackend as HeapContract
from tests.unit.state.test_rocksdb_contract import TestRocksDbBackend as RocksDbContract

ELSEWHERE = [test_environment, test_broadcast, test_every_state, test_timers, test_redistribution]
"""Modules that prove rules which are not the business of a keyed state backend."""

NOT_TOLD = {
    "keyed.overlap", "keyed.generated-uid", "ttl.clean-snapshot", "ttl.clean-access", "ttl.switch-on",
    "ttl.switch-off", "ttl.event-time", "timers.watermark", "timers.past",
}  # fmt: skip
"""Rules of keyed state of which a restore is a part already, or which are about something else."""


def test_every_rule_is_proved_and_everything_that_is_proved_is_a_rule():
    assert rows_of([KeyedStateContract, *ELSEWHERE]).keys() == ROWS.keys()


def test_every_rule_of_keyed_state_is_told_in_batches_of_every_size():
    assert BATCH_SIZES == (1, 7, 1000)
    proofs = rows_of([KeyedStateContract])
    told = {name for name, tests in proofs.items() if any(takes_a_story(test) for test in tests)}
    assert told == {name for name in ROWS if not name.startswith("operator.")} - NOT_TOLD


def takes_a_story(name):
    """Return whether a test of the contract is told as a story."""
    test = getattr(KeyedStateContract, name.partition(".")[2])
    return "tell" in test.__code__.co_varnames[: test.__code__.co_argcount]


@pytest.mark.parametrize("backend", [HeapContract, RocksDbContract])
def test_backend_keeps_the_whole_contract(backend):
    assert issubclass(backend, KeyedStateContract)
    assert not any(name.startswith("test_") or name == "tell" for name in vars(backend))


class Unproved:
    def test_without_a_rule(self): ...


def test_test_that_names_no_rule_proves_none():
    assert rows_of([Unproved]) == {}
