"""A savepoint stays restorable, whatever becomes of the job that took it."""

import pytest

from raystream.connectors import file_sink
from raystream.connectors.files import FileSink
from raystream.errors import StorageError
from raystream.operators.sink import WriterContext
from raystream.records.batch import RowBatch
from tests.unit.connectors.sinks import names


def context_of(attempt: int) -> WriterContext:
    return WriterContext(
        job_id="ab" * 16,
        uid="sink",
        subtask=0,
        parallelism=1,
        attempt=attempt,
        tell_client=lambda lines: None,
        deliver=lambda data: None,
    )


def prepared(tmp_path, *, kept: bool):
    sink = FileSink.lines(str(tmp_path))
    writer = sink.open_writer(context_of(1))
    writer.start()
    writer.write(RowBatch(["a"]))
    committables = writer.prepare_commit(1)
    if kept:
        writer.keep(committables)
    writer.sync()
    return sink, writer, committables


def test_a_kept_name_never_outlives_the_commit_so_that_a_second_restore_repeats_nothing(
    tmp_path, monkeypatch
):
    """A crash comes between the commit and whatever would follow; the output is read and removed."""
    sink, _, committables = prepared(tmp_path, kept=True)

    def crash_behind(source, target):
        source.rename(target)
        raise OSError("power cut")

    monkeypatch.setattr(file_sink, "rename_exclusively", crash_behind)
    with pytest.raises(StorageError, match="cannot be committed"):
        sink.open_committer(context_of(1)).commit(committables)
    monkeypatch.undo()
    for path in tmp_path.glob("part-*"):
        path.unlink()
    sink.open_committer(context_of(2)).commit(committables)

    assert visible(tmp_path) == []


def visible(tmp_path):
    return [path.read_text() for path in sorted(tmp_path.iterdir()) if not path.name.startswith(".")]


def test_what_a_savepoint_refers_to_survives_an_attempt_that_restores_an_older_checkpoint(tmp_path):
    sink, _, committables = prepared(tmp_path, kept=True)

    sink.open_writer(context_of(2)).start()
    sink.open_committer(context_of(1)).commit(committables)
    sink.open_committer(context_of(1)).commit(committables)

    assert visible(tmp_path) == ["a\n"]


def test_without_a_savepoint_the_older_checkpoint_removes_it(tmp_path):
    sink, _, committables = prepared(tmp_path, kept=False)

    sink.open_writer(context_of(2)).start()

    assert names(tmp_path) == []
    with pytest.raises(StorageError, match="pre-committed output is missing"):
        sink.open_committer(context_of(1)).commit(committables)


def test_the_commit_removes_what_was_kept(tmp_path):
    sink, writer, committables = prepared(tmp_path, kept=True)
    writer.keep(committables)  # A second savepoint refers to it too.

    sink.open_committer(context_of(1)).commit(committables)
    writer.keep(committables)

    assert names(tmp_path) == ["part-sink-abababababababab-0-1-0"]
