"""What a savepoint that is written takes over from its base beside the state."""

import dataclasses
import platform
from pathlib import Path

import pytest

import raystream.savepoint
from raystream import StateTtl, ValueStateDescriptor
from raystream.clock import TimeDomain
from raystream.errors import ConfigError
from raystream.handles import ChannelSlice, ChannelStage, ChannelStateHandle, InlineHandle, SavepointFormat
from raystream.savepoint import KeyedState

SNAPSHOTS = Path(__file__).parents[2] / "golden" / "snapshots"


@pytest.fixture
def base():
    (metadata,) = (SNAPSHOTS / "heap-checkpoint-3").rglob("_metadata")
    with raystream.savepoint.open(str(metadata)) as base:
        yield base


def test_savepoint_says_its_format_and_which_python_pickled_what_is_in_the_base(base, tmp_path):
    base.reader.metadata = dataclasses.replace(base.reader.metadata, python_version="3.9.1")
    paths = [
        raystream.savepoint.write(str(tmp_path / "on base"), base=base),
        raystream.savepoint.write(str(tmp_path / "alone")),
    ]
    on_base, alone = (raystream.savepoint.open(path).reader.metadata for path in paths)

    assert on_base.savepoint_format is alone.savepoint_format is SavepointFormat.CANONICAL
    assert on_base.python_version == "3.9.1"
    assert alone.python_version == platform.python_version()


def test_time_of_writing_in_event_time_is_the_watermark_of_the_base(base, tmp_path):
    lives = ValueStateDescriptor("lives", int, ttl=StateTtl("1h", time=TimeDomain.EVENT_TIME))
    (part,) = base.reader.parts(base.reader.operator("everything"))
    assert part.taken.event_ms == -991

    state = KeyedState("everything", lives, {"key": [1], "value": [1]})
    with raystream.savepoint.open(raystream.savepoint.write(str(tmp_path), [state], base=base)) as written:
        times = written.state("everything", "lives").to_arrow().column("written_ms")
        assert times.to_pylist() == [-991]


def test_records_in_flight_of_the_base_are_not_lost_in_silence(base, tmp_path):
    metadata = base.reader.metadata
    operator = metadata.operator("everything")
    records = ChannelStateHandle(
        target=operator.uid,
        input=0,
        stage=ChannelStage.INPUT,
        keyed=True,
        records=1,
        slices=(ChannelSlice(sender=0, receiver=0, offset=0, size_bytes=1, batches=1),),
        data=InlineHandle(data=b"1"),
    )
    subtasks = (dataclasses.replace(operator.subtasks[0], channels=(records,)), *operator.subtasks[1:])
    changed = dataclasses.replace(operator, subtasks=subtasks)
    base.reader.metadata = dataclasses.replace(
        metadata, operators=tuple(changed if one is operator else one for one in metadata.operators)
    )

    with pytest.raises(ConfigError, match="records in flight"):
        raystream.savepoint.write(str(tmp_path / "savepoint"), base=base)
