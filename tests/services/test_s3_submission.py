"""A bucket that cannot hold checkpoints ends a job at its submission: exit code 2, one cause, one advice."""

import pytest

from tests.e2e.conftest import Outcome
from tests.services.conftest import use
from tests.services.processes import free_port
from tests.services.servers import ACCESS_KEY, SECRET_KEY, ObjectStore


def refused(outcome: Outcome, *, cause: str, advice: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.cause.startswith("checkpoint directory cannot be written")
    assert f"cause='{cause}'" in outcome.cause
    assert advice in outcome.advice
    assert "Traceback" not in outcome.err
    assert not any(secret in outcome.out + outcome.err for secret in (SECRET_KEY, ACCESS_KEY))


def test_wrong_credentials(submit, versitygw_server, monkeypatch):
    use(versitygw_server, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")

    refused(
        submit("s3://bucket/checkpoints"),
        cause="the secret key does not fit the access key",
        advice="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    )


def test_missing_bucket(submit, faulty):
    refused(
        submit("s3://no-such-bucket/checkpoints"),
        cause="the bucket does not exist",
        advice="create the bucket",
    )


def test_rights_to_read_only(submit, faulty):
    faulty.client.create_bucket(Bucket="read-only")
    faulty.faults({"match": "PUT", "kind": "refuse", "status": 403, "code": "AccessDenied"})

    refused(submit("s3://read-only/checkpoints"), cause="access is denied", advice="put and delete objects")


def test_nobody_answers(submit, monkeypatch):
    nobody = ObjectStore(f"http://127.0.0.1:{free_port()}")
    use(nobody, monkeypatch)

    refused(
        submit("s3://bucket/checkpoints"),
        cause=f"no connection to {nobody.endpoint}",
        advice="AWS_ENDPOINT_URL",
    )


def test_credentials_in_a_url_are_refused_and_not_repeated(submit):
    outcome = submit(f"s3://{ACCESS_KEY}:{SECRET_KEY}@bucket/checkpoints")

    assert outcome.code == 2
    assert outcome.cause == "URL of an object store has credentials in it"
    assert SECRET_KEY not in outcome.out + outcome.err


@pytest.mark.usefixtures("faulty")
def test_a_job_that_runs_leaves_nothing_in_the_bucket_when_it_has_finished(submit, moto_server):
    moto_server.client.create_bucket(Bucket="finished")
    outcome = submit("s3://finished/checkpoints")

    assert outcome.code == 0, outcome.err
    left = {key.split("/")[2] for key in moto_server.keys("finished") if "savepoint-" not in key}
    assert left == {"log", "archive"}
    assert SECRET_KEY not in outcome.out + outcome.err
