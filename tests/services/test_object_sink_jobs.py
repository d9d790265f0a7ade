"""Whole jobs on the local runner that write to an object store, and what they leave there."""

import pytest

from raystream import StreamEnvironment
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.file_place import marker_name
from raystream.connectors.files import FileSink
from raystream.connectors.object_sink import PartObjectCommitter
from raystream.testing.sources import Barrier, Crash, TestSource


@pytest.fixture
def environment(base):
    """Makes an environment whose checkpoints are in the same store, and that restarts at once."""

    def make(**options):
        fixed = {
            "execution_checkpointing_interval": "100ms",
            "execution_checkpointing_dir": base,
            "execution_checkpointing_savepoint_dir": f"{base}-kept",
            "restart_strategy_type": "fixed-delay",
            "restart_strategy_fixed_delay_attempts": 3,
            "restart_strategy_fixed_delay_delay": 0,
        }
        return StreamEnvironment(runner="local", **{**fixed, **options})

    return make


def run(env, source, sink, *, parallelism=2):
    records = env.from_source(source, name="records", uid="records")
    texts = records.map(str, uid="text", parallelism=parallelism)
    texts.sink_to(sink, uid="sink", parallelism=parallelism)
    return env.submit("records")


SCRIPTS = [["a", Barrier(), "b", "c", Crash(), "d"], ["e", "f", Barrier(), "g", Barrier(), "h"]]


def assert_nothing_is_left(output, *job_ids):
    """No upload, and of hidden names only the markers of jobs."""
    assert output.uploads() == []
    hidden = output.hidden("out/")
    assert hidden == sorted(f"out/{marker_name(job_id)}" for job_id in job_ids)


def test_every_record_is_published_once_when_a_job_crashes_behind_a_checkpoint(environment, sink, output):
    client = run(environment(), TestSource(*SCRIPTS), sink)
    result = client.wait()

    assert result.restarts == 1
    assert sorted(output.lines()) == list("abcdefgh")
    assert_nothing_is_left(output, client.job_id)


@pytest.mark.parametrize("moment", ["before", "behind"])
def test_every_record_is_published_once_when_a_job_dies_around_a_commit(
    environment, sink, output, monkeypatch, moment
):
    """Between checkpoint and commit, and between commit and its note."""
    commit, died = PartObjectCommitter.commit, []

    def dying(committer, committables):
        if not died and moment == "before":
            died.append(moment)
            raise OSError("power cut")
        commit(committer, committables)
        if not died:
            died.append(moment)
            raise OSError("power cut")

    monkeypatch.setattr(PartObjectCommitter, "commit", dying)
    client = run(environment(), TestSource(["a", Barrier(), "b", Barrier(), "c"]), sink)
    result = client.wait()

    assert result.restarts == 1
    assert sorted(output.lines()) == ["a", "b", "c"]
    assert_nothing_is_left(output, client.job_id)


def test_a_second_job_goes_on_from_a_savepoint_of_the_first_under_the_same_prefix(environment, sink, output):
    numbers = DatagenSource(lambda i: i, rate=1_000, count=1_000)
    first = run(environment(), numbers, sink)
    path = first.stop()
    second = run(environment(execution_state_recovery_path=path), numbers, sink, parallelism=3)
    second.wait()

    assert sorted(map(int, output.lines())) == list(range(1_000))
    assert_nothing_is_left(output, first.job_id, second.job_id)


def test_without_checkpoints_everything_is_published_at_the_end(output):
    env = StreamEnvironment(runner="local")
    client = run(env, DatagenSource(lambda i: i, count=5_000), FileSink.lines(f"{output.url}/out"))
    client.wait()

    assert sorted(map(int, output.lines())) == list(range(5_000))
    assert_nothing_is_left(output, client.job_id)
