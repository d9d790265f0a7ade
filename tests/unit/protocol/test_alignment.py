"""Barrier alignment cuts every channel at the same barrier, and never leaves a channel blocked."""

import random

import pytest

from raystream.errors import ProtocolError
from raystream.protocol.alignment import (
    GIVEN_UP_MAX,
    HISTORY_MAX,
    BarrierAligner,
    BlockChannel,
    DeclineCheckpoint,
    ForwardBarrier,
    ForwardCancel,
    ResumeChannels,
    TakeSnapshot,
)


@pytest.fixture
def aligner():
    machine = BarrierAligner(channel_count=3)
    yield machine
    machine.validate()


def resume(*channels):
    return ResumeChannels(frozenset(channels))


def test_a_barrier_blocks_its_channel_until_all_have_arrived(aligner):
    assert aligner.barrier_received(1, 7, now_ms=100.0) == [BlockChannel(1)]
    assert aligner.barrier_received(2, 7, now_ms=103.5) == [BlockChannel(2)]
    assert aligner.checkpoint_in_progress == 7
    assert aligner.barrier_received(0, 7, now_ms=120.0) == [
        BlockChannel(0),
        ForwardBarrier(7),
        TakeSnapshot(7, alignment_ms=20.0),
        resume(0, 1, 2),
    ]
    assert aligner.checkpoint_in_progress is None


def test_one_channel_aligns_at_once():
    aligner = BarrierAligner(channel_count=1)

    for n in (1, 2):
        assert aligner.barrier_received(0, n, now_ms=5.0) == [
            BlockChannel(0),
            ForwardBarrier(n),
            TakeSnapshot(n, alignment_ms=0.0),
            resume(0),
        ]
        aligner.validate()


def test_worked_example_of_the_semantics(aligner):
    """D0 D2 D0 B1(1) B1(2) D0 B1(0), then B2(0) B2(2) D1 X2(1); records do not reach the aligner."""
    commands = [c for channel in (1, 2, 0) for c in aligner.barrier_received(channel, 1, now_ms=0.0)]
    assert [c for c in commands if isinstance(c, TakeSnapshot)] == [TakeSnapshot(1, 0.0)]
    assert commands[-1] == resume(0, 1, 2)

    aligner.barrier_received(0, 2, now_ms=1.0)
    aligner.barrier_received(2, 2, now_ms=1.0)
    assert aligner.cancel_received(1, 2) == [ForwardCancel(2), resume(0, 2)]
    assert aligner.checkpoint_in_progress is None


def test_newer_barrier_declines_the_checkpoint_in_progress(aligner):
    aligner.barrier_received(0, 1, now_ms=0.0)

    assert aligner.barrier_received(1, 2, now_ms=5.0) == [DeclineCheckpoint(1), resume(0), BlockChannel(1)]
    assert aligner.barrier_received(2, 1, now_ms=6.0) == []
    aligner.barrier_received(0, 2, now_ms=7.0)
    assert TakeSnapshot(2, alignment_ms=3.0) in aligner.barrier_received(2, 2, now_ms=8.0)


def test_a_checkpoint_that_comes_after_a_newer_one_is_declined_once(aligner):
    aligner.barrier_received(0, 2, now_ms=0.0)

    assert aligner.barrier_received(1, 1, now_ms=0.0) == [DeclineCheckpoint(1)]
    assert aligner.barrier_received(2, 1, now_ms=0.0) == []
    assert aligner.checkpoint_in_progress == 2


# ---- cancel ------------------------------------------------------------------


def test_a_cancelled_checkpoint_is_forwarded_once_and_its_barriers_are_ignored(aligner):
    assert aligner.cancel_received(0, 1) == [ForwardCancel(1)]
    assert aligner.cancel_received(1, 1) == []
    assert aligner.barrier_received(2, 1, now_ms=0.0) == []
    assert aligner.barrier_received(2, 2, now_ms=0.0) == [BlockChannel(2)]


def test_a_cancel_of_a_newer_checkpoint_gives_up_the_one_in_progress(aligner):
    """Its barrier can no longer come on that channel."""
    aligner.barrier_received(0, 1, now_ms=0.0)

    assert aligner.cancel_received(1, 2) == [ForwardCancel(2), DeclineCheckpoint(1), resume(0)]
    assert aligner.barrier_received(2, 1, now_ms=0.0) == []


def test_a_cancel_of_an_older_checkpoint_changes_nothing(aligner):
    aligner.barrier_received(0, 2, now_ms=0.0)

    assert aligner.cancel_received(1, 1) == []
    assert aligner.checkpoint_in_progress == 2


