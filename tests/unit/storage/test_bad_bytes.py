"""Readers of stored files meet any bytes: they raise errors of ours, unpickle nothing, and stay small."""

import contextlib
import json
import pickle
import struct
import tracemalloc
from pathlib import Path

import msgspec
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from raystream.connectors.datagen import IndexSplit
from raystream.connectors.file_sink import FileCommittable
from raystream.connectors.versioned import decode as decode_versioned
from raystream.connectors.versioned import encode as encode_versioned
from raystream.errors import RaystreamError, StateRestoreError
from raystream.handles import InlineHandle, StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.chunk_form import KEYS_STR, Chunk
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.operator_state import decode_elements, encode_elements
from raystream.state.snapshot_files import FilesIndex, decode_index, encode_index
from raystream.state.snapshot_format import SnapshotWriter, open_snapshot
from raystream.storage.archive import read_archive
from raystream.storage.claims import claimed_by
from raystream.storage.envelope import seal
from raystream.storage.job_log import DurableJobLog
from raystream.storage.layout import JobLayout, claim_path
from raystream.storage.log_entries import AttemptStarted
from raystream.storage.metadata import decode_metadata, encode_metadata
from raystream.testing.simulation_storage import SimulatedFileSystem
from tests.unit.storage import sample
from tests.unit.storage.sample import JOB
from tests.unit.storage.test_archive import archived

GROUPS = KeyGroupRange(0, 8)
LAYOUT = JobLayout("memory://base", JOB)
HITS = StateInfo(name="hits", kind="value", serializer="msgpack-1", schema="int")
OLD = StateInfo(name="old", kind="value", serializer="pickle-1", schema="")
BYTES_MAX = 16 << 20


class Nobody:
    def storage_called(self, call):
        pass

    def storage_done(self, call):
        pass


def store(url, data):
    fs = SimulatedFileSystem(Nobody())
    fs.files[url] = data
    return fs


# ---- the readers, each with a file that it reads ----------------------------------------


def keyed_blob():
    writer = SnapshotWriter([HITS, OLD], GROUPS, 8)
    for group in (1, 5):
        plain = msgspec.msgpack.encode([[f"key {group}"], [group]])
        writer.add(0, group, Chunk(KEYS_STR, 1, plain))
        writer.add(1, group, Chunk(KEYS_STR | 4, 1, msgspec.msgpack.encode([["key"], [pickle.dumps(group)]])))
    return b"".join(writer.finish())


def read_keyed(data):
    snapshot = open_snapshot(lambda at, n: data[at : at + n], len(data), GROUPS, 8, path="blob")
    decoder = ChunkDecoder(ValueStateDescriptor("hits", int), HITS)
    for info, stored in snapshot.chunks():
        if info.name == "hits":
            decoder.decode(stored.chunk)


FILES = FilesIndex(
    backend="rocksdb",
    max_parallelism=8,
    first_group=0,
    end_group=8,
    taken_ms=1,
    tables=[],
    small_files={"CURRENT": b"MANIFEST-1"},
    shared=["000004.sst"],
)


def log_entry():
    fs = SimulatedFileSystem(Nobody())
    log = DurableJobLog(fs, LAYOUT)
    log.read()
    log.append(AttemptStarted(attempt=1, job_name="job"))
    return fs.files[LAYOUT.log_entry(1)]


READERS = {
    "_metadata": (
        encode_metadata(sample.snapshot(7, (InlineHandle(data=b"state"),))),
        lambda data: decode_metadata(data, path="there"),
    ),
    "log entry": (log_entry(), lambda data: DurableJobLog(store(LAYOUT.log_entry(1), data), LAYOUT).read()),
    "archive": (
        seal("archive", 1, msgspec.json.encode(archived())),
        lambda data: read_archive(store(LAYOUT.archive_path, data), LAYOUT),
    ),
    "claim": (
        seal("claim", 1, b'{"job_id":"%s"}' % JOB.encode()),
        lambda data: claimed_by("memory://d", open_fs=lambda _: store(claim_path("memory://d"), data)),
    ),
    "keyed state": (keyed_blob(), read_keyed),
    "index of files": (encode_index(FILES), decode_index),
    "operator state": (encode_elements([b"split 1", b"split 2"]), decode_elements),
    "split": (
        encode_versioned(1, IndexSplit(3, 4)),
        lambda data: decode_versioned(data, 1, IndexSplit, "split"),
    ),
    "committable": (
        (Path(__file__).parents[2] / "golden" / "file-committable-2.bin").read_bytes(),
        lambda data: decode_versioned(data, 2, FileCommittable, "output file"),
    ),
}
SEALED = {
    "_metadata": ("snapshot", 4),
    "log entry": ("log-entry", 2),
    "archive": ("archive", 1),
    "claim": ("claim", 1),
}


@pytest.fixture(autouse=True, scope="module")
def _trap():
    """Nothing is unpickled, whatever the bytes say."""

    def sprung(*arguments, **named):
        raise AssertionError("something was unpickled")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("loads", "load", "Unpickler"):
            patch.setattr(pickle, name, sprung)
        yield


def refused_or_read(read, data):
    with contextlib.suppress(RaystreamError):
        read(data)


# ---- strategies -----------------------------------------------------------------------


