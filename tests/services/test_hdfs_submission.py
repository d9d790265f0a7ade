"""An HDFS that cannot hold checkpoints ends a job at its submission: exit code 2, one cause, one advice."""

import pytest

from tests.e2e.conftest import Outcome
from tests.services.processes import free_port


@pytest.fixture(params=["hdfs", "webhdfs"])
def scheme(request):
    return request.param


def refused(outcome: Outcome, *, cause: str, advice: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.cause.startswith("checkpoint directory cannot be written")
    assert cause in outcome.cause
    assert advice in outcome.advice
    assert "Traceback" not in outcome.err


def test_nobody_at_the_port(submit):
    url = f"hdfs://127.0.0.1:{free_port()}/checkpoints"

    refused(submit(url), cause="Connection refused", advice="host and port of the NameNode")


def test_host_that_does_not_exist(submit):
    refused(submit("webhdfs://no-such-host.invalid/checkpoints"), cause="not known", advice="host and port")


@pytest.mark.parametrize(("scheme", "other"), [("hdfs", "webhdfs"), ("webhdfs", "hdfs")])
def test_port_of_the_other_protocol(submit, hdfs, scheme, other):
    url = f"{scheme}://{hdfs.url_of(other).partition('://')[2]}/checkpoints"

    refused(submit(url), cause="cause='", advice="host and port of the NameNode")


def test_directory_that_the_user_may_not_write_to(submit, scheme, hdfs, monkeypatch):
    monkeypatch.setenv("HADOOP_USER_NAME", "somebody")

    refused(
        submit(f"{hdfs.url_of(scheme)}/checkpoints"),
        cause="Permission denied: user=somebody",
        advice="HADOOP_USER_NAME says who that is",
    )


def test_name_service_that_is_not_configured(submit):
    outcome = submit("hdfs://no-such-service/checkpoints")

    assert outcome.code == 2
    assert outcome.cause.startswith("HDFS is not configured")
    assert "HADOOP_CONF_DIR" in outcome.advice
