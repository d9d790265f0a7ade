"""Jobs are submitted to a cluster from elsewhere, outlive what has submitted them, and are led from afar."""

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.access_logs import JOB, Expected, assert_counted_exactly_once
from tests.published import counts_by_key
from tests.ray.started_cluster import StartedCluster, eventually, started_cluster, stranger

NUMBERS = """
import logging, sys
from doubling import double
from raystream import StreamEnvironment

env = StreamEnvironment()
env.from_collection(range(int(sys.argv[1]))).map(double).print()
print("result", env.execute("numbers").status.value)
"""
DOUBLING = """
import logging

def double(value):
    print("printed", value)
    logging.getLogger("doubling").warning("logged %d", value)
    return 2 * value
"""


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[StartedCluster]:
    home = tmp_path_factory.mktemp("home")
    with (
        tempfile.TemporaryDirectory(prefix="rs-", ignore_cleanup_errors=True) as directory,
        started_cluster(Path(directory), home, nodes=2, node_cpus=1) as cluster,
    ):
        yield cluster


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A directory in which nothing is."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    return directory


class AccessLog:
    """The main job on a log that grows, submitted again and again."""

    def __init__(self, cluster: StartedCluster, directory: Path, cwd: Path) -> None:
        self._cluster = cluster
        self._cwd = cwd
        self._log = directory / "access.log"
        self.out = directory / "out"
        self.expected = Expected()
        self._config = directory / "prod.yaml"
        self._config.write_text(
            "slot.cpus: 0.5\n"
            f"execution.checkpointing: {{interval: 1s, dir: '{directory / 'checkpoints'}',"
            f" savepoint-dir: '{directory / 'savepoints'}'}}\n"
        )

    def submit(self, submission_id: str, *options: object):
        """Submit the job from a directory that is not its own, without waiting for it."""
        at = ("--address", self._cluster.dashboard, "--submission-id", submission_id, "--no-wait")
        arguments = (JOB, self._log, "--out", self.out, "--watch", "200ms")
        return self._cluster.raystream("submit", *at, "-c", self._config, *options, *arguments, cwd=self._cwd)

    def grow(self) -> None:
        """Write more lines, and wait until they are counted."""
        self.expected.append_to(self._log, lines=2_000, seed=self.expected.lines)
        hits = self.expected.hits.total()
        eventually(lambda: sum(map(len, counts_by_key(self.out).values())) == hits)


def test_job_outlives_its_driver_and_goes_on_at_another_parallelism(cluster, tmp_path, elsewhere):
    job = AccessLog(cluster, tmp_path, elsewhere)

    submitted = job.submit("first", "-p", 2)
    assert (submitted.returncode, submitted.stdout) == (0, "first\n"), submitted.stderr
    job.grow()
    driver = eventually(lambda: cluster.ask("/api/jobs/first")["driver_info"])
    os.kill(int(driver["pid"]), signal.SIGKILL)
    eventually(lambda: "client was ended by SIGKILL" in cluster.ask("/api/jobs/first/logs")["logs"])
    job.grow()
    assert cluster.ask("/api/jobs/first")["status"] == "RUNNING"

    again = job.submit("first", "-p", 2)
    assert "nothing new is started" in again.stderr
    assert [one["submission_id"] for one in cluster.ask("/api/jobs/")].count("first") == 1

    savepoint = cluster.raystream(
        "savepoint", "--address", cluster.dashboard, "access log count", cwd=elsewhere
    )
    assert re.fullmatch(r"file://\S+/savepoint-\S+\n", savepoint.stdout), savepoint.stderr
    at_head = cluster.shell(RAY_ADDRESS=cluster.head)
    stopped = cluster.raystream("stop", "access log count", cwd=elsewhere, env=at_head)
    assert stopped.returncode == 0, stopped.stderr
    first = eventually(lambda: (job := cluster.ask("/api/jobs/first"))["end_time"] and job)
    assert (first["status"], first["driver_exit_code"]) == ("SUCCEEDED", 0)

    submitted = job.submit("second", "-s", stopped.stdout.strip(), "-p", 3)
    assert submitted.returncode == 0, submitted.stderr
    job.grow()
    numbers = submit_numbers(cluster, tmp_path, elsewhere)
    assert numbers.stdout.splitlines() == [*(f"0> {2 * n}" for n in range(3)), "result FINISHED"], (
        numbers.stderr
    )
    assert numbers.returncode == 0
    assert cluster.ask("/api/jobs/second")["status"] == "RUNNING"

    logs = cluster.raystream("logs", "numbers", cwd=elsewhere, env=at_head)
    assert [line for line in logs.stdout.splitlines() if "printed" in line] == [
        f"slot-0 | printed {n}" for n in range(3)
    ], logs.stderr
    assert len(re.findall(r"^slot-0 \| .* logged \d", logs.stdout, flags=re.MULTILINE)) == 3
    assert re.search(r"^master \| .* job accepted", logs.stdout, flags=re.MULTILINE)

    ended = cluster.raystream("stop", "access log count", cwd=elsewhere, env=at_head)
    assert ended.returncode == 0, ended.stderr
    assert_counted_exactly_once(job.out, job.expected)
    commands = [one for one in cluster.ask("/api/jobs/") if "command" in (one["submission_id"] or "")]
    assert commands == []


def submit_numbers(cluster: StartedCluster, directory: Path, cwd: Path):
    """Run a job with a module beside it, and wait for its end."""
    project = directory / "project"
    project.mkdir()
    (project / "doubles.py").write_text(NUMBERS)
    (project / "doubling.py").write_text(DOUBLING)
    at_head = cluster.shell(RAY_ADDRESS=cluster.head)
    return cluster.raystream("submit", "-D", "slot.cpus=0.5", project / "doubles.py", 3, cwd=cwd, env=at_head)


@pytest.mark.parametrize("command", ["submit", "list"])
def test_client_without_the_token_is_told_how_to_give_it(cluster, tmp_path, elsewhere, command):
    (tmp_path / "job.py").write_text("")
    arguments = ["--address", cluster.dashboard, *([tmp_path / "job.py"] if command == "submit" else [])]

    refused = cluster.raystream(command, *arguments, cwd=elsewhere, env=stranger(cluster.home))

    assert refused.returncode == 2, refused.stderr
    cause, hint = refused.stderr.splitlines()[-2:]
    assert cause.startswith("error: Ray cluster wants a token, and this client has shown none")
    assert "RAY_AUTH_MODE=token" in hint


def test_token_in_the_environment_is_shown_to_the_head_that_is_addressed(cluster, elsewhere):
    shell = {**stranger(cluster.home), "RAY_AUTH_TOKEN": cluster.token, "RAY_ADDRESS": cluster.head}

    listed = cluster.raystream("list", "--json", cwd=elsewhere, env=shell)

    assert (listed.returncode, listed.stdout) == (0, "[]\n"), listed.stderr
