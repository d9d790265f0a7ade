"""`stop` prints the savepoint as soon as it is complete, and ends with the job."""

import pytest

from raystream.api.runner import StopRequest
from raystream.errors import JobFailedError, RaystreamError
from raystream.ids import JobStatus
from tests.unit.cli.fakes import FINISHED, checkpoint, view

PATH = "file:///savepoints/savepoint-ababab-1"


def test_stop_prints_the_savepoint(raystream, cluster):
    outcome = raystream("stop", "ab")

    assert (outcome.code, outcome.out) == (0, f"{PATH}\n")
    assert isinstance(cluster.requests[0], StopRequest)
    assert not cluster.requests[0].drain
    assert outcome.err.splitlines()[-1].endswith(" is FINISHED")
    assert raystream("stop", "ab", "--drain").code == 0
    assert cluster.requests[1].drain


@pytest.mark.parametrize(
    "ended",
    [
        view(JobStatus.FAILED, error=RaystreamError("store is away")),
        view(JobStatus.CANCELED),
    ],
    ids=lambda one: one.status.value,
)
def test_job_that_ends_before_it_has_committed_is_an_error_and_the_savepoint_is_told(
    raystream, cluster, ended
):
    cluster.steps = [ended]
    outcome = raystream("stop", "ab")

    assert (outcome.code, outcome.out) == (1, f"{PATH}\n")
    error, hint = outcome.err.splitlines()[-2:]
    assert f"error: job is {ended.status.value}, perhaps before it had committed everything" in error
    assert ("store is away" in error) == (ended.error is not None)
    assert "a job that starts from it commits what is left" in hint


def test_what_holds_the_end_up_is_told_and_what_was_before_is_not(raystream, cluster):
    before = {"restarts": 2, "error": RaystreamError("long ago")}
    cluster.now = before
    cluster.steps = [
        view(**before),
        view(JobStatus.RESTARTING, restarts=3, error=RaystreamError("sink is away")),
        FINISHED,
    ]
    outcome = raystream("stop", "ab")

    assert outcome.code == 0
    assert [line for line in outcome.err.splitlines() if "restart" in line] == ["restart 3: sink is away"]


def test_job_that_goes_on_from_before_its_savepoint_is_not_waited_for(raystream, cluster):
    cluster.steps = [view(), view(checkpoints=(checkpoint(3), checkpoint(4, "damaged", path=PATH)))]
    outcome = raystream("stop", "ab")

    assert (outcome.code, outcome.out) == (1, f"{PATH}\n")
    error, hint = outcome.err.splitlines()[-2:]
    assert error.startswith(
        "error: savepoint could not be read, and the job goes on from a checkpoint before it"
    )
    assert hint == "hint: stop the job again"


def test_master_that_is_gone_before_the_end_was_seen_is_no_failure_of_the_job(raystream, cluster):
    cluster.steps = [JobFailedError("job master is gone, and the job with it")]
    outcome = raystream("stop", "ab")

    assert (outcome.code, outcome.out) == (1, f"{PATH}\n")
    error, hint = outcome.err.splitlines()[-2:]
    assert error.startswith("error: end of the job was not seen (")
    assert hint.startswith("hint: the savepoint is complete")
