"""A slot runs one attempt after the other, from deployment to the end."""

import queue
import threading

import pytest

from raystream.clock import SystemClock
from raystream.runtime import messages as msg
from raystream.runtime.mailbox import Mailbox
from raystream.runtime.program import pack
from raystream.runtime.slot import Slot
from raystream.runtime.tcp import TcpLinks
from raystream.runtime.thread_pools import SlotThreads
from raystream.testing import Barrier, Pause, TestSource
from tests.unit.runtime.slot_world import JOB, VisibleSink, World, counted, restore_of, word_count

FIRST, SECOND = ["ape", "dog", "ape", "elk"] * 5, ["dog", "ape", "bee"] * 5


@pytest.fixture(autouse=True)
def _nothing_visible():
    VisibleSink.visible.clear()
    VisibleSink.aborted.clear()


def two_scripts(*between):
    return TestSource([*FIRST, *between, *SECOND], [*SECOND, *between, *FIRST])


EXPECTED = sorted(counted(*FIRST, *SECOND, *SECOND, *FIRST))


# ---- a whole life -----------------------------------------------------------


def test_job_without_checkpoints_commits_at_its_end():
    world = World(word_count(two_scripts()))
    world.begin()
    assert {(r.vertex, r.subtask) for r in world.all(msg.InputEnded)} == world.subtasks
    assert VisibleSink.visible == []

    world.send(msg.CommitAtEnd)

    assert {(r.vertex, r.subtask) for r in world.all(msg.CommitsDone)} == world.subtasks
    assert len(world.all(msg.CommitsDone)) == len(world.subtasks)
    assert sorted(VisibleSink.visible) == EXPECTED

    world.send(msg.StopAttempt)
    assert [report.slot for report in world.all(msg.SlotStopped)] == [0, 1]
    assert world.all(msg.SlotFailed) == []


def test_job_with_checkpoints_makes_output_visible_as_they_complete():
    world = World(word_count(two_scripts(Barrier())))
    world.begin()
    acks = world.trigger(1)
    assert acks.keys() == world.subtasks
    assert VisibleSink.visible == []

    world.send(msg.CheckpointCompleted, checkpoint_id=1)
    assert sorted(VisibleSink.visible) == sorted(counted(*FIRST, *SECOND))
    assert world.all(msg.CommitsDone) == []

    assert {(r.vertex, r.subtask) for r in world.all(msg.InputEnded)} == world.subtasks
    assert world.trigger(2).keys() == world.subtasks
    world.send(msg.CheckpointCompleted, checkpoint_id=2, final=True)

    assert {(r.vertex, r.subtask) for r in world.all(msg.CommitsDone)} == world.subtasks
    assert sorted(VisibleSink.visible) == EXPECTED


def test_next_attempt_goes_on_from_the_snapshot():
    world = World(word_count(two_scripts(Barrier())))
    world.begin()
    acks = world.trigger(1)
    world.send(msg.StopAttempt)
    assert VisibleSink.visible == []

    world.begin(restore=restore_of(acks), sources=world.source_states())
    assert sorted(VisibleSink.visible) == sorted(counted(*FIRST, *SECOND))  # Committed after the restore.
    world.send(msg.CommitAtEnd)

    assert sorted(VisibleSink.visible) == EXPECTED


def test_restored_committables_are_committed_before_the_slot_is_ready():
    world = World(word_count(two_scripts(Barrier())))
    world.begin()
    acks = world.trigger(1)
    world.send(msg.StopAttempt)
    world.deploy(restore=restore_of(acks))
    for commits in world.commits:
        commits.held = True
    world.connect()
    assert world.all(msg.SlotReady) == []

    for commits in world.commits:
        commits.held = False
    world.settle()

    assert len(world.all(msg.SlotReady)) == 2
    assert len(VisibleSink.visible) == len(FIRST + SECOND)


def test_output_after_the_last_barrier_is_aborted_when_the_attempt_stops():
    world = World(word_count(two_scripts(Barrier())))
    world.begin()
    world.trigger(1)
    world.send(msg.StopAttempt)

    assert len(VisibleSink.aborted) == len(FIRST + SECOND)


def test_one_slot_runs_everything_by_itself():
    world = World(word_count(TestSource(FIRST), parallelism=1), slots=1)
    world.begin()
    world.send(msg.CommitAtEnd)

    assert VisibleSink.visible == counted(*FIRST)


def test_progress_is_reported_every_second_and_at_the_end():
    world = World(word_count(two_scripts(Barrier())))
    world.begin()
    world.clock.now_ms += 1000
    world.settle()
    world.clock.now_ms += 1000
    world.settle()

    last = {report.slot: report for report in world.all(msg.Progress)}
    assert sum(report.records_in for report in last.values()) == len(FIRST + SECOND)
    assert sum(report.records_out for report in last.values()) == len(FIRST + SECOND)
    per_slot = [report for report in world.all(msg.Progress) if report.slot == 0]
    assert 3 <= len(per_slot) <= 5, "every second, and by each subtask at its end"


