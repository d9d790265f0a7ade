"""A snapshot is whole or not there; what is deleted is only what is ours."""

import pytest

from raystream.errors import ConfigError, StateCorruptError, StateRestoreError, StorageError
from raystream.handles import FileHandle, InlineHandle
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.disposal import dispose_snapshot
from raystream.storage.filesystem import join_url, split_url
from raystream.storage.layout import JobLayout, data_file, metadata_path
from raystream.storage.metadata import blobs_of
from raystream.storage.snapshots import (
    INLINE_TOTAL_BYTES_MAX,
    SnapshotStore,
    load_snapshot,
)
from tests.unit.storage import sample
from tests.unit.storage.sample import JOB

FILES = SnapshotFiles()


@pytest.fixture
def layout(base):
    return JobLayout(base, JOB)


@pytest.fixture
def store(layout):
    return SnapshotStore(JOB, layout)


def take(store, checkpoint_id, directory=None):
    """Write a snapshot with one data file; return its location."""
    directory = directory or store.checkpoint_directory(checkpoint_id)
    name = data_file(checkpoint_id, 1, (0, 0), "count-hits", kind="keyed", token="5eed")
    handle = FILES.write_blob(directory, name, b"state", inline_bytes_max=0)
    return store.write_metadata(directory, sample.snapshot(checkpoint_id, (handle,)))


def test_a_checkpoint_comes_back(store, layout):
    location = take(store, 3)

    directory, metadata = store.load(location)
    assert location == directory == layout.checkpoint_dir(3)
    assert metadata.checkpoint_id == 3
    assert [FILES.read_handle(directory, handle) for handle in blobs_of(metadata)] == [b"state"]


def test_directory_and_metadata_file_name_the_same_snapshot(store):
    location = take(store, 3)

    assert store.load(metadata_path(location)) == store.load(location) == store.load(location + "/")


def test_a_bare_path_names_a_snapshot_too(tmp_path):
    store = SnapshotStore(JOB, JobLayout(str(tmp_path), JOB))
    take(store, 1)

    directory, _ = load_snapshot(f"{tmp_path}/{JOB}/chk-1")
    assert directory == f"file://{tmp_path}/{JOB}/chk-1"


def test_a_savepoint_that_was_moved_can_be_read(tmp_path):
    store = SnapshotStore(JOB)
    location = take(store, 4, store.savepoint_directory(f"{tmp_path}/here", "0a1b2c3d4e5f"))
    (tmp_path / "here").rename(tmp_path / "there")

    directory, metadata = store.load(location.replace("/here/", "/there/"))
    assert [FILES.read_handle(directory, handle) for handle in blobs_of(metadata)] == [b"state"]


def test_without_a_layout_checkpoints_live_in_memory():
    store = SnapshotStore(JOB)
    metadata = sample.snapshot(5)

    assert store.checkpoint_directory(5) == ""
    location = store.write_metadata("", metadata)
    assert store.load(location) == ("", metadata)
    store.delete(location)
    with pytest.raises(StateRestoreError, match="not in memory any more"):
        store.load(location)


def test_a_path_that_does_not_exist_is_said_to(base):
    with pytest.raises(StateRestoreError, match="snapshot does not exist") as caught:
        load_snapshot(join_url(base, "chk-9"))
    assert caught.value.context["path"] == join_url(base, "chk-9")
    assert "chk-<n>" in caught.value.hint


def test_snapshots_near_a_wrong_path_are_named(store, base):
    (directory,) = {split_url(take(store, checkpoint_id))[0] for checkpoint_id in (2, 3)}

    for wrong in (directory, join_url(directory, "chk-9")):
        with pytest.raises(StateRestoreError) as caught:
            load_snapshot(wrong)
        assert caught.value.hint.endswith(f"; there are chk-2, chk-3 in {directory}")


def test_a_directory_that_is_not_a_snapshot_is_said_to(base, fs):
    fs.write(join_url(base, "dir/file"), b"1")
    for path in ("dir", "dir/file"):
        with pytest.raises(StateRestoreError, match="path is not a snapshot: it has no _metadata"):
            load_snapshot(join_url(base, path))


def test_a_store_that_is_not_supported_does_not_fit_a_restore():
    with pytest.raises(StateRestoreError, match="store is not supported"):
        load_snapshot("ftp://host/chk-1")


def test_a_damaged_snapshot_names_its_file(store, fs):
    location = take(store, 3)
    fs.write(metadata_path(location), fs.read(metadata_path(location))[:-2])

    with pytest.raises(StateCorruptError) as caught:
        store.load(location)
    assert caught.value.context["path"] == metadata_path(location)


def test_writing_the_same_snapshot_again_is_harmless(store):
    assert take(store, 3) == take(store, 3)


def test_another_snapshot_is_never_overwritten(store):
    directory = take(store, 3)

    with pytest.raises(StorageError, match="holds another snapshot already"):
        store.write_metadata(directory, sample.snapshot(3, name="of an older attempt"))
    assert store.load(directory)[1].job_name == "count"


