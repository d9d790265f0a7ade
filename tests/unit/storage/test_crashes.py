"""After a crash, a failed call or a change of masters at any moment, a complete checkpoint is whole."""

from contextlib import suppress

import pytest

from raystream.errors import StorageError
from raystream.handles import InlineHandle
from raystream.protocol.checkpoint_ids import IDS_AHEAD_MAX
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.job_log import DurableJobLog
from raystream.storage.layout import JobLayout
from raystream.storage.log_entries import AttemptStarted, CheckpointCompletedEntry
from raystream.storage.metadata import blobs_of
from raystream.storage.snapshots import INLINE_TOTAL_BYTES_MAX, SnapshotStore
from raystream.storage.stores import open_file_system
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

        self.first = max((newest_id(entry) for entry in entries), default=0) + 1
        if entries:
            self.first += IDS_AHEAD_MAX

    def start(self):
        newest = self.first - 1
        self.log.append(AttemptStarted(attempt=self.attempt, newest_checkpoint=newest))
        self.store.sweep({self.newest.checkpoint_id} if self.newest else set(), newest=newest, shared=())

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


def newest_id(entry):
    """Return the newest id of a checkpoint that an entry names."""
    return (entry.newest_checkpoint if isinstance(entry, AttemptStarted) else entry.checkpoint_id) or 0


def run(fs, layout):
    master = Master(fs, layout)
    master.start()
    for checkpoint_id in range(master.first, master.first + 3):
        master.checkpoint(checkpoint_id)
    return checkpoint_id


def verify(fs, layout):
    """Restore as a new master would: what the log calls complete is whole, and all else goes."""
    master = Master(fs, layout)
    master.start()
    if master.newest:
        directory, metadata = master.store.load(master.newest.directory)
        assert [master.files.read_handle(directory, h) for h in blobs_of(metadata)] == [
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

    verify(fs, layout)
    newest = run(fs, layout)
    assert verify(fs, layout) == newest


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("place", range(changes_of_a_run()))
def test_after_a_failed_call_the_newest_complete_checkpoint_is_whole(memory_base, place, done):
    fs, layout = open_file_system(memory_base), JobLayout(memory_base, JOB)
    with suppress(StorageError):
        run(BreakingFileSystem(fs, break_at=place, error=StorageError, done=done), layout)

    verify(fs, layout)


class PausingFileSystem(BreakingFileSystem):
    """Something else happens before the n-th change."""

    def __init__(self, inner, pause_at, meanwhile):
        super().__init__(inner)
        self.pause_at, self.meanwhile = pause_at, meanwhile

    def _changing(self):
        if self.calls == self.pause_at:
            self.pause_at = None
            self.meanwhile()
        return super()._changing()


@pytest.mark.parametrize("place", range(1, changes_of_a_run()))  # Before that it is nobody's master.
def test_master_that_was_paused_and_replaced_harms_no_checkpoint_of_its_successor(memory_base, place):
    fs, layout = open_file_system(memory_base), JobLayout(memory_base, JOB)
    newest = []
    paused = Master(PausingFileSystem(fs, place, lambda: newest.append(run(fs, layout))), layout)
    paused.start()
    with suppress(StorageError):
        for checkpoint_id in range(paused.first, paused.first + 3):
            paused.checkpoint(checkpoint_id)
    # It does not know yet: what it was about to complete expires, the next one does too, and it sweeps.
    for checkpoint_id in range(paused.first, paused.first + 5):
        paused.store.delete(paused.store.checkpoint_directory(checkpoint_id))
    paused.store.sweep(set(), newest=paused.first + 5, shared=())

    assert verify(fs, layout) == newest[0]
