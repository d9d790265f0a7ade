"""A copy on the local disk takes the place of the store when it is right, and never does any harm."""

import os
from collections.abc import Iterator

import pytest

from raystream.handles import FileHandle, SharedFile
from raystream.ids import JobId
from raystream.storage import local_copies
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import join_url
from raystream.storage.local import LocalFileSystem
from raystream.storage.local_copies import FREE_BYTES_MIN, UNUSED_MS_MAX, LocalCopies, on_another_disk

JOB = JobId("ab" * 16)
OTHER = JobId("cd" * 16)
BLOB = bytes(range(256)) * 40


class FixedClock:
    def __init__(self):
        self.now_ms = 0

    def wall_ms(self):
        return self.now_ms

    def monotonic_ms(self):
        return float(self.now_ms)


class RecordingFileSystem(LocalFileSystem):
    """Counts what is read."""

    def __init__(self):
        super().__init__()
        self.reads = []

    def read(self, url):
        self.reads.append(url)
        return super().read(url)

    def read_range(self, url, offset, length):
        self.reads.append(url)
        return super().read_range(url, offset, length)


class Node:
    """A node with a local disk, and slots on it that use one store."""

    def __init__(self, tmp_path):
        self.disk = tmp_path / "local"
        self.store = f"file://{tmp_path}/store"
        self.fs = RecordingFileSystem()
        self.clock = FixedClock()
        self.opened = []

    def slot(self, job=JOB) -> SnapshotFiles:
        copies = LocalCopies(self.disk, job, self.clock)
        self.opened.append(copies)
        return SnapshotFiles(lambda url: self.fs, copies)

    def directory(self, checkpoint_id, job=JOB):
        return join_url(self.store, job, f"chk-{checkpoint_id}")

    def write(self, slot, checkpoint_id, data=BLOB, job=JOB) -> FileHandle:
        name = f"c{checkpoint_id}-a1-keyed"
        return slot.write_blob(self.directory(checkpoint_id, job), name, [data], inline_bytes_max=0)

    def copies(self, job=JOB):
        """Checkpoints and names of the copies that are there."""
        directory = self.disk / f"raystream-copies-{job}"
        return sorted(str(path.relative_to(directory)) for path in directory.rglob("c*") if path.is_file())

    def kill(self, slot):
        """What is left of a process is its files."""
        os.close(slot.copies._lock)
        slot.copies._lock = None
        self.opened.remove(slot.copies)


