"""The last line of a watched file, while its end has not arrived."""

import os

import pytest

from tests.unit.connectors.watching import Watch, append


@pytest.fixture
def log(tmp_path):
    return tmp_path / "access.log"


def test_an_unfinished_line_is_not_read_again_at_every_look(log, monkeypatch):
    monkeypatch.setattr("raystream.connectors.file_tail.READ_BYTES", 100)
    read = []
    pread = os.pread

    def counting(descriptor, size, offset):
        data = pread(descriptor, size, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counting)
    append(log, "first\n")
    watch = Watch(log)
    watch.read()
    for _ in range(50):
        append(log, "x" * 1000)
        assert watch.read(1) == []
    append(log, "\n")

    assert watch.read(1) == ["x" * 50_000]
    assert sum(read) < 5 * 50_000


def test_lines_that_a_writer_puts_where_it_has_taken_back_an_unfinished_one_are_read(log):
    append(log, "a\n" + "unfinished" * 50)
    watch = Watch(log)
    assert watch.read() == ["a"]
    with log.open("r+") as file:
        file.truncate(2)
    append(log, "b\nc\n")

    assert watch.read() == ["b", "c"]
    append(log, "d\n")
    assert watch.read() == ["d"]
