"""Addresses without a Ray cluster, and the cluster that a job starts for itself."""

import os
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from raystream import ClusterNotFoundError, ConfigError, StreamEnvironment
from raystream.api.ambient import Ambient, use
from raystream.cluster import connection
from raystream.cluster.client import list_jobs
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from tests.ray.conftest import PATIENCE_S, ROOT

EMBEDDED = """
import subprocess, sys
from raystream import StreamEnvironment
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource

env = StreamEnvironment(parallelism=2)
env.from_source(DatagenSource(lambda index: index, rate=100)).sink_to(DiscardSink())
client = env.submit("embedded")
asked = "from raystream.cluster.client import list_jobs; print(*(view.job_id for view in list_jobs()))"
other = subprocess.run([sys.executable, "-c", asked], stdout=subprocess.PIPE, text=True, check=True)
assert other.stdout.split() == [client.job_id], other.stdout
client.cancel()
print(client.wait(60).status.value)
"""


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265", "head", "head:port", ":6379"])
def test_address_that_is_not_of_a_cluster_is_a_configuration_error(address):
    with pytest.raises(ConfigError, match="address is not") as caught:
        list_jobs(address)

    assert caught.value.hint


def test_address_where_nothing_listens_has_no_cluster_for_a_job():
    env = StreamEnvironment(runner="ray")
    env.from_source(DatagenSource(lambda index: index)).sink_to(DiscardSink())

    with (
        use(Ambient(address=f"127.0.0.1:{closed_port()}")),
        pytest.raises(ClusterNotFoundError, match="no Ray cluster answers"),
    ):
        env.submit("nowhere")


def test_address_of_another_server_is_not_taken_for_a_cluster():
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    Thread(target=server.serve_forever, daemon=True).start()

    with pytest.raises(ClusterNotFoundError, match="no Ray cluster answers"):
        list_jobs(f"127.0.0.1:{server.server_port}")

    server.shutdown()
    server.server_close()


def test_detached_job_without_a_cluster_is_refused_with_the_command_that_starts_one(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(connection.compat, "started_cluster_address", lambda: None)
    connection.disconnect()
    env = StreamEnvironment(runner="ray")
    env.from_source(DatagenSource(lambda index: index)).sink_to(DiscardSink())

    with use(Ambient(detached=True)), pytest.raises(ClusterNotFoundError) as caught:
        env.submit("detached")

    assert "ray start --head" in caught.value.hint


def test_embedded_cluster_serves_other_processes_of_the_user_and_leaves_nothing_behind(tmp_path, short_dir):
    home, runtime = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    runtime.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    surroundings = {
        **inherited,
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "RAY_TMPDIR": str(short_dir),
        "PYTHONPATH": str(ROOT),
    }

    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED],
        env=surroundings, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "CANCELED\n"), done.stderr
    assert [path for path in runtime.rglob("*") if path.is_file()] == []
    assert list(home.iterdir()) == []
