"""A job whose output could never become visible is refused."""

import pytest

from raystream import ConfigError, StreamEnvironment
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink


def endless(env, sink):
    env.from_source(DatagenSource(str), name="numbers", uid="numbers").sink_to(sink, name="out", uid="out")


def test_transactional_sink_of_an_endless_job_needs_checkpoints(tmp_path):
    env = StreamEnvironment(runner="local")
    endless(env, FileSink.lines(str(tmp_path)))

    with pytest.raises(ConfigError, match="never ends") as refused:
        env.submit("endless")

    assert "operator='out'" in str(refused.value)
    assert "execution.checkpointing.interval" in refused.value.hint


def test_other_sinks_do_not():
    env = StreamEnvironment(runner="local")
    endless(env, DiscardSink())

    env.submit("endless").cancel()
