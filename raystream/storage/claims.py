"""Claims: a job takes over a snapshot that another one has written, and deletes it in the end.

    not claimed ──claim (create-if-absent)──> claimed by one job ──release──> not claimed
                                                    └──delete──> gone

A file beside `_metadata` says whose it is, so that of two jobs that want one snapshot one is refused, before
it has processed anything; and so that nobody else disposes of what a job may still restore.  A job that ends
with the snapshot in place gives it back.  Whoever writes a savepoint into a directory that a user has named
reserves the directory by the same file, so that no two write into one.

A checkpoint is claimed from a job that has ended: one that runs restores it after a failure, and deletes it
when newer ones are complete.  Shared files of an incremental one stay in the directory of the job that wrote
them, and are deleted with it as far as none of the other checkpoints there needs them.
"""

import msgspec

from raystream.errors import ConfigError, StateCorruptError, StateRestoreError, StorageError
from raystream.ids import JobId
from raystream.records.elements import SnapshotKind
from raystream.storage.envelope import seal, unseal
from raystream.storage.filesystem import FileSystem, MissingFileError, OpenFileSystem, join_url, split_url
from raystream.storage.job_log import DurableJobLog
from raystream.storage.layout import JobLayout, checkpoint_of, claim_path, job_of, metadata_path, shared_file
from raystream.storage.log_entries import Terminal
from raystream.storage.metadata import SnapshotMetadata, decode_metadata, shared_files_of
from raystream.storage.snapshots import delete_snapshot
from raystream.storage.stores import open_file_system

FORMAT_VERSION = 1

_FILE_KIND = "claim"


