"""A job master says whether it has a job, and in another life why it has none."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
import ray

from raystream.cluster import job_master
from raystream.cluster.job_master import JobMasterActor
from raystream.cluster.versions import own_versions
from raystream.errors import JobNotFoundError, StorageError
from tests.unit.runtime.coordinator_world import JOB_ID


class Actor:
    """The actor's own handle: calls to itself come to nothing."""

    def __getattr__(self, method):
        return SimpleNamespace(remote=lambda: None)


@pytest.fixture
def context(monkeypatch):
    context = SimpleNamespace(current_actor=Actor(), was_current_actor_reconstructed=False)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(job_master, "configure_logging", lambda job_id: None)
    monkeypatch.setattr(job_master, "link_logs", lambda job_id, process: None)
    return context


@pytest.fixture
def another_life(context, monkeypatch):
    context.was_current_actor_reconstructed = True
    monkeypatch.setattr(job_master, "RECOVERY_RETRY_MS", 0)
    return lambda directory: JobMasterActor(own_versions(), JOB_ID, str(directory))


def test_directory_that_other_nodes_do_not_see_is_named_as_the_cause(another_life, tmp_path):
    master = another_life(tmp_path / "checkpoints of another node")

    with pytest.raises(JobNotFoundError) as caught:
        asyncio.run(master.view())
    assert "every node sees the same execution.checkpointing.dir" in caught.value.hint


def test_directory_that_never_answers_is_the_cause_that_clients_are_told(another_life, monkeypatch, tmp_path):
    tries = []

    def away(directory):
        tries.append(directory)
        raise StorageError("store is away")

    monkeypatch.setattr(job_master, "find_ended", away)
    master = another_life(tmp_path)

    with pytest.raises(StorageError, match="store is away"):
        asyncio.run(master.view())
    assert len(tries) == job_master.RECOVERY_TRIES_MAX


def test_client_that_asks_while_the_job_is_being_taken_is_told_when_it_is(context, monkeypatch):
    master = JobMasterActor(own_versions(), JOB_ID, None)
    asked_by_all = threading.Event()

    async def known_view():
        return "view"

    def begin(program):
        asked_by_all.wait()
        master._job = SimpleNamespace(publication=SimpleNamespace(known_view=known_view))

    async def all_have_asked():
        asked_by_all.set()

    async def scenario():
        # Each begins in its turn, and goes on to where it has to wait.
        _, view, _ = await asyncio.gather(master.accept(b""), master.view(), all_have_asked())
        return view

    monkeypatch.setattr(master, "_begin", begin)
    assert asyncio.run(scenario()) == "view"
