"""Reports reach the job master in order, once, and never by more than one call at a time."""

from threading import Event, Thread

import pytest

from raystream.cluster.outbox import (
    BYTES_PER_CALL_MAX,
    BYTES_WAITING_MAX,
    REPORT_BYTES,
    REPORTS_PER_CALL_MAX,
    REPORTS_WAITING_MAX,
    RETRY_DELAYS_S,
    Outbox,
    UnreachableError,
    report_bytes,
)
from raystream.handles import (
    FileHandle,
    InlineHandle,
    KeyedStateHandle,
    OperatorSnapshot,
    OperatorStateHandle,
    Redistribution,
    SubtaskSnapshot,
)
from raystream.keygroup import KeyGroupRange
from raystream.runtime.messages import ClientOutput, SlotReady, SnapshotAcked

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

    def run(call, gone=lambda error: None, **options) -> Outbox:
        outbox = Outbox(call, gone, **options)
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

    pauses = []
    running(call, pause=pauses.append).put(report(7))

    assert done.wait(PATIENCE_S)
    assert calls == [(1, [7])] * 3
    assert pauses == list(RETRY_DELAYS_S[:2]), "a job master that has no time is not asked all the time"


def test_master_that_stays_out_of_reach_is_given_up(running):
    calls, errors, gone = [], [], Event()

    def call(batch, reports):
        calls.append(batch)
        raise UnreachableError

    def give_up(error):
        errors.append(error)
        gone.set()

    pauses = []
    running(call, give_up, pause=pauses.append).put(report(0))

    assert gone.wait(PATIENCE_S)
    assert [type(error) for error in errors] == [UnreachableError]
    assert calls == [1] * (len(RETRY_DELAYS_S) + 1)
    assert pauses == list(RETRY_DELAYS_S) == sorted(RETRY_DELAYS_S)


def test_close_ends_the_pause_before_another_try(running, monkeypatch):
    monkeypatch.setattr("raystream.cluster.outbox.RETRY_DELAYS_S", (10 * PATIENCE_S,))
    called = Event()

    def call(batch, reports):
        called.set()
        raise UnreachableError

    outbox = running(call)
    outbox.put(report(0))
    assert called.wait(PATIENCE_S)

    outbox.close()  # The fixture waits for the thread.


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
    last = ClientOutput(attempt=1, slot=REPORTS_WAITING_MAX + 1, uid="out", payload=b"")
    beyond = Thread(target=outbox.put, args=(last,))

    beyond.start()
    assert beyond.is_alive()
    master.open.set()

    assert master.complete.wait(PATIENCE_S)
    beyond.join(PATIENCE_S)
    delivered = [number for _, reports in master.calls for number in reports]
    assert delivered == list(range(REPORTS_WAITING_MAX + 2))


def test_what_an_attempt_depends_on_passes_though_there_is_no_room_for_the_client(running):
    """A slot whose loop waited here could neither say that it has stopped nor that it has failed."""
    master = Master(expected=5)
    outbox = running(master)
    outbox.put(report(0))
    assert master.called.wait(PATIENCE_S)
    outbox.put(ClientOutput(attempt=1, slot=1, uid="out", payload=bytes(BYTES_WAITING_MAX)))
    waiting = Thread(target=outbox.put, args=(ClientOutput(attempt=1, slot=4, uid="out", payload=b""),))
    waiting.start()

    outbox.put(report(2))
    outbox.put(report(3))
    assert waiting.is_alive()
    master.open.set()

    assert master.complete.wait(PATIENCE_S)
    waiting.join(PATIENCE_S)
    assert [number for _, reports in master.calls for number in reports] == [0, 1, 2, 3, 4]


# ---- bytes --------------------------------------------------------------------------


def output(payload) -> ClientOutput:
    return ClientOutput(attempt=1, slot=0, uid="out", payload=payload)


def test_report_is_as_large_as_what_it_carries():
    groups = KeyGroupRange(0, 1)
    handles = InlineHandle(data=bytes(1000)), FileHandle(path="f", size_bytes=9_999, checksum="0" * 16)
    snapshot = SubtaskSnapshot(
        vertex=0,
        subtask=0,
        operators=(
            OperatorSnapshot(
                uid="count",
                subtask=0,
                keyed=tuple(KeyedStateHandle(groups=groups, entries=1, data=handle) for handle in handles),
                operator=tuple(
                    OperatorStateHandle(name="s", mode=Redistribution.SPLIT, element_count=1, data=handle)
                    for handle in handles
                ),
            ),
        ),
    )

    assert report_bytes(SnapshotAcked(attempt=1, checkpoint_id=1, snapshot=snapshot)) == REPORT_BYTES + 2000
    assert report_bytes(output(bytes(500))) == REPORT_BYTES + 500
    assert report_bytes(output(["ab", "c"])) == REPORT_BYTES + 3
    assert report_bytes(report(1)) == REPORT_BYTES


class LargeMaster:
    """Takes batches and notes how many bytes each has; the first one waits."""

    def __init__(self, expected: int) -> None:
        self.sizes, self.expected = [], expected
        self.called, self.open, self.complete = Event(), Event(), Event()

    def __call__(self, batch, reports):
        self.sizes.append([len(one.payload) for one in reports])
        self.called.set()
        assert self.open.wait(PATIENCE_S)
        if sum(map(len, self.sizes)) == self.expected:
            self.complete.set()


def test_one_call_takes_a_bounded_number_of_bytes_or_one_report(running):
    third, large = BYTES_PER_CALL_MAX // 3, BYTES_PER_CALL_MAX + 1
    master = LargeMaster(expected=7)
    outbox = running(master)
    outbox.put(output(b"first"))
    assert master.called.wait(PATIENCE_S)

    for size in (third, third, third, large, third, third):
        outbox.put(output(bytes(size)))
    master.open.set()

    assert master.complete.wait(PATIENCE_S)
    assert master.sizes == [[5], [third, third], [third], [large], [third, third]]


def test_loop_that_reports_more_bytes_than_are_taken_waits_until_there_is_room(running):
    master = LargeMaster(expected=3)
    outbox = running(master)
    outbox.put(output(b"first"))
    assert master.called.wait(PATIENCE_S)
    outbox.put(output(bytes(BYTES_WAITING_MAX)))
    beyond = Thread(target=outbox.put, args=(output(b"beyond"),))

    beyond.start()
    assert beyond.is_alive()
    master.open.set()

    assert master.complete.wait(PATIENCE_S)
    beyond.join(PATIENCE_S)
    assert master.sizes == [[5], [BYTES_WAITING_MAX], [6]]
