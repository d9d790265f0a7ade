"""File sources find, cut and decode files; what users get wrong is said clearly."""

import dataclasses
import os
from datetime import timedelta

import msgspec
import pytest

from raystream.connectors.file_splits import SPLIT_BYTES_MAX, SPLIT_BYTES_MIN, FileSplit
from raystream.connectors.files import FileSource
from raystream.errors import ConfigError, StateRestoreError, StorageError
from raystream.operators.source import EnumeratorContext
from raystream.testing.contracts import SourceContract
from raystream.testing.source_run import ReaderRun


def enumerator_of(source, parallelism=1, state=None):
    context = EnumeratorContext(parallelism=parallelism, max_parallelism=128, restored=state is not None)
    enumerator = source.enumerator(context, state)
    enumerator.discovered(enumerator.discover())
    return enumerator


def splits_of(source, parallelism=1):
    enumerator = enumerator_of(source, parallelism)
    splits = []
    while found := enumerator.next_splits(0):
        splits += [FileSplit.decode(raw) for raw in found]
    assert enumerator.exhausted
    return splits


def read(source):
    run = ReaderRun(source)
    run.reader.add_splits([split.encode() for split in splits_of(source)])
    run.reader.no_more_splits()
    records = run.read_all()
    run.close()
    return records


class TestBoundedLinesContract(SourceContract):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path, monkeypatch):
        monkeypatch.setattr("raystream.connectors.file_splits.SPLIT_BYTES_MIN", 50)
        monkeypatch.setattr("raystream.connectors.file_reader.READ_BYTES_MIN", 64)
        monkeypatch.setattr("raystream.connectors.file_reader.READ_BYTES_FIRST", 30)
        self.directory = tmp_path
        self.lines = []
        for name, end, count in (
            ("a.log", "\n", 120),
            ("b.log", "\r\n", 60),
            ("empty.log", "", 0),
            ("c.log", "\n", 1),
        ):
            lines = [f"{name} {'é' * (i % 7)} {i}" for i in range(count)]
            (tmp_path / name).write_bytes(end.join(lines).encode())
            self.lines += lines

    def source(self):
        return FileSource.lines(self.directory / "*.log")

    def expected(self):
        return self.lines


class TestPositionedJsonContract(SourceContract):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path, monkeypatch):
        monkeypatch.setattr("raystream.connectors.file_splits.SPLIT_BYTES_MIN", 50)
        self.path = tmp_path / "file"
        self.path.write_text("".join(f'{{"i": {i}}}\n{" " * (i % 2)}\n' for i in range(100)))

    def source(self):
        return FileSource.json_lines(self.path, with_position=True)

    def expected(self):
        offset, records = 0, []
        for i in range(100):
            records.append((str(self.path), offset, {"i": i}))
            offset += len(f'{{"i": {i}}}') + 2 + i % 2
        return records


def test_the_real_parts_of_a_file_add_up_at_full_block_sizes(tmp_path):
    path = tmp_path / "big"
    lines = [f"{i} " + "x" * (i * 7919 % 211) for i in range(30_000)]
    path.write_text("\r\n".join(lines), newline="")
    source = FileSource.lines(path)

    assert len(splits_of(source)) > 3
    assert read(source) == lines


