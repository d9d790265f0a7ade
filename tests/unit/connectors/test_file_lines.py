"""Lines are cut the same way whatever the blocks, splits and polls are."""

import os
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raystream.connectors import file_reader
from raystream.connectors.file_lines import LineDecoder, LineFormat, read_fully
from raystream.connectors.file_splits import FileSplit
from raystream.connectors.files import FileSource
from raystream.errors import ConfigError
from raystream.testing.source_run import ReaderRun

FRAGMENTS = (b"\n", b"\r\n", b"\r", b"a", b"bc", "é".encode(), "€😀".encode(), b" ", b"x" * 50)
CONTENT = st.lists(st.sampled_from(FRAGMENTS), max_size=60).map(b"".join)


def reference_lines(content):
    """(offset, line) of each line, by the definition."""
    lines, start = [], 0
    while start < len(content):
        end = content.find(b"\n", start)
        stop = len(content) if end < 0 else end
        line = content[start:stop]
        if end >= 0 and line.endswith(b"\r"):
            line = line[:-1]
        lines.append((start, line))
        start = stop + 1
    return lines


def read_range(source, path, start, stop, *, records_max=1024, bytes_max=1 << 20):
    run = ReaderRun(source)
    run.reader.add_splits([FileSplit(str(path), start, stop).encode()])
    run.reader.no_more_splits()
    records = []
    while run.poll_once(records, records_max, bytes_max):
        pass
    run.close()
    return records


