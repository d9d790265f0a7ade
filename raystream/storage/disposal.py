"""Deletes a savepoint, or a checkpoint that a job has left, at the wish of a user."""

import secrets
from contextlib import suppress

from raystream.errors import StateRestoreError, StorageError
from raystream.ids import JobId
from raystream.records.elements import SnapshotKind
from raystream.storage.claims import SnapshotClaims, claimed_by, job_ended
from raystream.storage.filesystem import OpenFileSystem
from raystream.storage.layout import claim_path
from raystream.storage.metadata import SnapshotMetadata, shared_files_of
from raystream.storage.snapshots import load_snapshot
from raystream.storage.stores import open_file_system


def disposable(path: str, *, open_fs: OpenFileSystem = open_file_system) -> tuple[str, SnapshotMetadata]:
    """Return directory and content of a snapshot that may be deleted.

    Args:
        path: the directory or the `_metadata` in it, as path or URL.
        open_fs: gives the store of a URL.

    Raises:
        StateRestoreError: nothing is there, or it is not a snapshot that can be read, or it is an incremental
            checkpoint or one of a job that has not ended, or a job has claimed it.
        StateCorruptError: the snapshot is damaged.
        StorageError: the store did not answer.
    """
    directory, metadata = load_snapshot(path, open_fs=open_fs)
    if shared_files_of(metadata):
        raise StateRestoreError(
            "incremental checkpoint cannot be disposed of: other checkpoints of its job may need its files",
            hint="delete the directory of its job when none of its checkpoints is needed any more",
            path=directory,
            job=metadata.job_name,
        )
    owner = claimed_by(directory, open_fs=open_fs)
    if owner is not None:
        raise StateRestoreError(
            "snapshot cannot be disposed of: a job has claimed it, and deletes it itself",
            hint="end that job first; if its job master was lost, delete the file of the claim",
            path=directory,
            job=owner,
            claim=claim_path(directory),
        )
    if metadata.kind is SnapshotKind.CHECKPOINT and job_ended(directory, metadata, open_fs=open_fs) is False:
        raise StateRestoreError(
            "checkpoint cannot be disposed of: by its log the job that it belongs to has not ended",
            hint="end that job first; if its job master was lost, delete the directory of the job",
            path=directory,
            job=metadata.job_id,
        )
    return directory, metadata


def dispose_snapshot(
    path: str, *, open_fs: OpenFileSystem = open_file_system
) -> tuple[str, SnapshotMetadata]:
    """Remove a snapshot that a user names; return its directory's URL, and what it was.

    Only what belongs to it goes: in a directory that was renamed, files that it does not refer
    to stay.  A file that is missing already is no obstacle.

    Raises:
        StateRestoreError: as `disposable`.
        StateCorruptError: the snapshot is damaged; nothing was deleted.
        StorageError: the store refused.
    """
    directory, metadata = disposable(path, open_fs=open_fs)
    # A job that starts from it just now either has claimed it first, or is refused.
    claims = SnapshotClaims(JobId(secrets.token_hex(16)), open_fs=open_fs)
    claims.claim(directory, metadata)
    try:
        claims.delete(directory, metadata)
    except StorageError as error:
        with suppress(StorageError):
            claims.release(directory)
        raise StorageError(
            error.message,
            hint="if its _metadata is gone, what is left of the snapshot is of no use: delete its directory",
            **{**error.context, "snapshot": directory},
        ) from error
    return directory, metadata
