"""What slots report of the subtasks that they run: plain values that may be pickled and kept."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorMetrics:
    """One operator in one subtask."""

    uid: str
    name: str
    values: dict[str, float]
    """By `catalogue.Metric.key`; what is not known is absent.  Times are those of the whole chain, and stand
    at its first operator alone."""
    user: dict[str, float]
    """What user code counts, by the names of `user.MetricGroup.values`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtaskMetrics:
    """One subtask of a chain of operators."""

    vertex: int
    """Position of the chain in the plan, sources first."""
    task: str
    """Name of the chain."""
    subtask: int
    operators: tuple[OperatorMetrics, ...]
    """Head first."""