@contextmanager
def blocks_of(block_bytes, overread_bytes=4):
    """Blocks of a few bytes, so that every line crosses some."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("READ_BYTES_FIRST", "READ_BYTES_MIN", "READ_BYTES_MAX"):
            patch.setattr(file_reader, name, block_bytes)
        patch.setattr(file_reader, "OVERREAD_BYTES", overread_bytes)
        yield


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("lines") / "file"


@dataclass(frozen=True)
class Reading:
    """How a file is read."""

    block_bytes: int = 1
    overread_bytes: int = 1
    records_max: int = 1
    bytes_max: int = 1
    encoding: str | None = None
    with_position: bool = False


READINGS = st.builds(
    Reading,
    block_bytes=st.integers(1, 40),
    overread_bytes=st.integers(1, 20),
    records_max=st.integers(1, 5),
    bytes_max=st.sampled_from((1, 10, 1 << 20)),
    encoding=st.sampled_from((None, "utf-8", "latin-1", "cp1252")),
    with_position=st.booleans(),
)


@settings(max_examples=400)
@given(content=CONTENT, cuts=st.lists(st.integers(0, 200), max_size=6), reading=READINGS)
@example(b"a\r\nb\r\n", [2], Reading(encoding="utf-8", with_position=True))
@example(b"\n\n\r\n\r", [1, 2, 3, 4], Reading())
def test_splits_neither_cut_nor_lose_nor_double_a_line(scratch, content, cuts, reading):
    encoding = reading.encoding
    if encoding == "cp1252":
        content = content.decode("latin-1").encode("cp1252", "ignore")
    scratch.write_bytes(content)
    bounds = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    source = FileSource.lines(scratch, encoding=encoding, with_position=reading.with_position)
    limits = {"records_max": reading.records_max, "bytes_max": reading.bytes_max}

    with blocks_of(reading.block_bytes, reading.overread_bytes):
        parts = [read_range(source, scratch, start, stop, **limits) for start, stop in pairwise(bounds)]

    expected = []
    for start, stop in pairwise(bounds):
        own = [(offset, line) for offset, line in reference_lines(content) if start <= offset < stop]
        own = [(offset, line.decode(encoding) if encoding else line) for offset, line in own]
        expected.append([(str(scratch), *pair) if reading.with_position else pair[1] for pair in own])
    assert parts == expected


@given(
    content=CONTENT,
    block_bytes=st.integers(1, 40),
    polls=st.lists(st.integers(1, 9), min_size=1, max_size=20),
)
def test_a_snapshot_anywhere_stands_behind_the_last_line_handed_out(scratch, content, block_bytes, polls):
    scratch.write_bytes(content)
    source = FileSource.lines(scratch, with_position=True)
    records = []
    splits = [FileSplit(str(scratch), 0, len(content)).encode()]

    with blocks_of(block_bytes):
        for records_max in polls:
            run = ReaderRun(source)
            run.reader.add_splits(splits)
            for _ in range(2):
                run.poll_once(records, records_max, 1 << 20)
            splits = run.reader.snapshot()
            assert [FileSplit.decode(split).start for split in splits] == [
                offset for offset, _ in reference_lines(content)[len(records) :][:1]
            ] or not records
            run.close()
    run = ReaderRun(source)
    run.reader.add_splits(splits)
    records += run.read_all()
    run.close()

    assert [(offset, line.encode()) for _, offset, line in records] == reference_lines(content)


def test_a_line_longer_than_many_blocks_is_read_in_linear_time(tmp_path, monkeypatch):
    content = b"first\n" + b"y" * 100_000 + b"\nlast"
    path = tmp_path / "long"
    path.write_bytes(content)
    read = []

    def counting_read(descriptor, size, offset):
        data = read_fully(descriptor, size, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(file_reader, "read_fully", counting_read)

    with blocks_of(16):
        lines = read_range(FileSource.lines(path), path, 0, len(content))

    assert lines == ["first", "y" * 100_000, "last"]
    assert sum(read) < 5 * len(content)


def test_splits_inside_a_long_line_are_empty(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(b"y" * 100_000 + b"\nlast\n")
    source = FileSource.lines(path)

    assert read_range(source, path, 0, 10) == ["y" * 100_000]
    assert read_range(source, path, 10, 90_000) == []
    assert read_range(source, path, 90_000, 100_000) == []
    assert read_range(source, path, 100_000, 100_001) == []
    assert read_range(source, path, 100_001, 100_002) == ["last"]


def test_a_lone_carriage_return_belongs_to_its_line(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a\rb\r\r\nc\r")

    assert read_range(FileSource.lines(path), path, 0, 8) == ["a\rb\r", "c\r"]


def test_a_batch_ends_at_the_byte_limit_but_holds_one_line(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1234\n" * 4 + b"x" * 50 + b"\n" + b"1234\n")
    run = ReaderRun(FileSource.lines(path, encoding=None))
    run.reader.add_splits([FileSplit(str(path), 0, path.stat().st_size).encode()])

    batches = []
    for _ in range(4):
        batch = []
        run.poll_once(batch, 1024, 10)
        batches.append([len(line) for line in batch])
    run.close()

    assert batches == [[4, 4], [4, 4], [50], [4]]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp037"])
def test_an_encoding_without_a_one_byte_line_end_is_refused(encoding):
    with pytest.raises(ConfigError, match="line end is not the byte"):
        FileSource.lines("file", encoding=encoding)


@pytest.mark.parametrize("arguments", [{"encoding": "utf-9"}, {"errors": "forgive"}, {"encoding": "hex"}])
def test_an_encoding_or_handler_that_does_not_exist_is_refused(arguments):
    with pytest.raises(ConfigError, match="no such encoding or error handler"):
        FileSource.lines("file", **arguments)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "shift_jis"])
def test_bytes_that_are_not_text_are_reported_with_file_and_offset(tmp_path, encoding):
    path = tmp_path / "file"
    path.write_bytes(b"good\r\nalso\nbad \xff here\n")

    with pytest.raises(ConfigError, match="not text in this encoding") as raised:
        read_range(FileSource.lines(path, encoding=encoding), path, 0, path.stat().st_size)

    assert raised.value.context["path"] == str(path)
    assert raised.value.context["offset"] == 15


@pytest.mark.parametrize("errors", ["replace", "ignore", "surrogateescape", "backslashreplace"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "gbk"])
def test_positions_stay_exact_where_bytes_are_replaced(tmp_path, encoding, errors):
    content = b"\xff\n\xe2\x82\n\x81\nabc\n\xc3\xa9\r\n\xe2\x82\xac" * 3
    path = tmp_path / "file"
    path.write_bytes(content)
    source = FileSource.lines(path, encoding=encoding, errors=errors, with_position=True)

    records = read_range(source, path, 0, len(content))

    expected = [(offset, line.decode(encoding, errors)) for offset, line in reference_lines(content)]
    assert [(offset, line) for _, offset, line in records] == expected


def test_replacements_that_lengthen_and_shorten_lines_do_not_cancel_out(tmp_path):
    content = "é\né\né\n".encode() + b"\xff\nlast"  # As many characters as bytes, but not in each line.
    path = tmp_path / "file"
    path.write_bytes(content)
    source = FileSource.lines(path, errors="backslashreplace", with_position=True)

    assert [offset for _, offset, _ in read_range(source, path, 0, len(content))] == [0, 3, 6, 9, 11]


def test_a_byte_order_mark_is_dropped_only_at_the_start_and_only_when_asked(tmp_path):
    path = tmp_path / "file"
    content = b"\xef\xbb\xbfa\nbb\n\xef\xbb\xbfc\n"
    path.write_bytes(content)

    def lines(encoding):
        return read_range(
            FileSource.lines(path, encoding=encoding, with_position=True), path, 0, len(content)
        )

    assert [record[1:] for record in lines("utf-8-sig")] == [(0, "a"), (5, "bb"), (8, "\ufeffc")]
    assert read_range(FileSource.lines(path, encoding="utf-8-sig"), path, 8, len(content)) == ["\ufeffc"]
    assert [record[1:] for record in lines("utf-8")] == [(0, "\ufeffa"), (5, "bb"), (8, "\ufeffc")]


@pytest.mark.parametrize(("raw", "expected"), [(b"a\nbb\n", [7, 9, 12]), (b"a\nbb", [7, 9, 11])])
def test_offsets_end_where_the_lines_end(raw, expected):
    block = LineDecoder(LineFormat()).block("file", 7, raw, len(raw))

    assert block.offsets() == expected


def test_an_even_cut_leaves_no_tiny_batch():
    decoder = LineDecoder(LineFormat())
    raw = b"x\n" * 1030
    block = decoder.block("file", 0, raw, len(raw))

    sizes = []
    while block.taken < len(block.lines):
        sizes.append(len(decoder.values("file", block, block.cut(1024, 1 << 20))))

    assert sizes == [515, 515]


def test_short_reads_are_joined(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: pread(descriptor, min(size, 7), offset))
    descriptor = os.open(path, os.O_RDONLY)

    assert read_fully(descriptor, 50, 10) == bytes(range(10, 60))
    assert read_fully(descriptor, 50, 80) == bytes(range(80, 100))
    os.close(descriptor)
