"""Part files appear whole, once, and only when their checkpoint is complete."""

import dataclasses
import enum
import os
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from raystream.connectors import file_sink
from raystream.connectors.file_sink import FileCommittable
from raystream.connectors.file_splits import FileSplit
from raystream.connectors.files import FileSink, FileSource
from raystream.connectors.versioned import encode
from raystream.errors import ConfigError, GraphError, StateRestoreError, StorageError
from raystream.operators.sink import WriterContext
from raystream.records.batch import RowBatch
from raystream.testing.contracts import SinkContract
from raystream.testing.source_run import ReaderRun

JOB_ID = "0123456789abcdef" * 2


def context_of(**changes):
    fields = {
        "job_id": JOB_ID, "uid": "sink", "subtask": 0, "parallelism": 1, "attempt": 1,
        "tell_client": None, "deliver": None,
    }  # fmt: skip
    return WriterContext(**{**fields, **changes})


@pytest.fixture
def open_writer():
    """Opens and starts a writer; closes it when the test is over."""
    writers = []

    def open_one(sink, **changes):
        writers.append(sink.open_writer(context_of(**changes)))
        writers[-1].start()
        return writers[-1]

    yield open_one
    for writer in writers:
        writer.close()


def visible_files(directory):
    return sorted(path for path in Path(directory).iterdir() if ".inprogress" not in path.name)


def in_progress_files(directory):
    return sorted(path.name for path in Path(directory).iterdir() if ".inprogress" in path.name)