@st.composite
def mutated(draw, data):
    """Bytes that were once right."""
    content = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.sampled_from(["flip", "cut", "insert", "repeat", "overwrite", "drop"])):
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[at:]
            case "insert":
                content[at:at] = draw(st.binary(max_size=16))
            case "repeat":
                content[at:at] = content[at : at + draw(st.integers(0, 40))]
            case "overwrite":
                new = draw(st.binary(max_size=16))
                content[at : at + len(new)] = new
            case "drop":
                del content[at : at + draw(st.integers(0, 40))]
    return bytes(content)


def leaves(value):
    """Return the paths to every value inside a JSON value."""
    yield ()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from ((key, *path) for path in leaves(inner))


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
    st.sampled_from(["../x", "/etc/passwd", "a/../b", "file:///x", -1, 1 << 70, 1e400, "AAAA", "\0"]),
)  # fmt: skip


def replaced(value, path, new):
    """Return a JSON value with another one at a path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


# ---- what holds -------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
def test_the_file_as_it_was_written_is_read(name):
    data, read = READERS[name]
    read(data)


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_mutated_bytes_are_refused_with_an_error_of_ours(name, data):
    written, read = READERS[name]
    refused_or_read(read, data.draw(mutated(written)))


@pytest.mark.parametrize("name", READERS)
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_an_error_of_ours(name, content):
    refused_or_read(READERS[name][1], content)


@pytest.mark.parametrize("name", SEALED)
@given(data=st.data())
def test_wrong_content_under_a_right_checksum_is_refused_with_an_error_of_ours(name, data):
    written, read = READERS[name]
    kind, version = SEALED[name]
    content = json.loads(written)["content"]
    path = data.draw(st.sampled_from(list(leaves(content))))
    changed = json.dumps(replaced(content, path, data.draw(JUNK))).encode()
    refused_or_read(read, seal(kind, version, changed))
    refused_or_read(read, seal(kind, version, data.draw(mutated(changed))))


def sealed_keyed(index, chunks=b""):
    """Return a blob whose checksums are right, whatever its index is."""
    head = struct.pack("<4sHH", b"RSKS", 3, 0) + chunks
    end = struct.pack("<QQQH4s", len(head), len(index), xxhash.xxh3_64_intdigest(index), 3, b"SKSR")
    return head + index + end


def sealed_elements(payload):
    return struct.pack("<4sHHQ", b"RSOS", 1, 0, xxhash.xxh3_64_intdigest(payload)) + payload


def bare_index(blob):
    offset, length = struct.unpack_from("<QQ", blob, len(blob) - 30)
    return blob[8:offset], blob[offset : offset + length]


@given(data=st.data())
def test_wrong_indexes_under_right_checksums_are_refused_with_errors_of_ours(data):
    chunks, index = bare_index(keyed_blob())
    changed = sealed_keyed(data.draw(mutated(index)), chunks)
    refused_or_read(
        lambda blob: open_snapshot(lambda at, n: blob[at : at + n], len(blob), GROUPS, 8), changed
    )
    elements = data.draw(mutated(msgspec.msgpack.encode([b"a", b"b"])))
    refused_or_read(decode_elements, sealed_elements(elements))


@given(form=st.integers(0, 255).map(lambda form: form & ~4), content=st.binary(max_size=60), data=st.data())
def test_chunks_of_typed_states_are_refused_with_errors_of_ours(form, content, data):
    decoder = ChunkDecoder(ValueStateDescriptor("hits", int), HITS)
    written = msgspec.msgpack.encode([["key"], [1]])
    for bytes_ in (content, data.draw(mutated(written))):
        refused_or_read(decoder.decode, Chunk(form, 1, bytes_))


DEEP = 100_000
BOMBS = {
    "nested arrays": b"[" * DEEP,
    "nested objects": b'{"a":' * DEEP,
    "nested msgpack": b"\x91" * DEEP,
    "nested msgpack maps": b"\x81\xa1a" * DEEP,
    "huge array": b"\xdd\xff\xff\xff\xff",
    "huge map": b"\xdf\xff\xff\xff\xff",
    "huge bytes": b"\xc6\xff\xff\xff\xff",
    "huge text": b"\xdb\xff\xff\xff\xff",
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", READERS)
def test_nesting_and_lengths_that_are_not_there_cost_nothing(name, bomb):
    content, read = BOMBS[bomb], READERS[name][1]
    shapes = [content, b"\x01" + content, b"\x02" + content, sealed_keyed(content), sealed_elements(content)]
    shapes += [struct.pack("<4sHH", b"RSKF", 1, 0) + content]
    shapes += [seal(*SEALED[name], content)] if name in SEALED else []
    tracemalloc.start()
    try:
        for shape in shapes:
            refused_or_read(read, shape)
        assert tracemalloc.get_traced_memory()[1] < BYTES_MAX
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *((name, seal(kind, version + 1, b"{}")) for name, (kind, version) in SEALED.items()),
        ("keyed state", keyed_blob()[:4] + b"\x04" + keyed_blob()[5:-6] + b"\x04" + keyed_blob()[-5:]),
        ("index of files", struct.pack("<4sHH", b"RSKF", 2, 0) + b"new"),
        ("operator state", struct.pack("<4sHHQ", b"RSOS", 2, 0, 0) + b"new"),
        ("split", b"\x02new"),
        ("committable", b"\x03new"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_format_of_a_later_version_is_refused_in_one_line_that_says_so(name, data):
    with pytest.raises(StateRestoreError, match="newer") as caught:
        READERS[name][1](data)

    assert "\n" not in caught.value.message
    assert "\n" not in caught.value.hint
    assert caught.value.hint
