"""Declarations of a time to live, and what a backend holds of keys that come once."""

from datetime import timedelta

import pytest

from raystream.config.options import BackendConfig
from raystream.errors import StateError
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.open_backend import BackendOpener
from raystream.state.snapshot_files import SnapshotForm
from raystream.state.ttl import StateTtl, TtlCleanup, TtlUpdate, TtlVisibility, unexpired
from raystream.testing.state_kit import BackendContract, encode, never


@pytest.mark.parametrize("ttl", ["1s", 1000, timedelta(seconds=1), "1000 ms"])
def test_time_to_live_is_a_duration_in_any_form(ttl):
    assert StateTtl(ttl) == StateTtl("1s")
    assert StateTtl(ttl).ttl_ms == 1000


def test_options_may_be_given_by_their_names():
    named = StateTtl("1s", update="on-read-and-write", visibility="return-expired-if-not-cleaned-up")
    assert named.update is TtlUpdate.ON_READ_AND_WRITE
    assert named.visibility is TtlVisibility.RETURN_EXPIRED_IF_NOT_CLEANED_UP


@pytest.mark.parametrize(
    "arguments",
    [
        {"ttl": 0},
        {"ttl": "soon"},
        {"ttl": -1},
        {"ttl": None},
        {"ttl": "1s", "update": "never"},
        {"ttl": "1s", "time": "local"},
    ],
    ids=repr,
)
def test_what_is_no_time_to_live_is_refused(arguments):
    with pytest.raises(StateError, match="time to live"):
        StateTtl(**arguments)


@pytest.mark.parametrize("keys", [-1, 1.5, True])
def test_clean_up_of_less_than_no_keys_is_refused(keys):
    with pytest.raises(StateError, match="whole number"):
        TtlCleanup(entries_per_access=keys)


def test_content_of_which_nothing_has_expired_is_left_as_it_is():
    for content in ((10, "a"), [(10, "a")], {"k": (10, "a")}):
        assert unexpired(content, 9) is content
        assert unexpired(content, 10) is None


class OnBackend(BackendContract):
    """Makes backends as they are configured."""

    def __init__(self, backend, directory, cache_bytes=64 << 20):
        self.config = BackendConfig(
            type=backend, rocksdb_directory=str(directory), rocksdb_cache_bytes=cache_bytes
        )
        self.openers = []

    def make_backend(self, groups, max_parallelism, cursor, *, clock):
        self.openers.append(BackendOpener(self.config, clock))
        return self.openers[-1].open(groups, max_parallelism, cursor)

    def count_held(self, backend, name):
        return backend.held(name)

    def close(self):
        for opener in self.openers:
            opener.close()


@pytest.fixture(params=["hashmap", "rocksdb"])
def contract(request, local_path):
    made = OnBackend(request.param, local_path)
    yield made
    made.close()


@pytest.fixture
def key_count(request):
    return request.config.getoption("--one-shot-keys")


TOLD_MAX = 50_000
"""A snapshot tells of more keys than these that it left out, but not of any number."""


@pytest.mark.slow
@pytest.mark.parametrize("by", ["accesses", "snapshots"])
def test_keys_that_come_once_leave_nothing_behind(contract, key_count, by):
    subtask = contract.make_subtask(max_parallelism=128)
    cleanup = TtlCleanup() if by == "accesses" else TtlCleanup(entries_per_access=0)
    descriptor = ValueStateDescriptor("seen", int, ttl=StateTtl(100, cleanup=cleanup))
    state = subtask.backend.value_state(descriptor)
    for n in range(key_count):
        begin_batch(subtask, n)
        subtask.at(n)
        state.update(n)
    full, full_bytes = snapshot_of(subtask)
    assert subtask.backend.held("seen") == full.entries == key_count
    subtask.clock.now_ms += 100
    subtask.at("late")
    state.update(1)
    if by == "accesses":
        for n in range(key_count // cleanup.entries_per_access + 1000):
            begin_batch(subtask, n)
            subtask.at("late")
            state.value()
    for _ in range(1 + key_count // TOLD_MAX if by == "snapshots" else 0):
        snapshot_of(subtask)
        for n in range(0, key_count, RECORDS):
            begin_batch(subtask, n)
    assert subtask.backend.held("seen") == 1
    empty, empty_bytes = snapshot_of(subtask)
    assert empty.entries == 1
    assert full_bytes > key_count
    assert empty_bytes < 1000
    restored = contract.make_subtask([contract.finish(subtask.backend.freeze(9))], max_parallelism=128)
    restored.backend.value_state(descriptor)
    assert restored.backend.held("seen") == 1


def test_expired_keys_that_are_not_cached_are_removed_batch_by_batch(local_path):
    contract = OnBackend("rocksdb", local_path, cache_bytes=0)
    subtask = contract.make_subtask()
    ttl = StateTtl(100, cleanup=TtlCleanup(entries_per_access=0))
    state = subtask.backend.value_state(ValueStateDescriptor("seen", int, ttl=ttl))
    for n in range(20_000):
        subtask.at(n)
        state.update(n)
    subtask.backend.prefetch(())
    subtask.clock.now_ms += 100
    snapshot_of(subtask)

    held = [subtask.backend.held("seen")]
    while held[-1]:
        subtask.backend.prefetch(())
        held.append(subtask.backend.held("seen"))
        assert held[-1] < held[-2]

    assert held[0] == 20_000
    assert len(held) > 20, "a batch does not wait for all of them"
    contract.close()


@pytest.mark.parametrize("keys_per_batch", [0, 1, 200])
def test_keys_that_are_never_accessed_again_go_with_incremental_checkpoints(local_path, keys_per_batch):
    contract = OnBackend("rocksdb", local_path)
    subtask = contract.make_subtask()
    ttl = StateTtl(100, cleanup=TtlCleanup(entries_per_access=0))
    state = subtask.backend.value_state(ValueStateDescriptor("seen", int, ttl=ttl))
    subtask.backend.value_state(ValueStateDescriptor("other", int))
    for n in range(2_000):
        subtask.at(n)
        state.update(n)
    checkpoint(subtask, 1)
    subtask.clock.now_ms += 99
    pass_batches(subtask, keys_per_batch, 100)
    assert subtask.backend.held("seen") == 2_000
    subtask.clock.now_ms += 1
    pass_batches(subtask, keys_per_batch, 100)
    checkpoint(subtask, 2)

    assert subtask.backend.held("seen") == 0
    contract.close()


def pass_batches(subtask, records, count):
    for _ in range(count):
        subtask.backend.prefetch(list(range(records)))


def checkpoint(subtask, checkpoint_id):
    snapshot = subtask.backend.freeze(checkpoint_id, form=SnapshotForm.INCREMENTAL)
    encode(snapshot)
    assert snapshot.blob()
    snapshot.discard()


RECORDS = 500


def begin_batch(subtask, n):
    """Do what comes before every batch, if this is the first record of one."""
    if n % RECORDS == 0 and subtask.backend.prefetch is not None:
        subtask.backend.prefetch(())


def snapshot_of(subtask):
    """Return a snapshot, encoded, and its size."""
    snapshot = subtask.backend.freeze(1)
    assert snapshot.advance(never)
    return snapshot, sum(map(len, snapshot.blob()))
