"""Counted barriers take a snapshot when all have come, and block nothing."""

import random

import pytest

from raystream.errors import ProtocolError
from raystream.protocol.alignment import (
    GIVEN_UP_MAX,
    HISTORY_MAX,
    DeclineCheckpoint,
    ForwardBarrier,
    ForwardCancel,
    ReadInputs,
    TakeSnapshot,
)
from raystream.protocol.tracking import PENDING_MAX, BarrierTracker

READ_ALL, READ_SELECTED = ReadInputs(all_of_them=True), ReadInputs(all_of_them=False)


@pytest.fixture
def tracker():
    machine = BarrierTracker(channel_count=3)
    yield machine
    machine.validate()


def test_a_snapshot_is_taken_when_the_barrier_has_come_through_every_channel(tracker):
    assert tracker.barrier_received(1, 7, now_ms=100.0) == [READ_ALL]
    assert tracker.barrier_received(2, 7, now_ms=103.5) == []
    assert tracker.checkpoint_in_progress == 7
    assert tracker.barrier_received(0, 7, now_ms=120.0) == [
        ForwardBarrier(7),
        TakeSnapshot(7, alignment_ms=20.0),
        READ_SELECTED,
    ]
    assert tracker.checkpoint_in_progress is None


def test_one_channel_is_all_there_is_to_count():
    tracker = BarrierTracker(channel_count=1)

    for n in (1, 2):
        assert tracker.barrier_received(0, n, now_ms=5.0) == [
            ForwardBarrier(n),
            TakeSnapshot(n, alignment_ms=0.0),
        ]
        tracker.validate()


def test_worked_example_of_the_semantics_blocks_nothing(tracker):
    """D0 D2 D0 B1(1) B1(2) D0 B1(0), then B2(0) B2(2) D1 X2(1); records do not reach the tracker."""
    commands = [c for channel in (1, 2, 0) for c in tracker.barrier_received(channel, 1, now_ms=0.0)]
    assert commands == [READ_ALL, ForwardBarrier(1), TakeSnapshot(1, 0.0), READ_SELECTED]

    tracker.barrier_received(0, 2, now_ms=1.0)
    tracker.barrier_received(2, 2, now_ms=1.0)
    assert tracker.cancel_received(1, 2) == [ForwardCancel(2), READ_SELECTED]
    assert tracker.checkpoint_in_progress is None


def test_several_checkpoints_are_counted_at_the_same_time(tracker):
    for n in (1, 2, 3):
        tracker.barrier_received(0, n, now_ms=0.0)
        tracker.barrier_received(1, n, now_ms=0.0)

    assert [tracker.barrier_received(2, n, now_ms=0.0) for n in (1, 2, 3)] == [
        [ForwardBarrier(1), TakeSnapshot(1, 0.0)],
        [ForwardBarrier(2), TakeSnapshot(2, 0.0)],
        [ForwardBarrier(3), TakeSnapshot(3, 0.0), READ_SELECTED],
    ]


def test_a_checkpoint_whose_barrier_cannot_come_through_a_channel_any_more_is_declined(tracker):
    tracker.barrier_received(0, 1, now_ms=0.0)
    tracker.barrier_received(1, 1, now_ms=0.0)

    assert tracker.barrier_received(2, 2, now_ms=0.0) == [DeclineCheckpoint(1)]
    assert tracker.barrier_received(0, 2, now_ms=0.0) == []
    assert tracker.checkpoint_in_progress == 2


def test_a_cancel_also_declines_older_checkpoints_that_cannot_complete(tracker):
    tracker.barrier_received(0, 1, now_ms=0.0)

    assert tracker.cancel_received(1, 2) == [DeclineCheckpoint(1), ForwardCancel(2), READ_SELECTED]


def test_a_cancel_is_forwarded_once(tracker):
    assert tracker.cancel_received(0, 1) == [ForwardCancel(1)]
    assert tracker.cancel_received(1, 1) == []
    assert tracker.barrier_received(2, 1, now_ms=0.0) == []


def test_an_abort_leaves_other_checkpoints_alone(tracker):
    tracker.barrier_received(0, 1, now_ms=0.0)
    tracker.barrier_received(0, 2, now_ms=0.0)

    assert tracker.barrier_aborted(1) == []
    assert tracker.checkpoint_in_progress == 2
    assert tracker.barrier_aborted(2) == [READ_SELECTED]
    assert tracker.barrier_received(1, 1, now_ms=0.0) == []


def test_the_oldest_makes_room_when_too_many_are_counted(tracker):
    for n in range(1, PENDING_MAX + 1):
        tracker.barrier_received(0, n, now_ms=0.0)
    tracker.validate()

    assert tracker.barrier_received(0, PENDING_MAX + 1, now_ms=0.0) == [DeclineCheckpoint(1)]


def test_a_barrier_that_does_not_follow_its_channels_last_one_is_a_protocol_error(tracker):
    tracker.barrier_received(0, 2, now_ms=0.0)

    with pytest.raises(ProtocolError, match="not newer than the one before it"):
        tracker.barrier_received(0, 1, now_ms=0.0)


def test_what_is_remembered_is_bounded(tracker):
    for n in range(1, 10 * GIVEN_UP_MAX):
        tracker.barrier_aborted(n)
        tracker.barrier_received(0, n, now_ms=0.0)
        tracker.validate()

    with pytest.raises(ProtocolError) as caught:
        tracker.barrier_received(0, 1, now_ms=0.0)
    assert len(caught.value.context["history"]) == HISTORY_MAX


@pytest.mark.parametrize("seed", range(300))
def test_a_snapshot_holds_all_records_before_its_barriers_and_no_checkpoint_is_left_open(seed):
    """Upstream subtasks send a barrier, cancel a checkpoint or skip it, in any interleaving."""
    rng = random.Random(seed)
    ids = range(1, 9)
    channels = [
        [
            x
            for n in ids
            for x in [*[None] * rng.randrange(3), *rng.choices([[n], [-n], []], weights=[8, 1, 1])[0]]
        ]
        for _ in range(rng.randint(1, 4))
    ]
    originals = [list(channel) for channel in channels]
    tracker, processed = BarrierTracker(len(channels)), [0] * len(channels)
    snapshots, sent, declined, reads_all = {}, [], [], False
    while ready := [i for i, c in enumerate(channels) if c]:
        channel = rng.choice(ready)
        element = channels[channel].pop(0)
        if element is None:
            processed[channel] += 1
            continue
        if element > 0:
            commands = tracker.barrier_received(channel, element, now_ms=0.0)
        else:
            commands = tracker.cancel_received(channel, -element)
        tracker.validate()
        for command in commands:
            match command:
                case ForwardBarrier(n):
                    sent.append(n)
                case TakeSnapshot(n, _):
                    assert sent[-1] == n, "the barrier leaves before the snapshot"
                    snapshots[n] = list(processed)
                case DeclineCheckpoint(n):
                    declined.append(n)
                case ForwardCancel(n):
                    declined.append(n)
                case ReadInputs(all_of_them):
                    assert all_of_them is not reads_all
                    reads_all = all_of_them
        assert reads_all is (tracker.checkpoint_in_progress is not None)

    whole = [n for n in ids if all(n in channel for channel in originals)]
    assert sorted(snapshots) == whole
    assert sent == sorted(sent)
    assert len(declined) == len(set(declined))
    for n, counts in snapshots.items():
        before = [channel[: channel.index(n)].count(None) for channel in originals]
        assert all(count >= least for count, least in zip(counts, before, strict=True)), "a record is lost"
