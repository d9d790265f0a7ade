"""Part files appear whole, once, and only when their checkpoint is complete."""

import errno
import os
from pathlib import Path

import pytest

from raystream.connectors import file_rename, file_sink
from raystream.connectors.file_sink import FileCommittable
from raystream.connectors.files import FileSink
from raystream.connectors.versioned import encode
from raystream.errors import ConfigError, OutputLostError, StateRestoreError, StorageError
from raystream.graph.logical import UID_BYTES_MAX
from raystream.records.batch import RowBatch
from raystream.testing.contracts import SinkContract
from tests.unit.connectors.sinks import JOB_ID, commit, context_of, in_progress_files, names, visible_files


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
        commit(sink, writer)

    final = "part-count%2Fhits%20%C3%A9-0123456789abcdef-3-7-"
    assert names == [f".{final}0.inprogress", f".{final}1.inprogress"]
    assert [path.name for path in visible_files(tmp_path)] == [f"{final}0", f"{final}1"]


def test_a_job_that_starts_from_a_savepoint_of_another_collides_with_none_of_its_files(tmp_path, open_writer):
    sink = FileSink.lines(tmp_path)
    for job_id in ("a" * 32, "b" * 32):
        writer = open_writer(sink, job_id=job_id)
        writer.write(RowBatch([job_id[:1]]))
        commit(sink, writer)

    assert [path.read_text() for path in visible_files(tmp_path)] == ["a\n", "b\n"]


def test_start_removes_what_dead_attempts_of_this_job_left_and_nothing_else(tmp_path, open_writer):
    mine = [
        ".part-sink-0123456789abcdef-0-1-0.inprogress",
        ".part-sink-0123456789abcdef-2-1-5.inprogress",  # Of a time with more subtasks.
        ".part-sink-0123456789abcdef-4-2-0.inprogress",
    ]
    others = [
        ".part-sink-0123456789abcdef-0-3-0.inprogress",  # This attempt.
        ".part-sink-0123456789abcdef-1-1-0.inprogress",  # The other subtask's.
        ".part-sink-89abcdef01234567-0-1-0.inprogress",  # Another job.
        ".part-sink2-0123456789abcdef-0-1-0.inprogress",  # Another operator.
        ".part-sink-0123456789abcdef-0000000000000000-0-1-0.inprogress",  # An operator with such a name.
        ".part-sink-0123456789abcdef-x-1-0.inprogress",
        "part-sink-0123456789abcdef-0-1-1",
        "notes.txt",
    ]
    for name in mine + others:
        (tmp_path / name).touch()

    open_writer(FileSink.lines(tmp_path), subtask=0, parallelism=2, attempt=3)

    assert names(tmp_path) == sorted(others)


def test_all_subtasks_together_remove_everything_a_larger_attempt_left(tmp_path, open_writer):
    sink = FileSink.lines(tmp_path)
    for subtask in range(5):
        open_writer(sink, subtask=subtask, parallelism=5).write(RowBatch(["x"]))
    assert len(in_progress_files(tmp_path)) == 5

    for subtask in range(2):
        open_writer(sink, subtask=subtask, parallelism=2, attempt=2)

    assert names(tmp_path) == []


def test_abort_removes_the_file_that_is_being_written(tmp_path, open_writer):
    writer = open_writer(FileSink.lines(tmp_path))
    writer.write(RowBatch(["a"]))
    writer.prepare_commit(1)
    writer.write(RowBatch(["b"]))
    writer.abort()
    writer.abort()

    assert in_progress_files(tmp_path) == [".part-sink-0123456789abcdef-0-1-0.inprogress"]


def test_an_empty_batch_makes_no_file(tmp_path, open_writer):
    writer = open_writer(FileSink.lines(tmp_path))
    writer.write(RowBatch([]))

    assert names(tmp_path) == []
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
    writer.sync()
    (tmp_path / in_progress_files(tmp_path)[1]).unlink()

    with pytest.raises(OutputLostError, match="pre-committed output is missing") as raised:
        sink.open_committer(context_of()).commit(committables)

    assert raised.value.context["path"] == str(tmp_path / ".part-sink-0123456789abcdef-0-1-1.inprogress")
    assert [path.read_text() for path in visible_files(tmp_path)] == ["a\n", "c\n"]


def test_a_committable_of_another_format_is_refused(tmp_path):
    committable = encode(9, FileCommittable("a", "b", JOB_ID, 1, "token"))

    with pytest.raises(StateRestoreError, match="format"):
        FileSink.lines(tmp_path).open_committer(context_of()).commit([committable])


@pytest.fixture
def calls(monkeypatch):
    """What reaches the disk, in order."""
    calls = []
    fsync, rename = os.fsync, file_sink.rename_exclusively

    def recording_fsync(descriptor):
        calls.append(("fsync", "directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"))  # noqa: PTH112
        fsync(descriptor)

    def recording_rename(source, target):
        calls.append(("rename", target.name))
        return rename(source, target)

    monkeypatch.setattr(file_sink.os, "fsync", recording_fsync)
    monkeypatch.setattr(file_sink, "rename_exclusively", recording_rename)
    return calls


