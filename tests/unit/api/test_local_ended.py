"""A job goes on from a savepoint in which some of its sources had ended, at any parallelism."""

import shutil

import pytest

from raystream import JobStatus, KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.files import FileSink, FileSource
from raystream.storage.snapshots import load_snapshot
from raystream.testing import Pause, TestSource
from tests.checkpointing import ON_REQUEST
from tests.published import records
from tests.running_job import until

RULES, EVENTS = range(20), range(100, 200)


class Count(KeyedProcessFunction):
    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))

    def process_element(self, value, ctx):
        self.seen.update(self.seen.value() + 1)
        yield value, self.seen.value()


def submit(tmp_path, parallelism, *, pause_ms, path=None):
    env = StreamEnvironment(
        runner="local",
        parallelism=parallelism,
        execution_checkpointing_dir=str(tmp_path / "checkpoints"),
        execution_checkpointing_savepoint_dir=str(tmp_path / "savepoints"),
        execution_state_recovery_path=path or "none",
        **ON_REQUEST,
    )
    rules = env.from_source(FileSource.lines(str(tmp_path / "rules")), uid="rules").map(int)
    events = env.from_source(TestSource([*EVENTS[:50], Pause(pause_ms), *EVENTS[50:]]), uid="events")
    counted = rules.key_by(lambda value: value).process(Count(), uid="count rules")
    also = events.key_by(lambda value: value % 10).process(Count(), uid="count events")
    counted.union(also).sink_to(FileSink.json_lines(str(tmp_path / "out")), uid="out")
    return env.submit("rules and events")


def ended(client):
    """Return the operators that have ended in a checkpoint that is taken now."""
    metadata = load_snapshot(client.checkpoint())[1]
    return {operator.uid for operator in metadata.operators if operator.ended}


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_source_that_had_ended_is_not_asked_again_by_a_job_that_goes_on(tmp_path, parallelism):
    (tmp_path / "rules").mkdir()
    for number in RULES:
        (tmp_path / "rules" / f"{number}.txt").write_text(f"{number}\n")
    client = submit(tmp_path, 2, pause_ms=1e9)
    until(client, lambda: client.progress().records_in >= len(RULES) + 50)
    until(client, lambda: ended(client) >= {"rules", "count rules"})
    path = client.stop()
    client.wait("30s")
    shutil.rmtree(tmp_path / "rules")

    result = submit(tmp_path, parallelism, pause_ms=1, path=path).wait("30s")
    assert result.status is JobStatus.FINISHED
    assert result.records_in == 50, "only what was left of the events"
    expected = [[value, 1] for value in RULES] + [[value, value // 10 % 10 + 1] for value in EVENTS]
    assert sorted(records(tmp_path / "out")) == expected


def test_job_whose_sources_had_all_ended_ends_at_once_and_says_so(tmp_path, caplog):
    (tmp_path / "rules").mkdir()
    client = submit(tmp_path, 2, pause_ms=1e9)
    path = client.stop(drain=True)
    client.wait("30s")

    result = submit(tmp_path, 2, pause_ms=1, path=path).wait("30s")
    assert (result.status, result.records_in) == (JobStatus.FINISHED, 0)
    assert "nothing is left to run" in caplog.text
