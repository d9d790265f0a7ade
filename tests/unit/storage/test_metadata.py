"""`_metadata` gives back what was written, or an error of ours that names the file."""

import json
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystream.errors import StateCorruptError, StateRestoreError
from raystream.handles import (
    ChannelSlice,
    ChannelStage,
    ChannelStateHandle,
    FileHandle,
    InlineHandle,
    OperatorStateHandle,
    Redistribution,
)
from raystream.records.elements import SnapshotKind
from raystream.storage.envelope import seal, unseal
from raystream.storage.metadata import (
    FORMAT_VERSION,
    blobs_of,
    decode_metadata,
    encode_metadata,
    files_of,
    map_blobs,
    shared_files_of,
)
from tests.unit.storage import sample

PATH = "file:///x/_metadata"


@given(sample.snapshots)
def test_a_snapshot_comes_back_as_it_was(metadata):
    assert decode_metadata(encode_metadata(metadata), path=PATH) == metadata


def test_the_file_is_json_that_a_person_can_read():
    content = json.loads(encode_metadata(sample.snapshot()))

    assert content["raystream"] == "snapshot"
    assert content["format"] == FORMAT_VERSION
    assert content["content"]["job_name"] == "count"
    assert content["content"]["operators"][0]["states"][0]["schema"] == "int"
    assert content["content"]["operators"][0]["subtasks"][0]["keyed"][0]["key_groups"] == [0, 1]


@given(sample.snapshots)
def test_a_snapshot_names_the_shared_files_that_it_needs(metadata):
    loaded = decode_metadata(encode_metadata(metadata), path=PATH)

    needed = [
        file
        for operator in metadata.operators
        for subtask in operator.subtasks
        for handle in subtask.keyed
        for file in handle.shared
    ]
    assert shared_files_of(loaded) == tuple({file.name: file for file in needed}.values())


def test_a_file_that_two_subtasks_need_counts_once():
    handles = (InlineHandle(data=b"12345"), InlineHandle(data=b"67890"))
    one, other = sample.shared_file(1, b"a" * 100), sample.shared_file(2, b"b" * 10)
    whole = sample.snapshot(2, handles, shared=(one, other))
    without = sample.snapshot(2, handles)

    (operator,) = whole.operators
    assert shared_files_of(whole) == (one, other)
    assert whole.size_bytes == without.size_bytes + 110
    assert operator.size_bytes == without.operators[0].size_bytes + 110
    assert [subtask.size_bytes for subtask in operator.subtasks] == [115, 115]


def test_a_version_3_file_has_no_records_in_flight_and_is_read():
    metadata = replace(sample.snapshot(), kind=SnapshotKind.SAVEPOINT)
    _, content = unseal("snapshot", FORMAT_VERSION, encode_metadata(metadata), path=PATH)
    stored = msgspec.json.decode(content)
    del stored["operators"][0]["subtasks"][0]["channels"]

    assert decode_metadata(seal("snapshot", 3, msgspec.json.encode(stored)), path=PATH) == metadata


@pytest.mark.parametrize(("changed", "to"), [("input", -1), ("stage", "lost")])
def test_records_in_flight_that_no_operator_takes_are_refused(changed, to):
    metadata = sample.snapshot()
    (operator,) = metadata.operators
    records = ChannelStateHandle(
        target=operator.uid,
        input=0,
        stage=ChannelStage.INPUT,
        keyed=False,
        records=1,
        slices=(ChannelSlice(sender=0, receiver=0, offset=0, size_bytes=1, batches=1),),
        data=InlineHandle(data=b"1"),
    )
    subtask = replace(operator.subtasks[0], channels=(records,))
    whole = replace(metadata, operators=(replace(operator, subtasks=(subtask,)),))
    assert decode_metadata(encode_metadata(whole), path=PATH) == whole

    _, content = unseal("snapshot", FORMAT_VERSION, encode_metadata(whole), path=PATH)
    stored = msgspec.json.decode(content)
    stored["operators"][0]["subtasks"][0]["channels"][0][changed] = to
    with pytest.raises(StateCorruptError, match="breaks its format"):
        decode_metadata(seal("snapshot", FORMAT_VERSION, msgspec.json.encode(stored)), path=PATH)


def test_every_kind_of_file_of_a_snapshot_is_among_its_files():
    blob, other = (FileHandle(path=path, size_bytes=3, checksum="0" * 16) for path in ("blob", "list"))
    part = sample.named_file("count-hits/hits/part-0.parquet", b"parquet")
    whole = sample.snapshot(1, (blob,), files=(part,))
    (operator,) = whole.operators
    elements = OperatorStateHandle(name="l", mode=Redistribution.SPLIT, element_count=1, data=other)
    subtask = replace(operator.subtasks[0], operator=(elements,))
    whole = replace(whole, operators=(replace(operator, subtasks=(subtask,)),))

    assert files_of(whole) == (blob, other, part.file)
    assert subtask.size_bytes == 3 + 3 + 7


@given(sample.snapshots, st.data())
def test_a_cut_file_is_found(metadata, data):
    content = encode_metadata(metadata)
    length = data.draw(st.integers(0, len(content) - 1))

    with pytest.raises((StateCorruptError, StateRestoreError)) as caught:
        decode_metadata(content[:length], path=PATH)
    assert caught.value.context["path"] == PATH


