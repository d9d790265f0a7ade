"""Servers of a test session: processes that end with it, on ports that nobody else uses.

Knows processes and ports; what a server is, and when it is ready, is its own module's affair.
"""

import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

CACHE = Path.home() / ".cache" / "raystream-test"
"""What was fetched once for the servers, a directory for each name and version."""

PORTS = range(20_000, 28_000)
"""Below the range from which the system takes ports of outgoing connections."""
PORT_TRIES_MAX = 100
STARTS_MAX = 2
"""A port that was free may be taken before its server has it; another one will not be, too."""

_END_WITH_PARENT = f"""
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, {int(signal.SIGKILL)})  # PR_SET_PDEATHSIG
os.execvp(sys.argv[1], sys.argv[1:])
"""


def missing(what: str, in_ci: bool) -> None:
    """Fail where every component must be there, and skip elsewhere; the run names it at its end."""
    if in_ci:
        pytest.fail(what)
    pytest.skip(what)


@contextmanager
def fetching() -> Iterator[None]:
    """Have what this block fetches into the cache to itself: sessions that run beside wait for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens at, all different."""
    ports: list[int] = []
    with ExitStack() as held:
        for port in random.SystemRandom().sample(PORTS, PORT_TRIES_MAX):
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise RuntimeError("no free port was found")


def start_server(
    command: Sequence[str | Path],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a server in a process group of its own, which is killed with the thread that calls this.

    Args:
        command: program and arguments.
        log: file that its output is appended to.
        environment: variables beside those of this process.
        directory: in which it runs.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            start_new_session=True,
        )


def end_server(process: "subprocess.Popen[bytes]", how: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to all processes of a server, and wait until it is gone."""
    if process.poll() is None:
        os.killpg(process.pid, how)
    process.wait()


def seen_around_a_child(url: str, method: str) -> str:
    """Say whether a file is there, by a process that looks before, inside and after a child process."""
    script = Path(__file__).with_name("child_process.py")
    done = subprocess.run(
        [sys.executable, script, method, url], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()
