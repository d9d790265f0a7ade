"""A cluster as operators start one: `ray start` on a head with a dashboard, then on more nodes, with a token.

All of them run on this machine, each a process group of its own, with ports and an environment of their own.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import ray

from raystream.clock import SystemClock
from tests.ray.conftest import PATIENCE_S, ROOT
from tests.services.processes import free_ports, start_server

RAY = Path(sys.executable).with_name("ray")
RAYSTREAM = (sys.executable, "-m", "raystream.cli")
POLL_S = 0.1
STARTS_MAX = 3
"""Of each node."""

AGENT_PORTS = (
    "node-manager-port", "object-manager-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
    "runtime-env-agent-port", "metrics-export-port",
)  # fmt: skip
"""What each node listens at; on one machine each needs its own."""


@dataclass(frozen=True)
class StartedCluster:
    """A cluster that runs, and how a stranger reaches it."""

    head: str
    dashboard: str
    token: str
    home: Path
    """Of the clients: empty, so that nothing of this user's is found."""

    def shell(self, **variables: str) -> dict[str, str]:
        """Return the environment of a shell on another machine: with the token, and nothing else of Ray."""
        return {**stranger(self.home), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, **variables}

    def raystream(
        self, *arguments: object, cwd: Path, env: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in a shell of its own, and return how it ended."""
        return subprocess.run(
            [*RAYSTREAM, *map(str, arguments)],
            cwd=cwd, env=env or self.shell(), capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def ask(self, path: str) -> Any:
        """Return what Ray's own HTTP interface answers; None when it has no such thing."""
        request = urllib.request.Request(
            self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None


def stranger(home: Path) -> dict[str, str]:
    """Return the environment of somebody who has a home, and no settings of Ray or of this session."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RAYSTREAM_"))}
    return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "PATH": "/usr/bin:/bin"}


def eventually(condition: Callable[[], Any]) -> Any:
    """Return the first true value of a condition; it is given up after a long time."""
    clock, pause = SystemClock(), Event()
    deadline_ms = clock.monotonic_ms() + PATIENCE_S * 1000
    while not (value := condition()):
        assert clock.monotonic_ms() < deadline_ms, "what was waited for has not happened"
        pause.wait(POLL_S)
    return value


@contextmanager
def started_cluster(directory: Path, home: Path, *, nodes: int, node_cpus: int) -> Iterator[StartedCluster]:
    """Run a head without CPUs and some nodes until the block ends.

    Args:
        directory: for Ray's files; its path is short.
        home: empty home directory of whoever starts the nodes, and of clients.
        nodes: beside the head.
        node_cpus: CPUs of each of them.
    """
    token = secrets.token_hex(16)
    port, dashboard_port, client_port = free_ports(3)
    host = ray.util.get_node_ip_address()  # Which Ray takes `localhost` for, too.
    cluster = StartedCluster(f"{host}:{port}", f"http://127.0.0.1:{dashboard_port}", token, home)
    head = {
        "head": True, "port": port, "dashboard-host": "127.0.0.1", "dashboard-port": dashboard_port,
        "ray-client-server-port": client_port, "temp-dir": directory, "num-cpus": 0,
    }  # fmt: skip
    with ExitStack() as started:
        log = directory / "start.log"

        def start(**options: object) -> "_Node":
            node = _Node(cluster, log, options)
            started.callback(node.end)
            return node

        first = start(**head)
        eventually(lambda: _alive(cluster, [first]) == 1)
        # On one machine nodes would else share what Ray unpacks for a job, and remove it for each other.
        own = [directory / f"node-{number}" for number in range(nodes)]
        others = [start(address=cluster.head, **{"num-cpus": node_cpus, "temp-dir": one}) for one in own]
        eventually(lambda: _alive(cluster, [first, *others]) == nodes + 1)
        yield cluster


class _Node:
    """A node: a process group, started again when it could not come up, as on a busy machine."""

    def __init__(self, cluster: StartedCluster, log: Path, options: dict[str, object]) -> None:
        self._cluster = cluster
        self._log = log
        self._options = options
        self._starts = 0
        self._start()

    def look_after(self) -> None:
        """Start it again if it has exited, and fail the test when that does not help."""
        if self._process.poll() is not None:
            assert self._starts < STARTS_MAX, f"a node does not come up:\n{self._log.read_text()[-2000:]}"
            self.end()
            self._start()

    def end(self) -> None:
        """Kill all of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _start(self) -> None:
        self._starts += 1
        ports = dict(zip(AGENT_PORTS, free_ports(len(AGENT_PORTS)), strict=True))
        common = {
            "block": True, "object-store-memory": 100 << 20, "disable-usage-stats": True,
            "min-worker-port": 0, "max-worker-port": 0,
        }  # fmt: skip
        words = [_word(name, value) for name, value in {**common, **ports, **self._options}.items()]
        variables = {
            **self._cluster.shell(),
            "PYTHONPATH": str(ROOT),
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
        command = ["env", "-i", *(f"{name}={value}" for name, value in variables.items()), RAY, "start"]
        self._process = start_server([*command, *words], self._log, directory=self._log.parent)


def _word(name: str, value: object) -> str:
    return f"--{name}" if value is True else f"--{name}={value}"


def _alive(cluster: StartedCluster, nodes: Iterable[_Node]) -> int:
    """Return how many nodes are alive."""
    for node in nodes:
        node.look_after()
    try:
        summary = cluster.ask("/nodes?view=summary")["data"]["summary"]
    except OSError:
        return 0
    return sum(node["raylet"].get("state") == "ALIVE" for node in summary)
