"""Output that is missing counts as read and removed only in the directory that it was written to."""

import os
import threading
from collections import deque

import pytest

from raystream import StreamEnvironment
from raystream.connectors import file_place, file_rename, file_sink
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.file_place import claim, marker_name
from raystream.connectors.files import FileSink
from raystream.errors import StorageError
from raystream.records.batch import RowBatch
from tests.unit.connectors.sinks import JOB_ID, context_of, in_progress_files, names, visible_files


@pytest.fixture
def disk(tmp_path):
    """A mount point."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def unmount(disk):
    disk.rename(disk.with_name("away"))
    disk.mkdir()


def mount(disk):
    disk.rename(disk.with_name("shadow"))
    disk.with_name("away").rename(disk)


def prepared(sink, writer, text="a"):
    writer.write(RowBatch([text]))
    committables = writer.prepare_commit(1)
    writer.sync()
    return committables


def test_output_of_this_attempt_whose_disk_is_away_is_not_lost_yet(disk, open_writer):
    sink = FileSink.lines(disk / "out")
    committables = prepared(sink, open_writer(sink))
    unmount(disk)

    with pytest.raises(StorageError, match="output is missing, and its directory") as raised:
        sink.open_committer(context_of()).commit(committables)

    assert type(raised.value) is StorageError, "it is tried again"
    mount(disk)
    sink.open_committer(context_of(attempt=2)).commit(committables)
    assert [path.read_text() for path in visible_files(disk / "out")] == ["a\n"]


def test_output_whose_disk_is_away_is_an_error_until_it_is_back(disk, open_writer):
    """The job dies between the checkpoint and the commit, and the disk is not mounted when it comes back."""
    sink = FileSink.lines(disk / "out")
    committables = prepared(sink, open_writer(sink))
    unmount(disk)

    again = sink.open_writer(context_of(attempt=2))
    with pytest.raises(StorageError, match="output is missing, and its directory") as raised:
        sink.open_committer(context_of(attempt=2)).commit(committables)
    again.close()

    assert raised.value.context["directory"] == str(disk / "out")
    assert raised.value.context["path"].endswith("-0-1-0.inprogress")
    assert list(disk.iterdir()) == [], "nothing is made in place of what is away"
    mount(disk)
    sink.open_committer(context_of(attempt=3)).commit(committables)
    assert [path.read_text() for path in visible_files(disk / "out")] == ["a\n"]


@pytest.mark.parametrize("marked", [False, True], ids=["made anew", "of another node"])
def test_output_is_not_missed_in_a_directory_that_is_another_one(disk, open_writer, marked):
    """On another node the same job has left a marker of its own."""
    sink = FileSink.lines(disk / "out")
    committables = prepared(sink, open_writer(sink))
    unmount(disk)
    (disk / "out").mkdir()
    if marked:
        claim(disk / "out", JOB_ID)

    with pytest.raises(StorageError, match="output is missing, and its directory"):
        sink.open_committer(context_of(attempt=2)).commit(committables)


def test_the_advice_of_the_error_makes_output_count_that_was_removed_on_purpose(disk, open_writer):
    sink = FileSink.lines(disk / "out")
    committables = prepared(sink, open_writer(sink))
    unmount(disk)
    (disk / "out").mkdir()
    committer = sink.open_committer(context_of(attempt=2))
    with pytest.raises(StorageError) as raised:
        committer.commit(committables)
    token = (disk.with_name("away") / "out" / marker_name(JOB_ID)).read_text()
    assert f"put a file {marker_name(JOB_ID)} with the text {token} there" in raised.value.hint

    (disk / "out" / marker_name(JOB_ID)).write_text(f"{token}\n")

    committer.commit(committables)


def test_every_subtask_and_attempt_knows_a_directory_by_the_same_token(tmp_path):
    token = claim(tmp_path / "a" / "b", JOB_ID)

    assert claim(tmp_path / "a" / "b", JOB_ID) == token
    assert claim(tmp_path / "a" / "b", "f" * 32) != token
    assert claim(tmp_path / "c", JOB_ID) != token


def test_a_later_attempt_says_that_it_is_the_first_in_a_directory(disk, open_writer, caplog):
    sink = FileSink.lines(disk / "out")
    open_writer(sink)
    open_writer(sink, attempt=2)
    assert caplog.messages == []
    unmount(disk)

    open_writer(sink, attempt=3)

    assert caplog.messages == ["output directory is one that no earlier attempt has written to"]


def test_of_two_subtasks_that_mark_a_directory_at_once_both_get_one_token(tmp_path, monkeypatch):
    tokens = []

    def another_is_faster(source, target):
        monkeypatch.setattr(file_place, "rename_exclusively", file_rename.rename_exclusively)
        tokens.append(claim(tmp_path, JOB_ID))
        file_rename.rename_exclusively(source, target)

    monkeypatch.setattr(file_place, "rename_exclusively", another_is_faster)
    tokens.append(claim(tmp_path, JOB_ID))

    assert tokens[0] == tokens[1]
    assert [path.name for path in tmp_path.iterdir()] == [marker_name(JOB_ID)]


def test_the_marker_and_the_directories_above_it_are_durable_before_anything_is_written(
    tmp_path, monkeypatch
):
    synced = []
    fsync = os.fsync

    def recording_fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(tmp_path)))  # noqa: PTH115
        fsync(descriptor)

    monkeypatch.setattr(file_place.os, "fsync", recording_fsync)
    token = claim(tmp_path / "a" / "b", JOB_ID)

    assert synced == ["", "/a", f"/a/b/{marker_name(JOB_ID)}-{token}", "/a/b"]


def test_nothing_is_swept_in_a_directory_that_is_another_one_now(disk, open_writer, caplog):
    sink = FileSink.lines(disk / "out")
    writer = open_writer(sink, attempt=2)
    unmount(disk)
    (disk / "out").mkdir()
    left = disk / "out" / ".part-sink-0123456789abcdef-0-1-0.inprogress"
    left.touch()
    caplog.clear()

    writer.close()

    assert left.exists()
    assert caplog.messages == ["unfinished files of dead attempts are left"]


def test_commits_of_two_attempts_that_overlap_both_succeed(tmp_path, open_writer, monkeypatch):
    """The older attempt's commit is still under way when the newer one repeats it."""
    sink = FileSink.lines(tmp_path)
    committables = prepared(sink, open_writer(sink))

    def the_other_is_faster(source, target):
        monkeypatch.setattr(file_sink, "rename_exclusively", file_rename.rename_exclusively)
        sink.open_committer(context_of(attempt=2)).commit(committables)
        file_rename.rename_exclusively(source, target)

    monkeypatch.setattr(file_sink, "rename_exclusively", the_other_is_faster)
    sink.open_committer(context_of()).commit(committables)

    assert names(tmp_path) == ["part-sink-0123456789abcdef-0-1-0"]


