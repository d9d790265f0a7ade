"""Clusters of living processes are found, those of dead ones are forgotten."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from raystream.cluster.registration import RegisteredCluster, Registration, registered_clusters

REGISTER = """
import os, sys
from pathlib import Path
from raystream.cluster.registration import RegisteredCluster, Registration

kept = Registration(RegisteredCluster(address="dead:1", pid=os.getpid()), Path(sys.argv[1]))
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "raystream" / "clusters"


def test_registered_cluster_is_found_until_it_is_closed(directory):
    cluster = RegisteredCluster(address="head:6379", auth_token="secret", pid=42)
    registration = Registration(cluster, directory)

    assert registered_clusters(directory) == [cluster]
    registration.close()
    assert registered_clusters(directory) == []


def test_only_the_user_may_read_it(directory):
    registration = Registration(RegisteredCluster(address="head:6379", pid=42), directory)

    assert stat.S_IMODE((directory / "42.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    registration.close()


def test_entry_of_a_killed_process_is_removed_by_whoever_looks(directory):
    killed = subprocess.run([sys.executable, "-c", REGISTER, str(directory)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(directory)) == 1  # noqa: PTH208 - a count

    assert registered_clusters(directory) == []
    assert list(directory.iterdir()) == []


def test_process_registers_again_over_what_a_former_one_of_its_number_has_left(directory):
    directory.mkdir(parents=True)
    (directory / "42.json").write_text("left over")
    (directory / ".42").write_text("half written")
    cluster = RegisteredCluster(address="head:6379", pid=42)
    registration = Registration(cluster, directory)

    assert registered_clusters(directory) == [cluster]
    registration.close()


def test_nothing_is_found_where_nothing_was_ever_registered(directory):
    assert registered_clusters(directory) == []