def test_inline_state_is_bounded_in_all(store, layout):
    blob = 1024 * 1024
    small = InlineHandle(data=b"s" * 10)
    handles = (small, *(InlineHandle(data=b"%02d" % n + b"x" * (blob - 2)) for n in range(20)), small)
    location = store.write_metadata(store.checkpoint_directory(1), sample.snapshot(1, handles))

    directory, metadata = store.load(location)
    stored = blobs_of(metadata)
    assert [FILES.read_handle(directory, handle) for handle in stored] == [h.data for h in handles]
    assert sum(h.size_bytes for h in stored if isinstance(h, InlineHandle)) <= INLINE_TOTAL_BYTES_MAX
    assert sum(isinstance(h, FileHandle) for h in stored) == 5
    assert stored[0] == stored[-1] == small


def test_a_deleted_checkpoint_leaves_nothing_and_can_be_deleted_again(store, fs, layout):
    location = take(store, 3)
    store.delete(location)
    store.delete(location)

    assert not fs.exists(layout.checkpoint_dir(3))


def test_a_directory_that_raystream_did_not_name_is_never_deleted(store, base, fs):
    fs.write(join_url(base, "precious/file"), b"1")

    with pytest.raises(StorageError, match="not one that raystream made"):
        store.delete(join_url(base, "precious"))
    assert fs.exists(join_url(base, "precious/file"))


def test_files_of_a_late_acknowledgement_are_deleted(store, fs):
    directory = store.checkpoint_directory(3)
    handle = FILES.write_blob(directory, "late", b"state", inline_bytes_max=0)
    store.delete_files(directory, [handle])

    assert fs.list_dir(directory) == []


def test_a_handle_cannot_delete_outside_its_snapshot(store, base, fs):
    fs.write(join_url(base, "precious"), b"1")
    outside = FileHandle(path="../../precious", size_bytes=1, checksum="0" * 16)

    with pytest.raises(StateCorruptError, match="leads out of its snapshot"):
        store.delete_files(store.checkpoint_directory(3), [outside])
    assert fs.exists(join_url(base, "precious"))


def test_a_sweep_removes_what_no_live_snapshot_holds(store, layout, base, fs):
    for checkpoint_id in (1, 2, 10):
        take(store, checkpoint_id)
    savepoint = take(store, 4, store.savepoint_directory(base, "0a1b2c3d4e5f"))
    fs.write(join_url(layout.checkpoint_dir(11), "of an unfinished one"), b"1")
    fs.write(join_url(layout.checkpoint_dir(2), ".tmp-5eed"), b"1")
    fs.write(join_url(layout.log_dir, ".tmp-5eed"), b"1")
    kept = [layout.log_entry(1), layout.archive_path, join_url(layout.taskowned_dir, "file")]
    for url in kept:
        fs.write(url, b"1")

    assert store.sweep({1, 2, 10}, newest=10, shared=(), writing=True) == [".tmp-5eed"]
    fs.write(join_url(layout.checkpoint_dir(2), ".tmp-5eed"), b"1")
    swept = store.sweep({2}, newest=11, shared=())

    assert sorted(swept) == [".tmp-5eed", ".tmp-5eed", "chk-1", "chk-10", "chk-11"]
    assert [entry.name for entry in fs.list_dir(layout.job_dir)] == ["archive", "chk-2", "log", "taskowned"]
    assert all(map(fs.exists, kept))
    assert len(fs.list_dir(layout.log_dir)) == 1
    store.load(layout.checkpoint_dir(2))
    store.load(savepoint)
    assert store.sweep({2}, newest=11, shared=()) == []


def test_a_sweep_leaves_what_is_newer_than_the_attempt_that_wants_it(store, layout, fs):
    for checkpoint_id in (3, 4, 5):
        take(store, checkpoint_id)

    assert store.sweep({3}, newest=4, shared=(), writing=True) == ["chk-4"]
    store.load(layout.checkpoint_dir(5))


def share(store, checkpoint_id, *, local="000008.sst"):
    """Write a shared file for a checkpoint; return its name."""
    file = sample.shared_file(checkpoint_id, b"sst", local=local)
    FILES.write_shared(store.checkpoint_directory(checkpoint_id), file, b"sst")
    return file.name


def names_in(fs, url):
    return [entry.name for entry in fs.list_dir(url)]


def test_shared_files_that_nothing_needs_go_with_a_checkpoint(store, layout, fs):
    location = take(store, 3)
    gone, kept = share(store, 3), share(store, 3, local="000009.sst")
    store.delete(location, shared=[gone])
    store.delete(location, shared=[gone])

    assert names_in(fs, layout.shared_dir) == [kept]
    assert not fs.exists(location)


@pytest.mark.parametrize("writing", [True, False])
def test_a_sweep_leaves_the_shared_files_that_live_checkpoints_need(store, layout, fs, writing):
    needed, unneeded = share(store, 1), share(store, 1, local="000009.sst")
    aborted, later = share(store, 4), share(store, 6)
    foreign = "not-one-of-ours"
    fs.write(join_url(layout.shared_dir, foreign), b"1")

    swept = store.sweep({3}, newest=5, shared={needed}, writing=writing)

    assert sorted(swept) == sorted([unneeded, aborted])
    assert sorted(names_in(fs, layout.shared_dir)) == sorted([needed, later, foreign])
    assert store.sweep({3}, newest=5, shared={needed}, writing=writing) == []


