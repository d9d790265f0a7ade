"""Reports reach the job master in order, once, and never by more than one call at a time."""

from threading import Event, Thread

import pytest

from raystream.cluster.outbox import (
    CALLS_PER_BATCH_MAX,
    REPORTS_PER_CALL_MAX,
    REPORTS_WAITING_MAX,
    Outbox,
    UnreachableError,
)
from raystream.runtime.messages import SlotReady

PATIENCE_S = 60.0


def report(number: int) -> SlotReady:
    return SlotReady(attempt=1, slot=number)


def numbers(batch) -> list[int]:
    return [one.slot for one in batch]


class Master:
    """Takes batches; `open` lets a call return, so that a test says when the next one may come."""

    def __init__(self, expected: int) -> None:
        self.calls = []
        self.called = Event()
        self.open = Event()
        self.complete = Event()
        self.expected = expected

    def __call__(self, batch, reports):
        self.calls.append((batch, numbers(reports)))
        self.called.set()
        assert self.open.wait(PATIENCE_S)
        if sum(len(reports) for _, reports in self.calls) >= self.expected:
            self.complete.set()


@pytest.fixture
def running():
    """Run an outbox in a thread until the end of the test."""
    threads = []

    def run(call, gone=lambda error: None) -> Outbox:
        outbox = Outbox(call, gone)
        thread = Thread(target=outbox.run)
        threads.append((outbox, thread))
        thread.start()
        return outbox

    yield run
    for outbox, thread in threads:
        outbox.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_everything_reported_during_a_call_goes_with_the_next_one(running):
    master = Master(expected=4)
    outbox = running(master)

    outbox.put(report(0))
    assert master.called.wait(PATIENCE_S)
    for number in (1, 2, 3):
        outbox.put(report(number))
    master.open.set()

    assert master.complete.wait(PATIENCE_S)
    assert master.calls == [(1, [0]), (2, [1, 2, 3])]


def test_one_call_takes_a_bounded_number_of_reports(running):
    count = 2 * REPORTS_PER_CALL_MAX + 1
    master = Master(expected=count)
    outbox = running(master)

    outbox.put(report(0))
    assert master.called.wait(PATIENCE_S)
    for number in range(1, count):
        outbox.put(report(number))
    master.open.set()

    assert master.complete.wait(PATIENCE_S)
    assert [len(reports) for _, reports in master.calls] == [1, REPORTS_PER_CALL_MAX, REPORTS_PER_CALL_MAX]
    assert [number for _, reports in master.calls for number in reports] == list(range(count))


def test_batch_keeps_its_number_when_it_is_sent_again(running):
    calls, done = [], Event()

    def call(batch, reports):
        calls.append((batch, numbers(reports)))
        if len(calls) < 3:
            raise UnreachableError
        done.set()

    running(call).put(report(7))

    assert done.wait(PATIENCE_S)
    assert calls == [(1, [7])] * 3


def test_master_that_stays_out_of_reach_is_given_up(running):
    calls, errors, gone = [], [], Event()

    def call(batch, reports):
        calls.append(batch)
        raise UnreachableError

    def give_up(error):
        errors.append(error)
        gone.set()

    running(call, give_up).put(report(0))

    assert gone.wait(PATIENCE_S)
    assert (calls, [type(error) for error in errors]) == ([1] * CALLS_PER_BATCH_MAX, [UnreachableError])


def test_dead_master_is_told_once_and_nothing_more_is_sent(running):
    calls, gone = [], Event()

    def call(batch, reports):
        calls.append(numbers(reports))
        raise ConnectionError("dead")

    outbox = running(call, lambda error: gone.set())
    outbox.put(report(0))
    assert gone.wait(PATIENCE_S)

    outbox.put(report(1))

    assert calls == [[0]]


def test_loop_that_reports_faster_than_it_is_heard_waits_until_there_is_room(running):
    master = Master(expected=REPORTS_WAITING_MAX + 2)
    outbox = running(master)
    outbox.put(report(0))
    assert master.called.wait(PATIENCE_S)
    for number in range(1, REPORTS_WAITING_MAX + 1):
        outbox.put(report(number))
    beyond = Thread(target=outbox.put, args=(report(REPORTS_WAITING_MAX + 1),))

    beyond.start()
    assert beyond.is_alive()
    master.open.set()

    assert master.complete.wait(PATIENCE_S)
    beyond.join(PATIENCE_S)
    delivered = [number for _, reports in master.calls for number in reports]
    assert delivered == list(range(REPORTS_WAITING_MAX + 2))
