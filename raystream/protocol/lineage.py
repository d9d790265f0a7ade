"""Which snapshot `-s latest` means: decided by who started from whom, not by clocks.

A *run* is one job with its job log.  A run that starts from a snapshot of another one goes on where
that one stopped, and commits what comes after it; going back to the earlier run would bring all
that twice.  So only runs that nobody has gone on from count:

    run A  chk-1 .. chk-7 ──> run B  chk-8 .. chk-12 ──> run C  (nothing completed yet)
                                                           starts again from chk-12

Knows what the logs say; reads no files.  Wall time decides only between runs that have nothing
to do with each other.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from raystream.ids import CheckpointId, JobId, JobStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """A snapshot that a log calls complete."""

    checkpoint_id: CheckpointId
    directory: str
    stop: bool = False
    """A savepoint with which the job was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One job of the name, by its log."""

    job_id: JobId
    started_from: str | None
    """Directory of the snapshot that it started from."""
    started_ms: int
    """Wall time of the start, ms since epoch."""
    snapshots: tuple[RunSnapshot, ...]
    """Complete checkpoints and savepoints, oldest first; also such that were deleted since."""
    status: JobStatus | None
    """How it ended; None when its log has no end: it runs, or its job master died."""


@dataclass(frozen=True, slots=True)
class StartAnew:
    """There is nothing to go on from."""

    reason: str
    run: JobId | None = None
    """The run that has left nothing; None when there is none."""


@dataclass(frozen=True, slots=True)
class GoOnFrom:
    """Start from the first of these; one that cannot be read is an error, unless it may be passed over."""

    run: JobId
    directories: tuple[str, ...]
    """Newest first."""


@dataclass(frozen=True, slots=True)
class StillRuns:
    """The run from which to go on has not ended."""

    run: JobId


Decision = StartAnew | GoOnFrom | StillRuns


def latest_of(runs: Sequence[Run], alive: Collection[JobId] = ()) -> Decision:
    """Return what a job of this name goes on from.

    Args:
        runs: all runs of the name.
        alive: jobs that are known to run.
    """
    continued = {_origin(run.started_from) for run in runs if run.started_from is not None}
    leaves = [run for run in runs if not continued & _origins(run)]
    if not leaves:
        return StartAnew("no job of this name was found")
    newest = max(leaves, key=lambda run: (run.started_ms, run.job_id))
    if newest.job_id in alive:
        return StillRuns(newest.job_id)
    stopped_with = [s for s in newest.snapshots if s.stop]
    if newest.status is JobStatus.FINISHED and not stopped_with:
        return StartAnew("the newest job of this name has processed all its input", newest.job_id)
    directories = [s.directory for s in reversed(newest.snapshots)]
    if newest.started_from is not None:
        directories.append(newest.started_from)
    if not directories:
        return StartAnew("the newest job of this name has completed no checkpoint", newest.job_id)
    return GoOnFrom(newest.job_id, tuple(directories))


def _origins(run: Run) -> set[str]:
    return {run.job_id, *(_origin(snapshot.directory) for snapshot in run.snapshots)}


def _origin(directory: str) -> str:
    """Return what tells the run of a snapshot, wherever its files were moved.

    That is the name of a savepoint, which nothing else has, and the job of a checkpoint, whose log
    may have dropped the entry since.
    """
    *_, parent, name = ("", *directory.rstrip("/").split("/"))
    return name if name.startswith("savepoint-") else parent
