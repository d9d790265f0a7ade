"""The metrics of a whole job: what its slots have reported, and operators over all of their subtasks.

Plain values that may be pickled and kept; knows nothing of how a job works.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raystream.ids import JobId, SlotId
from raystream.metrics import catalogue
from raystream.metrics.reports import OperatorMetrics, SubtaskMetrics
from raystream.runtime.coordinator_view import CheckpointRecord, JobView
from raystream.runtime.messages import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSummary:
    """One operator over all of its subtasks."""

    uid: str
    name: str
    task: str
    """Name of its chain."""
    head: bool
    """It is the first one of its chain, at which the chain's times stand."""
    parallelism: int
    """Subtasks that have reported."""
    records_in: int
    records_out: int
    records_in_per_second: float
    records_out_per_second: float
    dead_letters: int
    busy_ms_per_second: float
    """Of the chain, mean over its subtasks, as are the next two; the three make 1,000."""
    back_pressured_ms_per_second: float
    idle_ms_per_second: float
    busiest_ms_per_second: float
    """Busy time of the busiest subtask."""
    watermark_ms: int | None
    """The lowest event time of a subtask's input, of a source's output; None where there is none."""
    state_bytes: int | None
    """Stored size in the last checkpoint; None where there is no state, or was no checkpoint."""
    cache_hit_rate: float | None
    """Mean over the subtasks, None without a cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMetrics:
    """What is known of a job at one moment."""

    view: JobView
    wall_ms: int
    """When that was, ms since the epoch."""
    subtasks: tuple[SubtaskMetrics, ...]
    """Those that have reported in this attempt, in the order of the plan."""

    @classmethod
    def of(cls, view: JobView, progress: Mapping[SlotId, Progress], wall_ms: int) -> "JobMetrics":
        """Return the metrics of a job whose slots have reported so much."""
        subtasks = [one for report in progress.values() for one in report.subtasks]
        subtasks.sort(key=lambda one: (one.vertex, one.subtask))
        return cls(view=view, wall_ms=wall_ms, subtasks=tuple(subtasks))

    @property
    def job_id(self) -> JobId:
        """Id of the job."""
        return self.view.job_id

    def operators(self) -> list[OperatorSummary]:
        """Return a summary of each operator, in the order of the plan."""
        chains: dict[int, list[SubtaskMetrics]] = {}
        for one in self.subtasks:
            chains.setdefault(one.vertex, []).append(one)
        return [
            _summary(chain, position)
            for chain in chains.values()
            for position in range(len(chain[0].operators))
        ]


def last_completed(checkpoints: Iterable[CheckpointRecord]) -> CheckpointRecord | None:
    """Return the newest one that is complete."""
    return max(
        (record for record in checkpoints if record.status == "completed"),
        key=lambda record: record.checkpoint_id,
        default=None,
    )


def _summary(chain: list[SubtaskMetrics], position: int) -> OperatorSummary:
    heads = [subtask.operators[0] for subtask in chain]
    parts = [subtask.operators[position] for subtask in chain]
    busy = _known(heads, catalogue.BUSY_TIME)
    watermarks = _known(parts, catalogue.INPUT_WATERMARK) or _known(parts, catalogue.OUTPUT_WATERMARK)
    sizes, rates = _known(parts, catalogue.STATE_SIZE), _known(parts, catalogue.CACHE_HIT_RATE)
    return OperatorSummary(
        uid=parts[0].uid,
        name=parts[0].name,
        task=chain[0].task,
        head=position == 0,
        parallelism=len(chain),
        records_in=round(sum(_known(parts, catalogue.NUM_RECORDS_IN))),
        records_out=round(sum(_known(parts, catalogue.NUM_RECORDS_OUT))),
        records_in_per_second=sum(_known(parts, catalogue.NUM_RECORDS_IN_PER_SECOND)),
        records_out_per_second=sum(_known(parts, catalogue.NUM_RECORDS_OUT_PER_SECOND)),
        dead_letters=round(sum(_known(parts, catalogue.NUM_DEAD_LETTERS))),
        busy_ms_per_second=_mean(busy),
        back_pressured_ms_per_second=_mean(_known(heads, catalogue.BACK_PRESSURED_TIME)),
        idle_ms_per_second=_mean(_known(heads, catalogue.IDLE_TIME)),
        busiest_ms_per_second=max(busy, default=0.0),
        watermark_ms=round(min(watermarks)) if watermarks else None,
        state_bytes=round(sum(sizes)) if sizes else None,
        cache_hit_rate=_mean(rates) if rates else None,
    )


def _known(parts: Iterable[OperatorMetrics], key: str) -> list[float]:
    return [part.values[key] for part in parts if key in part.values]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