@given(sample.snapshots, st.data())
def test_a_flipped_bit_is_found(metadata, data):
    content = bytearray(encode_metadata(metadata))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises((StateCorruptError, StateRestoreError)) as caught:
        decode_metadata(bytes(content), path=PATH)
    assert caught.value.context["path"] == PATH


def test_every_single_flipped_bit_is_found():
    content = encode_metadata(sample.snapshot())
    for position in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises((StateCorruptError, StateRestoreError)):
            decode_metadata(bytes(flipped), path=PATH)


@given(st.binary(max_size=200))
def test_any_other_file_is_refused(data):
    with pytest.raises((StateRestoreError, StateCorruptError)):
        decode_metadata(data, path=PATH)


def test_a_file_that_begins_like_a_snapshot_is_a_damaged_one():
    with pytest.raises(StateCorruptError, match="snapshot file is damaged"):
        decode_metadata(encode_metadata(sample.snapshot())[:-1], path=PATH)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b'"\xff\xfe"', b"{}", b"null"])
def test_a_hostile_file_is_not_a_snapshot(data):
    with pytest.raises(StateRestoreError, match="not a raystream snapshot"):
        decode_metadata(data, path=PATH)


def test_a_newer_format_is_refused_in_one_line():
    with pytest.raises(StateRestoreError) as caught:
        decode_metadata(seal("snapshot", FORMAT_VERSION + 1, b'{"anything":1}'), path=PATH)
    cause, advice = str(caught.value).splitlines()
    assert cause.startswith("snapshot file has a newer format than this version of raystream reads")
    assert f"path='{PATH}' format={FORMAT_VERSION + 1} newest_readable={FORMAT_VERSION}" in cause
    assert advice == "hint: upgrade raystream to the version that wrote it, or newer"


def test_the_version_before_is_read_and_an_older_one_refused():
    assert unseal("snapshot", 3, seal("snapshot", 2, b"{}"), path=PATH) == (2, b"{}")
    with pytest.raises(StateRestoreError, match="older format"):
        unseal("snapshot", 3, seal("snapshot", 1, b"{}"), path=PATH)


def test_a_file_of_another_kind_is_not_a_snapshot():
    with pytest.raises(StateRestoreError, match="not a raystream snapshot"):
        decode_metadata(seal("log-entry", 1, b"{}"), path=PATH)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"key_groups":[0,1]', b'"key_groups":[1,1]'),
        (b'"key_groups":[0,1]', b'"key_groups":[-1,1]'),
        (b'"kind":"checkpoint"', b'"kind":"something"'),
        (b'"states":[0]', b'"states":[7]'),
        (b'"states":[0]', b'"states":[-1]'),
        (b'"in":"metadata"', b'"in":"elsewhere"'),
        (b'"job_name":"count"', b'"job_name":null'),
    ],
)
def test_content_that_breaks_the_format_is_corrupt(old, new):
    _, content = unseal("snapshot", FORMAT_VERSION, encode_metadata(sample.snapshot()), path=PATH)
    assert old in content

    with pytest.raises(StateCorruptError, match="breaks its format"):
        decode_metadata(seal("snapshot", FORMAT_VERSION, content.replace(old, new)), path=PATH)


@pytest.mark.parametrize(
    ("name", "value"),
    [("parallelism", 3), ("parallelism", 0), ("max_parallelism", 0), ("created_ms", 10**18)],
)
def test_numbers_that_contradict_what_is_there_are_told_as_damage(name, value):
    _, content = unseal("snapshot", FORMAT_VERSION, encode_metadata(sample.snapshot()), path=PATH)
    stored = msgspec.json.decode(content)
    holder = stored if name in stored else stored["operators"][0]
    assert name in holder
    holder[name] = value

    with pytest.raises(StateCorruptError, match="breaks its format"):
        decode_metadata(seal("snapshot", FORMAT_VERSION, msgspec.json.encode(stored)), path=PATH)


def test_a_field_that_a_later_version_adds_is_passed_over():
    _, content = unseal("snapshot", FORMAT_VERSION, encode_metadata(sample.snapshot()), path=PATH)
    extended = msgspec.json.encode({**msgspec.json.decode(content), "new": 1})

    assert decode_metadata(seal("snapshot", FORMAT_VERSION, extended), path=PATH) == sample.snapshot()


@given(sample.snapshots)
def test_mapping_blobs_visits_each_once_in_stored_order(metadata):
    visited = []

    def visit(handle):
        visited.append(handle)
        return InlineHandle(data=b"%d" % len(visited))

    mapped = map_blobs(metadata, visit)

    assert tuple(visited) == blobs_of(metadata)
    assert [blob.data for blob in blobs_of(mapped)] == [b"%d" % n for n in range(1, len(visited) + 1)]


def test_the_size_counts_inline_state_files_and_enumerators():
    handles = (InlineHandle(data=b"123"), FileHandle(path="f", size_bytes=1000, checksum="0" * 16))

    assert sample.snapshot(handles=handles).size_bytes == 3 + 1000 + len(b"\x00splits\xff")