def test_a_cancel_of_a_checkpoint_that_was_taken_changes_nothing():
    aligner = BarrierAligner(channel_count=1)
    aligner.barrier_received(0, 1, now_ms=0.0)

    assert aligner.cancel_received(0, 1) == []


# ---- abort -------------------------------------------------------------------


def test_an_abort_unblocks_and_later_barriers_of_the_checkpoint_are_ignored(aligner):
    aligner.barrier_received(0, 1, now_ms=0.0)
    aligner.barrier_received(1, 1, now_ms=0.0)

    assert aligner.barrier_aborted(1) == [resume(0, 1)]
    assert aligner.barrier_received(2, 1, now_ms=0.0) == []
    assert aligner.barrier_received(2, 2, now_ms=0.0) == [BlockChannel(2)]


def test_an_abort_may_come_before_the_first_barrier(aligner):
    assert aligner.barrier_aborted(1) == []
    assert [aligner.barrier_received(c, 1, now_ms=0.0) for c in range(3)] == [[], [], []]


def test_an_abort_also_ends_older_checkpoints_which_are_declined_once(aligner):
    """Silence would leave the coordinator, and everybody downstream, waiting for them."""
    assert aligner.barrier_aborted(3) == []

    assert aligner.barrier_received(0, 2, now_ms=0.0) == [DeclineCheckpoint(2)]
    assert aligner.barrier_received(1, 2, now_ms=0.0) == []
    assert aligner.barrier_received(1, 3, now_ms=0.0) == []


def test_an_abort_of_a_newer_checkpoint_gives_up_the_one_in_progress(aligner):
    aligner.barrier_received(0, 1, now_ms=0.0)

    assert aligner.barrier_aborted(2) == [DeclineCheckpoint(1), resume(0)]
    assert aligner.barrier_received(1, 1, now_ms=0.0) == []


def test_an_aborted_checkpoint_is_not_declined_when_its_barriers_come_late(aligner):
    aligner.barrier_aborted(2)
    aligner.barrier_aborted(1)

    assert aligner.barrier_received(0, 1, now_ms=0.0) == []


def test_an_abort_of_a_settled_checkpoint_changes_nothing(aligner):
    aligner.barrier_received(0, 2, now_ms=0.0)

    assert aligner.barrier_aborted(1) == []
    assert aligner.checkpoint_in_progress == 2
    assert aligner.barrier_aborted(2) == [resume(0)]
    assert aligner.barrier_aborted(2) == []


def test_a_cancel_after_an_abort_is_not_forwarded(aligner):
    """The coordinator tells every subtask itself."""
    aligner.barrier_aborted(1)

    assert aligner.cancel_received(0, 1) == []


# ---- bugs of peers -----------------------------------------------------------


def test_reading_a_blocked_channel_is_a_protocol_error(aligner):
    aligner.barrier_received(0, 1, now_ms=0.0)

    with pytest.raises(ProtocolError, match="blocked channel was read"):
        aligner.barrier_received(0, 2, now_ms=0.0)
    with pytest.raises(ProtocolError, match="blocked channel was read"):
        aligner.cancel_received(0, 2)


@pytest.mark.parametrize("checkpoint_id", [1, 2])
def test_a_barrier_that_does_not_follow_its_channels_last_one_is_a_protocol_error(aligner, checkpoint_id):
    for channel in range(3):
        aligner.barrier_received(channel, 2, now_ms=0.0)

    with pytest.raises(ProtocolError, match="not newer than the one before it"):
        aligner.barrier_received(0, checkpoint_id, now_ms=0.0)


def test_a_protocol_error_shows_the_last_events_and_what_was_done(aligner):
    aligner.barrier_aborted(1)
    aligner.barrier_received(0, 2, now_ms=1.0)

    with pytest.raises(ProtocolError) as caught:
        aligner.barrier_received(0, 3, now_ms=2.0)
    assert caught.value.context == {
        "event": "barrier_received(channel=0, checkpoint_id=3, now_ms=2.0)",
        "history": [
            ("barrier_aborted(checkpoint_id=1)", []),
            ("barrier_received(channel=0, checkpoint_id=2, now_ms=1.0)", [BlockChannel(0)]),
        ],
    }


def test_what_is_remembered_is_bounded(aligner):
    for n in range(1, 10 * GIVEN_UP_MAX):
        aligner.barrier_aborted(n)
    aligner.validate()
    aligner.barrier_received(0, 10 * GIVEN_UP_MAX, now_ms=0.0)

    with pytest.raises(ProtocolError) as caught:
        aligner.barrier_received(0, 10 * GIVEN_UP_MAX, now_ms=0.0)
    assert len(caught.value.context["history"]) == HISTORY_MAX


