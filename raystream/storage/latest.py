"""Finds what `-s latest` means: where a job of this name goes on.

Looks through the logs of all jobs in a checkpoint directory, since completeness is a log entry.
Which run counts is decided by `raystream.protocol.lineage`; its snapshots are tried from the newest
on.  One that is missing or damaged is an error and never a reason to start quietly from an older
one, whose output may already be committed; so is a log, unless it is known to be of another job
name.  Whoever accepts that says so, and then every file of a snapshot is read before it is taken.

The log of a run may have no end although nobody here knows of the job: its cluster was lost, or is
out of reach and works on.  Whoever goes on takes the run over first, by an end in its log: then it
can complete nothing and commit nothing any more.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from raystream.errors import ConfigError, FencedError, StateCorruptError, StateRestoreError
from raystream.ids import Attempt, JobId, JobStatus
from raystream.protocol.lineage import GoOnFrom, Run, RunSnapshot, StartAnew, StillRuns, latest_of
from raystream.storage.archive import read_archive
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.filesystem import OpenFileSystem, join_url
from raystream.storage.job_log import DurableJobLog, StaleLogError
from raystream.storage.layout import JobLayout, checkpoint_of, job_of
from raystream.storage.log_entries import (
    AttemptStarted,
    CheckpointCompletedEntry,
    LogEntry,
    MasterStarted,
    SavepointCompleted,
    Terminal,
    newest_attempt,
)
from raystream.storage.metadata import SnapshotMetadata, files_of, shared_files_of
from raystream.storage.snapshots import load_complete
from raystream.storage.stores import open_file_system, to_url

logger = logging.getLogger(__name__)

LATEST = "latest"
"""Instead of a path: the newest complete snapshot of a job's name."""


@dataclass(frozen=True, slots=True)
class Latest:
    """Where a job goes on.

    Attributes:
        path: location of the snapshot; None for a new start.
    """

    path: str | None
    _unended: "_Unended | None" = None

    def take_over(self) -> bool:
        """End the run before in its log, if that has no end; blocks.

        Returns:
            Whether this is still where to go on: False when the run has logged something since.

        Raises:
            StorageError: the store did not answer.
        """
        return self._unended is None or self._unended.end()


@dataclass(frozen=True, slots=True)
class _Unended:
    """A log without an end, up to which it was read."""

    log: DurableJobLog
    attempt: Attempt
    """The newest number that was given."""

    def end(self) -> bool:
        """End it, unless somebody has appended to it since."""
        try:
            # Of two entries: the first keeps whoever writes this log from appending behind the second.
            self.log.append(MasterStarted(attempt=Attempt(self.attempt + 1)))
            self.log.append(
                Terminal(status=JobStatus.FAILED, error="another job went on from where it stood")
            )
        except (FencedError, StaleLogError):
            return False
        return True


def find_latest(
    checkpoint_base: str,
    job_name: str,
    *,
    allow_older: bool = False,
    alive: Callable[[JobId], bool] = lambda _: False,
    open_fs: OpenFileSystem = open_file_system,
) -> Latest:
    """Return where a job of this name goes on.

    Args:
        checkpoint_base: the checkpoint directory of the configuration.
        job_name: name of the program; every job of it counts.
        allow_older: pass over a snapshot of which a file is missing or damaged, and a job whose log is.
        alive: tells whether a job runs, of one whose log has no end.
        open_fs: gives the store of a URL.

    Raises:
        ConfigError: the directory is of a store that is not supported, or the newest job still runs.
        StateCorruptError: a log or the newest snapshot is damaged; the error names the file.
        StateRestoreError: a log or the newest snapshot is of a format that is not read.
        StorageError: the store did not answer.
    """
    base = to_url(checkpoint_base)
    jobs = [job_of(entry.name) for entry in open_fs(base).list_dir(base) if entry.directory]
    search = _Search(base, job_name, allow_older, open_fs, {})
    runs = [run for job_id in jobs if job_id is not None and (run := search.run(job_id)) is not None]
    running = [run.job_id for run in runs if run.status is None and alive(run.job_id)]
    match latest_of(runs, running):
        case StartAnew(reason, before):
            logger.info("nothing to go on from, the job starts anew", extra={"reason": reason})
            return Latest(None, search.unended.get(before) if before else None)
        case StillRuns(job_id):
            raise ConfigError(
                "the newest job of this name still runs, and would go on beside a second one",
                hint=f"stop it (raystream stop {job_id[:8]}), or name a snapshot with -s PATH",
                job=job_id,
            )
        case GoOnFrom() as found:
            return Latest(search.first_readable(found), search.unended.get(found.run))