class TestFileSinkContract(SinkContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path / "made" / "when needed"

    def sink(self):
        return FileSink.lines(self.directory)

    def visible(self):
        if not self.directory.exists():
            return []
        return [line for path in visible_files(self.directory) for line in path.read_text().splitlines()]

    def record(self, number):
        return f"record {number}"


def test_a_part_file_is_named_after_operator_job_subtask_attempt_and_counter(tmp_path, open_writer):
    sink = FileSink.lines(tmp_path)
    writer = open_writer(sink, uid="count/hits é", subtask=3, parallelism=4, attempt=7)
    names = []
    for text in ("a", "b"):
        writer.write(RowBatch([text]))
        names += in_progress_files(tmp_path)[-1:]
        sink.open_committer(context_of()).commit(writer.prepare_commit(1))

    final = "part-count%2Fhits%20%C3%A9-01234567-3-7-"
    assert names == [f".{final}0.inprogress", f".{final}1.inprogress"]
    assert [path.name for path in visible_files(tmp_path)] == [f"{final}0", f"{final}1"]


def test_a_job_that_starts_from_a_savepoint_of_another_collides_with_none_of_its_files(tmp_path, open_writer):
    sink = FileSink.lines(tmp_path)
    for job_id in ("a" * 32, "b" * 32):
        writer = open_writer(sink, job_id=job_id)
        writer.write(RowBatch([job_id[:1]]))
        sink.open_committer(context_of()).commit(writer.prepare_commit(1))

    assert [path.read_text() for path in visible_files(tmp_path)] == ["a\n", "b\n"]


def test_start_removes_what_dead_attempts_of_this_job_left_and_nothing_else(tmp_path, open_writer):
    mine = [
        ".part-sink-01234567-0-1-0.inprogress",
        ".part-sink-01234567-2-1-5.inprogress",  # Of a time with more subtasks.
        ".part-sink-01234567-4-2-0.inprogress",
    ]
    others = [
        ".part-sink-01234567-0-3-0.inprogress",  # This attempt.
        ".part-sink-01234567-1-1-0.inprogress",  # The other subtask's.
        ".part-sink-89abcdef-0-1-0.inprogress",  # Another job.
        ".part-sink2-01234567-0-1-0.inprogress",  # Another operator.
        ".part-sink-01234567-00000000-0-1-0.inprogress",  # An operator whose name ends like a job id.
        ".part-sink-01234567-x-1-0.inprogress",
        "part-sink-01234567-0-1-1",
        "notes.txt",
    ]
    for name in mine + others:
        (tmp_path / name).touch()

    open_writer(FileSink.lines(tmp_path), subtask=0, parallelism=2, attempt=3)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_all_subtasks_together_remove_everything_a_larger_attempt_left(tmp_path, open_writer):
    sink = FileSink.lines(tmp_path)
    for subtask in range(5):
        open_writer(sink, subtask=subtask, parallelism=5).write(RowBatch(["x"]))
    assert len(in_progress_files(tmp_path)) == 5

    for subtask in range(2):
        open_writer(sink, subtask=subtask, parallelism=2, attempt=2)

    assert list(tmp_path.iterdir()) == []


def test_abort_removes_the_file_that_is_being_written(tmp_path, open_writer):
    writer = open_writer(FileSink.lines(tmp_path))
    writer.write(RowBatch(["a"]))
    writer.prepare_commit(1)
    writer.write(RowBatch(["b"]))
    writer.abort()
    writer.abort()

    assert in_progress_files(tmp_path) == [".part-sink-01234567-0-1-0.inprogress"]


def test_an_empty_batch_makes_no_file(tmp_path, open_writer):
    writer = open_writer(FileSink.lines(tmp_path))
    writer.write(RowBatch([]))

    assert list(tmp_path.iterdir()) == []
    assert writer.prepare_commit(1) == []


def test_a_committed_file_that_is_gone_under_both_names_is_an_error_and_the_others_are_committed(
    tmp_path, open_writer
):
    sink = FileSink.lines(tmp_path)
    writer = open_writer(sink)
    committables = []
    for text in ("a", "b", "c"):
        writer.write(RowBatch([text]))
        committables += writer.prepare_commit(1)
    (tmp_path / in_progress_files(tmp_path)[1]).unlink()

    with pytest.raises(StorageError, match="pre-committed output is missing") as raised:
        sink.open_committer(context_of()).commit(committables)

    assert raised.value.context["path"] == str(tmp_path / ".part-sink-01234567-0-1-1.inprogress")
    assert [path.read_text() for path in visible_files(tmp_path)] == ["a\n", "c\n"]


def test_a_committable_of_another_format_is_refused(tmp_path):
    committable = encode(9, FileCommittable("a", "b"))

    with pytest.raises(StateRestoreError, match="format"):
        FileSink.lines(tmp_path).open_committer(context_of()).commit([committable])


def test_files_and_names_are_durable_before_they_count(tmp_path, open_writer, monkeypatch):
    calls = []
    fsync, rename = os.fsync, Path.rename

    def recording_fsync(descriptor):
        calls.append(("fsync", "directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"))  # noqa: PTH112
        fsync(descriptor)

    def recording_rename(source, target):
        calls.append(("rename", target.name))
        return rename(source, target)

    monkeypatch.setattr(file_sink.os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "rename", recording_rename)
    sink = FileSink.lines(tmp_path)
    writer = open_writer(sink)
    writer.write(RowBatch(["a"]))
    committables = writer.prepare_commit(1)
    sink.open_committer(context_of()).commit(committables)

    assert calls == [
        ("fsync", "file"),
        ("fsync", "directory"),
        ("rename", "part-sink-01234567-0-1-0"),
        ("fsync", "directory"),
    ]


def test_a_write_that_fails_names_the_file(tmp_path, open_writer, monkeypatch):
    writer = open_writer(FileSink.lines(tmp_path))
    monkeypatch.setattr(Path, "open", lambda path, *args, **options: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    writer.write(RowBatch(["a"]))

    with pytest.raises(StorageError, match="cannot be written") as raised:
        writer.prepare_commit(1)

    assert raised.value.context["path"].endswith(".inprogress")
    assert raised.value.context["reason"] == "No space left on device"
    writer.abort()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path, name):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot be made") as raised:
        FileSink.lines(tmp_path / name).open_writer(context_of())

    assert raised.value.context["path"] == str(tmp_path / name)


def test_a_directory_that_cannot_be_written_is_a_configuration_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    with pytest.raises(ConfigError, match="cannot be written by this user"):
        FileSink.lines(tmp_path).open_writer(context_of())


# ---- formats ----------------------------------------------------------------


def written(tmp_path, open_writer, sink, *batches):
    writer = open_writer(sink)
    for values in batches:
        writer.write(RowBatch(list(values)))
    sink.open_committer(context_of()).commit(writer.prepare_commit(1))
    [path] = visible_files(tmp_path)
    return path.read_bytes()


def test_lines_are_text_or_bytes_also_mixed(tmp_path, open_writer):
    batches = (["é", ""], [b"\xff", b"b"], ["a", b"b", bytearray(b"c")])
    content = written(tmp_path, open_writer, FileSink.lines(tmp_path), *batches)

    assert content == "é\n\n".encode() + b"\xff\nb\na\nb\nc\n"


@pytest.mark.parametrize("values", [[1], ["a", None], [b"a", "b", 2.5], ["\ud800"]])
def test_a_record_that_is_not_a_line_is_shown_in_the_error(tmp_path, open_writer, values):
    writer = open_writer(FileSink.lines(tmp_path))

    with pytest.raises(GraphError, match="line of text") as raised:
        writer.write(RowBatch(values))

    assert raised.value.context["record"] == repr(values[-1])


class Struct(msgspec.Struct):
    a: int


@dataclasses.dataclass
class Data:
    b: str


class Color(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    x: int
    y: int


def test_json_lines_hold_arrays_for_tuples_and_objects_for_classes(tmp_path, open_writer):
    values = [("/a", 1), Pair(1, 2), Struct(3), Data("é"), {"k": [None, True]}, Color.RED, "text", 1.5]

    content = written(tmp_path, open_writer, FileSink.json_lines(tmp_path), values)

    assert content.decode().splitlines() == [
        '["/a",1]', "[1,2]", '{"a":3}', '{"b":"é"}', '{"k":[null,true]}', '"red"', '"text"', "1.5",
    ]  # fmt: skip


def test_a_record_that_json_does_not_have_is_shown_in_the_error(tmp_path, open_writer):
    recursive: list = []
    recursive.append(recursive)
    writer = open_writer(FileSink.json_lines(tmp_path))
    for record in (object, {("a", "b"): 1}, 1j, recursive):
        with pytest.raises(GraphError, match="as JSON") as raised:
            writer.write(RowBatch([{"fine": 1}, record]))
        assert raised.value.context["record"] == repr(record)


def test_what_one_job_writes_another_reads(tmp_path, open_writer):
    written(tmp_path, open_writer, FileSink.json_lines(tmp_path), [["a", i] for i in range(5)])
    source = FileSource.json_lines(tmp_path)
    run = ReaderRun(source)
    [file] = visible_files(tmp_path)
    run.reader.add_splits([FileSplit(str(file), 0, file.stat().st_size).encode()])

    assert run.read_all() == [["a", i] for i in range(5)]
    run.close()
