"""The index of a snapshot of files says what there is, or that it is damaged; it never leads elsewhere."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raystream.clock import SystemClock
from raystream.errors import StateCorruptError, StateError, StateRestoreError
from raystream.handles import SharedFile, StateInfo
from raystream.keygroup import KEY_GROUPS_MAX, KeyGroupRange
from raystream.state.cursor import KeyCursor
from raystream.state.heap import HeapBackend
from raystream.state.snapshot_files import (
    FORMAT_VERSION,
    FilesIndex,
    StoredFiles,
    TableInfo,
    encode_index,
)
from raystream.state.snapshot_format import SnapshotWriter, StoredSnapshot
from raystream.state.stored import open_stored
from raystream.state.ttl import StateTtl
from raystream.testing.stored_state import MemoryBlob

GROUPS = KeyGroupRange(4, 12)
HITS = StateInfo(name="hits", kind="value", serializer="msgpack-1", schema="int")
COUNTS = StateInfo(
    name="counts", kind="map", serializer="pickle-1", schema="", map_key_schema="str", namespaced=True
)


def index_of(**changes):
    fields = {
        "backend": "rocksdb",
        "max_parallelism": 128,
        "first_group": 4,
        "end_group": 12,
        "taken_ms": 1_000,
        "tables": [
            TableInfo.of_table(HITS, number=0, ttl=None, positions=0),
            TableInfo.of_table(COUNTS, number=3, ttl=StateTtl(300), positions=9),
        ],
        "small_files": {"CURRENT": b"MANIFEST-000005\n", "MANIFEST-000005": b"\x00\xff"},
        "shared": ["000008.sst"],
    }
    return FilesIndex(**{**fields, **changes})


def shared_of(*names):
    return tuple(
        SharedFile(name=f"c1-{name}", local=name, created_by=1, size_bytes=3, checksum="0" * 16)
        for name in names
    )


def read(file):
    yield file.name[:4].encode()
    yield file.name[4:].encode()


def go_on():
    """Let everything go on."""


SHARED = shared_of("000008.sst")


def load(blob, shared=SHARED):
    files = {file.local: partial(read, file) for file in shared}
    known = {file.local: file for file in shared}
    return open_stored(MemoryBlob(blob), files, GROUPS, 128, known=known, parts={})


def test_index_comes_back_as_it_was():
    stored = load(encode_index(index_of()))

    assert isinstance(stored, StoredFiles)
    assert stored.index == index_of()
    assert stored.index.groups == GROUPS
    assert [table.info for table in stored.index.tables] == [HITS, COUNTS]
    assert [stored.index.taken.cutoff_ms(table.ttl) for table in stored.index.tables] == [None, 700]
    assert stored.known == {SHARED[0].local: SHARED[0]}


def test_all_files_are_put_into_a_new_directory(tmp_path):
    load(encode_index(index_of())).fetch_into(tmp_path / "db", go_on)

    assert {path.name: path.read_bytes() for path in (tmp_path / "db").iterdir()} == {
        "CURRENT": b"MANIFEST-000005\n",
        "MANIFEST-000005": b"\x00\xff",
        "000008.sst": b"c1-000008.sst",
    }


def test_files_may_be_fetched_at_once(tmp_path):
    shared = shared_of(*(f"{number:06d}.sst" for number in range(20)))
    files = {file.local: partial(read, file) for file in shared}
    index = index_of(shared=list(files))
    with ThreadPoolExecutor(4) as pool:
        stored = StoredFiles(index, files, known={}, each=lambda work, names: list(pool.map(work, names)))
        stored.fetch_into(tmp_path / "db", go_on)

    fetched = {name: (tmp_path / "db" / name).read_bytes() for name in files}
    assert fetched == {file.local: file.name.encode() for file in shared}


def test_files_are_not_put_where_the_parent_is_gone(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(encode_index(index_of())).fetch_into(tmp_path / "gone" / "db", go_on)

    assert list(tmp_path.iterdir()) == []


def test_blob_of_chunks_is_told_from_an_index():
    blob = b"".join(SnapshotWriter((HITS,), GROUPS, 128).finish())

    assert isinstance(load(blob, ()), StoredSnapshot)


def test_index_of_a_newer_version_is_refused_with_advice():
    blob = bytearray(encode_index(index_of()))
    blob[4] = FORMAT_VERSION + 1

    with pytest.raises(StateRestoreError, match="newer raystream") as caught:
        load(bytes(blob))
    assert caught.value.context == {"version": FORMAT_VERSION + 1, "newest_readable": FORMAT_VERSION}
    assert "with the version that wrote it" in caught.value.hint


@pytest.mark.parametrize(
    "shared", [(), ("000008.sst", "000009.sst"), ("000009.sst",)], ids=["missing", "more", "other"]
)
def test_files_that_the_index_does_not_name_are_damage(shared):
    with pytest.raises(StateCorruptError, match="not those that its index names"):
        load(encode_index(index_of()), shared_of(*shared))


LEADS_ELSEWHERE = ["../CURRENT", "/etc/passwd", "a/b", "", ".", "..", "a\0b"]


@pytest.mark.parametrize("name", LEADS_ELSEWHERE)
def test_small_file_that_leads_elsewhere_is_damage(name):
    with pytest.raises(StateCorruptError):
        load(encode_index(index_of(small_files={name: b""})))


@pytest.mark.parametrize("name", LEADS_ELSEWHERE)
def test_shared_file_that_leads_elsewhere_is_damage(name):
    with pytest.raises(StateCorruptError):
        load(encode_index(index_of(shared=[name])), shared_of(name))


@pytest.mark.parametrize(
    "changes",
    [
        {"shared": ["000008.sst", "000008.sst"]},
        {"small_files": {"000008.sst": b""}},
        {"tables": [TableInfo.of_table(HITS, number=n, ttl=None, positions=0) for n in (0, 1)]},
        {"tables": [TableInfo.of_table(info, number=1, ttl=None, positions=0) for info in (HITS, COUNTS)]},
        {"tables": [TableInfo.of_table(HITS, number=-1, ttl=None, positions=0)]},
        {"tables": [TableInfo.of_table(HITS, number=1 << 16, ttl=None, positions=0)]},
        {"first_group": 12},
        {"first_group": -1},
        {"end_group": 129},
        {"max_parallelism": KEY_GROUPS_MAX + 1},
    ],
    ids=str,
)
def test_index_that_contradicts_itself_is_damage(changes):
    with pytest.raises(StateCorruptError):
        load(encode_index(index_of(**changes)))


@given(st.data())
def test_damaged_index_is_an_error_of_ours_or_an_index(data):
    blob = bytearray(encode_index(index_of()))
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.one_of(st.just(len(blob)), st.integers(0, len(blob))))
    damaged = bytes(blob[:length])

    try:
        stored = load(damaged)
    except (StateCorruptError, StateRestoreError):
        return
    assert isinstance(stored, StoredFiles)


@given(st.binary(max_size=100))
@example(b"\xc1")
@example(b"\x91" * 100_000)
@example(msgspec.msgpack.encode({"backend": "rocksdb"}))
def test_any_content_behind_the_header_is_an_error_of_ours(content):
    with pytest.raises(StateCorruptError, match="cannot be read"):
        load(encode_index(index_of())[:8] + content)


def test_backend_on_the_heap_says_what_to_do_with_files_of_another_one():
    backend = HeapBackend(GROUPS, 128, KeyCursor(), clock=SystemClock())

    with pytest.raises(StateRestoreError, match="files of another state backend") as caught:
        backend.restore([load(encode_index(index_of()))])
    assert caught.value.context == {"written_by": "rocksdb"}
    assert "state.backend.type as it was" in caught.value.hint
    assert isinstance(caught.value, StateError)
