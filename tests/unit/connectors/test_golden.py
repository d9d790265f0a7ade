"""What connectors store is read back as it was written; one file of each kind for every format version."""

from pathlib import Path

import msgspec
import pytest

from raystream.connectors import file_tail, file_watch
from raystream.connectors.file_sink import FileCommittable, PartFileCommitter
from raystream.connectors.file_tail import WatchedSplit, decode_word
from raystream.connectors.file_watch import WatchEnumerator
from raystream.connectors.part_names import FILE_FORMAT_VERSION, UPLOAD_FORMAT_VERSION
from raystream.connectors.upload_committable import UploadCommittable, decode_upload, encode_upload
from raystream.connectors.versioned import encode
from raystream.errors import StateRestoreError
from raystream.operators.source import EnumeratorContext
from tests.unit.connectors.sinks import context_of

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
SPLIT = WatchedSplit("/logs/a", inode=5, birth_ns=6, number=7, offset=8, anchor=b"line\n", gone=True)
COMMITTABLE = FileCommittable(
    "/out/.part-files-0.inprogress", "/out/part-files-0", job_id="ab" * 16, attempt=3, token="5eed"
)
UPLOAD = UploadCommittable(
    "s3://b/out/part-files-0", "upload 1", part_count=2, size_bytes=9 << 20, marker="a9", job_id="ab" * 16,
    attempt=3, token="5eed", begun_ms=1_700_000_000_000,
)  # fmt: skip


def golden(kind, version):
    return (GOLDEN / f"{kind}-{version}.bin").read_bytes()


def enumerator(state):
    context = EnumeratorContext(parallelism=2, max_parallelism=128, restored=True)
    return WatchEnumerator("/logs/*", 1000, context, state)


def test_a_watched_file_is_stored_as_it_was():
    stored = golden("watched-file", file_tail.FORMAT_VERSION)

    assert decode_word(stored) == SPLIT
    assert SPLIT.encode() == stored


def test_the_enumerator_of_watched_files_is_stored_as_it_was():
    stored = golden("watch-enumerator", file_watch.FORMAT_VERSION)
    restored = enumerator(stored)

    assert restored.snapshot() == stored
    assert [decode_word(raw) for raw in restored.next_splits(1)] == [SPLIT]


def test_a_committable_is_stored_as_it_was():
    stored = golden("file-committable", FILE_FORMAT_VERSION)

    assert encode(FILE_FORMAT_VERSION, COMMITTABLE) == stored
    assert msgspec.msgpack.decode(stored[1:], type=FileCommittable) == COMMITTABLE


def test_a_committable_of_an_object_store_is_stored_as_it_was():
    stored = golden("upload-committable", UPLOAD_FORMAT_VERSION)

    assert encode_upload(UPLOAD) == stored
    assert decode_upload(stored) == UPLOAD


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("watched-file", decode_word),
        ("watch-enumerator", enumerator),
        ("file-committable", lambda raw: PartFileCommitter(context_of()).commit([raw])),
    ],
)
def test_format_1_is_refused_by_its_number(kind, read):
    with pytest.raises(StateRestoreError, match="has an older format than this version") as raised:
        read(b"\x01" + golden(kind, 2)[1:])

    assert raised.value.context == {"format": 1, "readable": 2}
