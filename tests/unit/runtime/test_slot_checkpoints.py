"""Barriers and snapshots in running slots: what is in a checkpoint, and what a failed one costs."""

import pytest

from raystream import KeyedProcessFunction, ValueStateDescriptor
from raystream.errors import StorageError
from raystream.records.elements import SnapshotKind
from raystream.runtime import messages as msg
from raystream.runtime.commit_order import OLDER_COMMITS_WAIT_MS
from raystream.testing import Barrier, TestSource
from tests.unit.runtime.slot_world import VisibleSink, World, counted, program, restore_of, word_count

WORDS = ["ape", "dog", "ape", "elk"] * 5  # Both slots own some of them.


@pytest.fixture(autouse=True)
def _nothing_visible():
    VisibleSink.visible.clear()


def endless(*scripts):
    """Sources that stay at a barrier after every list of words, so that a test may trigger."""
    return TestSource(*([item for words in script for item in (*words, Barrier())] for script in scripts))


def elements(snapshot, uid):
    """Return how many elements of operator state an operator has in a snapshot."""
    (operator,) = [operator for operator in snapshot.operators if operator.uid == uid]
    return sum(handle.element_count for handle in operator.operator)


# ---- the order of things ----------------------------------------------------


def test_barrier_is_sent_before_the_first_byte_of_the_snapshot_is_written():
    world = World(word_count(endless([WORDS, WORDS], [WORDS])))
    world.begin()
    world.log.clear()
    world.backgrounds[0].eager = True

    world.trigger(1, slots=[0])

    # The source in slot 0 writes its splits; its counting subtask still waits for the other source.
    assert world.log == ["barrier sent", "bytes written"]


def test_records_of_a_batch_that_waits_to_be_sent_come_before_the_barrier():
    """Small batches are held back to be joined; a barrier must not overtake them."""
    world = World(word_count(endless([["ape"], ["ape"]], [["dog"], ["dog"]])))
    world.begin()
    acks = world.trigger(1)
    world.send(msg.CheckpointCompleted, checkpoint_id=1)

    assert sorted(VisibleSink.visible) == [("ape", 1), ("dog", 1)]
    assert sum(elements(acks[1, subtask], "out") for subtask in (0, 1)) == 2


def test_snapshot_holds_what_came_before_the_barrier_of_each_channel():
    world = World(word_count(endless([WORDS, WORDS, WORDS], [WORDS, WORDS])))
    world.begin()
    world.trigger(1, slots=[0])  # Source 0 goes on to its second list, behind its barrier.
    acks = world.trigger(1, slots=[1])
    world.send(msg.StopAttempt)
    world.begin(restore=restore_of(acks), sources=world.source_states())

    assert sorted(VisibleSink.visible) == sorted(counted(*WORDS, *WORDS))
    world.trigger(2)
    world.send(msg.CheckpointCompleted, checkpoint_id=2)
    assert sorted(VisibleSink.visible) == sorted(counted(*WORDS * 4))


def test_acknowledgement_says_how_long_the_alignment_took():
    world = World(word_count(endless([WORDS], [WORDS])))
    world.begin()
    world.trigger(1, slots=[0])
    world.clock.now_ms += 250
    acks = world.trigger(1, slots=[1])

    assert {acks[0, subtask].alignment_ms for subtask in (0, 1)} == {0}
    assert {acks[1, subtask].alignment_ms for subtask in (0, 1)} == {250}


def test_every_operator_and_every_registered_state_is_in_the_snapshot():
    world = World(word_count(endless([[]], [[]])))
    world.begin()
    acks = world.trigger(1)

    assert acks.keys() == world.subtasks
    for snapshot in acks.values():
        uids = [operator.uid for operator in snapshot.operators]
        assert uids == (["words"] if snapshot.vertex == 0 else ["count", "out"])
    assert [state.name for state in acks[1, 0].operators[0].states] == ["seen"]


# ---- checkpoints that do not complete ---------------------------------------


def test_aborted_checkpoint_unblocks_what_waits_for_it():
    world = World(word_count(endless([WORDS, WORDS], [WORDS])))
    world.begin()
    world.trigger(1, slots=[0])
    records_before = sum(r.records_out for r in latest_progress(world))

    world.send(msg.CheckpointAborted, checkpoint_id=1)

    assert sum(r.records_out for r in latest_progress(world)) == records_before + len(WORDS)
    assert world.trigger(2).keys() == world.subtasks


def latest_progress(world):
    world.clock.now_ms += 1000
    world.settle()
    return {report.slot: report for report in world.all(msg.Progress)}.values()


