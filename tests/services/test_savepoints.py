"""Savepoints on object stores: claimed, disposed of, and restored from a copy."""

import shutil
from collections import Counter
from pathlib import Path

from raystream import JobStatus
from raystream.storage.disposal import dispose_snapshot
from raystream.storage.filesystem import join_url
from raystream.storage.metadata import files_of
from raystream.storage.snapshots import load_snapshot
from tests.e2e.test_savepoint_formats import COUNT, FOR_EVER_MS, PATIENCE, stop_in_the_middle, submit
from tests.every_state import expected
from tests.published import records, tuples
from tests.unit.storage.test_claims import (
    claims,
    test_files_that_somebody_else_put_into_a_renamed_directory_stay,
    test_one_job_has_a_snapshot_and_another_is_told_which,
    test_snapshot_is_deleted_whatever_its_directory_is_called,
    test_snapshot_that_was_given_back_may_be_claimed_by_another,
)

__all__ = [
    "claims",
    "submit",
    "test_files_that_somebody_else_put_into_a_renamed_directory_stay",
    "test_one_job_has_a_snapshot_and_another_is_told_which",
    "test_snapshot_is_deleted_whatever_its_directory_is_called",
    "test_snapshot_that_was_given_back_may_be_claimed_by_another",
]


def test_savepoint_goes_from_a_disk_to_the_store_and_back_to_a_disk(submit, tmp_path, fs, base):
    savepoint = Path(stop_in_the_middle(submit(FOR_EVER_MS, backend="rocksdb"), "native"))
    copied = join_url(base, "copied")
    for path in savepoint.rglob("*"):
        if path.is_file():
            fs.write(join_url(copied, path.relative_to(savepoint).as_posix()), path.read_bytes())
    shutil.rmtree(tmp_path / "savepoints")

    options = {"execution_checkpointing_savepoint_dir": base}
    job = submit(FOR_EVER_MS, backend="rocksdb", execution_state_recovery_path=copied, **options)
    stored = job.stop()
    assert job.wait(PATIENCE).status is JobStatus.FINISHED
    assert dispose_snapshot(copied)[0] == copied
    assert not fs.exists(copied)

    back = tmp_path / "back"
    directory, metadata = load_snapshot(stored)
    for file in ("_metadata", *(file.path for file in files_of(metadata))):
        (back / file).parent.mkdir(parents=True, exist_ok=True)
        (back / file).write_bytes(fs.read(join_url(directory, file)))
    job = submit(0, backend="hashmap", execution_state_recovery_path=str(back))
    assert job.wait(PATIENCE).status is JobStatus.FINISHED
    assert Counter(map(tuples, records(tmp_path / "out"))) == Counter(expected(COUNT))
