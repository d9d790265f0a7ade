"""A job that has ended answers its clients, also when nothing but its archive and its log are left."""

import pytest

from raystream.api.runner import CancelRequest, SavepointRequest
from raystream.cluster.ended_job import find_ended
from raystream.handles import SavepointFormat
from raystream.ids import JobId, JobStatus
from raystream.runtime.coordinator_storage import open_directory
from tests.unit.runtime.coordinator_world import INTERVAL_MS, JOB_ID, running


@pytest.fixture
def ended(tmp_path):
    def end(how):
        world = running(tmp_path / "checkpoints", savepoints=tmp_path / "savepoints").run_for(INTERVAL_MS)
        how(world)
        return world.view, find_ended(open_directory(JobId(JOB_ID), str(tmp_path / "checkpoints")))

    return end


def outcome_of(job, request):
    job.requested(request)
    return job.publication.view.outcome(request.request_id)


def test_job_that_runs_has_not_ended(ended):
    assert ended(lambda world: None)[1] is None


def test_view_is_the_one_that_the_job_had(ended):
    view, job = ended(lambda world: world.end_input())

    found = job.publication.view
    for field in ("job_id", "name", "status", "attempt", "restarts", "records_in", "parallelism"):
        assert getattr(found, field) == getattr(view, field), field
    assert [one.checkpoint_id for one in found.checkpoints] == [one.checkpoint_id for one in view.checkpoints]
    assert job.workers == ()


def test_repeated_stop_is_answered_with_its_savepoint(ended):
    view, job = ended(lambda world: world.stop("stop"))

    assert job.publication.view.status is JobStatus.FINISHED
    assert job.publication.view.outcome("stop") == view.outcome("stop")


def test_repeated_cancellation_has_happened_and_a_savepoint_never_will(ended):
    _, job = ended(lambda world: world.cancel("cancel"))

    assert outcome_of(job, CancelRequest("cancel")).error is None
    refused = outcome_of(job, SavepointRequest("late", None, SavepointFormat.CANONICAL)).error
    assert "CANCELED" in refused.message


def test_job_that_has_finished_is_not_canceled(ended):
    _, job = ended(lambda world: world.end_input())

    assert "already FINISHED" in outcome_of(job, CancelRequest("late")).error.message