def test_barrier_of_an_aborted_checkpoint_that_comes_late_is_ignored():
    world = World(word_count(endless([WORDS], [WORDS])))
    world.begin()
    world.send(msg.CheckpointAborted, checkpoint_id=1)
    world.trigger(1)

    assert not {place for place in world.acks(1) if place[0] == 1}
    assert world.all(msg.SnapshotDeclined) == []
    assert world.trigger(2).keys() == world.subtasks


def test_newer_barrier_declines_the_checkpoint_in_progress():
    world = World(word_count(endless([WORDS, WORDS], [WORDS, WORDS])))
    world.begin()
    world.trigger(1, slots=[0])
    acks = world.trigger(2, slots=[1])
    declined = {
        (report.checkpoint_id, report.vertex, report.subtask) for report in world.all(msg.SnapshotDeclined)
    }
    assert declined == {(1, 1, 0), (1, 1, 1)}
    assert acks.keys() == {(0, 1)}

    assert world.trigger(2, slots=[0]).keys() == world.subtasks


def test_snapshot_that_cannot_be_written_is_declined_and_the_job_goes_on():
    world = World(word_count(endless([WORDS, WORDS], [WORDS])))
    world.begin()
    world.files.error = StorageError("disk is full")
    world.trigger(1)

    assert world.acks(1) == {}
    declined = world.all(msg.SnapshotDeclined)
    assert {(report.vertex, report.subtask) for report in declined} == world.subtasks
    assert all(report.error.message == "disk is full" for report in declined)
    assert world.all(msg.SlotFailed) == []

    world.files.error = None
    world.send(msg.CheckpointAborted, checkpoint_id=1)
    assert world.trigger(2).keys() == world.subtasks
    world.send(msg.CheckpointCompleted, checkpoint_id=2)
    assert sorted(VisibleSink.visible) == sorted(counted(*WORDS * 3))


