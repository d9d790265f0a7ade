"""Scripts to run, and the command line in this process."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from raystream.cli import attend, main
from tests.unit.cli.fakes import FakeJob, FakeRunner

SCRIPT = """\
from raystream import StreamEnvironment

env = StreamEnvironment()
env.from_collection([1]).print()
env.execute("numbers")
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> list[str]:
        """The last two lines on standard error: cause and advice."""
        return self.err.splitlines()[-2:]


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Write a job script and return its path."""

    def write(text: str = SCRIPT, name: str = "job.py") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def raystream(capsys, monkeypatch) -> Iterator[Callable[..., Outcome]]:
    """Run a command line in this process, which is left as it was."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)

    def command(*arguments: str) -> Outcome:
        code = main.main(arguments)
        streams = capsys.readouterr()
        return Outcome(code, streams.out, streams.err)

    interrupted = signal.getsignal(signal.SIGINT)
    yield command
    signal.signal(signal.SIGINT, interrupted)


@pytest.fixture
def jobs_do(monkeypatch) -> Callable[..., FakeRunner]:
    """Replace the runners by one whose jobs do what is said."""

    def install(*jobs: FakeJob) -> FakeRunner:
        runner = FakeRunner(*jobs)
        monkeypatch.setattr(attend, "runner_named", lambda name: runner)
        return runner

    return install