def test_files_and_names_are_durable_before_they_count(tmp_path, open_writer, calls):
    sink = FileSink.lines(tmp_path)
    writer = open_writer(sink)
    calls.clear()
    writer.write(RowBatch(["a"]))
    committables = writer.prepare_commit(1)
    assert calls == [], "the stream waits for prepare_commit"
    writer.sync()
    sink.open_committer(context_of()).commit(committables)

    assert calls == [
        ("fsync", "file"),
        ("fsync", "directory"),
        ("rename", "part-sink-0123456789abcdef-0-1-0"),
        ("fsync", "directory"),
    ]


def test_a_name_kept_for_a_savepoint_is_durable_too(tmp_path, open_writer, calls):
    writer = open_writer(FileSink.lines(tmp_path))
    writer.write(RowBatch(["a"]))
    committables = writer.prepare_commit(1)
    writer.sync()
    calls.clear()
    writer.keep(committables)
    writer.sync()
    writer.sync()

    assert calls == [("fsync", "directory")]


def test_a_write_that_fails_names_the_file_and_fails_every_later_snapshot(tmp_path, open_writer, monkeypatch):
    writer = open_writer(FileSink.lines(tmp_path))
    monkeypatch.setattr(Path, "open", lambda path, *args, **options: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    writer.write(RowBatch(["a"]))
    writer.prepare_commit(1)

    with pytest.raises(StorageError, match="cannot be written") as raised:
        writer.sync()

    assert raised.value.context["path"].endswith(".inprogress")
    assert raised.value.context["reason"] == "No space left on device"
    with pytest.raises(StorageError, match="was not written"):
        writer.sync()
    writer.abort()


def prepared(sink, writer, text):
    writer.write(RowBatch([text]))
    committables = writer.prepare_commit(1)
    writer.sync()
    return committables


def test_output_that_a_reader_has_taken_away_does_not_stop_a_restore(tmp_path, open_writer, caplog):
    sink = FileSink.lines(tmp_path)
    writer = open_writer(sink)
    committables = prepared(sink, writer, "a") + prepared(sink, writer, "b")
    sink.open_committer(context_of()).commit(committables)
    visible_files(tmp_path)[0].unlink()

    for changes in ({"attempt": 2}, {"job_id": "f" * 32}):
        caplog.clear()
        sink.open_committer(context_of(**changes)).commit(committables)
        assert [record.path for record in caplog.records] == [
            str(tmp_path / "part-sink-0123456789abcdef-0-1-0")
        ]
    assert [path.read_text() for path in visible_files(tmp_path)] == ["b\n"]


def test_output_of_another_file_under_the_final_name_is_never_overwritten(tmp_path, open_writer):
    sink = FileSink.lines(tmp_path)
    committables = prepared(sink, open_writer(sink), "mine")
    name = tmp_path / "part-sink-0123456789abcdef-0-1-0"
    name.write_text("somebody else's\n")

    with pytest.raises(StorageError, match="cannot be committed") as raised:
        sink.open_committer(context_of()).commit(committables)

    assert raised.value.context["reason"] == "File exists"
    assert name.read_text() == "somebody else's\n"
    assert len(in_progress_files(tmp_path)) == 1


@pytest.mark.parametrize("call", [None, lambda *_: -1])
def test_file_systems_without_an_exclusive_rename_look_first(tmp_path, monkeypatch, call):
    monkeypatch.setattr(file_rename, "_renameat2", call)
    monkeypatch.setattr(file_rename.ctypes, "get_errno", lambda: errno.EINVAL)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("new")
    file_rename.rename_exclusively(source, target)
    source.write_text("newer")

    with pytest.raises(FileExistsError):
        file_rename.rename_exclusively(source, target)
    assert target.read_text() == "new"


def test_close_removes_what_a_stopped_process_of_an_older_attempt_wrote_after_the_start(
    tmp_path, open_writer
):
    sink = FileSink.lines(tmp_path)
    stopped = open_writer(sink)
    writer = open_writer(sink, attempt=2)
    stopped.write(RowBatch(["late"]))
    writer.write(RowBatch(["a"]))
    writer.prepare_commit(1)
    writer.close()

    assert in_progress_files(tmp_path) == [".part-sink-0123456789abcdef-0-2-0.inprogress"]


def test_close_before_the_start_leaves_what_is_not_committed_yet(tmp_path):
    (tmp_path / ".part-sink-0123456789abcdef-0-1-0.inprogress").touch()
    FileSink.lines(tmp_path).open_writer(context_of(attempt=2)).close()

    assert len(in_progress_files(tmp_path)) == 1


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path, name):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot be made") as raised:
        FileSink.lines(tmp_path / name).open_writer(context_of()).start()

    assert raised.value.context["path"] == str(tmp_path / name)


def test_a_directory_that_cannot_be_written_is_a_configuration_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    with pytest.raises(ConfigError, match="cannot be written by this user"):
        FileSink.lines(tmp_path).open_writer(context_of()).start()


def test_names_made_of_the_longest_uid_and_large_numbers_fit_into_the_file_system(tmp_path, open_writer):
    writer = open_writer(
        FileSink.lines(tmp_path), uid="x" * UID_BYTES_MAX, subtask=32_767, parallelism=32_768, attempt=10**9
    )
    writer._names._counter = 10**12
    writer.write(RowBatch(["a"]))
    committables = writer.prepare_commit(1)
    writer.sync()
    writer.keep(committables)

    assert max(len(name) for name in names(tmp_path)) <= os.pathconf(tmp_path, "PC_NAME_MAX")