class CountWrongly(KeyedProcessFunction):
    """Puts a text where it declared a number, once."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        self.seen.update("one" if self.seen.value() == 0 else 2)
        yield value


def test_state_that_cannot_be_encoded_is_declined_and_the_job_goes_on():
    def build(env):
        words = env.from_source(endless([["ape"], ["ape"], ["ape"]]), uid="words")
        words.key_by(str).process(CountWrongly(), uid="count").sink_to(VisibleSink(), uid="out")

    world = World(program(build, parallelism=1), slots=1)
    world.begin()
    world.trigger(1)

    (declined,) = world.all(msg.SnapshotDeclined)
    assert (declined.checkpoint_id, declined.vertex, declined.subtask) == (1, 1, 0)
    assert "seen" in str(declined.error)
    assert world.all(msg.SlotFailed) == []
    world.send(msg.CheckpointAborted, checkpoint_id=1)
    assert world.trigger(2).keys() == world.subtasks


def test_snapshot_whose_checkpoint_is_aborted_during_the_upload_is_not_acknowledged():
    world = World(word_count(endless([WORDS], [WORDS])))
    world.begin()
    for background in world.backgrounds:
        background.held = True
    world.trigger(1)
    world.send(msg.CheckpointAborted, checkpoint_id=1)
    for background in world.backgrounds:
        background.held = False
    world.settle()

    assert world.acks(1) == {}
    assert world.all(msg.SnapshotDeclined) == []
    assert world.trigger(2).keys() == world.subtasks


# ---- stop and savepoints ----------------------------------------------------


def test_source_emits_nothing_after_a_stop_barrier_until_it_is_aborted():
    world = World(word_count(endless([WORDS, WORDS], [WORDS, WORDS])))
    world.begin()
    acks = world.trigger(1, stop=True)
    assert acks.keys() == world.subtasks
    assert sum(r.records_in for r in latest_progress(world)) == 2 * len(WORDS)

    world.send(msg.CheckpointAborted, checkpoint_id=1)

    assert sum(r.records_in for r in latest_progress(world)) == 4 * len(WORDS)


def test_abort_of_another_checkpoint_does_not_take_the_stop_back():
    world = World(word_count(endless([WORDS, WORDS], [WORDS, WORDS])))
    world.begin()
    world.trigger(2, stop=True)
    world.send(msg.CheckpointAborted, checkpoint_id=1)

    assert sum(r.records_in for r in latest_progress(world)) == 2 * len(WORDS)


def test_stopped_job_commits_and_ends():
    world = World(word_count(endless([WORDS, WORDS], [WORDS, WORDS])))
    world.begin()
    world.trigger(1, stop=True, kind=SnapshotKind.SAVEPOINT)
    world.send(msg.CheckpointCompleted, checkpoint_id=1, final=True)

    assert {(r.vertex, r.subtask) for r in world.all(msg.CommitsDone)} == world.subtasks
    assert sorted(VisibleSink.visible) == sorted(counted(*WORDS * 2))


def test_savepoint_commits_nothing_and_the_next_checkpoint_does():
    world = World(word_count(endless([WORDS, WORDS], [WORDS, WORDS])))
    world.begin()
    world.trigger(1, kind=SnapshotKind.SAVEPOINT)
    assert VisibleSink.visible == []
    world.trigger(2)
    world.send(msg.CheckpointCompleted, checkpoint_id=2)

    assert sorted(VisibleSink.visible) == sorted(counted(*WORDS * 4))


def test_job_without_checkpoints_commits_what_a_savepoint_had_prepared():
    world = World(word_count(endless([WORDS], [WORDS])))
    world.begin()
    world.trigger(1, kind=SnapshotKind.SAVEPOINT)
    assert {(r.vertex, r.subtask) for r in world.all(msg.InputEnded)} == world.subtasks
    world.send(msg.CommitAtEnd)

    assert sorted(VisibleSink.visible) == sorted(counted(*WORDS * 2))


def test_barriers_pass_subtasks_whose_input_has_ended():
    world = World(word_count(TestSource(WORDS, [*WORDS, Barrier(), *WORDS])))
    world.begin()
    assert [(r.vertex, r.subtask) for r in world.all(msg.InputEnded)] == [(0, 0)]

    assert world.trigger(1).keys() == world.subtasks
    assert {(r.vertex, r.subtask) for r in world.all(msg.InputEnded)} == world.subtasks
    assert world.trigger(2).keys() == world.subtasks


def test_restore_of_a_stopped_attempt_reads_no_more_and_fails_nothing(monkeypatch):
    world = World(word_count(TestSource([*WORDS, Barrier(), *WORDS]), parallelism=1), slots=1)
    world.begin()
    snapshots, states = world.trigger(1), world.source_states()
    open_handle, opened = world.files.open_handle, []

    def stop_at_the_first(directory, handle):
        opened.append(handle)
        if len(opened) == 1:
            world.slots[0].deliver(msg.StopAttempt(attempt=world.attempt))
            world.slots[0].step()
        return open_handle(directory, handle)

    world.send(msg.StopAttempt)
    monkeypatch.setattr(world.files, "open_handle", stop_at_the_first)
    world.deploy(restore=restore_of(snapshots), sources=states)
    world.connect()
    assert len(opened) == 1
    assert world.all(msg.SlotFailed) == []

    world.begin(restore=restore_of(snapshots), sources=states)
    assert len(opened) > 2


def test_commits_of_the_next_attempt_begin_when_those_of_the_one_before_have_ended():
    """A commit cannot be interrupted, and a committer is called once at a time."""
    world = World(word_count(TestSource([*WORDS, Barrier(), *WORDS]), parallelism=1), slots=1)
    world.begin()
    commits = world.commits[0]
    commits.held = True
    snapshots, states = world.trigger(1), world.source_states()
    world.send(msg.CheckpointCompleted, checkpoint_id=1)
    assert len(commits.waiting) == 1
    world.send(msg.StopAttempt)
    world.deploy(restore=restore_of(snapshots), sources=states)
    world.connect()
    assert len(commits.waiting) == 1
    assert world.all(msg.SlotReady) == []

    commits.held = False
    world.settle()

    assert len(world.all(msg.SlotReady)) == 1
    assert VisibleSink.visible == counted(*WORDS) * 2


def test_commit_that_never_ends_fails_the_attempts_that_follow_instead_of_holding_them_up_unseen():
    world = World(word_count(TestSource([*WORDS, Barrier(), *WORDS]), parallelism=1), slots=1)
    world.begin()
    world.commits[0].held = True
    snapshots, states = world.trigger(1), world.source_states()
    world.send(msg.CheckpointCompleted, checkpoint_id=1)
    world.send(msg.StopAttempt)
    world.deploy(restore=restore_of(snapshots), sources=states)
    world.connect()
    assert world.slots[0].next_deadline_ms() == world.clock.now_ms + OLDER_COMMITS_WAIT_MS

    world.clock.now_ms += OLDER_COMMITS_WAIT_MS
    world.settle()

    assert world.failure().retryable
    assert "commits of an earlier attempt do not end" in world.failure().error.message


def test_commit_that_hangs_does_not_hold_up_the_snapshots_that_follow():
    world = World(word_count(TestSource([*WORDS, Barrier(), *WORDS]), parallelism=1), slots=1)
    world.begin()
    world.commits[0].held = True
    world.trigger(1)
    world.send(msg.CheckpointCompleted, checkpoint_id=1)

    assert set(world.trigger(2)) == world.subtasks