def test_a_sweep_removes_unfinished_shared_files_when_nobody_writes(store, layout, fs):
    unfinished = join_url(layout.shared_dir, ".tmp-5eed")
    fs.write(unfinished, b"1")

    assert store.sweep({3}, newest=5, shared=(), writing=True) == []
    assert store.sweep({3}, newest=5, shared=()) == [".tmp-5eed"]
    assert not fs.exists(unfinished)


def test_a_sweep_removes_unfinished_shared_files_of_older_checkpoints_while_others_are_written(
    store, layout, fs
):
    for number in (5, 6):
        fs.write(join_url(layout.shared_dir, f".tmp-c{number}-a1-v1-s0-uid-shared-0-5eed~upload"), b"")

    swept = store.sweep({3}, newest=5, shared=(), writing=True)
    assert swept == [".tmp-c5-a1-v1-s0-uid-shared-0-5eed~upload"]


def test_a_sweep_removes_all_shared_files_at_once_when_nothing_is_live_and_nobody_writes(store, layout, fs):
    take(store, 3)
    share(store, 3)
    fs.write(join_url(layout.shared_dir, ".tmp-5eed"), b"1")

    assert store.sweep(set(), newest=5, shared=(), writing=True) == ["chk-3", *[share(store, 3)]]
    share(store, 3)
    assert store.sweep(set(), newest=5, shared=()) == ["shared"]
    assert not fs.exists(layout.shared_dir)


def test_disposing_of_a_savepoint_removes_its_directory(base, fs):
    store = SnapshotStore(JOB)
    location = take(store, 4, store.savepoint_directory(base, "0a1b2c3d4e5f"))

    assert dispose_snapshot(metadata_path(location))[0] == location
    assert not fs.exists(location)


def test_incremental_checkpoint_is_not_disposed_of(store, layout, fs):
    directory, file = store.checkpoint_directory(3), sample.shared_file(3, b"sst", local="000008.sst")
    FILES.write_shared(directory, file, b"sst")
    metadata = sample.snapshot(3, shared=(file,))
    store.write_metadata(directory, metadata)

    with pytest.raises(StateRestoreError, match="other checkpoints of its job may need its files"):
        dispose_snapshot(directory)
    assert store.load(directory) == (directory, metadata)
    assert names_in(fs, layout.shared_dir) == [file.name]


def test_disposing_of_a_renamed_savepoint_spares_what_is_not_its_own(base, fs):
    directory = join_url(base, "backup")
    take(SnapshotStore(JOB), 4, directory)
    fs.write(join_url(directory, "notes"), b"1")

    dispose_snapshot(directory)
    assert [entry.name for entry in fs.list_dir(directory)] == ["notes"]


def take_with_part(base, name):
    """A savepoint with a file in directories of its own; return its directory."""
    directory = join_url(base, name)
    part = sample.named_file("count-hits/hits/part-0.parquet", b"parquet")
    FILES.write_file(directory, part.file, b"parquet")
    SnapshotStore(JOB).write_metadata(directory, sample.snapshot(4, files=(part,)))
    return directory


@pytest.mark.parametrize("name", ["savepoint-012345-0a1b2c3d4e5f", "backup"])
def test_disposing_of_a_savepoint_removes_its_files_and_their_directories(base, fs, name):
    directory = take_with_part(base, name)

    dispose_snapshot(directory)
    assert not fs.exists(directory)


def test_disposing_of_a_renamed_savepoint_spares_directories_with_something_else(base, fs):
    directory = take_with_part(base, "backup")
    fs.write(join_url(directory, "count-hits/notes"), b"1")

    dispose_snapshot(directory)
    assert [entry.name for entry in fs.list_dir(directory)] == ["count-hits"]
    assert [entry.name for entry in fs.list_dir(join_url(directory, "count-hits"))] == ["notes"]


def test_nothing_is_deleted_of_a_snapshot_that_names_a_file_outside(base, fs):
    part = sample.named_file("../other/part-0.parquet", b"parquet")
    directory = join_url(base, "backup")
    SnapshotStore(JOB).write_metadata(directory, sample.snapshot(4, files=(part,)))

    with pytest.raises(StateCorruptError, match="leads out"):
        dispose_snapshot(directory)
    assert fs.exists(metadata_path(directory))


def test_disposing_of_something_else_touches_nothing(base, fs):
    fs.write(join_url(base, "dir/file"), b"1")

    with pytest.raises(StateRestoreError, match="not a snapshot"):
        dispose_snapshot(join_url(base, "dir"))
    assert fs.exists(join_url(base, "dir/file"))


def test_a_savepoint_needs_a_directory():
    with pytest.raises(ConfigError):
        SnapshotStore(JOB).savepoint_directory("", "0a1b2c3d4e5f")
