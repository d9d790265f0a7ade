"""The subtasks of a job, and waiting until every one has said something once."""

from collections.abc import Iterable
from dataclasses import dataclass

from raystream.ids import SlotId, VertexId

Subtask = tuple[VertexId, int]
"""Vertex and 0-based index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobShape:
    """How large a job is."""

    parallelism: int
    """Of every operator that was not given its own."""
    slots: tuple[SlotId, ...]
    """Numbers of the processes that it needs, ascending; slot 0 is always among them."""
    subtasks: frozenset[Subtask]
    """Every subtask of its plan."""


class Roll:
    """Who of all subtasks has answered.

    Args:
        subtasks: everyone who is to answer.
    """

    def __init__(self, subtasks: Iterable[Subtask]) -> None:
        self._missing = set(subtasks)

    def answered(self, subtask: Subtask) -> bool:
        """Cross off a subtask; True when it was the last one, and so at most once."""
        if subtask not in self._missing:
            return False
        self._missing.remove(subtask)
        return not self._missing
