"""The process of a job master is killed, and its job goes on, or has ended, as its log says."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray

from raystream import JobClient, JobFailedError, JobStatus
from raystream.cluster.client import list_jobs
from raystream.cluster.connection import NAMESPACE
from raystream.cluster.job_master import master_name
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from raystream.storage.archive import read_archive
from raystream.storage.job_log import DurableJobLog
from raystream.storage.layout import JobLayout
from raystream.storage.log_entries import AttemptStarted, CancelAccepted, Terminal
from raystream.storage.stores import open_file_system
from tests.ray.conftest import PATIENCE_S, completed, handle_of, runs, wait_until
from tests.ray.started_cluster import eventually
from tests.ray.test_jobs import add_counting, assert_counted_once

RECORDS = 30_000
ENDLESS = DatagenSource(lambda index: index, rate=500)


def kill_master(job_id: str) -> None:
    """Kill the process of a job's master, and return when another one answers or none will."""
    master = ray.get_actor(master_name(job_id), namespace=NAMESPACE)
    os.kill(ray.get(master.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


def entries_of(tmp_path: Path, job_id: str) -> list[object]:
    layout = JobLayout(str(tmp_path / "checkpoints"), job_id)
    return DurableJobLog(open_file_system(layout.job_dir), layout).read()


def attempts(entries: list[object]) -> int:
    return sum(isinstance(entry, AttemptStarted) for entry in entries)


def ended(handle):
    """Wait for the end of a job as a client does that leaves its output to others."""
    return handle.wait(PATIENCE_S, until=frozenset(), listener=None)


def ids_of_completed(view) -> set[int]:
    """Return the checkpoints that the job log has: one in progress is forgotten with its job master."""
    return {record.checkpoint_id for record in view.checkpoints if record.status == "completed"}


def test_job_goes_on_exactly_once_when_its_master_is_killed_and_its_client_waits(environment, tmp_path, go):
    env = environment(2, execution_checkpointing_interval="500ms")  # The history has the newest 100.
    add_counting(env, RECORDS, tmp_path / "out", go=go)
    client = env.submit("master is killed")
    handle = handle_of(client.job_id)
    workers = {worker.pid for worker in handle.workers()}
    shown = wait_until(handle, lambda view: completed(view) >= 3)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait, PATIENCE_S)
        kill_master(client.job_id)
        go.touch()
        result = waiting.result()

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 1)
    assert_counted_once(tmp_path / "out", RECORDS)
    assert ids_of_completed(shown) <= {one.checkpoint_id for one in handle.view().checkpoints}
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers), "its slots have died with it"


def test_savepoint_and_stop_that_are_asked_for_across_the_death_are_carried_out(environment, tmp_path):
    env = environment(1)
    env.from_source(ENDLESS, uid="source").sink_to(DiscardSink(), uid="sink")
    client = env.submit("asked across the death")
    handle = handle_of(client.job_id)
    wait_until(handle, lambda view: completed(view) >= 1)

    with ThreadPoolExecutor(1) as pool:
        kill_master(client.job_id)
        savepoint = pool.submit(client.savepoint, str(tmp_path / "savepoints"))
        assert any(view.job_id == client.job_id for view in list_jobs())
        assert Path(savepoint.result(PATIENCE_S).removeprefix("file://"), "_metadata").is_file()
        kill_master(client.job_id)
        stopped = pool.submit(client.stop, str(tmp_path / "savepoints"))
        assert Path(stopped.result(PATIENCE_S).removeprefix("file://"), "_metadata").is_file()

    assert ended(handle).status is JobStatus.FINISHED
    kill_master(client.job_id)
    assert ended(handle_of(client.job_id)).status is JobStatus.FINISHED
    entries = entries_of(tmp_path, client.job_id)
    assert attempts(entries) == 3, "a job that has ended never runs again"
    assert entries[-1] == Terminal(status=JobStatus.FINISHED)


def test_job_whose_cancellation_was_accepted_is_canceled_by_the_next_master(environment, tmp_path):
    env = environment(1, task_cancellation_timeout="60s")

    def hold(value):
        while (tmp_path / "hold").exists():  # Longer than the test waits for the slot to stop.
            (tmp_path / "held").touch()
            signal.pause()
        return value

    env.from_source(ENDLESS, uid="source").map(hold).sink_to(DiscardSink(), uid="sink")
    client = env.submit("canceled across the death")
    wait_until(handle_of(client.job_id), lambda view: completed(view) >= 1)
    (tmp_path / "hold").touch()
    eventually((tmp_path / "held").exists)

    with ThreadPoolExecutor(1) as pool:
        canceled = pool.submit(client.cancel)
        wait_until_cancellation_is_logged(client, tmp_path)
        kill_master(client.job_id)
        canceled.result(PATIENCE_S)

    assert client.wait(PATIENCE_S).status is JobStatus.CANCELED
    assert attempts(entries_of(tmp_path, client.job_id)) == 1


def wait_until_cancellation_is_logged(client: JobClient, tmp_path: Path) -> None:
    """Return when the next job master will find it; the status alone says that this one has got it."""
    eventually(
        lambda: any(isinstance(entry, CancelAccepted) for entry in entries_of(tmp_path, client.job_id))
    )


LARGE = """
import sys
from raystream import StreamEnvironment
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink

env = StreamEnvironment(
    parallelism=1,
    slot_cpus=0,
    execution_checkpointing_interval="100ms",
    execution_checkpointing_dir=sys.argv[1] + "/checkpoints",
    restart_strategy_type="fixed-delay",
    restart_strategy_fixed_delay_attempts=5,
    restart_strategy_fixed_delay_delay=0,
)
table = list(range(1_000_000, 1_200_000))
source = DatagenSource(lambda index: (index % 7, table[index] - index - 999_999), count=20_000, rate=3_000)
env.from_source(source, uid="source").key_by(lambda pair: pair[0]).sum(1, uid="count").sink_to(
    FileSink.json_lines(sys.argv[1] + "/out"), uid="sink"
)
print(env.submit("large closure").job_id)
"""


def test_large_closure_survives_its_driver_and_its_job_master(address, tmp_path):
    driver = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)],
        stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    job_id = driver.stdout.strip()
    assert (tmp_path / "checkpoints" / job_id / "graph").stat().st_size > 500_000
    handle = handle_of(job_id)
    wait_until(handle, lambda view: completed(view) >= 2)

    kill_master(job_id)

    assert JobClient(handle).wait(PATIENCE_S).status is JobStatus.FINISHED
    assert_counted_once(tmp_path / "out", 20_000)
    layout = JobLayout(str(tmp_path / "checkpoints"), job_id)
    assert read_archive(open_file_system(layout.job_dir), layout).restarts == 1


def test_job_without_durable_checkpoints_ends_with_its_master_and_says_what_to_configure(environment):
    env = environment(1, execution_checkpointing_dir="none")
    env.from_source(ENDLESS, uid="source").sink_to(DiscardSink(), uid="sink")
    client = env.submit("in memory")
    wait_until(handle_of(client.job_id), runs)

    kill_master(client.job_id)

    with pytest.raises(JobFailedError) as caught:
        client.wait(PATIENCE_S)
    assert "execution.checkpointing.interval and .dir" in caught.value.hint
