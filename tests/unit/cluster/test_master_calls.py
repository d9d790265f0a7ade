"""Clients reach a job master also when it is between two lives, and learn when there is none."""

from concurrent.futures import Future

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from raystream.cluster import master_calls
from raystream.cluster.client import RayJobHandle
from raystream.cluster.connection import Connection
from raystream.cluster.master_calls import RESTART_WAIT_S, MasterCalls
from raystream.errors import ConfigError, JobFailedError
from raystream.ids import JobId


class Master:
    """A job master that answers as it is told."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __getattr__(self, method):
        return self if not method.startswith("_") else super().__getattribute__(method)

    def remote(self, *arguments):
        self.asked.append(arguments)
        answer, future = self.answers.pop(0), Future()
        future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)
        return future


class Pause:
    """Time that passes at once."""

    def __init__(self):
        self.now_ms = 0.0

    def wait(self, seconds):
        self.now_ms += 1000.0 * seconds

    def monotonic_ms(self):
        return self.now_ms


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.setattr(ray, "get", lambda future: future.result())

    def make(*answers):
        made = MasterCalls(Master(*answers), lambda _: JobFailedError("job master is gone"))
        made._pause = made._clock = Pause()
        return made

    return make


def away():
    return ActorUnavailableError("restarting", None)


def test_call_is_repeated_until_the_next_life_of_the_master_answers(calls):
    made = calls(away(), away(), "view")

    assert made.call("view", 1) == "view"
    assert made._master.asked == [(1,)] * 3


def test_versions_are_shown_once_before_the_first_call(calls):
    made = calls(None, "view", "view")
    made._client = {"raystream": "0.1.0"}

    assert (made.call("view", 1), made.call("view", 2)) == ("view", "view")
    assert made._master.asked == [({"raystream": "0.1.0"},), (1,), (2,)]


def test_master_of_another_version_is_asked_for_nothing(calls):
    other = ConfigError("cluster has another version of raystream")
    made = calls(*[RayTaskError("check", "", other) for _ in range(2)])
    made._client = {"raystream": "0.0.9"}

    for _ in range(2):
        with pytest.raises(ConfigError, match="another version of raystream"):
            made.call("request", 1)
    assert made._master.asked == [({"raystream": "0.0.9"},)] * 2


def test_master_that_is_dead_has_no_other_life(calls):
    with pytest.raises(JobFailedError, match="job master is gone"):
        calls(ActorDiedError()).call("view")


def test_master_that_does_not_come_back_is_given_up(calls):
    tries = round(RESTART_WAIT_S / master_calls.RETRY_S) + 2
    with pytest.raises(JobFailedError, match="job master is gone"):
        calls(*(away() for _ in range(tries))).call("view")


@pytest.mark.parametrize(
    ("error", "told"),
    [(ActorDiedError(), "and the job with it"), (away(), "the job goes on when it does")],
    ids=["dead", "between two lives"],
)
def test_job_is_not_called_lost_while_its_master_may_come_back(error, told):
    handle = RayJobHandle(JobId("f" * 32), None, Connection(address="", embedded=False))

    assert told in handle._gone(error).message


def test_who_has_less_time_is_told_when_it_is_over(calls):
    with pytest.raises(TimeoutError, match="not reached"):
        calls(*(away() for _ in range(10))).call("view", timeout_s=1.0)


def test_what_the_master_raises_is_raised(calls):
    refused = RayTaskError("view", "traceback", ConfigError("no"))
    with pytest.raises(ConfigError, match="no"):
        calls(refused).call("view")
