"""Blobs of state come back as they were written, or not at all."""

from dataclasses import replace

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raystream.errors import CheckpointError, StateCorruptError, StorageError
from raystream.handles import FOOTER_BYTES_MAX, FileHandle, Footer, InlineHandle
from raystream.storage import blobs
from raystream.storage.blobs import INLINE_BYTES_MAX, JOBMANAGER_BYTES_MAX, SnapshotFiles
from raystream.storage.filesystem import join_url
from tests.unit.storage import sample
from tests.unit.storage.contract import UnreachableFileSystem

FILES = SnapshotFiles()


def write(directory, data, inline_bytes_max=0):
    return FILES.write_blob(directory, "blob", data, inline_bytes_max=inline_bytes_max)


def test_a_large_blob_is_a_file_with_its_checksum(base, fs):
    handle = write(base, b"x" * 101, inline_bytes_max=100)

    checksum = xxhash.xxh3_64_hexdigest(b"x" * 101)
    footer = Footer(size_bytes=101, checksum=checksum)
    assert handle == FileHandle(path="blob", size_bytes=101, checksum=checksum, footer=footer)
    assert fs.read(join_url(base, "blob")) == b"x" * 101


@pytest.mark.parametrize("cuts", [[], [FOOTER_BYTES_MAX], [10, 20, FOOTER_BYTES_MAX + 20], [10, 60_000]])
def test_end_of_another_blob_of_the_same_length_is_noticed_when_it_is_read_alone(base, fs, cuts):
    content = bytes(range(256)) * 300
    ends = [*cuts, len(content)]
    handle = write(base, [content[start:end] for start, end in zip([0, *ends], ends, strict=False)])
    at = len(content) - FOOTER_BYTES_MAX
    assert FILES.open_handle(base, handle).read_range(at, FOOTER_BYTES_MAX) == content[at:]

    fs.write(join_url(base, "blob"), content[:-1] + b"x")
    with pytest.raises(StateCorruptError, match="damaged") as caught:
        FILES.open_handle(base, handle).read_range(at, FOOTER_BYTES_MAX)
    assert caught.value.context["path"] == join_url(base, "blob")


def test_a_blob_up_to_the_threshold_is_inline(base, fs):
    assert write(base, b"x" * 100, inline_bytes_max=100) == InlineHandle(data=b"x" * 100)
    assert fs.list_dir(base) == []


def test_no_threshold_makes_a_large_blob_inline(base):
    blob = b"x" * (INLINE_BYTES_MAX + 1)

    assert isinstance(write(base, blob, inline_bytes_max=10**9), FileHandle)
    assert isinstance(write(base, blob[:-1], inline_bytes_max=10**9), InlineHandle)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    buffers=st.lists(st.binary(max_size=30), max_size=4),
    inline_bytes_max=st.sampled_from([0, 20, 1000]),
    offset=st.integers(0, 130),
    length=st.integers(0, 130),
)
def test_whole_and_in_ranges_a_blob_reads_as_it_was(memory_base, buffers, inline_bytes_max, offset, length):
    whole = b"".join(buffers)
    handle = write(memory_base, [memoryview(part) for part in buffers], inline_bytes_max)

    reader = FILES.open_handle(memory_base, handle)
    assert FILES.read_handle(memory_base, handle) == whole
    assert reader.size_bytes == handle.size_bytes == len(whole)
    if offset + length <= len(whole):
        assert reader.read_range(offset, length) == whole[offset : offset + length]
    elif length:
        with pytest.raises(StateCorruptError, match="shorter than it should be"):
            reader.read_range(offset, length)


def test_without_a_directory_every_blob_is_inline():
    handle = write("", b"x" * JOBMANAGER_BYTES_MAX)

    assert isinstance(handle, InlineHandle)
    assert FILES.read_handle("", handle) == b"x" * JOBMANAGER_BYTES_MAX