def test_a_pattern_stands_for_its_files_in_sorted_order(tmp_path):
    for name in ("b/2.log", "a/1.log", "a/deep/3.log", "a/other.txt", ".hidden/4.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name + "\n")

    assert read(FileSource.lines(tmp_path / "**/*.log")) == ["a/1.log", "a/deep/3.log", "b/2.log"]
    assert read(FileSource.lines(tmp_path / "a/?.log")) == ["a/1.log"]


def test_a_directory_stands_for_its_files_but_not_for_hidden_and_unfinished_ones(tmp_path):
    for name in ("2", "1", "sub/3", ".part.inprogress", "_SUCCESS", "_tmp/4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name + "\n")

    assert read(FileSource.lines(tmp_path)) == ["1", "2", "sub/3"]


def test_a_file_whose_name_looks_like_a_pattern_is_meant_literally(tmp_path):
    (tmp_path / "data[1].log").write_text("literal")
    (tmp_path / "data1.log").write_text("matched")

    assert read(FileSource.lines(tmp_path / "data[1].log")) == ["literal"]


def test_a_relative_path_is_resolved_where_the_source_is_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("found")
    monkeypatch.chdir(tmp_path)
    source = FileSource.lines("file")
    monkeypatch.chdir("/")

    assert read(source) == ["found"]


@pytest.mark.parametrize("name", ["missing", "missing/*.log"])
def test_a_missing_file_is_a_configuration_error_with_its_path(tmp_path, name):
    source = FileSource.lines(tmp_path / name)

    with pytest.raises(ConfigError, match="no such file") as raised:
        enumerator_of(source)

    assert raised.value.context["path"] == str(tmp_path / name)
    assert raised.value.hint


def test_a_dangling_link_is_a_missing_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    with pytest.raises(ConfigError, match="no such file"):
        enumerator_of(FileSource.lines(tmp_path / "link"))


def test_an_empty_directory_has_no_records(tmp_path):
    assert read(FileSource.lines(tmp_path)) == []


def test_something_that_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ConfigError, match="not a regular file"):
        enumerator_of(FileSource.lines(tmp_path / "pipe"))


def test_a_url_of_another_store_is_refused():
    with pytest.raises(ConfigError, match="local or mounted"):
        FileSource.lines("s3://bucket/file")


def test_a_file_url_is_a_path(tmp_path):
    (tmp_path / "file").write_text("found")

    assert read(FileSource.lines(f"file://{tmp_path}/file")) == ["found"]


@pytest.mark.parametrize(("watch", "expected_ms"), [("1s", 1000), (timedelta(seconds=2), 2000), (50, 50)])
def test_watch_takes_a_duration_and_makes_the_source_unbounded(watch, expected_ms):
    source = FileSource.lines("file", watch=watch)

    assert (source.watch_ms, source.bounded, source.rewindable) == (expected_ms, False, True)


@pytest.mark.parametrize("watch", ["soon", "0s", True])
def test_watch_refuses_what_is_not_a_duration(watch):
    with pytest.raises(ConfigError, match="watch"):
        FileSource.lines("file", watch=watch)


def test_splits_shrink_towards_the_end_and_stay_within_their_bounds(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(5 << 30)

    splits = splits_of(FileSource.lines(path), parallelism=4)

    sizes = [split.stop - split.start for split in splits]
    assert [split.start for split in splits] == [0, *(split.stop for split in splits[:-1])]
    assert splits[-1].stop == 5 << 30
    assert max(sizes) == SPLIT_BYTES_MAX
    assert min(sizes[:-1]) >= SPLIT_BYTES_MIN
    assert sizes[-2] < SPLIT_BYTES_MIN * 2
    assert sizes[-1] >= SPLIT_BYTES_MIN // 2


def test_a_restored_enumerator_goes_on_with_the_files_it_found_first(tmp_path):
    (tmp_path / "a").write_bytes(b"x\n" * SPLIT_BYTES_MIN * 2)
    source = FileSource.lines(tmp_path)
    first = enumerator_of(source)
    handed_out = first.next_splits(0)
    (tmp_path / "b").write_text("came later")

    second = enumerator_of(source, parallelism=3, state=first.snapshot())
    while found := second.next_splits(2):
        handed_out += found

    splits = [FileSplit.decode(raw) for raw in handed_out]
    assert sum(split.stop - split.start for split in splits) == SPLIT_BYTES_MIN * 4
    assert {split.path for split in splits} == {str(tmp_path / "a")}


def test_a_state_of_another_format_is_refused(tmp_path):
    with pytest.raises(StateRestoreError, match="newer format than this version"):
        enumerator_of(FileSource.lines(tmp_path), state=b"\x07whatever")
    with pytest.raises(StateRestoreError, match="cannot be read"):
        FileSplit.decode(b"\x01\xff")


def test_a_reader_asks_for_one_split_ahead(tmp_path):
    (tmp_path / "file").write_text("a\nb\n")
    run = ReaderRun(FileSource.lines(tmp_path / "file"))
    wanted = [run.reader.wants_splits]
    run.reader.add_splits([FileSplit(str(tmp_path / "file"), 0, 4).encode()])
    wanted.append(run.reader.wants_splits)
    run.poll_once([], 1, 1 << 20)
    wanted.append(run.reader.wants_splits)
    run.reader.add_splits([FileSplit(str(tmp_path / "file"), 0, 4).encode()])
    wanted.append(run.reader.wants_splits)
    run.close()

    assert wanted == [True, False, True, False]


def test_a_file_that_is_gone_when_it_is_read_is_a_storage_error(tmp_path):
    run = ReaderRun(FileSource.lines(tmp_path / "gone"))
    run.reader.add_splits([FileSplit(str(tmp_path / "gone"), 0, 10).encode()])

    with pytest.raises(StorageError, match="cannot be read") as raised:
        run.read_all()

    assert raised.value.context["path"] == str(tmp_path / "gone")


@pytest.mark.parametrize("start", [0, 5, 9])
def test_a_file_that_became_shorter_is_a_storage_error(tmp_path, start):
    path = tmp_path / "file"
    path.write_bytes(b"")
    run = ReaderRun(FileSource.lines(path))
    run.reader.add_splits([FileSplit(str(path), start, 10).encode()])

    with pytest.raises(StorageError, match="became shorter"):
        run.read_all()
    run.close()


# ---- JSON -------------------------------------------------------------------


class Request(msgspec.Struct):
    path: str
    size: int = 0


@dataclasses.dataclass
class Point:
    x: int


def test_json_lines_are_plain_values_without_a_type(tmp_path):
    (tmp_path / "file").write_bytes(b'\xef\xbb\xbf{"a": [1, null]}\r\n"text"\r\n\r\n 3.5')

    assert read(FileSource.json_lines(tmp_path / "file")) == [{"a": [1, None]}, "text", 3.5]


def test_json_lines_become_the_type_that_is_asked_for(tmp_path):
    (tmp_path / "structs").write_text('{"path": "/a"}\n{"path": "/b", "size": 7}\n')
    (tmp_path / "points").write_text('{"x": 1}\n')

    assert read(FileSource.json_lines(tmp_path / "structs", Request)) == [Request("/a"), Request("/b", 7)]
    assert read(FileSource.json_lines(tmp_path / "points", Point)) == [Point(1)]


@pytest.mark.parametrize("bad", [b'{"path": 5}', b"{", b'{"path": "\xff"}'])
def test_a_line_that_is_not_the_json_asked_for_is_reported_with_file_and_offset(tmp_path, bad):
    path = tmp_path / "file"
    path.write_bytes(b'{"path": "/a"}\r\n\n' + bad + b"\n")

    with pytest.raises(ConfigError, match="not the JSON") as raised:
        read(FileSource.json_lines(path, Request))

    assert raised.value.context["path"] == str(path)
    assert raised.value.context["offset"] == 17


def test_a_type_that_json_cannot_become_is_refused_at_once():
    with pytest.raises(ConfigError, match="type cannot be read from JSON"):
        FileSource.json_lines("file", type=dict[Point, int] | dict[str, int])


@dataclasses.dataclass
class Stopping:
    number: int

    def __post_init__(self):
        if self.number == 2:
            raise StopIteration


def test_class_that_raises_stop_iteration_ends_no_batch_of_documents_early(tmp_path):
    (tmp_path / "documents").write_text("".join(f'{{"number": {number}}}\n' for number in range(4)))

    with pytest.raises(RuntimeError, match="StopIteration"):
        read(FileSource.json_lines(tmp_path / "documents", Stopping))
