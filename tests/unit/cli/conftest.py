"""Scripts to run, and the command line in this process."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
import ray

from raystream.cli import attend, jobs, main
from raystream.errors import ClusterNotFoundError
from raystream.runtime.coordinator_view import archived
from raystream.storage.archive import write_archive
from raystream.storage.layout import JobLayout
from raystream.storage.stores import open_file_system
from tests.unit.cli.fakes import HITS, OLD_HITS, WORDS, FakeCluster, FakeJob, FakeRunner

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


def _looked_for_a_cluster(*args: object, **options: object) -> NoReturn:
    raise AssertionError("a unit test has looked for a Ray cluster")


@pytest.fixture
def raystream(capsys, monkeypatch) -> Iterator[Callable[..., Outcome]]:
    """Run a command line in this process, which is left as it was; it must not look for a real cluster."""
    monkeypatch.setattr(ray, "init", _looked_for_a_cluster)
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


@pytest.fixture
def cluster(monkeypatch):
    cluster = FakeCluster(HITS, WORDS, OLD_HITS)
    monkeypatch.setattr(jobs.Jobs, "running", lambda self: cluster.views)
    monkeypatch.setattr(jobs, "runner_named", lambda name: cluster)
    return cluster


@pytest.fixture
def no_cluster(monkeypatch):
    def running(self, *wanted):
        raise ClusterNotFoundError("no Ray cluster runs on this machine", hint="start one")

    monkeypatch.setattr(jobs.Jobs, "running", running)
    monkeypatch.setattr(jobs.Jobs, "handle", running)


@pytest.fixture
def archive(tmp_path):
    """Leave the archive of a job in a checkpoint directory, and return the options that name it."""
    directory = str(tmp_path / "checkpoints")

    def leave(job):
        fs = open_file_system(f"file://{directory}")
        write_archive(fs, JobLayout(directory, job.job_id), archived(job, job.status))
        return ("-D", f"execution.checkpointing.dir={directory}")

    return leave
