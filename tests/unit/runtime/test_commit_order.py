"""Commits of a newer attempt wait for those of older ones, and not for ever."""

import pytest

from raystream.errors import StorageError
from raystream.runtime.commit_order import OLDER_COMMITS_WAIT_MS, CommitOrder
from raystream.testing.source_run import ManualClock


class Threads:
    """Work that is under way until the test says that it has ended."""

    def __init__(self):
        self.under_way = []
        self.outcomes = []
        self.clock = ManualClock()
        self.order = CommitOrder(self, self.clock)

    def submit(self, work, done):
        self.under_way.append((work(), done))

    def commit(self, attempt, name):
        self.order.submit(attempt, lambda: name, self.outcomes.append)

    def end(self, name):
        (one,) = [one for one in self.under_way if one[0] == name]
        self.under_way.remove(one)
        one[1](name)

    @property
    def names(self):
        return [name for name, _ in self.under_way]


def test_commits_of_one_attempt_run_beside_each_other():
    threads = Threads()
    threads.commit(1, "a")
    threads.commit(1, "b")

    assert threads.names == ["a", "b"]
    assert threads.order.next_deadline_ms() is None


def test_commits_of_the_next_attempt_begin_in_order_when_the_last_older_one_has_ended():
    threads = Threads()
    threads.commit(1, "a1")
    threads.commit(1, "b1")
    threads.commit(2, "a2")
    threads.commit(2, "b2")
    threads.end("a1")
    assert threads.names == ["b1"]

    threads.end("b1")

    assert threads.names == ["a2", "b2"]
    assert threads.outcomes == ["a1", "b1"]
    assert threads.order.next_deadline_ms() is None
    threads.end("a2")
    assert threads.outcomes == ["a1", "b1", "a2"]


def test_held_commits_of_an_attempt_that_is_over_never_begin():
    threads = Threads()
    threads.commit(1, "first")
    threads.commit(2, "second")
    threads.order.drop_held()
    threads.commit(3, "third")

    threads.end("first")

    assert threads.names == ["third"]


def test_attempt_that_waits_too_long_for_an_older_one_fails_with_what_it_waits_for():
    threads = Threads()
    threads.commit(1, "hangs")
    threads.commit(2, "waits")
    assert threads.order.next_deadline_ms() == threads.clock.now_ms + OLDER_COMMITS_WAIT_MS
    threads.clock.now_ms += OLDER_COMMITS_WAIT_MS - 1
    threads.order.check()
    threads.clock.now_ms += 1

    with pytest.raises(StorageError, match="commits of an earlier attempt do not end") as caught:
        threads.order.check()

    assert caught.value.context["attempts"] == [1]
