"""How a job ended, in a file beside its checkpoints; what is left to show when its master is gone.

Knows the file's format; decides nothing: whether a job has ended is said by its log.
"""

from dataclasses import dataclass

import msgspec

from raystream.errors import StateCorruptError
from raystream.ids import CheckpointId, JobId, JobStatus
from raystream.records.elements import SnapshotKind
from raystream.storage.envelope import seal, unseal
from raystream.storage.filesystem import FileSystem, MissingFileError
from raystream.storage.layout import JobLayout, job_of
from raystream.storage.stores import to_url

FORMAT_VERSION = 1
"""Version that is written; that one and the one before are read."""

_FILE_KIND = "archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtaskRecord:
    """One subtask's part of a checkpoint, as it is shown and kept."""

    vertex: int
    name: str
    """Of the vertex, for people."""
    subtask: int
    """0-based; people count from 1."""
    parallelism: int
    size_bytes: int
    start_delay_ms: float
    """From the trigger until the first barrier had arrived."""
    alignment_ms: float
    """From the first barrier to the last one."""
    sync_ms: float
    """Time that records were not processed."""
    async_ms: float
    """From then on until it had acknowledged: what was written meanwhile held up no record."""
    in_flight_bytes: int = 0
    """How much of `size_bytes` are records that barriers have overtaken."""

    @property
    def passed_ms(self) -> float:
        """From the trigger until it could pass the barrier on."""
        return self.start_delay_ms + self.alignment_ms

    @property
    def total_ms(self) -> float:
        """From the trigger until it had acknowledged."""
        return self.passed_ms + self.sync_ms + self.async_ms

    @property
    def label(self) -> str:
        """What it is called, `count hits 3/4`."""
        return f"{self.name} {self.subtask + 1}/{self.parallelism}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedCheckpoint:
    """One checkpoint or savepoint in a job's history."""

    checkpoint_id: CheckpointId
    kind: SnapshotKind
    location: str
    """Empty when it did not complete."""
    created_ms: int
    """Wall time, ms since epoch."""
    duration_ms: float
    size_bytes: int
    failure: str = ""
    """Why it did not complete; empty when it did, and is not damaged."""
    damaged: bool = False
    """It was complete, and could not be restored; `failure` says why."""
    uploaded_bytes: int = 0
    """How much of `size_bytes` was written for this checkpoint."""
    purpose: str = ""
    """`periodic`, `manual`, `final`, `savepoint` or `stop`; empty in what older versions wrote."""
    attempt: int = 0
    """The attempt that took it; 0 in what older versions wrote."""
    held_up_by: str = ""
    """What it waited for longest, in one line."""
    missing: tuple[str, ...] = ()
    """Subtasks that had not acknowledged when it was given up, some of them."""
    missing_count: int = 0
    """All of them."""
    subtasks: tuple[SubtaskRecord, ...] = ()
    """Slowest first; of older checkpoints only the slowest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedJob:
    """A job that has ended, as `list -a` and `checkpoints` show it."""

    job_id: JobId
    name: str
    status: JobStatus
    parallelism: int
    records_in: int
    records_out: int
    restarts: int
    duration_ms: int
    last_checkpoint_id: CheckpointId | None
    error: str = ""
    checkpoints: tuple[ArchivedCheckpoint, ...] = ()
    dead_letters: int = 0
    attempt: int = 0
    """The last one; 0 in archives of older versions."""


_DECODER = msgspec.json.Decoder(ArchivedJob)


def write_archive(fs: FileSystem, layout: JobLayout, job: ArchivedJob) -> None:
    """Write the archive of a job, once; a second call changes nothing.

    Raises:
        StorageError: the store refused.
    """
    fs.create_exclusive(layout.archive_path, seal(_FILE_KIND, FORMAT_VERSION, msgspec.json.encode(job)))


def read_archive(fs: FileSystem, layout: JobLayout) -> ArchivedJob | None:
    """Return the archive of a job, or None while it has none.

    Raises:
        StateCorruptError: the file is damaged.
        StateRestoreError: the file is of a format that is not read.
        StorageError: the store did not answer.
    """
    path = layout.archive_path
    try:
        data = fs.read(path)
    except MissingFileError:
        return None
    _, content = unseal(_FILE_KIND, FORMAT_VERSION, data, path=path)
    try:
        archive = _DECODER.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateCorruptError("archive breaks its format", path=path, cause=str(error)) from error
    if archive.job_id != layout.job_id:
        raise StateCorruptError("archive is another job's", path=path, job=archive.job_id)
    return archive


def read_archives(fs: FileSystem, base_dir: str) -> list[ArchivedJob]:
    """Return all jobs in a checkpoint directory that have ended, by job id.

    Raises:
        StateCorruptError: a file is damaged.
        StateRestoreError: a file is of a format that is not read.
        StorageError: the store did not answer.
    """
    base = to_url(base_dir)
    jobs = [job_of(entry.name) for entry in fs.list_dir(base) if entry.directory]
    archives = [read_archive(fs, JobLayout(base, job_id)) for job_id in jobs if job_id is not None]
    return [archive for archive in archives if archive is not None]
