"""Jobs and their checkpoints as rows: of running jobs, and of ended ones from what they left behind.

Knows no cluster: is given views and archives.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from raystream.api.meant_job import Candidate, meant_job
from raystream.cli.progress import short_duration, short_size
from raystream.errors import JobNotFoundError
from raystream.ids import JobId, JobStatus
from raystream.runtime.coordinator_view import CheckpointRecord, JobView
from raystream.storage.archive import ArchivedCheckpoint, ArchivedJob, SubtaskRecord

COLUMNS_IN_A_PIPE = 10_000
"""Width of tables that no terminal cuts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """What `list` shows of a job; the fields of `list --json`."""

    job_id: JobId
    name: str
    status: str
    parallelism: int
    records_in: int
    records_out: int
    restarts: int
    last_checkpoint_id: int | None

    @classmethod
    def of(cls, job: JobView | ArchivedJob) -> "JobRow":
        """Return the row of a job."""
        return cls(
            job_id=job.job_id,
            name=job.name,
            status=job.status.value,
            parallelism=job.parallelism,
            records_in=job.records_in,
            records_out=job.records_out,
            restarts=job.restarts,
            last_checkpoint_id=job.last_checkpoint_id,
        )

    @property
    def ended(self) -> bool:
        """True when the job will not run again."""
        return JobStatus(self.status).terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRow:
    """What `checkpoints` shows of a checkpoint or savepoint; the fields of `checkpoints --json`."""

    checkpoint_id: int
    kind: str
    status: str
    """`pending`, `completed`, `failed`, `damaged` when it could not be restored, or `deleted` when it was
    complete and is not kept any more."""
    triggered_ms: int
    """Wall time, ms since epoch."""
    duration_ms: float
    size_bytes: int
    """Of all state, whenever it was written."""
    uploaded_bytes: int
    """How much was written for this checkpoint; the rest is in files of older ones."""
    path: str
    """Empty unless it is there."""
    failure: str
    purpose: str
    """`periodic`, `manual`, `final`, `savepoint` or `stop`."""
    attempt: int
    held_up_by: str
    """What it waited for longest, in one line."""
    missing: tuple[str, ...]
    """Subtasks that had not acknowledged when it was given up, some of them."""
    missing_count: int
    subtasks: tuple[SubtaskRecord, ...]
    """Slowest first; of older checkpoints only the slowest ones."""

    @classmethod
    def of(cls, checkpoint: CheckpointRecord | ArchivedCheckpoint) -> "CheckpointRow":
        """Return the row of a checkpoint."""
        if isinstance(checkpoint, CheckpointRecord):
            status, path, triggered_ms = checkpoint.status, checkpoint.path, checkpoint.triggered_ms
        else:
            ended = "failed" if checkpoint.failure else "completed"
            status = "damaged" if checkpoint.damaged else ended
            path, triggered_ms = checkpoint.location, checkpoint.created_ms
        if status == "completed" and not path:
            status = "deleted"
        return cls(
            checkpoint_id=checkpoint.checkpoint_id,
            kind=checkpoint.kind.value,
            status=status,
            triggered_ms=triggered_ms,
            duration_ms=round(checkpoint.duration_ms, 3),
            size_bytes=checkpoint.size_bytes,
            uploaded_bytes=checkpoint.uploaded_bytes,
            path=path,
            failure=checkpoint.failure,
            purpose=checkpoint.purpose,
            attempt=checkpoint.attempt,
            held_up_by=checkpoint.held_up_by,
            missing=checkpoint.missing,
            missing_count=checkpoint.missing_count,
            subtasks=checkpoint.subtasks,
        )


def matching_job(rows: Sequence[JobRow], wanted: str) -> JobRow:
    """Return the one job that is meant by an id, a prefix of one or a name.

    Raises:
        JobNotFoundError: there is none, or more than one.
    """
    meant = meant_job(wanted, [Candidate(row.job_id, row.name, row.ended) for row in rows])
    for row in rows:
        if row.job_id == meant:
            return row
    raise JobNotFoundError(
        "no job has this id, prefix or name",
        hint="`raystream list -a` shows all jobs",
        job=wanted,
    )


