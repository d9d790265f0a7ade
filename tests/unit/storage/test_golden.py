"""Snapshots that earlier versions wrote are still read; one `_metadata` for every format version."""

from dataclasses import replace
from pathlib import Path

import pytest

from raystream.errors import StateRestoreError
from raystream.handles import (
    ChannelSlice,
    ChannelStage,
    ChannelStateHandle,
    FileHandle,
    Footer,
    InlineHandle,
    KeyedStateHandle,
    NamedFile,
    OperatorSnapshot,
    OperatorStateHandle,
    Redistribution,
    SavepointFormat,
    SharedFile,
    StateInfo,
)
from raystream.keygroup import KeyGroupRange
from raystream.records.elements import SnapshotKind
from raystream.storage.envelope import seal
from raystream.storage.metadata import (
    FORMAT_VERSION,
    OperatorMetadata,
    SnapshotMetadata,
    decode_metadata,
    encode_metadata,
)

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
HITS = StateInfo(name="hits", kind="value", serializer="msgpack-1", schema="int")
BY_DAY = StateInfo(
    name="by day", kind="map", serializer="pickle-1", schema="", map_key_schema="str", namespaced=True
)
PART = NamedFile(
    local="hits",
    file=FileHandle(
        path="count/hits/part-1.parquet",
        size_bytes=90_000,
        checksum="8899aabbccddeeff",
        footer=Footer(size_bytes=1_234, checksum="0f1e2d3c4b5a6978"),
    ),
)
DONE = StateInfo(name="done", kind="operator-list", serializer="msgpack-1", schema="str")
IN_FLIGHT = ChannelStateHandle(
    target="count",
    input=0,
    stage=ChannelStage.INPUT,
    keyed=True,
    records=900,
    slices=(
        ChannelSlice(sender=0, receiver=1, offset=0, size_bytes=700, batches=2),
        ChannelSlice(sender=1, receiver=1, offset=700, size_bytes=90_000, batches=3),
    ),
    data=FileHandle(path="c3-a1-v2-s1-count-in-flight-5eed", size_bytes=90_700, checksum="00aa11bb22cc33dd"),
)


def shared_file(created_by, local):
    return SharedFile(
        name=f"c{created_by}-a1-v2-s0-count-shared-0-5eed",
        local=local,
        created_by=created_by,
        size_bytes=4_000_000,
        checksum="ffeeddccbbaa0099",
    )


def keyed_state():
    """Return what two subtasks stored."""
    keyed = (
        KeyedStateHandle(
            groups=KeyGroupRange(0, 64),
            entries=7,
            data=FileHandle(
                path="c3-a1-v2-s0-count-keyed-5eed", size_bytes=70_000, checksum="00112233aabbccdd"
            ),
        ),
        KeyedStateHandle(groups=KeyGroupRange(64, 128), entries=0, data=InlineHandle(data=b"\x00state\xff")),
    )
    shared = tuple(
        shared_file(created_by, local) for created_by, local in ((1, "000008.sst"), (3, "000011.sst"))
    )
    keyed = (replace(keyed[0], entries=None, shared=shared), keyed[1])
    return keyed[0], replace(keyed[1], files=(PART,))


def written(version):
    """Return what is in the file of a version."""
    keyed = keyed_state()
    elements = OperatorStateHandle(
        name="done", mode=Redistribution.SPLIT, element_count=2, data=InlineHandle(data=b"elements")
    )
    subtasks = tuple(
        OperatorSnapshot(
            uid="count",
            subtask=n,
            states=states,
            keyed=(handle,),
            operator=operator,
            channels=(IN_FLIGHT,) if version >= 4 and n else (),
        )
        for n, (handle, states, operator) in enumerate(
            zip(keyed, ((HITS, BY_DAY), (HITS, DONE)), ((), (elements,)), strict=True)
        )
    )
    return SnapshotMetadata(
        job_id="0123456789abcdef0123456789abcdef",
        job_name="hits per päth",
        checkpoint_id=3,
        kind=SnapshotKind.SAVEPOINT,
        savepoint_format=SavepointFormat.CANONICAL,
        created_ms=1_800_000_000_000,
        completed_ms=1_800_000_000_084,
        operators=(
            OperatorMetadata(
                uid="count",
                uid_generated=False,
                name="count hits",
                max_parallelism=128,
                parallelism=2,
                states=(HITS, BY_DAY, DONE),
                subtasks=subtasks,
            ),
        ),
        enumerators={"source": b"\x00splits\xff"},
        raystream_version="0.1.0",
        python_version="3.12.1",
    )


@pytest.mark.parametrize("version", [3, 4])
def test_metadata_of_every_version_that_is_read_is_what_was_written(version):
    path = GOLDEN / f"metadata-{version}.json"

    assert decode_metadata(path.read_bytes(), path=str(path)) == written(version)


def test_metadata_of_an_older_version_is_refused_with_a_way_to_upgrade():
    with pytest.raises(StateRestoreError, match="older format") as caught:
        decode_metadata(seal("snapshot", 1, b"{}"), path="file:///x/_metadata")
    assert "version of raystream in between" in caught.value.hint


def test_metadata_is_written_as_its_version_has_it():
    golden = (GOLDEN / f"metadata-{FORMAT_VERSION}.json").read_bytes()

    assert encode_metadata(written(FORMAT_VERSION)) == golden