class _StoredClaim(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str


_DECODER = msgspec.json.Decoder(_StoredClaim)


def claimed_by(directory: str, *, open_fs: OpenFileSystem = open_file_system) -> JobId | None:
    """Return the job that has claimed a snapshot; None when nobody has.

    Raises:
        StateCorruptError: the claim is damaged.
        StateRestoreError: the claim is of a format that is not read.
        StorageError: the store did not answer.
    """
    path = claim_path(directory)
    try:
        _, content = unseal(_FILE_KIND, FORMAT_VERSION, open_fs(directory).read(path), path=path)
        return JobId(_DECODER.decode(content).job_id)
    except MissingFileError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateCorruptError("claim file breaks its format", path=path, cause=str(error)) from error


def job_ended(
    directory: str, metadata: SnapshotMetadata, *, open_fs: OpenFileSystem = open_file_system
) -> bool | None:
    """Return whether the job that wrote a checkpoint has ended, by the log beside it; None without a log.

    Raises:
        StateCorruptError: the log is damaged.
        StateRestoreError: the log is of a format that is not read.
        StorageError: the store did not answer.
    """
    base, name = split_url(split_url(directory)[0])
    if job_of(name) != metadata.job_id:
        return None
    layout = JobLayout(base, metadata.job_id)
    entries = DurableJobLog(open_fs(layout.job_dir), layout).read()
    return any(isinstance(entry, Terminal) for entry in entries) if entries else None


class SnapshotClaims:
    """The claims of one job; all calls block.

    Args:
        job_id: the job.
        open_fs: gives the store of a URL.
    """

    def __init__(self, job_id: JobId, *, open_fs: OpenFileSystem = open_file_system) -> None:
        self._job_id = job_id
        self._open_fs = open_fs
        self._ours: set[str] = set()

    def owner(self, directory: str) -> JobId | None:
        """Return the job that has claimed a snapshot, as `claimed_by`."""
        return claimed_by(directory, open_fs=self._open_fs)

    def claim(self, directory: str, metadata: SnapshotMetadata) -> None:
        """Make a snapshot this job's own; repeating the call is harmless.

        Raises:
            StateRestoreError: another job has claimed it, or it is gone, or it is a checkpoint that the job
                which wrote it may need too.
            StateCorruptError: the log of that job, or the claim, is damaged.
            StorageError: the store did not answer.
        """
        if self._writer_may_need(directory, metadata):
            raise StateRestoreError(
                "checkpoint cannot be claimed: the job that wrote it may need its files",
                hint="stop that job, or start with claim mode no-claim, or from a savepoint",
                snapshot=directory,
                job=metadata.job_id,
            )
        fs, path = self._open_fs(directory), claim_path(directory)
        if not self._create(directory):
            owner = self.owner(directory)
            if owner is None:
                raise StorageError("claim of the snapshot was given back just now", path=path)
            if owner != self._job_id:
                raise StateRestoreError(
                    "snapshot is claimed by another job, which will delete it",
                    hint="end that job first; if its job master was lost, delete the file of the claim",
                    snapshot=directory,
                    job=owner,
                    claim=path,
                )
        if not fs.exists(metadata_path(directory)):  # Its last owner has deleted it meanwhile.
            fs.delete_file(path)
            raise StateRestoreError("snapshot does not exist any more", snapshot=directory)
        self._ours.add(directory)

    def resume(self, directory: str) -> bool:
        """Return whether this job has claimed a snapshot, in another process; then it is its own here too.

        Raises:
            StateCorruptError: the claim is damaged.
            StateRestoreError: the claim is of a format that is not read.
            StorageError: the store did not answer.
        """
        ours = self.owner(directory) == self._job_id
        if ours:
            self._ours.add(directory)
        return ours

    def reserve(self, directory: str) -> None:
        """Keep a directory in which a snapshot is to be written for this writer alone, until the release.

        Raises:
            ConfigError: somebody else has it.
            StorageError: the store refused.
        """
        if not self._create(directory):
            raise ConfigError(
                "another savepoint is being written into the directory, or its writer was killed",
                hint="name a new directory, or delete this one if nobody writes into it",
                path=directory,
            )
        self._ours.add(directory)

    def release(self, directory: str) -> None:
        """Give a snapshot back that this job does not need any more; nothing when it is not its own.

        Raises:
            StorageError: the store refused.
        """
        if directory in self._ours:
            self._open_fs(directory).delete_file(claim_path(directory))
            self._ours.discard(directory)

    def delete(self, directory: str, metadata: SnapshotMetadata) -> None:
        """Remove a snapshot that this job has claimed; nothing when it is another one's.

        Raises:
            StorageError: the store refused; to be repeated.
        """
        if directory not in self._ours:
            return
        fs = self._open_fs(directory)
        unshared = self._needed_by_it_alone(fs, directory, metadata)
        delete_snapshot(fs, directory, metadata)
        for name in unshared:
            fs.delete_file(shared_file(directory, name))
        self._ours.discard(directory)

    def _writer_may_need(self, directory: str, metadata: SnapshotMetadata) -> bool:
        """Return whether the job that wrote a snapshot may restore or delete it, or refer to its files."""
        if metadata.kind is not SnapshotKind.CHECKPOINT:
            return False
        ended = job_ended(directory, metadata, open_fs=self._open_fs)
        return ended is False or (ended is None and bool(shared_files_of(metadata)))

    def _create(self, directory: str) -> bool:
        """Create the file of the claim; False when there is one."""
        content = seal(_FILE_KIND, FORMAT_VERSION, msgspec.json.encode(_StoredClaim(job_id=self._job_id)))
        return self._open_fs(directory).create_exclusive(claim_path(directory), content)

    def _needed_by_it_alone(self, fs: FileSystem, directory: str, metadata: SnapshotMetadata) -> list[str]:
        """Return the shared files that no other checkpoint of the job that wrote it needs."""
        needed = {file.name for file in shared_files_of(metadata)}
        if not needed:
            return []
        job_dir, own_name = split_url(directory)
        for entry in fs.list_dir(job_dir):
            if checkpoint_of(entry.name) is None or entry.name == own_name:
                continue
            path = metadata_path(join_url(job_dir, entry.name))
            try:
                other = decode_metadata(fs.read(path), path=path)
            except MissingFileError:
                continue  # It was never complete, or is being deleted.
            except (StateCorruptError, StateRestoreError):
                return []  # What it needs cannot be told.
            needed -= {file.name for file in shared_files_of(other)}
        return sorted(needed)
