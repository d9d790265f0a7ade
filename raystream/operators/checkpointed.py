"""User functions with operator state: calls of `initialize_state` and `snapshot_state`, and their contexts.

A function that has these two methods (`raystream.CheckpointedFunction`) registers its state in the
first, which is called before `open`, and brings it up to date in the second, at every barrier.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

from raystream.operators.operator import OperatorContext
from raystream.operators.user_code import raise_for_connector
from raystream.state.backend import ListState, MapState
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor
from raystream.state.operator_lists import RawState
from raystream.state.operator_state import OperatorState

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class InitializationContext:
    """What a function's `initialize_state(ctx)` gets: its operator state, filled with what was restored.

    Attributes:
        is_restored: True when the job started from a snapshot that has state of this operator, also
            when none of it came to this subtask.
        subtask_index: 0-based index of this subtask.
        parallelism: number of subtasks of the operator.
    """

    __slots__ = ("_store", "is_restored", "parallelism", "subtask_index")

    def __init__(self, context: OperatorContext) -> None:
        self._store = context.operator_store
        self.is_restored = context.operator_store.is_restored
        self.subtask_index = context.subtask
        self.parallelism = context.parallelism

    def get_list_state(self, descriptor: ListStateDescriptor[T]) -> ListState[T]:
        """Return a list of which each subtask has a part; it is dealt out anew when the parallelism changes.

        Raises:
            StateError: the name is taken by another kind or type, or the descriptor has a time to live.
            StateRestoreError: stored elements cannot be read as the declared type.
        """
        return self._store.list_state(descriptor)

    def get_union_list_state(self, descriptor: ListStateDescriptor[T]) -> ListState[T]:
        """Return a list of which each subtask has a part, and gets all parts at a restore.

        Raises as `get_list_state`.
        """
        return self._store.list_state(descriptor, union=True)

    def get_broadcast_state(self, descriptor: MapStateDescriptor[K, V]) -> MapState[K, V]:
        """Return a map that is to be the same in every subtask, each of which stores a copy.

        Raises as `get_list_state`.
        """
        return self._store.broadcast_state(descriptor)

    def get_raw_state(self, name: str) -> RawState:
        """Return a list of bytes that are stored as they are and dealt out as those of a list state.

        Raises:
            StateError: the name is taken by another kind of state.
        """
        return self._store.raw_state(name)


@dataclass(frozen=True, slots=True)
class SnapshotContext:
    """What a function's `snapshot_state(ctx)` gets."""

    checkpoint_id: int
    """Increases from one snapshot to the next, also over restarts."""
    savepoint: bool
    """True when the snapshot may outlive the job."""


def initialize_function(function: Any, context: OperatorContext) -> None:
    """Call the function's `initialize_state`, if it has one.

    Raises:
        UserCodeError: it raised.
    """
    if hasattr(function, "initialize_state"):
        try:
            function.initialize_state(InitializationContext(context))
        except BaseException as error:
            raise_for_connector("user function failed to initialize its state", error, context)


def snapshot_function(
    function: Any, context: OperatorContext, checkpoint_id: int, *, savepoint: bool
) -> list[OperatorState]:
    """Call the function's `snapshot_state`, if it has one, and return all its operator state.

    Raises:
        UserCodeError: the user's method raised.
        StateError: an element does not have its declared type or cannot be encoded.
    """
    if hasattr(function, "snapshot_state"):
        try:
            function.snapshot_state(SnapshotContext(checkpoint_id, savepoint))
        except BaseException as error:
            raise_for_connector("user function failed to snapshot its state", error, context)
    return context.operator_store.snapshot()
