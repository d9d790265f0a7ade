"""A crash at any change to the store leaves a checkpoint complete or not there at all."""

from contextlib import suppress

import pytest

from raystream.errors import StorageError
from raystream.handles import InlineHandle
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import open_file_system
from raystream.storage.job_log import AttemptStarted, CheckpointCompletedEntry, DurableJobLog
from raystream.storage.layout import JobLayout
from raystream.storage.metadata import handles_of
from raystream.storage.snapshots import INLINE_TOTAL_BYTES_MAX, SnapshotStore
from tests.unit.storage import sample
from tests.unit.storage.contract import BreakingFileSystem, CrashError
from tests.unit.storage.sample import JOB

BLOB = b"b" * (INLINE_TOTAL_BYTES_MAX // 2 + 1)


class Master:
    """What a coordinator does with storage: takes checkpoints and keeps the newest."""

    def __init__(self, fs, layout):
        self.log = DurableJobLog(fs, layout)
        self.files = SnapshotFiles(lambda _: fs)
        self.store = SnapshotStore(JOB, layout, open_fs=lambda _: fs)
        entries = self.log.read()
        self.attempt = 1 + max((entry.attempt for entry in entries), default=0)
        complete = [entry for entry in entries if isinstance(entry, CheckpointCompletedEntry)]
        self.newest = complete[-1] if complete else None

    def start(self):
        self.log.append(AttemptStarted(attempt=self.attempt))
        self.store.sweep({self.newest.checkpoint_id} if self.newest else set())

    def checkpoint(self, checkpoint_id):
        directory = self.store.checkpoint_directory(checkpoint_id)
        name = f"a{self.attempt}"
        file = self.files.write_blob(directory, name, b"state", inline_bytes_max=0)
        # Two inline blobs that are too much together, so that one is moved to a file.
        handles = (file, InlineHandle(data=BLOB), InlineHandle(data=BLOB))
        location = self.store.write_metadata(directory, sample.snapshot(checkpoint_id, handles))
        previous, self.newest = (
            self.newest,
            CheckpointCompletedEntry(checkpoint_id=checkpoint_id, directory=location, attempt=self.attempt),
        )
        self.log.append(self.newest)
        self.log.prune_checkpoints(keep={checkpoint_id})
        if previous:
            self.store.delete(previous.directory)


def run(fs, layout):
    master = Master(fs, layout)
    master.start()
    first = master.newest.checkpoint_id + 1 if master.newest else 1
    for checkpoint_id in range(first, first + 3):
        master.checkpoint(checkpoint_id)


def verify(fs, layout):
    """Restore as a new master would: what the log calls complete is whole, and all else goes."""
    master = Master(fs, layout)
    master.start()
    if master.newest:
        directory, metadata = master.store.load(master.newest.directory)
        assert [master.files.read_handle(directory, h) for h in handles_of(metadata)] == [
            b"state",
            BLOB,
            BLOB,
        ]
    kept = {f"chk-{master.newest.checkpoint_id}"} if master.newest else set()
    assert {entry.name for entry in fs.list_dir(layout.job_dir)} == {"log"} | kept
    return master.newest.checkpoint_id if master.newest else 0


def changes_of_a_run():
    return 1 + 3 * 4 + 2 * 3  # attempt; per checkpoint two files, metadata, entry; then the one before goes


def test_the_run_makes_as_many_changes_as_the_crashes_cover(fs, base):
    counting = BreakingFileSystem(fs)
    run(counting, JobLayout(base, JOB))

    assert counting.calls == changes_of_a_run()


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("place", range(changes_of_a_run()))
def test_after_a_crash_the_newest_complete_checkpoint_is_whole(fs, base, place, done):
    layout = JobLayout(base, JOB)
    with pytest.raises(CrashError):
        run(BreakingFileSystem(fs, break_at=place, done=done), layout)

    newest = verify(fs, layout)
    run(fs, layout)
    assert verify(fs, layout) == newest + 3


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("place", range(changes_of_a_run()))
def test_after_a_failed_call_the_newest_complete_checkpoint_is_whole(memory_base, place, done):
    fs, layout = open_file_system(memory_base), JobLayout(memory_base, JOB)
    with suppress(StorageError):
        run(BreakingFileSystem(fs, break_at=place, error=StorageError, done=done), layout)

    verify(fs, layout)
