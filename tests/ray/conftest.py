"""One Ray cluster for all tests of a session that need one, and what they share.

It is small: one CPU, so that the raylet starts no processes in advance, and slots that take none.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

# Ray reads it once, when it is imported.  With nothing set it would write a token into the home directory.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Else Ray warns of a change to come.
os.environ.setdefault("RAY_metrics_report_interval_ms", "1000")

import pytest
from ray._private.node import Node
from ray.cluster_utils import Cluster

from raystream import JobStatus, StreamEnvironment
from raystream.cluster.client import RayJobHandle, RayRunner
from raystream.cluster.connection import disconnect

ROOT = Path(__file__).resolve().parents[2]
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
# Any ports for what is the same on every head: other sessions have theirs on this machine.
HEAD = {**NODE, "dashboard_port": 0, "dashboard_agent_listen_port": 0}
PATIENCE_S = 300.0
"""Time after which a test gives up on something that must happen."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """A cluster of one node, as `ray start --head` makes it; tests may add nodes and remove them."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)  # Workers import raystream.
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    yield cluster
    disconnect()
    cluster.shutdown()


@pytest.fixture
def address(ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of the cluster, also for whoever asks the environment."""
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    return str(ray_cluster.address)


@pytest.fixture
def environment(address: str, tmp_path: Path):
    """Make an environment whose job checkpoints to a directory of the test, often, and restarts at once."""

    def make(parallelism: int, **options: object) -> StreamEnvironment:
        checkpoints: dict[str, object] = {
            "execution_checkpointing_interval": "100ms",
            "execution_checkpointing_dir": str(tmp_path / "checkpoints"),
            "restart_strategy_type": "fixed-delay",
            "restart_strategy_fixed_delay_attempts": 10,
            "restart_strategy_fixed_delay_delay": 0,
        }
        named = {"slot_cpus": 0, **checkpoints, **options}
        return StreamEnvironment(runner="ray", parallelism=parallelism, **named)

    return make


def remove_nodes(cluster: Cluster, nodes: Iterable[Node]) -> None:
    """Take nodes out of a cluster, those still in it, and wait until its head knows that all have gone."""
    for node in nodes:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)
    cluster.wait_for_nodes(PATIENCE_S)


def handle_of(job_id: str) -> RayJobHandle:
    """Return a handle of a job of the session's cluster."""
    return RayRunner().attach(job_id)


def completed(view) -> int:
    """Return how many checkpoints the job has completed, also those that its history has no more."""
    return view.checkpoint_counts.completed


def wait_until(handle: RayJobHandle, condition):
    """Return the first view that fulfils the condition; a job that ends before it fails the test."""
    for view in handle.watch(PATIENCE_S):
        if condition(view):
            return view
        assert not view.status.terminal, view
    raise AssertionError("a job is watched until the time is over")


def runs(view) -> bool:
    """Return whether all slots run."""
    return view.status is JobStatus.RUNNING
