"""Files of one snapshot go to a distant store at once; what was written is gone when one of them fails."""

import threading

import pytest

from raystream.errors import StateCorruptError, StorageError
from raystream.handles import SharedFile
from raystream.records.elements import Barrier, SnapshotKind
from raystream.runtime.upload import OperatorPart, Upload, UploadDroppedError, UploadsUnderWay, UploadTarget
from raystream.state.snapshot_files import LocalFile
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import split_url
from raystream.storage.local import LocalFileSystem
from raystream.storage.transfers import TRANSFERS_AT_ONCE
from tests.unit.runtime.test_snapshotter import BARRIER, vertex_of

PATIENCE_S = 60.0
FILES = 3 * TRANSFERS_AT_ONCE


class Distant(LocalFileSystem):
    """A disk that is far away; `before` is called with the number of each file that is written."""

    parallel = True

    def __init__(self, before) -> None:
        super().__init__()
        self._before = before

    def write(self, url, data):
        name = split_url(url)[1]
        if "-file-" in name:
            self._before(int(name.split("-file-")[1].split("-")[0]))
        super().write(url, data)

    def link(self, url, source):
        return False


class Files:
    """A keyed snapshot that consists of files."""

    states = ()
    entries = 0

    earlier = None

    def __init__(self, directory) -> None:
        self._paths = [directory / f"{number}.sst" for number in range(FILES)]
        for number, path in enumerate(self._paths):
            path.write_bytes(bytes([number]))

    def files(self):
        return [LocalFile(path.name, path, None, self.earlier) for path in self._paths]

    def blob(self):
        return [b"index"]

    def stored(self, shared):
        self.shared = shared

    def discard(self):
        """Keep the files."""


@pytest.fixture
def upload(tmp_path):
    """Make the upload of a snapshot of files to a store that calls `before`."""

    def make(before=lambda _: None, earlier=None, kind=SnapshotKind.CHECKPOINT) -> Upload:
        (tmp_path / "local").mkdir()
        directory = (tmp_path / "stored" / "chk-1").as_uri()
        target = UploadTarget(
            files=SnapshotFiles(lambda _: Distant(before)),
            under_way=UploadsUnderWay(),
            inline_bytes_max=0,
            attempt=1,
            barrier=Barrier(checkpoint_id=1, **{**BARRIER, "directory": directory, "kind": kind}),
            vertex=vertex_of("uid"),
            subtask=0,
        )
        keyed = Files(tmp_path / "local")
        keyed.earlier = earlier
        part = OperatorPart(uid="uid", states=[], keyed=keyed, sync=lambda: None)
        return Upload(target, [part], ["5eed"])

    return make


def stored(tmp_path):
    return sorted(path.name for path in (tmp_path / "stored").rglob("*") if path.is_file())


def test_files_are_on_their_way_at_once_and_stored_in_their_order(upload, tmp_path):
    together = threading.Barrier(TRANSFERS_AT_ONCE, timeout=PATIENCE_S)
    (snapshot,) = upload(lambda _: together.wait()).run()

    assert [file.local for file in snapshot.keyed[0].shared] == [f"{number}.sst" for number in range(FILES)]
    assert set(stored(tmp_path)) > {file.name for file in snapshot.keyed[0].shared}


def test_a_file_that_fails_takes_those_with_it_that_are_on_their_way(upload, tmp_path):
    failed = threading.Event()

    def before(number: int) -> None:
        if number == 1:
            failed.set()
            raise StorageError("planned")
        assert failed.wait(PATIENCE_S)  # What is written from here on comes behind the failure.

    with pytest.raises(StorageError, match="planned"):
        upload(before).run()
    assert stored(tmp_path) == []


def test_an_upload_that_is_dropped_writes_no_further_file_and_leaves_none(upload, tmp_path):
    begun = []

    def before(number: int) -> None:
        begun.append(number)
        made.drop()

    made = upload(before)
    with pytest.raises(UploadDroppedError):
        made.run()
    assert len(begun) <= TRANSFERS_AT_ONCE
    assert stored(tmp_path) == []


@pytest.mark.parametrize("kind", [SnapshotKind.CHECKPOINT, SnapshotKind.SAVEPOINT])
def test_a_file_that_is_not_what_was_stored_of_it_before_gets_no_new_checksum(upload, tmp_path, kind):
    earlier = SharedFile(name="c0-0.sst", local="0.sst", created_by=0, size_bytes=1, checksum="another")

    with pytest.raises(StateCorruptError, match="damaged since a checkpoint has stored it") as caught:
        upload(earlier=earlier, kind=kind).run()
    assert caught.value.context["stored_as"] == "c0-0.sst"
    assert stored(tmp_path) == []
