"""A spare takes the slot of a process that was killed, with what that had reserved, and ends with the job."""

import math
import os
import select
import signal

import ray

from raystream import JobStatus
from raystream.cluster import spares
from raystream.cluster.connection import NAMESPACE
from raystream.cluster.job_master import master_name
from tests.published import counts_by_key
from tests.ray.conftest import PATIENCE_S, completed, handle_of, runs, wait_until
from tests.ray.started_cluster import eventually
from tests.ray.test_jobs import KEYS, add_counting
from tests.ray.test_placement import groups_of


def spares_of(job_id):
    """Return the processes that stand by, as soon as there are any."""
    master = ray.get_actor(master_name(job_id), namespace=NAMESPACE)
    found = eventually(
        lambda: ray.get(
            master.__ray_call__.remote(
                lambda self: [one.actor for one in self._job._pool._spares._spares if one.there]
            )
        )
    )
    return ray.get([actor.__ray_call__.remote(lambda _: os.getpid()) for actor in found])


def trust_spares(job_id):
    """Let spares take slots that have not answered for a while, as happens on a busy machine."""

    def change(_):
        spares.SPARE_DOUBT_MS = math.inf

    ray.get(ray.get_actor(master_name(job_id), namespace=NAMESPACE).__ray_call__.remote(change))


def test_killed_slots_go_on_in_spares_that_were_there_before(environment, tmp_path):
    env = environment(1, slot_cpus=0.5, slot_spares=1)
    add_counting(env, 1_000_000, tmp_path / "out", rate=1_000)
    client = env.submit("spares")
    handle = handle_of(client.job_id)
    wait_until(handle, lambda view: runs(view) and completed(view))
    trust_spares(client.job_id)

    for restarts in (1, 2):
        (spare,) = spares_of(client.job_id)
        os.kill(handle.workers()[0].pid, signal.SIGKILL)
        wait_until(handle, lambda view, n=restarts: view.restarts == n and runs(view))
        assert [worker.pid for worker in handle.workers()] == [spare]
        assert groups_of(client.job_id) == [(0, "CREATED")]

    (spare,) = spares_of(client.job_id)
    process = os.pidfd_open(spare)  # Becomes readable when the process ends.
    client.stop(str(tmp_path / "savepoint"))
    result = client.wait(PATIENCE_S)
    assert (result.status, result.restarts) == (JobStatus.FINISHED, 2)
    assert select.select([process], [], [], PATIENCE_S)[0], "the spare still exists"
    os.close(process)
    assert groups_of(client.job_id) == []
    counts = counts_by_key(tmp_path / "out")
    assert len(counts) == KEYS
    assert counts == {key: list(range(1, len(found) + 1)) for key, found in counts.items()}
