"""The queue of timers: one for each key, namespace and time, and as large as there are timers."""

from contextlib import ExitStack, closing

import pytest

from raystream.errors import StateError
from raystream.keygroup import KeyGroupRange
from raystream.state.cursor import NO_KEY_GROUP, KeyCursor
from raystream.state.heap import HeapBackend
from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.state.snapshot_format import open_snapshot
from raystream.state.timers import TimerQueue
from raystream.testing.source_run import ManualClock

GROUPS = KeyGroupRange(0, 128)
MANY = 10_000


def _reader(blob):
    return lambda offset, length: blob[offset : offset + length]


class Timers:
    """A queue, the cursor that it follows and the backend that stores it."""

    def __init__(self, make_backend, snapshot=None):
        self.cursor = KeyCursor()
        self.backend = make_backend(GROUPS, 128, self.cursor, clock=ManualClock())
        if snapshot is not None:
            self.backend.restore([open_snapshot(_reader(snapshot), len(snapshot), GROUPS, 128)])
        self.queue = TimerQueue("_timers_event", self.backend, self.cursor)

    def at(self, key, namespace=None):
        """Move to a key and namespace; return the queue."""
        self.cursor.current_key, self.cursor.group, self.cursor.namespace = key, 7, namespace
        return self.queue

    def due(self, until_ms):
        """Return (time, key, namespace) of all timers up to a time."""
        cursor = self.cursor
        found = [(ms, cursor.current_key, cursor.namespace) for ms in self.queue.due(until_ms, MANY)]
        cursor.current_key, cursor.group, cursor.namespace = None, NO_KEY_GROUP, None
        return found

    def stored(self):
        """Return (time, namespace) of all timers that a snapshot would hold, by key."""
        return {key: set(times) for _, key, times in self.backend.entries("_timers_event")}

    def snapshot(self):
        taken = self.backend.freeze(1)
        while not taken.advance(lambda: True):
            pass
        return b"".join(taken.blob())


@pytest.fixture(params=["hashmap", "rocksdb"])
def make_backend(request, local_path):
    """What makes a backend; all that it made are closed behind the test."""
    if request.param == "hashmap":
        yield HeapBackend
        return
    with ExitStack() as stack:
        settings = RocksDbSettings(parent=local_path, memory=RocksDbMemory(8 << 20), cache_bytes=1000)

        def make(*args, **options):
            return stack.enter_context(closing(RocksDbBackend(*args, settings=settings, **options)))

        yield make


@pytest.fixture
def timers(make_backend):
    return Timers(make_backend)


def test_namespaces_of_one_key_and_time_have_timers_of_their_own(timers):
    for namespace in ((0, 10), (5, 15), None):
        timers.at("a", namespace).register(10)
    timers.at("a", (5, 15)).delete(10)

    assert sorted(timers.due(10), key=repr) == [(10, "a", (0, 10)), (10, "a", None)]


def test_timer_is_stored_until_it_is_due_or_deleted(timers):
    timers.at("a").register(10)
    timers.at("a").register(20)
    timers.at("b").register(30)
    timers.at("b").delete(30)
    assert timers.stored() == {"a": {(10, None), (20, None)}}

    timers.due(10)
    assert timers.stored() == {"a": {(20, None)}}
    timers.due(20)
    assert timers.stored() == {}


def test_only_so_many_timers_are_removed_as_were_asked_for(timers):
    for time_ms in range(10):
        timers.at("a").register(time_ms)

    assert list(timers.queue.due(100, 3)) == [0, 1, 2]
    assert len(timers.queue) == 7


def test_timer_that_is_put_off_again_and_again_leaves_nothing_behind(timers):
    """A session window does that with each record; what is kept must not grow with the records."""
    timers.at("stays").register(MANY)
    for time_ms in range(MANY):
        timers.at("a").register(time_ms)
        timers.at("a").delete(time_ms - 1)

    assert len(timers.queue._heap) < MANY / 2
    assert timers.due(MANY) == [(MANY - 1, "a", None), (MANY, "stays", None)]


def test_next_time_is_that_of_a_timer_that_is_there(timers):
    assert timers.queue.next_ms is None
    timers.at("a").register(10)
    timers.at("a").register(20)
    timers.at("a").delete(10)

    assert timers.queue.next_ms == 20


def test_restored_timers_are_those_of_the_snapshot(timers, make_backend):
    for time_ms in range(100):
        timers.at(time_ms % 7, None if time_ms % 2 else (time_ms, time_ms + 5)).register(time_ms)
    restored = Timers(make_backend, timers.snapshot())

    assert len(restored.queue) == 100
    assert restored.due(1000) == timers.due(1000)


def test_timer_without_a_current_key_is_an_error_and_changes_nothing(timers):
    with pytest.raises(StateError):
        timers.queue.register(10)

    assert len(timers.queue) == 0
    assert timers.queue.next_ms is None
