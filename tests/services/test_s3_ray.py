"""On a real cluster: a worker that is killed in the middle of an upload, and a submission that is refused."""

import os
import re
import signal
from collections.abc import Iterator

import pytest
from ray.cluster_utils import Cluster

from raystream import JobStatus, KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink
from raystream.storage.s3_url import place_of
from tests.e2e.conftest import ROOT, Outcome
from tests.published import counts_by_key, one_to_n
from tests.ray.conftest import HEAD, completed, disconnect, handle_of, wait_until
from tests.services.servers import SECRET_KEY, FaultyStore
from tests.services.test_s3_jobs import assert_nothing_is_left

pytestmark = pytest.mark.ray

PATIENCE = "120s"
KEYS = 40
RECORDS = 2_000
STATE_BYTES = 1 << 20


@pytest.fixture(scope="module")
def cluster(moto_server: FaultyStore) -> Iterator[Cluster]:
    """A cluster of one node whose processes use the store."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in moto_server.environment.items():
            environment.setenv(name, value)
        environment.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        disconnect()  # From a cluster of other tests, whose processes do not know the store.
        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        yield cluster
        disconnect()
        cluster.shutdown()


@pytest.fixture
def store(cluster: Cluster, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> FaultyStore:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    return faulty


class Count(KeyedProcessFunction):
    """Emits each key with how often it has come, and keeps a mebibyte for it."""

    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))
        self.ballast = ctx.get_state(ValueStateDescriptor("ballast", bytes))

    def process_element(self, value, ctx):
        seen = self.seen.value() + 1
        self.seen.update(seen)
        if seen == 1:
            self.ballast.update(os.urandom(STATE_BYTES))
        yield value, seen


@pytest.mark.parametrize(
    ("backend", "upload"), [("rocksdb", "PUT .*/shared/"), ("hashmap", "PUT .*partNumber=1")]
)
def test_a_worker_killed_in_the_middle_of_an_upload_leaves_nothing(store, base, tmp_path, backend, upload):
    env = StreamEnvironment(
        runner="ray",
        parallelism=2,
        slot_cpus=0,
        state_backend_type=backend,
        state_backend_rocksdb_localdir=str(tmp_path / "local"),
        execution_checkpointing_dir=base,
        execution_checkpointing_interval="200ms",
        restart_strategy_type="fixed-delay",
        restart_strategy_fixed_delay_attempts=10,
        restart_strategy_fixed_delay_delay=0,
    )
    numbers = DatagenSource(lambda n: n % KEYS, count=RECORDS, rate=400)
    counts = env.from_source(numbers, uid="numbers").key_by(lambda key: key).process(Count(), uid="count")
    counts.sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="out")
    store.faults({"match": upload, "kind": "delay", "seconds": 3.0, "skip": 1, "times": 2})
    client = env.submit("killed")
    handle = handle_of(client.job_id)

    wait_until(handle, lambda _: sum(bool(re.search(upload, one)) for one in store.requests()) >= 2)
    os.kill(handle.workers()[0].pid, signal.SIGKILL)
    wait_until(handle, lambda view: view.restarts == 1 and completed(view) >= 1)

    result = client.wait(PATIENCE)
    assert (result.status, result.restarts) == (JobStatus.FINISHED, 1)
    assert counts_by_key(tmp_path / "out") == one_to_n([n % KEYS for n in range(RECORDS)])
    assert_nothing_is_left(store, place_of(base)["Bucket"])


def test_a_store_that_does_not_answer_ends_a_submission_with_one_cause_and_one_advice(
    store, cluster, request
):
    store.faults({"match": "PUT", "kind": "hang-up"})
    command = request.getfixturevalue("raystream")  # Sees the environment as the cluster has it.
    settings = [f"execution.checkpointing.{name}" for name in ("interval=1s", "dir=s3://bucket/checkpoints")]
    options = [argument for setting in settings for argument in ("-D", setting)]
    job = ROOT / "jobs" / "word_count.py"
    outcome: Outcome = command("run", "--address", cluster.address, *options, job)

    assert outcome.code == 2, outcome.err
    assert f"connection to {store.endpoint}" in outcome.cause
    assert "AWS_ENDPOINT_URL" in outcome.advice
    assert SECRET_KEY not in outcome.out + outcome.err