def test_a_blob_too_large_for_the_job_manager_says_which_storage_to_use():
    with pytest.raises(CheckpointError) as caught:
        FILES.write_blob("", "c1-count", b"x" * (JOBMANAGER_BYTES_MAX + 1), inline_bytes_max=0)
    assert caught.value.context["state"] == "c1-count"
    assert "execution.checkpointing.dir" in caught.value.hint


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"contenT", "file of the snapshot is damaged"),
        (b"conten", "file of the snapshot has another size"),
        (b"content ", "file of the snapshot has another size"),
    ],
)
def test_a_damaged_file_is_named(base, fs, damaged, message):
    handle = write(base, b"content")
    fs.write(join_url(base, "blob"), damaged)

    with pytest.raises(StateCorruptError, match=message) as caught:
        FILES.read_handle(base, handle)
    assert caught.value.context["path"] == join_url(base, "blob")


def test_a_missing_file_is_named(base, fs):
    handle = write(base, b"content")
    fs.delete_file(join_url(base, "blob"))

    for read in (
        lambda: FILES.read_handle(base, handle),
        lambda: FILES.open_handle(base, handle).read_range(0, 1),
    ):
        with pytest.raises(StateCorruptError, match="file of the snapshot is missing") as caught:
            read()
        assert caught.value.context["path"] == join_url(base, "blob")


# ---- shared files ----


CONTENT = bytes(range(256)) * 10


@pytest.fixture
def shared(base, monkeypatch):
    """A checkpoint's directory, a file that it shares with others, and the URL of that file."""
    monkeypatch.setattr(blobs, "FETCH_BYTES", 1000)
    directory, file = join_url(base, "chk-3"), sample.shared_file(2, CONTENT)
    FILES.write_shared(directory, file, [memoryview(CONTENT)[:700], CONTENT[700:]])
    return directory, file, join_url(base, f"shared/{file.name}")


def test_a_shared_file_is_beside_the_directories_of_checkpoints(shared, fs):
    directory, file, url = shared

    assert fs.read(url) == CONTENT
    assert b"".join(FILES.read_shared(directory, file)) == CONTENT
    assert b"".join(FILES.read_shared(directory.replace("chk-3", "chk-4"), file)) == CONTENT


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (None, "missing"),
        (b"", "shorter than it should be"),
        (CONTENT[:-1], "shorter than it should be"),
        (CONTENT[:1000], "shorter than it should be"),
        (bytes([CONTENT[0] ^ 1]) + CONTENT[1:], "damaged"),
        (CONTENT[:-1] + bytes([CONTENT[-1] ^ 128]), "damaged"),
        (CONTENT + b"x", "longer than it should be"),
        (bytes(reversed(CONTENT)), "damaged"),  # Another file of the same size in its place.
    ],
)
def test_a_shared_file_that_is_not_what_was_written_is_named(shared, fs, damaged, message):
    directory, file, url = shared
    fs.delete_file(url)
    if damaged is not None:
        fs.write(url, damaged)

    with pytest.raises(StateCorruptError, match=message) as caught:
        list(FILES.read_shared(directory, file))
    assert caught.value.context["path"] == url
    assert "start from another checkpoint" in caught.value.hint


def test_a_shared_file_is_deleted_and_may_be_gone_already(shared, fs):
    directory, file, url = shared
    FILES.delete_shared(directory, file)
    FILES.delete_shared(directory, file)

    assert not fs.exists(url)


@pytest.mark.parametrize("name", ["", ".", "..", "../chk-3/_metadata", "a/b", "/etc/passwd"])
def test_a_shared_file_cannot_lead_elsewhere(base, name):
    file = replace(sample.shared_file(2, CONTENT), name=name)

    for use in (
        lambda: FILES.write_shared(join_url(base, "chk-3"), file, CONTENT),
        lambda: list(FILES.read_shared(join_url(base, "chk-3"), file)),
        lambda: FILES.delete_shared(join_url(base, "chk-3"), file),
    ):
        with pytest.raises(StateCorruptError, match="leads out of its snapshot"):
            use()


def test_a_store_that_does_not_answer_is_not_a_damaged_file(base):
    handle = write(base, b"content")
    unreachable = SnapshotFiles(lambda _: UnreachableFileSystem())

    with pytest.raises(StorageError, match="could not reach the store"):
        unreachable.read_handle(base, handle)
    with pytest.raises(StorageError, match="could not reach the store"):
        list(unreachable.read_shared(join_url(base, "chk-1"), sample.shared_file(1, CONTENT)))
