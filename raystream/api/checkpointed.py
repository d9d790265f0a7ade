"""Operator state for user functions: state of a subtask, not of a key."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raystream.operators.checkpointed import InitializationContext, SnapshotContext


class CheckpointedFunction(ABC):
    """Mixed into any function class, gives it operator state.

    The state is in memory, in the state objects or in attributes of the function that `snapshot_state`
    puts into them, and is stored as a whole at every barrier, so it should be small.

    Example:
        >>> from raystream import FlatMapFunction, ListStateDescriptor
        >>> class InPairs(FlatMapFunction, CheckpointedFunction):
        ...     def initialize_state(self, ctx):
        ...         self.stored = ctx.get_list_state(ListStateDescriptor("waiting", int))
        ...         self.waiting = self.stored.get()
        ...     def flat_map(self, value):
        ...         self.waiting.append(value)
        ...         if len(self.waiting) >= 2:
        ...             yield tuple(self.waiting)
        ...             self.waiting.clear()
        ...     def snapshot_state(self, ctx):
        ...         self.stored.update(self.waiting)
    """

    @abstractmethod
    def initialize_state(self, ctx: "InitializationContext") -> None:
        """Register the state and take what was restored; called once in each subtask, before `open`."""

    @abstractmethod
    def snapshot_state(self, ctx: "SnapshotContext") -> None:
        """Bring the state up to date; called at every barrier, while the stream waits."""
