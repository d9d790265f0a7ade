"""Waiting until every subtask has said something once."""

from collections.abc import Iterable

from raystream.ids import VertexId

Subtask = tuple[VertexId, int]
"""Vertex and 0-based index."""


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
