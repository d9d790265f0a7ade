"""Finds what `-s latest` means: the newest complete snapshot of a job name.

Looks through the logs of all jobs in a checkpoint directory, since completeness is a log entry.
A snapshot that was deleted since is passed over; one that is damaged is an error and never a
reason to start quietly from an older one, whose output may already be committed.  Whoever accepts
that says so, and then every file of a snapshot is read before it is taken.
"""

import logging
from collections.abc import Iterator

from raystream.errors import StateCorruptError
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import FileSystem, OpenFileSystem, open_file_system, to_url
from raystream.storage.job_log import CheckpointCompletedEntry, DurableJobLog, SavepointCompleted
from raystream.storage.layout import JobLayout, job_of, metadata_path
from raystream.storage.metadata import SnapshotMetadata, handles_of
from raystream.storage.snapshots import load_snapshot

logger = logging.getLogger(__name__)

LATEST = "latest"
"""Instead of a path: the newest complete snapshot of a job's name."""


def find_latest(
    checkpoint_base: str,
    job_name: str,
    *,
    allow_older: bool = False,
    open_fs: OpenFileSystem = open_file_system,
) -> str | None:
    """Return the location of the newest complete checkpoint or savepoint of a job name, or None.

    Args:
        checkpoint_base: the checkpoint directory of the configuration.
        job_name: name of the program; every job of it counts.
        allow_older: pass over a snapshot of which a file is missing or damaged.
        open_fs: gives the store of a URL.

    Raises:
        ConfigError: the directory is of a store that is not supported.
        StateCorruptError: a log or a newest snapshot is damaged; the error names the file.
        StateRestoreError: a newest snapshot is of a format that is not read.
        StorageError: the store did not answer.
    """
    base = to_url(checkpoint_base)
    fs = open_fs(base)
    jobs = [job_of(entry.name) for entry in fs.list_dir(base) if entry.directory]
    newest = [
        found
        for job_id in jobs
        if job_id is not None
        and (found := _newest_of(_complete(fs, JobLayout(base, job_id)), job_name, allow_older, open_fs))
    ]
    matching = [(metadata.completed_ms, metadata.checkpoint_id, directory) for directory, metadata in newest]
    return max(matching)[2] if matching else None


def _complete(fs: FileSystem, layout: JobLayout) -> Iterator[str]:
    """Yield the directories of a job's complete snapshots, newest first."""
    for entry in reversed(DurableJobLog(fs, layout).read()):
        match entry:
            case CheckpointCompletedEntry():
                # Not the stored directory: the whole checkpoint directory may have been moved.
                yield layout.checkpoint_dir(entry.checkpoint_id)
            case SavepointCompleted():
                yield entry.directory


def _newest_of(
    directories: Iterator[str], job_name: str, allow_older: bool, open_fs: OpenFileSystem
) -> tuple[str, SnapshotMetadata] | None:
    """Return the first that still exists, if it is of this job name, and its content."""
    for directory in directories:
        if not open_fs(directory).exists(metadata_path(directory)):
            continue
        try:
            _, metadata = load_snapshot(directory, open_fs=open_fs)
            if metadata.job_name != job_name:
                return None
            if allow_older:
                _read_all(directory, metadata, open_fs)
        except StateCorruptError as error:
            if not allow_older:
                raise _with_advice(error) from error
            logger.warning("damaged snapshot passed over", extra={"directory": directory}, exc_info=error)
        else:
            return directory, metadata
    return None


def _read_all(directory: str, metadata: SnapshotMetadata, open_fs: OpenFileSystem) -> None:
    """Accept a snapshot whose files are all there and undamaged.

    Raises:
        StateCorruptError: one is not.
    """
    files = SnapshotFiles(open_fs)
    for handle in handles_of(metadata):
        files.read_handle(directory, handle)


def _with_advice(error: StateCorruptError) -> StateCorruptError:
    return StateCorruptError(
        error.message,
        hint="name another snapshot with -s PATH, or pass over this one with --allow-older-checkpoint:"
        " what was committed since the older one then comes twice",
        **error.context,
    )
