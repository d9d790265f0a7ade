"""Retention keeps what a failure recovers from, and never more than it was told to."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import ProtocolError
from raystream.ids import JobStatus
from raystream.protocol.retention import Retention


def test_an_older_checkpoint_goes_when_a_newer_one_is_complete():
    retention = Retention(1)

    assert retention.newest is None
    assert retention.checkpoint_completed(1) == []
    assert retention.checkpoint_completed(2) == [1]
    assert retention.newest == 2


def test_as_many_as_configured_are_kept():
    retention = Retention(3)
    deleted = [retention.checkpoint_completed(n) for n in (1, 4, 5, 9, 12)]

    assert deleted == [[], [], [], [1], [4]]
    assert retention.retained == (5, 9, 12)


def test_what_a_restored_job_owns_counts():
    retention = Retention(2)
    retention.began([7, 5, 6], [])

    assert retention.retained == (5, 6, 7)
    assert retention.checkpoint_completed(8) == [5, 6]


@pytest.mark.parametrize(
    ("status", "delete_on_cancellation", "deleted"),
    [
        (JobStatus.FINISHED, False, [1, 2]),
        (JobStatus.FINISHED, True, [1, 2]),
        (JobStatus.CANCELED, False, []),
        (JobStatus.CANCELED, True, [1, 2]),
        (JobStatus.FAILED, False, []),
        (JobStatus.FAILED, True, []),
    ],
)
def test_the_end_of_a_job_leaves_what_its_status_says(status, delete_on_cancellation, deleted):
    retention = Retention(2, delete_on_cancellation=delete_on_cancellation)
    retention.checkpoint_completed(1)
    retention.checkpoint_completed(2)

    assert retention.job_ended(status) == deleted
    assert retention.retained == (() if deleted else (1, 2))


@pytest.mark.parametrize("checkpoint_id", [1, 2])
def test_a_checkpoint_that_was_subsumed_cannot_complete(checkpoint_id):
    retention = Retention(2)
    retention.checkpoint_completed(2)

    with pytest.raises(ProtocolError, match="completed after a newer one") as caught:
        retention.checkpoint_completed(checkpoint_id)
    assert caught.value.context["history"][-1] == ("checkpoint_completed", checkpoint_id)
    assert pickle.loads(pickle.dumps(caught.value)).context == caught.value.context


def test_a_job_ends_once_and_with_a_terminal_status():
    retention = Retention(1)
    with pytest.raises(ProtocolError, match="not terminal"):
        retention.job_ended(JobStatus.RUNNING)
    retention.job_ended(JobStatus.FAILED)

    for event in (lambda: retention.job_ended(JobStatus.FAILED), lambda: retention.checkpoint_completed(1)):
        with pytest.raises(ProtocolError, match="event after the end of the job"):
            event()


@given(
    num_retained=st.integers(1, 4),
    delete_on_cancellation=st.booleans(),
    owned=st.sets(st.integers(1, 20), max_size=6),
    steps=st.lists(st.integers(1, 3), max_size=25),
    restarts=st.sets(st.integers(0, 24)),
    end=st.sampled_from([JobStatus.FINISHED, JobStatus.CANCELED, JobStatus.FAILED, None]),
)
def test_no_history_deletes_what_is_needed_or_keeps_too_much(
    *, num_retained, delete_on_cancellation, owned, steps, restarts, end
):
    """Complete checkpoints with gaps (aborted ones, savepoints), across new job masters."""

    def recovered(retained):
        made = Retention(num_retained, delete_on_cancellation=delete_on_cancellation)
        made.began(retained, [])
        return made

    retention, stored, completed = recovered(owned), set(owned), sorted(owned)
    for n, step in enumerate(steps):
        if n in restarts:
            retention = recovered(stored)
        checkpoint_id = (completed[-1] if completed else 0) + step
        completed.append(checkpoint_id)
        stored.add(checkpoint_id)
        deleted = retention.checkpoint_completed(checkpoint_id)
        retention.validate()

        assert set(deleted) <= stored  # Nothing twice, and nothing that was never complete.
        stored -= set(deleted)
        assert stored == set(completed[-num_retained:]) == set(retention.retained)

    if end is None:
        return
    before = set(stored)
    stored -= set(retention.job_ended(end))
    if end is JobStatus.FAILED or (end is JobStatus.CANCELED and not delete_on_cancellation):
        assert stored == before
    else:
        assert stored == set()
