"""Two-phase commit: everything prepared is committed once its checkpoint is complete, in order."""

import random

import pytest

from raystream.errors import ProtocolError
from raystream.protocol.commit import PendingCommits


def test_nothing_is_due_before_a_checkpoint_is_complete():
    commits = PendingCommits()
    commits.prepared(1, [b"a"])

    assert commits.begin() == ()
    assert commits.idle
    assert commits.state() == [b"a"]


def test_completion_makes_everything_up_to_it_due():
    commits = PendingCommits()
    for checkpoint_id, committable in ((1, b"a"), (2, b"b"), (3, b"c")):
        commits.prepared(checkpoint_id, [committable])
    commits.checkpoint_completed(2)

    assert not commits.idle
    assert commits.begin() == (b"a", b"b")
    commits.committed()
    assert commits.idle
    assert commits.state() == [b"c"]


def test_late_word_of_an_older_checkpoint_changes_nothing():
    commits = PendingCommits()
    commits.prepared(1, [b"a"])
    commits.checkpoint_completed(1)
    commits.begin()
    commits.committed()
    commits.prepared(3, [b"b"])
    commits.checkpoint_completed(2)

    assert commits.begin() == ()


def test_one_commit_is_under_way_at_a_time():
    commits = PendingCommits()
    commits.prepared(1, [b"a"])
    commits.checkpoint_completed(1)
    commits.begin()
    commits.prepared(2, [b"b"])
    commits.checkpoint_completed(2)

    assert commits.begin() == ()
    assert commits.state() == [b"a", b"b"]
    commits.committed()
    assert commits.begin() == (b"b",)


def test_what_was_restored_is_due_at_once():
    commits = PendingCommits([b"old"])

    assert not commits.idle
    assert commits.begin() == (b"old",)


def test_checkpoint_without_committables_leaves_nothing_behind():
    commits = PendingCommits()
    commits.prepared(1, [])
    commits.checkpoint_completed(1)

    assert commits.begin() == ()
    assert commits.idle


@pytest.mark.parametrize("before", [[], [(1, b"a")], [(1, b"a"), (4, b"b")]])
def test_end_makes_everything_due(before):
    commits = PendingCommits()
    for checkpoint_id, committable in before:
        commits.prepared(checkpoint_id, [committable])
    commits.ended([b"last"])

    assert commits.begin() == (*(committable for _, committable in before), b"last")


def test_end_without_committables_still_commits_what_savepoints_prepared():
    commits = PendingCommits()
    commits.prepared(3, [b"a"])
    commits.ended([])

    assert commits.begin() == (b"a",)


@pytest.mark.parametrize("checkpoint_id", [4, 5])
def test_barriers_out_of_order_are_a_protocol_error(checkpoint_id):
    commits = PendingCommits()
    commits.prepared(5, [b"a"])

    with pytest.raises(ProtocolError, match="out of order"):
        commits.prepared(checkpoint_id, [b"b"])


def test_success_of_no_commit_is_a_protocol_error():
    with pytest.raises(ProtocolError, match="no commit is under way"):
        PendingCommits().committed()


@pytest.mark.parametrize("seed", range(100))
def test_everything_durable_is_committed_in_order_across_crashes(seed):
    """Random histories: a crash goes back to the newest complete checkpoint, and commits again from there."""
    rng = random.Random(seed)
    commits, written, committed = PendingCommits(), [], []
    snapshots, complete = {0: ([], [])}, 0

    def commit():
        """Commit what is due; the process may die after the commit and before it is noted."""
        due = commits.begin()
        committed.extend(c for c in due if c not in committed)
        return not due or rng.random() < 0.8

    for checkpoint_id in range(1, 30):
        written = [*written, b"%d" % checkpoint_id]
        commits.prepared(checkpoint_id, written[-1:])
        snapshots[checkpoint_id] = (commits.state(), written)
        alive = rng.random() < 0.9
        if rng.random() < 0.5:
            complete = checkpoint_id
            commits.checkpoint_completed(complete)
            alive = alive and commit()
            if alive and not commits.idle:
                commits.committed()
        if not alive:
            state, written = snapshots[complete]
            commits = PendingCommits(state)
            if commits.begin():
                committed.extend(c for c in state if c not in committed)
                commits.committed()
    commits.ended([])
    committed.extend(commits.begin())

    assert committed == written
