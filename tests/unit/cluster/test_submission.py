"""What a submission finds out before there is a cluster."""

import pytest
import ray

from raystream import ConfigError, StreamEnvironment
from raystream.cluster.client import surviving
from raystream.connectors.basic import DiscardSink
from tests.unit.api.fakes import FakeRunner


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("a cluster was started"))


def test_no_cluster_is_started_for_checkpoints_that_cannot_be_kept(tmp_path):
    (tmp_path / "file").touch()
    env = StreamEnvironment(
        runner="ray",
        execution_checkpointing_interval="1s",
        execution_checkpointing_dir=str(tmp_path / "file" / "checkpoints"),
    )
    env.from_collection([1]).sink_to(DiscardSink())

    with pytest.raises(ConfigError, match="checkpoint directory cannot be written"):
        env.submit("refused")


@pytest.mark.parametrize("collect", [True, False])
def test_job_outlives_its_master_unless_its_records_would_be_missing_at_the_client(collect, tmp_path):
    runner = FakeRunner()
    env = StreamEnvironment(
        runner=runner,
        execution_checkpointing_interval="1s",
        execution_checkpointing_dir=str(tmp_path),
    )
    stream = env.from_collection([1])
    if collect:
        stream.execute_and_collect()
    else:
        stream.print()
        env.execute("prints")

    (submission,) = runner.submissions
    assert surviving(submission) == (None if collect else f"file://{tmp_path}")