# ---- any interleaving --------------------------------------------------------


class Replay:
    """Feeds channels to an aligner in a random order and executes its commands.

    In a channel an int is a barrier, a negative int a cancel barrier, None a record.
    """

    def __init__(self, rng, channels):
        self.rng = rng
        self.channels = channels
        self.aligner = BarrierAligner(len(channels))
        self.blocked = set()
        self.processed = [0] * len(channels)
        self.now_ms = 0.0
        self.first_ms = {}
        self.snapshots = {}
        self.sent = []
        self.declined = []
        self.aborted = set()

    def run(self, aborts=()):
        aborts = list(aborts)
        while ready := [i for i, c in enumerate(self.channels) if c and i not in self.blocked]:
            self.now_ms += 1.0
            if aborts and self.rng.random() < 0.1:
                self.abort(aborts.pop(self.rng.randrange(len(aborts))))
                continue
            channel = self.rng.choice(ready)
            element = self.channels[channel].pop(0)
            if element is None:
                self.processed[channel] += 1
            elif element > 0:
                if self.aligner.checkpoint_in_progress != element:
                    self.first_ms[element] = self.now_ms
                self.execute(self.aligner.barrier_received(channel, element, self.now_ms))
            else:
                self.execute(self.aligner.cancel_received(channel, -element))

    def abort(self, checkpoint_id):
        self.aborted.add(checkpoint_id)
        self.execute(self.aligner.barrier_aborted(checkpoint_id))

    def execute(self, commands):
        for command in commands:
            match command:
                case BlockChannel(channel):
                    assert channel not in self.blocked
                    self.blocked.add(channel)
                case ResumeChannels(channels):
                    assert channels == self.blocked
                    self.blocked = set()
                case ForwardBarrier(n):
                    self.sent.append(n)
                case ForwardCancel(n):
                    self.sent.append(-n)
                case DeclineCheckpoint(n):
                    self.declined.append(n)
                case TakeSnapshot(n, alignment_ms):
                    assert self.sent[-1] == n, "the barrier leaves before the snapshot"
                    assert self.blocked == set(range(len(self.channels)))
                    assert alignment_ms == self.now_ms - self.first_ms[n]
                    self.snapshots[n] = list(self.processed)
        self.aligner.validate()


def records_before(channel, element):
    return channel[: channel.index(element)].count(None)


@pytest.mark.parametrize("seed", range(300))
def test_snapshot_holds_exactly_the_records_before_the_barrier(seed):
    """A consistent cut in the sense of Chandy and Lamport; the seed reproduces a failure."""
    rng = random.Random(seed)
    channels = [
        [x for n in range(1, 6) for x in [*[None] * rng.randrange(4), n]] for _ in range(rng.randint(1, 4))
    ]
    expected = {n: [records_before(c, n) for c in channels] for n in range(1, 6)}
    replay = Replay(rng, channels)
    replay.run()

    assert replay.snapshots == expected
    assert replay.sent == [1, 2, 3, 4, 5]
    assert not replay.declined
    assert not replay.blocked
    assert not any(channels)


@pytest.mark.parametrize("seed", range(500))
def test_every_checkpoint_is_taken_or_given_up_and_nothing_stays_blocked(seed):
    """Upstream subtasks send a barrier, cancel a checkpoint or skip it; some are aborted meanwhile."""
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
    replay = Replay(rng, channels)
    replay.run(aborts=rng.sample(ids, k=rng.choice([0, 0, 2])))
    while stuck := replay.aligner.checkpoint_in_progress:  # The last barrier of a channel was skipped:
        replay.abort(stuck)  # whoever skipped it has declined, or it expires.
        replay.run()

    for n, counts in replay.snapshots.items():
        assert counts == [records_before(channel, n) for channel in originals]
    assert not any(channels), "a channel was never resumed"
    assert replay.sent == sorted(replay.sent, key=abs)
    assert len(set(map(abs, replay.sent))) == len(replay.sent), "a barrier and its cancel, or one twice"
    assert len(set(replay.declined)) == len(replay.declined)
    assert not set(replay.declined) & set(replay.snapshots)
    # Of every barrier that was seen the end is known to all: nobody waits for it in vain.
    barriers = {x for channel in originals for x in channel if x is not None and x > 0}
    cancelled = {-x for channel in originals for x in channel if x is not None and x < 0}
    assert barriers <= {*replay.snapshots, *replay.declined, *replay.aborted, *cancelled}
