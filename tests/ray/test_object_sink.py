"""A slot's process is killed around a commit to an object store, and every record is published once."""

import os
import signal
from dataclasses import dataclass, field
from typing import Any

import pytest

from raystream import JobStatus
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink
from tests.held_source import HeldSource
from tests.ray.conftest import PATIENCE_S, handle_of, wait_until
from tests.services.object_sinks import Output
from tests.services.servers import moto

COUNT = 12_000


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class DyingSink:
    """The file sink, whose first subtask dies in each of the first three attempts, at another moment."""

    transactional = True

    inner: FileSink
    environment: dict[str, str] = field(hash=False)
    """How the store is reached: the cluster was started without it."""

    def open_writer(self, context):
        os.environ.update(self.environment)
        return DyingWriter(self.inner.open_writer(context), context)

    def open_committer(self, context):
        os.environ.update(self.environment)
        return DyingCommitter(self.inner.open_committer(context), context)


@dataclass
class DyingWriter:
    inner: Any
    context: Any
    checkpoints: int = 0

    def sync(self):
        """Die when what the second checkpoint needs is uploaded, before that is known to anybody."""
        self.inner.sync()
        self.checkpoints += 1
        if (self.context.subtask, self.context.attempt, self.checkpoints) == (0, 1, 2):
            die()

    def __getattr__(self, name):
        return getattr(self.inner, name)


@dataclass
class DyingCommitter:
    inner: Any
    context: Any
    commits: int = 0

    def commit(self, committables):
        """Die between checkpoint and commit, or between commit and its note."""
        self.commits += 1
        dies = self.context.subtask == 0 and self.commits == 2
        if dies and self.context.attempt == 2:
            die()
        self.inner.commit(committables)
        if dies and self.context.attempt == 3:
            die()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with moto(tmp_path_factory.mktemp("moto")) as store:
        yield store


def test_every_record_is_published_once_whenever_a_slot_is_killed(environment, go, store):
    store.client.create_bucket(Bucket="output")
    output = Output(store.client, "output")
    env = environment(2)
    numbers = env.from_source(
        HeldSource(DatagenSource(lambda i: i, count=COUNT), go, records=2), uid="numbers"
    )
    sink = DyingSink(FileSink.lines("s3://output/out"), store.environment)
    numbers.map(str, uid="text").sink_to(sink, uid="sink")

    client = env.submit("killed around a commit")
    wait_until(handle_of(client.job_id), lambda view: view.restarts == 3)
    go.touch()
    result = client.wait(PATIENCE_S)

    assert (result.status, result.restarts) == (JobStatus.FINISHED, 3)
    assert sorted(map(int, output.lines())) == list(range(COUNT))
    assert output.uploads() == []
