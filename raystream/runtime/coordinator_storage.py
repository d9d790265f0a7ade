"""The durable things of one job, as its configuration wants them; opened where the coordinator runs."""

import logging
import random
from contextlib import suppress
from dataclasses import dataclass

import xxhash

from raystream.config.options import JobConfig, RecoveryConfig
from raystream.errors import ConfigError, StateCorruptError, StorageError
from raystream.ids import JobId
from raystream.storage.archive import ArchivedJob, write_archive
from raystream.storage.claims import SnapshotClaims
from raystream.storage.filesystem import FileSystem, MissingFileError, OpenFileSystem, join_url
from raystream.storage.job_log import DurableJobLog, JobLog, VolatileJobLog
from raystream.storage.layout import JobLayout, is_probe
from raystream.storage.metadata import SnapshotMetadata
from raystream.storage.probe import remove_probe, write_probe
from raystream.storage.snapshots import SnapshotStore
from raystream.storage.stores import open_file_system

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorySetUp:
    """What a job has in its checkpoint directory before its first attempt."""

    probe: str
    """URL that slots must be able to read."""
    program_checksum: str
    """xxh3-64 of the stored program, for the job log."""


@dataclass(frozen=True, slots=True)
class Directory:
    """The checkpoint directory of a job; all calls block."""

    fs: FileSystem
    layout: JobLayout

    def set_up(self, program: bytes) -> DirectorySetUp:
        """Find out whether checkpoints can be kept there, and store what only the job master reads.

        Args:
            program: the packed program; a later life of the job master deploys it again.

        Raises:
            ConfigError: they can not.
            StorageError: the program could not be stored.
        """
        probe = write_probe(self.fs, self.layout)
        try:
            self.store_program(program)
        except StorageError:
            with suppress(StorageError):
                self.remove_probe(probe)
            raise
        return DirectorySetUp(probe=probe, program_checksum=checksum_of(program))

    def store_program(self, program: bytes) -> None:
        """Keep the packed program for the next life of the job master; once, repeating it is harmless.

        Raises:
            StorageError: the store refused.
        """
        checksum = checksum_of(program).encode()
        self.fs.create_exclusive(self.layout.graph_path, b"\n".join((checksum, program)))

    def load_program(self) -> bytes | None:
        """Return the packed program; None when there is none, since the job has ended or never began.

        Raises:
            StateCorruptError: it is damaged.
            StorageError: the store did not answer.
        """
        path = self.layout.graph_path
        try:
            checksum, _, program = self.fs.read(path).partition(b"\n")
        except MissingFileError:
            return None
        if checksum_of(program).encode() != checksum:
            raise StateCorruptError("stored program of the job is damaged", path=path)
        return program

    def remove_probe(self, probe: str) -> None:
        """Delete a probe that nobody reads any more.

        Raises:
            StorageError: the store refused.
        """
        remove_probe(self.fs, probe)

    def leave(self, archive: ArchivedJob | None) -> None:
        """Leave what `list -a` shows when the job master is gone, and nothing that only running jobs need.

        Without the program no other job master begins.

        Args:
            archive: how the job ended; None when it never started, so that it leaves nothing.

        Raises:
            StorageError: the store refused.
        """
        if archive is not None:
            write_archive(self.fs, self.layout, archive)
        for entry in self.fs.list_dir(self.layout.job_dir):
            if is_probe(entry.name):  # Also of job masters that have died.
                self.fs.delete_file(join_url(self.layout.job_dir, entry.name))
        self.fs.delete_file(self.layout.graph_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStorage:
    """Where a job keeps what outlives a failure."""

    snapshots: SnapshotStore
    claims: SnapshotClaims
    log: JobLog
    directory: Directory | None = None
    """None when nothing of the job is durable but its savepoints."""


def durable_directory(config: JobConfig) -> str | None:
    """Return where a job keeps what outlives its job master; None when it ends with that."""
    checkpointing = config.checkpointing
    if checkpointing.interval_ms is None or checkpointing.directory is None:
        return None
    return None if checkpointing.directory.startswith("memory:") else checkpointing.directory


def open_storage(
    job_id: JobId, config: JobConfig, *, open_fs: OpenFileSystem = open_file_system
) -> JobStorage:
    """Return the storage of a job; touches no file.

    Raises:
        ConfigError: the checkpoint directory is of a store that is not supported.
    """
    checkpointing = config.checkpointing
    if checkpointing.interval_ms is None or checkpointing.directory is None:
        return JobStorage(
            snapshots=SnapshotStore(job_id, open_fs=open_fs),
            claims=SnapshotClaims(job_id, open_fs=open_fs),
            log=VolatileJobLog(),
        )
    directory = open_directory(job_id, checkpointing.directory, open_fs=open_fs)
    return JobStorage(
        snapshots=SnapshotStore(job_id, directory.layout, open_fs=open_fs),
        claims=SnapshotClaims(job_id, open_fs=open_fs),
        log=DurableJobLog(directory.fs, directory.layout),
        directory=directory,
    )


def checksum_of(program: bytes) -> str:
    """Return the checksum by which the job log tells the program."""
    return xxhash.xxh3_64_hexdigest(program)


def open_directory(job_id: JobId, path: str, *, open_fs: OpenFileSystem = open_file_system) -> Directory:
    """Return the checkpoint directory of a job; touches no file.

    Raises:
        ConfigError: it is of a store that is not supported.
    """
    layout = JobLayout(path, job_id)
    return Directory(open_fs(layout.job_dir), layout)


def check_directory(storage: JobStorage) -> None:
    """Find out from this process whether a job's checkpoints can be kept where it wants them; blocks.

    Leaves nothing: the job may be refused for another reason.

    Raises:
        ConfigError: they can not.
    """
    if storage.directory is None:
        return
    fs, layout = storage.directory.fs, storage.directory.layout
    with suppress(StorageError):  # The job's own probe, which follows, tells.
        remove_probe(fs, write_probe(fs, layout))
        if not fs.list_dir(layout.job_dir):
            fs.delete_dir(layout.job_dir)


def load_initial(storage: JobStorage, recovery: RecoveryConfig) -> tuple[str, SnapshotMetadata] | None:
    """Return directory and content of the snapshot that the job starts from; None when there is none.

    Raises:
        StateRestoreError: nothing is there, or it is not a snapshot that can be read.
        StateCorruptError: the snapshot is damaged.
        StorageError: the store did not answer.
    """
    path = recovery.path
    if path is None:
        return None
    directory, metadata = storage.snapshots.load(path)
    if recovery.claim_mode == "no-claim" and (owner := storage.claims.owner(directory)) is not None:
        logger.warning(
            "job starts from a snapshot that another job has claimed, and may delete at any time",
            extra={"snapshot": directory, "claimed_by": owner},
        )
    return directory, metadata


def savepoint_directory(storage: JobStorage, config: JobConfig, base: str, rng: random.Random) -> str:
    """Return the URL for a new savepoint below `base`, or below the configured directory.

    Raises:
        ConfigError: there is neither, or it is of a store that is not supported.
    """
    base = base or config.checkpointing.savepoint_directory or ""
    if not base:
        raise ConfigError(
            "savepoint has no directory",
            hint="name one, or set execution.checkpointing.savepoint-dir",
        )
    return storage.snapshots.savepoint_directory(base, f"{rng.getrandbits(48):012x}")
