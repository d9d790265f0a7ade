"""How far a job is, as text: for the status line of a terminal, and as lines for everything else.

Pure: is given views of the job and the time, returns texts.  Who shows them where is the
business of `raystream.cli.attend`.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from raystream.ids import Attempt, JobStatus
from raystream.records.elements import SnapshotKind
from raystream.runtime.coordinator_view import CheckpointRecord, JobView

WAITING_SHOWN_AFTER_MS = 5_000
"""Waiting for resources is normal while processes start; after this time it is worth a line."""
WAITING_REPEATED_MS = 60_000
"""Time after which a wait that goes on is told again."""
LINE_INTERVAL_MS = 5_000
"""Time between two plain lines if nothing happens."""
RATE_WINDOW_MS = 5_000
"""Rates are averages over about this time."""
DELAY_SHOWN_MS = 1_000
"""Delay before a restart that is worth a line of its own."""
STANDSTILL_MS = 2_000
"""Counters arrive about once a second; those that have not moved for this long stand still."""


class _Sample(NamedTuple):
    at_ms: float
    records_in: int
    records_out: int


class Progress:
    """Follows one job.

    Args:
        now_ms: monotonic time at which watching begins.
    """

    def __init__(self, now_ms: float) -> None:
        self._began_ms = now_ms
        self._line_ms = now_ms
        self._samples: deque[_Sample] = deque()
        self._status: JobStatus | None = None
        self._restarts = 0
        self._failed: Attempt | None = None
        """The last attempt whose failure was told before the next one began."""
        self._checkpoint_id = 0
        self._waiting_since_ms: float | None = None
        self._waiting_told = ""
        self._waiting_told_ms = 0.0

    def events(self, view: JobView, now_ms: float) -> list[str]:
        """Return a line for each thing that is worth one on a terminal too: failures and long waits."""
        return [*self._restarted(view), *self._waiting(view, now_ms)]

    def lines(self, view: JobView, now_ms: float) -> list[str]:
        """Return a line for each change of status and each checkpoint, and one every few seconds."""
        lines = [*self._changed(view), *self._checkpointed(view)]
        if lines or now_ms - self._line_ms >= LINE_INTERVAL_MS:
            self._line_ms = now_ms
            lines = lines or [self.status(view, now_ms)]
        return lines

    def status(self, view: JobView, now_ms: float) -> str:
        """Return the status line."""
        rate_in, rate_out = self._rates(view, now_ms)
        parts = [
            view.status.value,
            f"in {short_count(view.records_in)} ({short_count(rate_in)}/s)",
            f"out {short_count(view.records_out)} ({short_count(rate_out)}/s)",
            counted(view.restarts, "restart"),
            *(describe_checkpoint(last) for last in completed(view.checkpoints)[-1:]),
            elapsed(now_ms - self._began_ms),
        ]
        return "  ".join(parts)

    def _rates(self, view: JobView, now_ms: float) -> tuple[float, float]:
        samples = self._samples
        sample = _Sample(now_ms, view.records_in, view.records_out)
        if not samples or samples[-1][1:] != sample[1:] or now_ms - samples[-1].at_ms >= STANDSTILL_MS:
            samples.append(sample)
        while samples[-1].at_ms - samples[0].at_ms > RATE_WINDOW_MS and len(samples) > 2:
            samples.popleft()
        first, last = samples[0], samples[-1]
        seconds = (last.at_ms - first.at_ms) / 1000
        if seconds <= 0:
            return 0.0, 0.0
        # A restart sets the counters back.
        return (
            max(0.0, (last.records_in - first.records_in) / seconds),
            max(0.0, (last.records_out - first.records_out) / seconds),
        )

    def _changed(self, view: JobView) -> Iterator[str]:
        if view.status is not self._status:
            self._status = view.status
            yield f"job {view.job_id} is {view.status.value}: {view.name}"

    def _checkpointed(self, view: JobView) -> Iterator[str]:
        for checkpoint in completed(view.checkpoints):
            if checkpoint.checkpoint_id > self._checkpoint_id:
                self._checkpoint_id = checkpoint.checkpoint_id
                yield (
                    f"{describe_checkpoint(checkpoint)}: "
                    f"{view.records_in:,} in, {view.records_out:,} out, {_dead(view)}"
                    f"{counted(view.restarts, 'restart')}"
                )

    def _restarted(self, view: JobView) -> Iterator[str]:
        cause = str(view.error).strip().partition("\n")[0] if view.error else "cause not known"
        waits_to_restart = view.status is JobStatus.RESTARTING and view.restart_in_ms >= DELAY_SHOWN_MS
        if waits_to_restart and view.attempt != self._failed:
            self._failed = view.attempt
            wait = short_duration(view.restart_in_ms)
            yield f"attempt {view.attempt} failed, the next one begins in {wait}: {cause}"
        if view.restarts > self._restarts:
            self._restarts = view.restarts
            yield f"restart {view.restarts}: {cause}"

    def _waiting(self, view: JobView, now_ms: float) -> Iterator[str]:
        if not view.waiting_for:
            self._waiting_since_ms, self._waiting_told = None, ""
            return
        if self._waiting_since_ms is None:
            self._waiting_since_ms = now_ms
        waited_ms = now_ms - self._waiting_since_ms
        news = view.waiting_for != self._waiting_told
        if waited_ms >= WAITING_SHOWN_AFTER_MS and (
            news or now_ms - self._waiting_told_ms >= WAITING_REPEATED_MS
        ):
            self._waiting_told, self._waiting_told_ms = view.waiting_for, now_ms
            yield waits(view.waiting_for, max(view.waiting_ms, waited_ms))


def waits(waiting_for: str, duration_ms: float) -> str:
    """Return for how long a job has waited, and for what."""
    return f"waiting for resources for {elapsed(duration_ms)}: {waiting_for}"


def summary(view: JobView, duration_ms: float) -> str:
    """Return the last line about a job that has ended."""
    # There are records of the newest alone, and of an archived job no counts.
    known = max(view.checkpoint_counts.completed, len(completed(view.checkpoints)))
    checkpoints = counted(known, "checkpoint")
    restarts = counted(view.restarts, "restart")
    return (
        f"job {view.job_id} is {view.status.value}: {view.records_in:,} records in, "
        f"{view.records_out:,} out, {_dead(view)}{checkpoints}, {restarts}, {elapsed(duration_ms)}"
    )


def _dead(view: JobView) -> str:
    """Return how many records went to the dead letters, if any did."""
    return f"{counted(view.dead_letters, 'dead letter')}, " if view.dead_letters else ""


def completed(checkpoints: Sequence[CheckpointRecord]) -> list[CheckpointRecord]:
    """Return the complete ones, oldest first."""
    return [checkpoint for checkpoint in checkpoints if checkpoint.status == "completed"]


def describe_checkpoint(checkpoint: CheckpointRecord) -> str:
    """Return name, duration and size of a complete checkpoint or savepoint, and what of it was written."""
    savepoint = checkpoint.kind is SnapshotKind.SAVEPOINT
    name = f"savepoint {checkpoint.checkpoint_id}" if savepoint else f"chk-{checkpoint.checkpoint_id}"
    written, size = short_size(checkpoint.uploaded_bytes), short_size(checkpoint.size_bytes)
    sizes = size if checkpoint.uploaded_bytes == checkpoint.size_bytes else f"{written} of {size}"
    return f"{name} {short_duration(checkpoint.duration_ms)} {sizes}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "restart"), counted(2_000, "restart")
        ('1 restart', '2,000 restarts')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def short_count(number: float) -> str:
    """Return a number in few characters.

    Example:
        >>> short_count(7), short_count(9_999), short_count(123_456), short_count(2_410_000)
        ('7', '9,999', '123k', '2.41M')
    """
    if number < 10_000:
        return f"{number:,.0f}"
    return f"{number / 1_000:.0f}k" if number < 1_000_000 else f"{number / 1_000_000:.2f}M"


def short_size(size_bytes: int) -> str:
    """Return a size in few characters.

    Example:
        >>> short_size(512), short_size(1536), short_size(180_000), short_size(5 * 1024**3)
        ('512 B', '1.5 KiB', '176 KiB', '5.0 GiB')
    """
    size, units = float(size_bytes), ["KiB", "MiB", "GiB", "TiB"]
    if size < 1024:
        return f"{size_bytes} B"
    unit = ""
    while size >= 1024 and units:
        size, unit = size / 1024, units.pop(0)
    return f"{size:.1f} {unit}" if size < 100 else f"{size:.0f} {unit}"


def short_duration(duration_ms: float) -> str:
    """Return a duration in few characters.

    Example:
        >>> short_duration(84.3), short_duration(12_340)
        ('84 ms', '12.3 s')
    """
    return f"{duration_ms:.0f} ms" if duration_ms < 1_000 else f"{duration_ms / 1000:.1f} s"


def elapsed(duration_ms: float) -> str:
    """Return hours, minutes and seconds.

    Example:
        >>> elapsed(3_725_900)
        '1:02:05'
    """
    seconds = int(duration_ms // 1000)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