def print_jobs(rows: Sequence[JobRow]) -> None:
    """Print a table of jobs."""
    header = ("job", "name", "status", "parallelism", "in", "out", "restarts", "last checkpoint")
    print_table(
        header,
        (
            (
                row.job_id, row.name, row.status, str(row.parallelism), f"{row.records_in:,}",
                f"{row.records_out:,}", str(row.restarts), _or_dash(row.last_checkpoint_id),
            )
            for row in rows
        ),
        numbers=frozenset(header[3:]),
    )  # fmt: skip


def print_checkpoints(rows: Sequence[CheckpointRow]) -> None:
    """Print a table of checkpoints."""
    header = ("id", "kind", "status", "triggered", "duration", "size", "written", "path or failure")
    print_table(
        header,
        (
            (
                str(row.checkpoint_id), row.kind, row.status, shown_time(row.triggered_ms),
                short_duration(row.duration_ms), short_size(row.size_bytes), short_size(row.uploaded_bytes),
                _or_dash(row.failure or row.path),
            )
            for row in rows
        ),
        numbers=frozenset({"id", "duration", "size", "written"}),
    )  # fmt: skip


def print_delays(row: CheckpointRow, subtasks_max: int) -> None:
    """Print where the time of a checkpoint went, if that is known.

    Args:
        row: the checkpoint.
        subtasks_max: of its subtasks so many are shown, the slowest.
    """
    if not (row.held_up_by or row.subtasks):
        return
    print(f"\n{row.kind} {row.checkpoint_id}, {row.status}, {short_duration(row.duration_ms)}")
    if row.held_up_by:
        print(f"held up by: {visible(row.held_up_by)}")
    if row.missing:
        more = row.missing_count - len(row.missing)
        names = ", ".join(map(visible, row.missing)) + (f" and {more} more" if more else "")
        print(f"not acknowledged: {names}")
    if not row.subtasks:
        return
    header = ["subtask", "total", "start delay", "alignment", "synchronous", "asynchronous", "size"]
    header += ["in flight"] * any(one.in_flight_bytes for one in row.subtasks)
    print_table(
        header,
        (
            (
                one.label, short_duration(one.total_ms), short_duration(one.start_delay_ms),
                short_duration(one.alignment_ms), short_duration(one.sync_ms), short_duration(one.async_ms),
                short_size(one.size_bytes), short_size(one.in_flight_bytes),
            )[: len(header)]
            for one in row.subtasks[:subtasks_max]
        ),
        numbers=frozenset(header[1:]),
    )  # fmt: skip
    if (more := len(row.subtasks) - subtasks_max) > 0:
        print(f"and {more} quicker subtasks; `--id {row.checkpoint_id}` shows all")


def print_json(rows: Sequence[JobRow | CheckpointRow]) -> None:
    """Print a JSON array of objects."""
    print_as_json([asdict(row) for row in rows])


def print_as_json(value: Any) -> None:
    """Print a value as JSON; what UTF-8 does not have stands in the escapes of JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False).encode(errors="backslashreplace").decode())


def print_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: frozenset[str] = frozenset()
) -> None:
    """Print rows below their header.

    Args:
        header: names of the columns.
        rows: texts.
        numbers: columns that are numbers, aligned to the right.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(
            name, justify="right" if name in numbers else "left", overflow="fold", no_wrap=name == "job"
        )
    for row in rows:
        table.add_row(*map(_plain, row))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else COLUMNS_IN_A_PIPE
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(visible(text))  # A name with [brackets] is no markup.


def visible(text: str) -> str:
    """Return text with every character that a terminal would obey, or cannot show, as an escape."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text
    )


def shown_time(wall_ms: int) -> str:
    """Return a wall time in ms since epoch as text, in UTC."""
    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _or_dash(value: object) -> str:
    return "-" if value in (None, "") else str(value)
