"""Ray's job API: whom a token is shown, what its answers mean, and what becomes of its errors."""

from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus

from raystream.cluster import ray_jobs
from raystream.cluster.ray_jobs import RayJobs
from raystream.errors import ClusterNotFoundError, ConfigError

NO_SUCH_JOB = "Request failed with status code 404: Job visits-1 does not exist."
AWAY = "Request failed with status code 502: Bad gateway, request 404-17.\n<html>"


class FakeClient:
    """Stands for Ray's own client; every call fails with `error`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.error: Exception = RuntimeError(AWAY)

    def get_job_info(self, submission_id: str) -> None:
        raise self.error

    stop_job = delete_job = get_job_info


@pytest.fixture
def tokens(monkeypatch):
    """Let something answer at every address; tell whether the user's token is shown."""
    shown = SimpleNamespace(used=False)
    for name in ("ADDRESS", "API_SERVER_ADDRESS", "AUTH_MODE", "AUTH_TOKEN", "AUTH_TOKEN_PATH"):
        monkeypatch.delenv(f"RAY_{name}", raising=False)
    monkeypatch.setattr(ray_jobs, "JobSubmissionClient", FakeClient)
    monkeypatch.setattr(ray_jobs, "answers_at_all", lambda url: "away" not in url)
    monkeypatch.setattr(ray_jobs, "answers_as_grpc", lambda head: True)
    monkeypatch.setattr(ray_jobs.compat, "dashboard_of", lambda head: "10.0.0.7:8265")
    monkeypatch.setattr(ray_jobs.compat, "started_cluster_address", lambda: "10.0.0.7:6379")
    monkeypatch.setattr(ray_jobs.compat, "use_own_token", lambda: setattr(shown, "used", True))
    return shown


@pytest.mark.parametrize(("address", "used"), [
    ("10.0.0.7:6379", True),
    ("auto", True),
    (None, True),
    ("elsewhere:6379", False),
    ("http://10.0.0.7:8265", False),
])  # fmt: skip
def test_own_token_is_shown_by_itself_to_the_cluster_of_this_machine_alone(tokens, address, used):
    RayJobs(address)

    assert tokens.used is used


def test_token_that_the_environment_names_is_for_any_cluster(tokens, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 32)

    RayJobs("elsewhere:6379")

    assert tokens.used


def test_address_is_looked_up_where_all_commands_do(tokens, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://one:8265")
    monkeypatch.setenv("RAY_ADDRESS", "http://other:8265")

    assert RayJobs(None).address == "http://other:8265"


def test_job_of_which_ray_knows_nothing_is_none(tokens):
    jobs = RayJobs("http://head:8265")
    jobs._client.error = RuntimeError(NO_SUCH_JOB)

    assert jobs.find("visits-1") is None


def test_answer_of_a_dashboard_that_does_not_work_is_a_cluster_that_is_not_found(tokens):
    jobs = RayJobs("http://head:8265")

    for call in (jobs.find, jobs.stop):
        with pytest.raises(ClusterNotFoundError, match="no dashboard of a Ray cluster answers") as raised:
            call("visits-1")
        assert raised.value.context["cause"] == AWAY.partition("\n")[0]


def test_missing_extra_of_ray_is_told_with_how_to_install_it(tokens):
    jobs = RayJobs("http://head:8265")
    jobs._client.error = RuntimeError("The Ray jobs API requires `pip install ray[default]`.")

    with pytest.raises(ConfigError) as raised:
        jobs.find("visits-1")
    assert raised.value.hint == "pip install 'ray[default]'"


@pytest.mark.parametrize("error", [RuntimeError(AWAY), RuntimeError(NO_SUCH_JOB), ConnectionError("away")])
def test_record_that_stays_behind_is_no_error(tokens, error):
    jobs = RayJobs("http://head:8265")
    jobs._client.error = error

    jobs.forget("visits-1")


def test_password_in_the_address_is_used_and_never_shown(tokens):
    jobs = RayJobs("https://ann:se%2Fcret@head")
    jobs._client.error = ConnectionError(f"Failed to connect to Ray at address: {jobs._client.url}.")

    with pytest.raises(ClusterNotFoundError) as raised:
        jobs.find("visits-1")
    with pytest.raises(ClusterNotFoundError) as away:
        RayJobs("https://ann:se%2Fcret@away")

    assert jobs._client.url == "https://ann:se%2Fcret@head"
    assert jobs.address == raised.value.context["address"] == "https://head"
    assert raised.value.context["cause"] == "Failed to connect to Ray at address: https://head."
    assert away.value.context["address"] == "https://away"


@pytest.mark.parametrize(("ends_after", "asked"), [(0, 1), (2, 3), (99, 5)])
def test_stop_returns_when_the_command_has_ended_or_after_some_time(tokens, monkeypatch, ends_after, asked):
    monkeypatch.setattr(ray_jobs, "END_CHECK_S", 0.0, raising=False)
    monkeypatch.setattr(ray_jobs, "END_CHECKS_MAX", 5, raising=False)
    jobs, asks = RayJobs("http://head:8265"), []

    def details(submission_id):
        asks.append(submission_id)
        status = JobStatus.STOPPED if len(asks) > ends_after else JobStatus.RUNNING
        return SimpleNamespace(status=status, driver_exit_code=None, message="")

    jobs._client.stop_job = lambda submission_id: None
    jobs._client.get_job_info = details
    jobs.stop("visits-1")

    assert asks == ["visits-1"] * asked
