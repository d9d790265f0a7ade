"""Whatever byte of a snapshot is wrong: the job that starts from it names the file, and processes nothing."""

import shutil
from pathlib import Path

import pytest

from raystream.errors import StateCorruptError, StateRestoreError
from raystream.storage.metadata import files_of, shared_files_of
from raystream.storage.snapshots import load_snapshot
from tests.e2e.damaged_snapshots import KEYS, Place

KINDS = [
    ("hashmap", "checkpoint"),
    ("rocksdb", "checkpoint"),
    ("rocksdb", "native"),
    ("hashmap", "canonical"),
]
"""Backends, and kinds of snapshots; a canonical savepoint is the same of every backend."""


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def taken(request, tmp_path_factory):
    """A place and a snapshot there, with the directory of its job where it needs that."""
    backend, kind = request.param
    place = Place(tmp_path_factory.mktemp(f"{kind}-{backend}"), backend)
    return place, place.snapshot(kind)


def files_in(snapshot):
    """Return all files of a snapshot that a restore needs."""
    _, metadata = load_snapshot(str(snapshot))
    files = [snapshot / "_metadata", *(snapshot / file.path for file in files_of(metadata))]
    return [*files, *(snapshot.parent / "shared" / file.name for file in shared_files_of(metadata))]


def cut(path, _others):
    path.write_bytes(path.read_bytes()[:-1])


def extended(path, _others):
    path.write_bytes(path.read_bytes() + b"\0")


def flipped(path, _others):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def flipped_first(path, _others):
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def missing(path, _others):
    path.unlink()


def swapped(path, others):
    """Another file of the snapshot is in its place, one of the same length if there is any."""
    size = path.stat().st_size
    others = sorted(others, key=lambda other: abs(other.stat().st_size - size))
    path.write_bytes(others[0].read_bytes())


DAMAGES = [cut, extended, flipped, flipped_first, missing, swapped]


def test_every_file_is_read_and_whole(taken):
    place, snapshot = taken
    assert len(files_in(snapshot)) > 2
    assert place.restored(snapshot) == sorted([3] * len(KEYS))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_and_nothing_is_processed(damage, taken, tmp_path):
    place, snapshot = taken
    root = snapshot.parent
    for file in files_in(snapshot):
        copy = tmp_path / "copy"
        shutil.copytree(root, copy / root.name)
        path = copy / root.name / file.relative_to(root)
        inside = [copy / root.name / one.relative_to(root) for one in files_in(snapshot)]
        before = path.read_bytes()
        damage(path, [one for one in inside if one.read_bytes() != before])
        error = place.refusal(copy / root.name / snapshot.relative_to(root))

        assert isinstance(error, StateCorruptError | StateRestoreError), error
        if path.name != "_metadata":  # Else it may look as if there never was a snapshot.
            assert isinstance(error, StateCorruptError), error
        named = Path(str(error.context["path"]).removeprefix("file://"))
        assert named in (path, path.parent), error
        shutil.rmtree(copy)


def test_metadata_of_another_checkpoint_of_the_job_is_not_believed(tmp_path):
    place = Place(tmp_path, "hashmap")
    snapshot = place.snapshot("checkpoint")
    older, newer = sorted(snapshot.parent.glob("chk-*"), key=lambda path: int(path.name[4:]))[-2:]
    shutil.copy(older / "_metadata", newer / "_metadata")

    error = place.refusal(newer)
    assert isinstance(error, StateCorruptError)
    assert "another snapshot's" in error.message
    assert error.context["path"] == (newer / "_metadata").as_uri()


def test_file_of_another_checkpoint_of_the_same_length_is_not_believed(tmp_path):
    place = Place(tmp_path, "hashmap")
    snapshot = place.snapshot("checkpoint")
    older, newer = sorted(snapshot.parent.glob("chk-*"), key=lambda path: int(path.name[4:]))[-2:]
    (theirs,), (ours,) = (list(path.glob("*count-keyed*")) for path in (older, newer))
    assert theirs.stat().st_size == ours.stat().st_size, "their times differ, their length does not"
    shutil.copy(theirs, ours)

    error = place.refusal(newer)
    assert isinstance(error, StateCorruptError)
    assert error.context["path"] == ours.as_uri()