def test_slot_wakes_up_when_its_source_said_so():
    world = World(word_count(TestSource(["ape", Pause(500), "ape"]), parallelism=1), slots=1)
    world.begin()
    assert world.all(msg.InputEnded) == []

    world.clock.now_ms += 499
    world.settle()
    assert world.all(msg.InputEnded) == []
    assert world.slots[0].next_deadline_ms() == world.clock.now_ms + 1

    world.clock.now_ms += 1
    world.settle()
    assert len(world.all(msg.InputEnded)) == 2


def test_source_stops_reading_while_its_receiver_does_not():
    """Back-pressure: what waits is bounded by credit, not by the input."""
    words = [f"{n:0100000d}" for n in range(120)]
    world = World(word_count(TestSource(words, [])))
    world.deploy()
    world.connect()
    world.tell(msg.Start(attempt=1))
    world.settle(slots=[0])
    (progress,) = [r for r in world.all(msg.Progress) if r.slot == 0][-1:]
    assert world.all(msg.InputEnded) == []

    world.settle()
    world.send(msg.CommitAtEnd)

    assert progress.records_in < len(words)
    assert sorted(word for word, _ in VisibleSink.visible) == words


# ---- attempts ---------------------------------------------------------------


def test_commands_of_another_attempt_are_dropped():
    world = World(word_count(two_scripts()))
    world.deploy()
    world.connect()
    for attempt in (0, 2):
        world.tell(msg.Start(attempt=attempt))
        world.tell(msg.CommitAtEnd(attempt=attempt))
        world.tell(msg.StopAttempt(attempt=attempt))
    world.settle()

    assert world.all(msg.InputEnded) == world.all(msg.CommitsDone) == world.all(msg.SlotStopped) == []
    world.send(msg.Start)
    assert {(r.vertex, r.subtask) for r in world.all(msg.InputEnded)} == world.subtasks


def test_deployment_of_an_older_attempt_does_not_end_a_newer_one():
    world = World(word_count(two_scripts(Barrier())))
    world.deploy()
    world.begin()
    late = msg.Deploy(job_id=JOB, attempt=1, slot=0, program=world.packed, secret=b"s" * 32)
    world.tell(late)
    world.settle()

    assert {report.attempt for report in world.reports} == {2}
    assert world.trigger(1).keys() == world.subtasks


def test_new_deployment_replaces_an_attempt_that_was_not_stopped():
    world = World(word_count(two_scripts()))
    world.deploy()
    world.begin()
    world.send(msg.CommitAtEnd)

    assert sorted(VisibleSink.visible) == EXPECTED


def test_background_work_of_an_old_attempt_is_forgotten():
    world = World(word_count(two_scripts(Barrier())))
    world.begin()
    for background in world.backgrounds:
        background.held = True
    world.trigger(1)
    assert any(background.waiting for background in world.backgrounds)
    world.deploy()
    for commits in world.commits:
        commits.held = False
    world.settle()

    assert world.all(msg.SnapshotAcked) == []
    assert world.all(msg.SlotFailed) == []


# ---- in a thread, over sockets ----------------------------------------------


def test_slot_in_a_thread_works_when_told_to_and_rests_otherwise():
    links, reports = TcpLinks("127.0.0.1", SystemClock()), queue.Queue()
    mailbox = Mailbox(links.wake)
    threads = SlotThreads(mailbox, 0)
    slot = Slot(
        0,
        clock=SystemClock(),
        mailbox=mailbox,
        uploads=threads.uploads,
        commits=threads.commits,
        links=links,
        report=reports.put,
    )
    thread = threading.Thread(target=slot.run)
    thread.start()

    def until(kind):
        while not isinstance(report := reports.get(timeout=10), kind):
            assert not isinstance(report, msg.SlotFailed), report
        return report

    def rounds_at_rest():
        links.wake()
        before = slot.rounds
        while True:
            try:
                reports.get(timeout=0.1)
            except queue.Empty:
                return slot.rounds - before

    data = pack(word_count(TestSource(["ape", Barrier(), "ape"]), parallelism=1))
    slot.deliver(msg.Deploy(job_id=JOB, attempt=1, slot=0, program=data, secret=b"s" * 32))
    address = until(msg.SlotDeployed).address
    slot.deliver(msg.Connect(attempt=1, addresses={0: address}))
    until(msg.SlotReady)
    slot.deliver(msg.Start(attempt=1))
    until(msg.SplitsRequested)
    assert rounds_at_rest() < 20  # It waits for splits.
    slot.deliver(msg.StopAttempt(attempt=1))
    until(msg.SlotStopped)
    assert rounds_at_rest() < 20  # It has no attempt.
    slot.close()
    thread.join(10)
    threads.close()
    links.dispose()

    assert not thread.is_alive()
