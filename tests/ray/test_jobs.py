"""Jobs on Ray give the results they must, at any parallelism and whatever is killed."""

import os
import select
import signal

import pytest
import ray

from raystream import JobFailedError, JobStatus
from raystream.cluster.connection import NAMESPACE
from raystream.cluster.job_master import master_name
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink
from tests.held_source import HeldSource
from tests.published import counts_by_key, one_to_n, unfinished
from tests.ray.conftest import PATIENCE_S, completed, handle_of, runs, wait_until

KEYS = 7


def assert_counted_once(directory, records: int) -> None:
    """Each record was counted once, and no unpublished output is left."""
    assert counts_by_key(directory) == one_to_n(index % KEYS for index in range(records))
    assert unfinished(directory) == []


def add_counting(env, records, directory, *, rate=None, go=None):
    """Add a job that counts records by key; with a file `go` it ends after that is there."""
    source = DatagenSource(lambda index: (index % KEYS, 1), count=records, rate=rate)
    (
        env.from_source(HeldSource(source, go) if go else source, uid="source")
        .key_by(lambda pair: pair[0])
        .sum(1, uid="count")
        .sink_to(FileSink.json_lines(str(directory)), uid="sink")
    )


@pytest.mark.parametrize("parallelism", [1, 2])
def test_every_record_is_counted_once(environment, tmp_path, parallelism):
    env = environment(parallelism)
    add_counting(env, 10_000, tmp_path / "out")

    result = env.execute("count")

    assert result.status is JobStatus.FINISHED
    assert (result.records_in, result.records_out, result.restarts) == (10_000, 10_000, 0)
    assert_counted_once(tmp_path / "out", 10_000)


def test_printed_lines_reach_the_client_before_the_job_is_over(environment, capsys):
    env = environment(2, execution_checkpointing_interval="none", execution_checkpointing_dir="none")
    env.from_collection(range(100)).map(lambda n: n * n).print()

    env.execute("print")

    lines = capsys.readouterr().out.splitlines()
    assert sorted(int(line.partition("> ")[2]) for line in lines) == [n * n for n in range(100)]


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_killed_slots_are_replaced_and_nothing_is_counted_twice(environment, tmp_path, go, backend):
    local = {"state_backend_type": backend, "state_backend_rocksdb_localdir": str(tmp_path / "local")}
    env = environment(2, **local)
    add_counting(env, 20_000, tmp_path / "out", go=go)
    client = env.submit("killed")
    handle = handle_of(client.job_id)

    for restarts, slot in enumerate((0, 1, 1)):
        wait_until(handle, lambda view, n=2 * restarts: runs(view) and completed(view) >= n)
        worker = handle.workers()[slot]
        os.kill(worker.pid, signal.SIGKILL)
        view = wait_until(handle, lambda view, before=restarts: view.restarts > before)
        assert view.error.message == "process of a slot was killed or crashed"
        assert view.error.context["pid"] == worker.pid
    go.touch()

    result = client.wait(PATIENCE_S)
    assert (result.status, result.restarts) == (JobStatus.FINISHED, 3)
    assert_counted_once(tmp_path / "out", 20_000)
    referring = [one for one in handle.view().checkpoints if one.uploaded_bytes < one.size_bytes]
    assert bool(referring) == (backend == "rocksdb"), "its checkpoints are incremental"


def test_slot_that_does_not_answer_is_given_up_and_its_process_ended(environment, tmp_path, go):
    env = environment(2, heartbeat_interval="100ms", heartbeat_timeout="5s")
    add_counting(env, 20_000, tmp_path / "out", go=go)
    client = env.submit("silent")
    handle = handle_of(client.job_id)

    wait_until(handle, lambda view: runs(view) and completed(view) >= 2)
    silent = handle.workers()[1]
    process = os.pidfd_open(silent.pid)  # Becomes readable when the process ends.
    os.kill(silent.pid, signal.SIGSTOP)
    view = wait_until(handle, lambda view: view.restarts > 0)

    assert view.error.message == "process of a slot did not answer and was given up"
    go.touch()
    result = client.wait(PATIENCE_S)
    assert (result.status, result.restarts) == (JobStatus.FINISHED, 1)
    assert_counted_once(tmp_path / "out", 20_000)
    assert select.select([process], [], [], PATIENCE_S)[0], "the silent process still exists"
    os.close(process)


def test_slots_end_with_their_job_master_and_the_client_is_told(environment, tmp_path):
    env = environment(2)
    add_counting(env, 1_000_000, tmp_path / "out", rate=1_000)
    client = env.submit("without a master")
    handle = handle_of(client.job_id)
    wait_until(handle, runs)
    processes = [os.pidfd_open(worker.pid) for worker in handle.workers()]

    ray.kill(ray.get_actor(master_name(client.job_id), namespace=NAMESPACE))

    with pytest.raises(JobFailedError, match="job master is gone") as caught:
        client.wait(PATIENCE_S)
    assert "-s latest" in caught.value.hint
    for process in processes:
        assert select.select([process], [], [], PATIENCE_S)[0], "a slot outlives its job"
        os.close(process)