def test_a_sync_that_meets_a_close_leaves_it_the_rest(tmp_path, open_writer):
    """The thread that syncs has found a file to sync, and the loop closes the writer before it takes it."""

    class ClosedMeanwhile(deque):
        def popleft(self):
            self.clear()
            return super().popleft()

    writer = open_writer(FileSink.lines(tmp_path))
    writer.write(RowBatch(["a"]))
    writer.prepare_commit(1)
    writer._unsynced[0][1].close()
    writer._unsynced = ClosedMeanwhile(writer._unsynced)

    writer.sync()


def test_no_record_is_lost_when_the_disk_is_away_during_a_restart(disk, monkeypatch):
    """It goes away just before the first commit, and is back after the restart has failed for want of it."""
    commit = file_sink.PartFileCommitter.commit
    went = threading.Event()
    refused = []

    def commit_while_the_disk_goes_and_comes(committer, committables):
        if not went.is_set():
            went.set()
            unmount(disk)
            raise OSError(5, "Input/output error")
        try:
            commit(committer, committables)
        except StorageError as error:
            refused.append(error)
            mount(disk)
            raise

    monkeypatch.setattr(file_sink.PartFileCommitter, "commit", commit_while_the_disk_goes_and_comes)
    env = StreamEnvironment(
        {
            "execution.checkpointing.interval": "50ms",
            "execution.checkpointing.dir": str(disk.with_name("checkpoints")),
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 5,
            "restart-strategy.fixed-delay.delay": "1ms",
        },
        runner="local",
    )
    numbers = env.from_source(DatagenSource(lambda i: i, rate=1000, count=500), name="numbers", uid="numbers")
    numbers.map(str, uid="text").sink_to(FileSink.lines(disk / "out"), name="files", uid="files")
    env.execute("numbers")

    assert len(refused) == 1
    lines = [line for path in visible_files(disk / "out") for line in path.read_text().splitlines()]
    assert sorted(map(int, lines)) == list(range(500))
    assert in_progress_files(disk / "out") == []
