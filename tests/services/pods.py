"""The pods of a Ray cluster as processes of this machine, with commands and environment of the manifests.

What differs from real ones: ports, directories in place of volumes, and the token, which KubeRay would draw.
All that a pod runs has its cluster's mark in its environment, so that all of it can be killed at once, as the
loss of machines does it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kuberay import Document, groups, ray_container, start_command, start_parameters
from tests.manifests import ROOT
from tests.services.processes import free_ports, start_server
from tests.services.servers import wait_until_ready

MARK = "RAYSTREAM_TESTS_CLUSTER"
PATIENCE_S = 120.0
SOONER = {"interval: 30s": "interval: 500ms", "min-pause: 5s": "min-pause: 0"}
"""What configurations say, and what tests have time for."""


@dataclass
class PodCluster:
    """A cluster that runs; its pods use one directory."""

    directory: Path
    environment: dict[str, str]
    """What all pods have, and whoever is in one of them."""
    dashboard: str
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    """Of the pods, the head's first."""

    def here(self, text: str) -> str:
        """Return a text of a manifest with directories of this machine in place of those in a container."""
        places = {
            "/etc/raystream": self.directory / "config",
            "/var/lib/raystream": self.directory / "state",
            "/opt/raystream/jobs": ROOT / "jobs",
        }
        for inside, outside in places.items():
            text = text.replace(inside, str(outside))
        return text

    def submit(self, entry_point: str) -> str:
        """Submit an entry point as KubeRay's operator does (HTTPMode), and return the id of Ray's job."""
        answer = self._ask("/api/jobs/", {"entrypoint": self.here(entry_point)})
        ray_job: str = answer["submission_id"]
        return ray_job

    def status(self, ray_job: str) -> str:
        """Return Ray's status of a job."""
        status: str = self._ask(f"/api/jobs/{ray_job}")["status"]
        return status

    def logs(self, ray_job: str) -> str:
        """Return what the entry point of a job has written."""
        logs: str = self._ask(f"/api/jobs/{ray_job}/logs")["logs"]
        return logs

    def nodes(self) -> int:
        """Return how many nodes live."""
        answer = self._ask("/nodes?view=summary")
        return sum(one["raylet"]["state"] == "ALIVE" for one in answer["data"]["summary"])

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        Raises:
            AssertionError: the head has ended, or time is over.
        """

        last: list[object] = []

        def check() -> None:
            last.clear()
            try:
                last.append(condition())
            except Exception as error:
                last.append(error)
            assert last == [True]

        came = wait_until_ready(self.processes[0], check, PATIENCE_S)
        assert came, (last, (self.directory / "ray-head.log").read_text()[-1000:])

    def kill(self) -> None:
        """Kill all processes of all pods, and what they have started."""
        while pids := _marked(self.environment[MARK]):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self.processes:
                process.wait()

    def _ask(self, path: str, body: Document | None = None) -> Any:
        headers = {
            "Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}",
            "Content-Type": "application/json",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.dashboard}{path}", data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def running_pods(spec: Document, config: Document, secrets: Mapping[str, str]) -> Iterator[PodCluster]:
    """Run one pod of each group of a cluster until the block ends.

    Args:
        spec: of a RayCluster, as rendered.
        config: the ConfigMap that its pods mount.
        secrets: what the Secrets hold to which its containers refer.
    """
    port, dashboard = free_ports(2)
    directory = Path(tempfile.mkdtemp(prefix="rs-"))  # Short: Ray has sockets in it.
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(directory),
        MARK: str(directory),
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": spec["authOptions"]["mode"],
        "RAY_AUTH_TOKEN": os.urandom(32).hex(),
        **secrets,
    }
    cluster = PodCluster(directory, environment, f"http://127.0.0.1:{dashboard}")
    head = {"port": port, "dashboard-port": dashboard, "dashboard-host": "127.0.0.1", "temp-dir": directory}
    worker = {"address": environment["RAY_ADDRESS"]}
    try:
        _write_config(config, cluster)
        for group in groups(spec):
            _start_pod(cluster, spec, group, head if group is spec["headGroupSpec"] else worker)
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(directory)


def _write_config(config: Document, cluster: PodCluster) -> None:
    """Write the files of a ConfigMap where containers mount them, with checkpoints that come sooner."""
    directory = cluster.directory / "config"
    directory.mkdir()
    for name, text in config["data"].items():
        here = cluster.here(text)
        for written, wanted in SOONER.items():
            here = here.replace(written, wanted)
        (directory / name).write_text(here, encoding="utf-8")


def _start_pod(cluster: PodCluster, spec: Document, group: Document, own: Mapping[str, object]) -> None:
    """Start a pod of a group, and wait until its node has joined."""
    metrics, agent = free_ports(2)
    changed = {
        **own,
        "node-ip-address": "127.0.0.1",
        "metrics-export-port": metrics,
        "dashboard-agent-listen-port": agent,
        "min-worker-port": 0,  # Any: there are other clusters on this machine.
        "max-worker-port": 0,
    }
    given = {name: str(value) for name, value in changed.items()}
    container = ray_container(group)
    process = start_server(
        start_command({**start_parameters(spec, group), **given}, head=group is spec["headGroupSpec"]),
        cluster.directory / f"{container['name']}.log",
        environment={**{one["name"]: one["value"] for one in container["env"]}, **cluster.environment},
        directory=cluster.directory,
    )
    cluster.processes.append(process)
    cluster.wait_until(lambda: cluster.nodes() == len(cluster.processes))


def _marked(mark: str) -> list[int]:
    """Return the processes whose environment has a cluster's mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").iterdir():
        with suppress(OSError):
            if path.name.isdecimal() and wanted in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found
