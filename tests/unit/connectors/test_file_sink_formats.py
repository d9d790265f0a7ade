"""What a record becomes as a line of a part file."""

import dataclasses
import enum
from typing import NamedTuple

import msgspec
import pytest

from raystream.connectors.file_splits import FileSplit
from raystream.connectors.files import FileSink, FileSource
from raystream.errors import GraphError
from raystream.records.batch import RowBatch
from raystream.testing.source_run import ReaderRun
from tests.unit.connectors.sinks import commit, visible_files


def written(tmp_path, open_writer, sink, *batches):
    writer = open_writer(sink)
    for values in batches:
        writer.write(RowBatch(list(values)))
    commit(sink, writer)
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
