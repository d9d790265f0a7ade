"""The command line in a process of its own, as users start it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 120


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def cause(self) -> str:
        """The line of cause; there is exactly one."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ")

    @property
    def advice(self) -> str:
        """The line of advice; there is exactly one, and it is the last."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("hint: ")]
        assert line == self.err.splitlines()[-1]
        return line.removeprefix("hint: ")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment variables of the commands: no cluster but one that a test names."""
    ours = ("RAY_", "RAYSTREAM_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    nowhere = {"XDG_RUNTIME_DIR": str(tmp_path), "RAY_TMPDIR": str(tmp_path)}
    return {**inherited, **nowhere, "PYTHONPATH": path}


@pytest.fixture
def raystream(environment: dict[str, str], tmp_path: Path) -> Callable[..., Outcome]:
    """Run `raystream` with these arguments in the test's directory, to its end."""

    def command(*arguments: str | Path) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "raystream.cli", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return command


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start `raystream` with these arguments and return the process; what still runs is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def command(*arguments: str | Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "raystream.cli", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield command
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    """Write a job script and return its path."""

    def write(text: str, name: str = "job.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
