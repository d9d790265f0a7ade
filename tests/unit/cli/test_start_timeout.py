"""`run --timeout` gives up a job that does not get as far as running."""

import pytest

from raystream.api.runner import CancelRequest
from raystream.ids import JobStatus
from tests.unit.cli.fakes import FINISHED, RUNNING, FakeJob, view


def test_job_that_does_not_run_in_time_is_cancelled_and_says_what_it_waited_for(raystream, script, jobs_do):
    job = FakeJob([view(JobStatus.CREATED, waiting_for="2 of 2 slots with 1 CPU each")])
    jobs_do(job)

    outcome = raystream("run", "--timeout", "0s", script())

    assert outcome.code == 1
    assert [type(request) for request in job.requests] == [CancelRequest]
    assert outcome.error[0].startswith("error: job did not run in time and was cancelled")
    assert "timeout='0' waiting_for='2 of 2 slots with 1 CPU each'" in outcome.error[0]


def test_job_that_has_run_is_not_given_up_when_it_restarts(raystream, script, jobs_do):
    jobs_do(FakeJob([RUNNING, view(JobStatus.RESTARTING), FINISHED]))

    assert raystream("run", "--timeout", "0s", script()).code == 0


@pytest.mark.parametrize(
    ("text", "cause"), [("soon", "expected a duration"), ("30", "give a unit, as in 30s")]
)
def test_time_that_is_none_is_wrong_usage(raystream, script, text, cause):
    outcome = raystream("run", "--timeout", text, script())

    assert outcome.code == 2
    assert f"{text!r}: " in outcome.error[0]
    assert cause in outcome.error[0]
