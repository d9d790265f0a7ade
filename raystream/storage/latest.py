"""Finds what `-s latest` means: the newest complete snapshot of a job name.

Looks through the logs of all jobs in a checkpoint directory, since completeness is a log entry.
A snapshot that was deleted since is passed over; one that is damaged is an error and never a
reason to start quietly from an older one, whose output may already be committed.
"""

from raystream.storage.filesystem import FileSystem, OpenFileSystem, open_file_system, to_url
from raystream.storage.job_log import CheckpointCompletedEntry, DurableJobLog, SavepointCompleted
from raystream.storage.layout import JobLayout, job_of, metadata_path
from raystream.storage.metadata import SnapshotMetadata
from raystream.storage.snapshots import load_snapshot

LATEST = "latest"
"""Instead of a path: the newest complete snapshot of a job's name."""


def find_latest(
    checkpoint_base: str, job_name: str, *, open_fs: OpenFileSystem = open_file_system
) -> str | None:
    """Return the location of the newest complete checkpoint or savepoint of a job name, or None.

    Args:
        checkpoint_base: the checkpoint directory of the configuration.
        job_name: name of the program; every job of it counts.
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
        if job_id is not None and (found := _newest_of(fs, JobLayout(base, job_id), open_fs))
    ]
    matching = [
        (metadata.completed_ms, metadata.checkpoint_id, directory)
        for directory, metadata in newest
        if metadata.job_name == job_name
    ]
    return max(matching)[2] if matching else None


def _newest_of(
    fs: FileSystem, layout: JobLayout, open_fs: OpenFileSystem
) -> tuple[str, SnapshotMetadata] | None:
    """Return directory and content of a job's newest complete snapshot that still exists, or None."""
    for entry in reversed(DurableJobLog(fs, layout).read()):
        match entry:
            case CheckpointCompletedEntry():
                # Not the stored directory: the whole checkpoint directory may have been moved.
                directory = layout.checkpoint_dir(entry.checkpoint_id)
            case SavepointCompleted():
                directory = entry.directory
            case _:
                continue
        if open_fs(directory).exists(metadata_path(directory)):
            return load_snapshot(directory, open_fs=open_fs)
    return None
