"""Clients come and go: jobs outlive them, and are found again."""

import subprocess
import sys
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError

from raystream import JobClient, JobNotFoundError, JobStatus, StateRestoreError
from raystream.api.runner import CancelRequest
from raystream.cluster import client as cluster_client
from raystream.cluster.client import RayRunner, list_jobs
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from tests.ray.conftest import PATIENCE_S, completed, handle_of, runs, wait_until

SUBMIT = """
import sys
from raystream import JobStatus, StreamEnvironment
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource

env = StreamEnvironment(
    parallelism=1,
    slot_cpus=0,
    execution_checkpointing_interval="100ms",
    execution_checkpointing_dir=sys.argv[1],
)
source = DatagenSource(lambda index: index, rate=1000)
env.from_source(source, uid="source").sink_to(DiscardSink(), uid="sink")
print(env.submit("left alone").job_id)
"""


@pytest.fixture
def endless(environment):
    """Submit a job that never ends by itself; it is cancelled after the test."""
    clients = []

    def submit(name: str) -> JobClient:
        env = environment(1)
        source = DatagenSource(lambda index: index, rate=1000)
        env.from_source(source, uid="source").sink_to(DiscardSink(), uid="sink")
        clients.append(env.submit(name))
        return clients[-1]

    yield submit
    for client in clients:
        if not client.status().terminal:
            client.cancel()


def test_job_goes_on_when_its_driver_has_exited(address, tmp_path):
    driver = subprocess.run(
        [sys.executable, "-c", SUBMIT, str(tmp_path / "checkpoints")],
        stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    handle = handle_of(driver.stdout.strip())

    before = wait_until(handle, runs)
    after = wait_until(handle, lambda view: completed(view) >= completed(before) + 3)

    assert (after.status, after.restarts) == (JobStatus.RUNNING, 0)
    savepoint = JobClient(handle).stop(str(tmp_path / "savepoints"))
    assert Path(savepoint.removeprefix("file://"), "_metadata").is_file()
    assert JobClient(handle).wait(PATIENCE_S).status is JobStatus.FINISHED


def test_job_is_found_by_id_by_prefix_and_by_name(endless):
    job_id = endless("found again").job_id

    for wanted in (job_id, job_id[:12], "found again"):
        assert RayRunner().attach(wanted).job_id == job_id
    assert [view.name for view in list_jobs() if view.job_id == job_id] == ["found again"]


def test_name_of_two_jobs_is_refused_and_both_are_told(endless):
    ids = {endless("twins").job_id, endless("twins").job_id}

    with pytest.raises(JobNotFoundError, match="more than one") as caught:
        RayRunner().attach("twins")

    assert caught.value.context["jobs"] == 2
    assert all(job_id in caught.value.hint for job_id in ids)


def test_job_that_does_not_exist_is_an_error(address):
    with pytest.raises(JobNotFoundError, match="no job has this"):
        RayRunner().attach("ffffffffffff")


def test_job_that_is_to_start_from_a_wrong_path_is_refused_and_no_job_is_there(environment, tmp_path):
    jobs = {view.job_id for view in list_jobs()}
    env = environment(1, execution_state_recovery_path=str(tmp_path / "nowhere"))
    env.from_collection([1]).sink_to(DiscardSink())

    with pytest.raises(StateRestoreError, match="snapshot does not exist"):
        env.submit("from nowhere")

    assert {view.job_id for view in list_jobs()} == jobs
    assert list(tmp_path.rglob("*")) == [tmp_path / "checkpoints"], "which was asked for"


def test_interrupt_while_a_job_is_submitted_leaves_no_job_behind(endless, monkeypatch):
    endless("the connection is there")
    before, jobs = set(cluster_client._masters()), {view.job_id for view in list_jobs()}
    begun = []

    def interrupted(*_, **__):
        begun.extend(master for job_id, master in cluster_client._masters().items() if job_id not in before)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cluster_client.ray, "get", interrupted)
        with pytest.raises(KeyboardInterrupt):
            endless("interrupted")

    (master,) = begun
    with pytest.raises(ActorDiedError):
        cluster_client.ray.get(master.linger.remote(), timeout=PATIENCE_S)
    assert {view.job_id for view in list_jobs()} == jobs


def test_ended_job_still_answers_and_cancelling_it_again_is_harmless(endless):
    client = endless("cancelled")
    handle = handle_of(client.job_id)
    wait_until(handle, runs)

    handle.request(CancelRequest("once"))
    handle.request(CancelRequest("once"))

    assert client.wait(PATIENCE_S).status is JobStatus.CANCELED
    assert handle.workers() == ()
    assert client.job_id in [view.job_id for view in list_jobs()]
    client.cancel()
