"""The entries of a job log: what each of them says.

Each is one fact about a job, and never changes; who may write it says `raystream.storage.job_log`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from raystream.ids import Attempt, CheckpointId, JobStatus
from raystream.storage.archive import ArchivedCheckpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterStarted:
    """A job master goes on after another one; it owns the log from here on, before it decides anything.

    Whoever reads what stands before this entry reads all of it: no older writer appends any more.
    """

    attempt: Attempt
    """Number of the next attempt, which is its own or, when it dies before, is left out."""
    started_ms: int = 0
    """Wall time, ms since epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """An attempt began; its writer owns the log from here on."""

    attempt: Attempt
    job_name: str = ""
    started_ms: int = 0
    """Wall time, ms since epoch."""
    restored_checkpoint: CheckpointId | None = None
    """What it started from; None for nothing."""
    restored_path: str | None = None
    """Location of that snapshot."""
    newest_checkpoint: CheckpointId | None = None
    """Newest id that a checkpoint was given before; None when there was none.  Whoever takes the log over
    gives ids from `protocol.checkpoint_ids.IDS_AHEAD_MAX` above the newest one in it, since those below may
    still be used by the writer before, unknowingly."""
    passed_over: tuple[CheckpointId, ...] = ()
    """Complete checkpoints that could not be read, which no later attempt restores either."""
    program_checksum: str | None = None
    """xxh3-64 of the program in `JobLayout.graph_path`, by which a damaged one is told."""
    restarts: int | None = None
    """Attempts that a failure has led to; None in logs of older versions, where all but the first count."""
    parallelism: int | None = None
    """Of a job that was rescaled; None for one that has the parallelism that it was submitted with."""
    records_in: int = 0
    """Records that sources had emitted in the attempts before."""
    records_out: int = 0
    """Records that sinks had taken in the attempts before."""
    dead_letters: int = 0
    """Records that had gone to the dead letters in the attempts before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCompletedEntry:
    """A checkpoint is complete, because this entry exists."""

    checkpoint_id: CheckpointId
    directory: str
    attempt: Attempt
    final: bool = False
    """All input had ended: what is left are the commits."""
    records_in: int = 0
    """Records that sources had emitted by then, in all attempts."""
    records_out: int = 0
    """Records that sinks had taken."""
    dead_letters: int = 0
    """Records that had gone to the dead letters."""
    history: tuple[ArchivedCheckpoint, ...] = ()
    """The newest checkpoints and savepoints that have ended, this one included, oldest first.  They are
    here and not in a file of their own because this entry is written anyway, and pruned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavepointCompleted:
    """A savepoint is complete; with `stop` it is the point from which a failure recovers."""

    checkpoint_id: CheckpointId
    directory: str
    attempt: Attempt
    stop: bool = False
    request_ids: tuple[str, ...] = ()
    """The clients' requests that it answers."""
    record: ArchivedCheckpoint | None = None
    """For the history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestId:
    """An id that was given to a checkpoint, where many in a row were not completed."""

    newest_checkpoint: CheckpointId


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAccepted:
    """A client's request to stop with a savepoint was accepted."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAccepted:
    """A client's request to cancel was accepted; the job never runs again."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """The job has ended; the last entry."""

    status: JobStatus
    error: str | None = None
    """What a FAILED job ended with, as users see it."""


LogEntry = (
    MasterStarted
    | AttemptStarted
    | CheckpointCompletedEntry
    | SavepointCompleted
    | NewestId
    | StopAccepted
    | CancelAccepted
    | Terminal
)


def newest_attempt(entries: Iterable[LogEntry]) -> Attempt:
    """Return the newest number that was given to an attempt; 0 when none was."""
    numbered = (entry for entry in entries if isinstance(entry, MasterStarted | AttemptStarted))
    return max((entry.attempt for entry in numbered), default=Attempt(0))