@pytest.fixture
def node(tmp_path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    for copies in node.opened:
        copies.close()


def test_what_a_killed_slot_has_written_its_successor_reads_without_the_store(node):
    slot = node.slot()
    handle = node.write(slot, 3)
    node.kill(slot)

    successor = node.slot()
    successor.copies.attempt_began(3)
    reader = successor.open_handle(node.directory(3), handle)

    assert reader.read_all() == BLOB
    assert reader.read_range(100, 200) == BLOB[100:300]
    assert b"".join(successor.read_file(node.directory(3), handle)) == BLOB
    assert node.fs.reads == []
    assert successor.copied_bytes == 2 * len(BLOB)
    assert successor.stored_bytes == 0


DAMAGE = {
    **{f"byte {at}": lambda data, at=at: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
       for at in (0, 1, len(BLOB) // 2, len(BLOB) - 1)},
    "cut": lambda data: data[:-1],
    "cut to nothing": lambda data: b"",
    "longer": lambda data: data + b"\0",
    "zeroed": lambda data: bytes(len(data)),
    "missing": None,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_copy_that_is_not_right_is_never_used_and_never_an_error(node, damage):
    slot = node.slot()
    handle = node.write(slot, 3)
    [copy] = node.copies()
    path = node.disk / f"raystream-copies-{JOB}" / copy
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))

    reader = slot.open_handle(node.directory(3), handle)

    assert reader.read_all() == BLOB
    assert reader.read_range(0, 10) == BLOB[:10]
    assert b"".join(slot.read_file(node.directory(3), handle)) == BLOB
    assert len(node.fs.reads) == 3
    assert (slot.copied_bytes, slot.stored_bytes) == (0, 2 * len(BLOB))


def shared(node, slot, source, checkpoint_ids):
    """Store a shared file with its copies for some checkpoints."""
    file = SharedFile(
        name="c1-a1-file-0", local="000012.sst", created_by=1, size_bytes=len(BLOB),
        checksum=local_copies.xxhash.xxh3_64_hexdigest(BLOB),
    )  # fmt: skip
    slot.write_shared(node.directory(1), file, [BLOB])
    for checkpoint_id in checkpoint_ids:
        slot.copy_shared(node.directory(checkpoint_id), file, source)
    return file


def test_a_file_of_state_is_linked_for_every_checkpoint_that_needs_it(node, tmp_path, caplog):
    source = tmp_path / "000012.sst"
    source.write_bytes(BLOB)
    slot = node.slot()
    file = shared(node, slot, source, [1, 2])
    slot.copy_shared(node.directory(2), file, source)
    assert node.copies() == ["chk-1/c1-a1-file-0", "chk-2/c1-a1-file-0"]
    assert source.stat().st_nlink == 3
    assert caplog.messages == []

    slot.copies.checkpoint_completed(2)
    source.unlink()  # Compaction has replaced it.

    assert b"".join(slot.read_shared(node.directory(2), file)) == BLOB
    assert node.fs.reads == []


def test_a_damaged_link_is_not_used_either(node, tmp_path):
    source = tmp_path / "000012.sst"
    source.write_bytes(b"x" + BLOB[1:])
    slot = node.slot()
    file = shared(node, slot, source, [1])

    assert b"".join(slot.read_shared(node.directory(1), file)) == BLOB
    assert len(node.fs.reads) > 0


def test_copies_go_with_their_checkpoint(node):
    slot, neighbour = node.slot(), node.slot()
    for checkpoint_id in range(1, 7):
        node.write(slot, checkpoint_id)

    slot.copies.checkpoint_completed(3)
    neighbour.copies.checkpoint_completed(3)
    assert node.copies() == [f"chk-{n}/c{n}-a1-keyed" for n in (3, 4, 5, 6)]
    neighbour.copies.checkpoint_aborted(5)
    assert node.copies() == [f"chk-{n}/c{n}-a1-keyed" for n in (3, 4, 6)]
    slot.copies.attempt_began(4)
    assert node.copies() == ["chk-4/c4-a1-keyed"]


def test_the_last_slot_of_a_job_removes_everything(node):
    first, second, stranger = node.slot(), node.slot(), node.slot(OTHER)
    node.write(first, 1)
    node.write(stranger, 1, job=OTHER)

    first.copies.close()
    first.copies.close()
    assert node.copies() == ["chk-1/c1-a1-keyed"]
    second.copies.close()

    assert [path.name for path in node.disk.iterdir()] == [f"raystream-copies-{OTHER}"]
    assert node.copies(OTHER) == ["chk-1/c1-a1-keyed"]
    node.write(first, 2)
    assert not first.copies.open(node.directory(2), "c2-a1-keyed", 1, "")


def test_copies_of_a_job_that_has_lost_all_its_slots_are_removed_after_a_while(node):
    killed, living = node.slot(), node.slot(OTHER)
    node.write(killed, 1)
    node.write(living, 1, job=OTHER)
    node.kill(killed)
    begun_ms = int((node.disk / f"raystream-copies-{JOB}" / "lock").stat().st_mtime * 1000)

    node.clock.now_ms = begun_ms + UNUSED_MS_MAX - 1_000
    node.slot(JobId("ef" * 16))
    assert node.copies() == ["chk-1/c1-a1-keyed"]
    node.clock.now_ms = begun_ms + UNUSED_MS_MAX + 60_000
    node.slot(JobId("ef" * 16))

    assert node.copies() == []
    assert node.copies(OTHER) == ["chk-1/c1-a1-keyed"]


def test_jobs_savepoints_and_paths_are_never_mixed_up(node):
    slot = node.slot()
    slot.write_blob(join_url(node.store, "savepoint-ababab-0123456789ab"), "c1", [BLOB], inline_bytes_max=0)
    slot.copies.write(node.directory(1, OTHER), "c1", BLOB)
    node.write(slot, 2)
    slot.copies.write(node.directory(2), "../c1", BLOB)

    assert node.copies() == ["chk-2/c2-a1-keyed"]
    assert list(node.disk.rglob("c1*")) == []


def test_nobody_else_may_read_what_is_copied(node):
    node.write(node.slot(), 1)

    assert (node.disk / f"raystream-copies-{JOB}").stat().st_mode & 0o077 == 0


def test_a_full_disk_ends_copying_with_one_warning_and_fails_no_checkpoint(node, caplog, monkeypatch):
    slot = node.slot()
    monkeypatch.setattr(local_copies, "FREE_BYTES_MIN", 1 << 62)
    handles = [node.write(slot, checkpoint_id) for checkpoint_id in (1, 2)]

    assert [slot.read_handle(node.directory(n), handle) for n, handle in enumerate(handles, 1)] == [BLOB] * 2
    assert node.copies() == []
    assert caplog.messages == [
        "checkpoints are not copied to the local disk; a recovery reads the checkpoint store"
    ]
    monkeypatch.setattr(local_copies, "FREE_BYTES_MIN", FREE_BYTES_MIN)
    slot.copies.attempt_began(2)
    node.write(slot, 3)
    assert node.copies() == ["chk-3/c3-a1-keyed"], "the next attempt tries again"


def test_a_directory_that_cannot_be_made_is_one_warning(node, caplog):
    node.disk.write_text("a file")
    slot = node.slot()
    handle = node.write(slot, 1)
    slot.copies.attempt_began(1)
    slot.copies.checkpoint_completed(1)

    assert slot.read_handle(node.directory(1), handle) == BLOB
    assert len(caplog.messages) == 1
    assert caplog.records[0].path == str(node.disk / f"raystream-copies-{JOB}")


def test_a_disk_that_fails_while_a_copy_is_read_is_left_for_the_store(node, monkeypatch):
    slot = node.slot()
    handle = node.write(slot, 1)
    reader = slot.open_handle(node.directory(1), handle)

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(local_copies.os, "pread", fail)

    assert reader.read_range(5, 6) == BLOB[5:11]
    assert reader.read_all() == BLOB


def test_a_copy_that_is_removed_is_read_to_its_end(node):
    slot = node.slot()
    handle = node.write(slot, 1)
    reader = slot.open_handle(node.directory(1), handle)
    slot.copies.checkpoint_completed(2)

    assert reader.read_all() == BLOB
    assert node.fs.reads == []


def test_a_snapshot_that_is_dropped_while_it_is_copied_leaves_nothing(node):
    class Dropped(list):
        """Ends when it is gone through a second time."""

        def __iter__(self):
            yield from super().__iter__()
            raise RuntimeError("dropped")

    slot = node.slot()
    with pytest.raises(RuntimeError, match="dropped"):
        local_copies._write(node.disk / f"raystream-copies-{JOB}" / "c1", Dropped([BLOB]))

    assert node.copies() == []
    assert slot.copies._lock is not None
    assert [path.name for path in (node.disk / f"raystream-copies-{JOB}").iterdir()] == ["lock"]


def test_a_directory_that_another_slot_removes_meanwhile_ends_nothing(node, caplog, monkeypatch):
    slot, neighbour = node.slot(), node.slot()
    room = local_copies._leave_room

    def removed_meanwhile(directory, size_bytes):
        room(directory, size_bytes)
        neighbour.copies.checkpoint_completed(2)

    monkeypatch.setattr(local_copies, "_leave_room", removed_meanwhile)
    node.write(slot, 1)
    monkeypatch.setattr(local_copies, "_leave_room", room)
    node.write(slot, 3)

    assert node.copies() == ["chk-3/c3-a1-keyed"]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("store", "expected"), [("s3://bucket/a", True), ("hdfs://name/a", True), ("memory://a", False)]
)
def test_distant_stores_are_on_another_disk(tmp_path, store, expected):
    assert on_another_disk(store, tmp_path) is expected


def test_a_directory_is_where_its_device_is(tmp_path, monkeypatch):
    devices = {tmp_path / "here": 1, tmp_path / "there": 2}
    monkeypatch.setattr(local_copies, "_device", lambda path: devices[path])

    assert not on_another_disk(f"file://{tmp_path}/here", tmp_path / "here")
    assert on_another_disk(f"file://{tmp_path}/there", tmp_path / "here")


def test_a_directory_that_is_not_there_yet_has_the_device_of_the_one_above(tmp_path):
    assert not on_another_disk(f"file://{tmp_path}/a/b", tmp_path / "c" / "d")