@dataclass(frozen=True, slots=True)
class _Search:
    """Reads the logs and snapshots of jobs in one checkpoint directory."""

    base: str
    job_name: str
    allow_older: bool
    open_fs: OpenFileSystem
    unended: dict[JobId, _Unended]
    """Logs of the name that have no end."""

    def run(self, job_id: JobId) -> Run | None:
        """Return what the log of a job says, or None when the job is not of the name.

        Raises:
            StateCorruptError: the log is damaged.
            StateRestoreError: the log is of a format that is not read.
        """
        layout = JobLayout(self.base, job_id)
        log = DurableJobLog(self.open_fs(layout.job_dir), layout)
        try:
            entries = _whole(log.read(), layout)
        except (StateCorruptError, StateRestoreError) as error:
            if not self.allow_older and not self._of_another_name(layout):
                raise _with_log_advice(error, layout) from error
            logger.warning("job with a damaged log passed over", extra={"job": job_id}, exc_info=error)
            return None
        first = next((entry for entry in entries if isinstance(entry, AttemptStarted)), None)
        if first is None or first.job_name != self.job_name:
            return None
        last = entries[-1]
        if not isinstance(last, Terminal):
            self.unended[job_id] = _Unended(log, newest_attempt(entries))
        return Run(
            job_id=job_id,
            started_from=first.restored_path,
            started_ms=first.started_ms,
            snapshots=tuple(_snapshots(entries, layout)),
            status=last.status if isinstance(last, Terminal) else None,
        )

    def first_readable(self, found: GoOnFrom) -> str:
        """Return the first of the snapshots, or with `allow_older` the first that is whole.

        Raises:
            StateCorruptError: it is missing or damaged.
            StateRestoreError: it is of a format that is not read.
        """
        refused: StateCorruptError | None = None
        for directory in map(self._moved, found.directories):
            try:
                metadata = load_complete(directory, open_fs=self.open_fs)
                if self.allow_older:
                    self._read_all(directory, metadata)
            except StateCorruptError as error:
                refused = _with_advice(error)
                if not self.allow_older:
                    raise refused from error
                logger.warning("damaged snapshot passed over", extra={"directory": directory}, exc_info=error)
            else:
                logger.info("the job goes on", extra={"directory": directory, "of_job": found.run})
                return directory
        assert refused is not None, "there is at least one snapshot to go on from"
        raise refused

    def _moved(self, directory: str) -> str:
        """Return where a snapshot is now, if it was in a checkpoint directory that was moved as a whole."""
        *_, parent, name = ("", *directory.split("/"))
        job_id, checkpoint_id = job_of(parent), checkpoint_of(name)
        if job_id is None or checkpoint_id is None or self.open_fs(directory).exists(directory):
            return directory
        return JobLayout(self.base, job_id).checkpoint_dir(checkpoint_id)

    def _of_another_name(self, layout: JobLayout) -> bool:
        """Return whether its archive or any snapshot, complete or not, says that the job has another name."""
        try:
            archive = read_archive(self.open_fs(layout.job_dir), layout)
            if archive is not None:
                return archive.name != self.job_name
        except (StateCorruptError, StateRestoreError):
            pass
        entries = self.open_fs(layout.job_dir).list_dir(layout.job_dir)
        for name in (entry.name for entry in entries if checkpoint_of(entry.name) is not None):
            try:
                metadata = load_complete(join_url(layout.job_dir, name), open_fs=self.open_fs)
            except (StateCorruptError, StateRestoreError):
                continue
            return metadata.job_name != self.job_name
        return False

    def _read_all(self, directory: str, metadata: SnapshotMetadata) -> None:
        """Accept a snapshot whose files are all there and undamaged.

        Raises:
            StateCorruptError: one is not.
        """
        files = SnapshotFiles(self.open_fs)
        for pieces in (
            *(files.read_file(directory, file) for file in files_of(metadata)),
            *(files.read_shared(directory, file) for file in shared_files_of(metadata)),
        ):
            for _ in pieces:
                pass


def _whole(entries: Sequence[LogEntry], layout: JobLayout) -> Sequence[LogEntry]:
    """Return the entries of a log.

    Raises:
        StateCorruptError: it tells of snapshots and of no attempt, whose entries are never deleted.
    """
    attempts = any(isinstance(entry, AttemptStarted) for entry in entries)
    if not attempts and any(
        isinstance(entry, CheckpointCompletedEntry | SavepointCompleted) for entry in entries
    ):
        raise StateCorruptError("job log has lost the entries of its attempts", path=layout.log_dir)
    return entries


def _snapshots(entries: Sequence[LogEntry], layout: JobLayout) -> Iterator[RunSnapshot]:
    attempts = [entry for entry in entries if isinstance(entry, AttemptStarted)]
    passed_over = {number for attempt in attempts for number in attempt.passed_over}
    for entry in entries:
        match entry:
            case CheckpointCompletedEntry(checkpoint_id=number) if number in passed_over:
                continue  # The job itself went on from an older one.
            case CheckpointCompletedEntry(checkpoint_id=number):
                # Not the stored directory: the whole checkpoint directory may have been moved.
                yield RunSnapshot(checkpoint_id=number, directory=layout.checkpoint_dir(number))
            case SavepointCompleted(checkpoint_id=number, directory=directory, stop=stop):
                yield RunSnapshot(checkpoint_id=number, directory=directory, stop=stop)


def _with_advice(error: StateCorruptError) -> StateCorruptError:
    return StateCorruptError(
        error.message,
        hint="name another snapshot with -s PATH, or pass over this one with --allow-older-checkpoint:"
        " what was committed since the older one then comes twice",
        **error.context,
    )


def _with_log_advice(
    error: StateCorruptError | StateRestoreError, layout: JobLayout
) -> StateCorruptError | StateRestoreError:
    return type(error)(
        error.message,
        hint="what the newest snapshot of this job is cannot be told: name a snapshot with -s PATH, or pass"
        " over the whole job with --allow-older-checkpoint; if it is of no use, remove its directory",
        **{**error.context, "job": layout.job_dir},
    )
