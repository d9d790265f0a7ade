"""Snapshots of an operator harness: taken in two parts, and encoded as in a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from raystream.handles import InlineHandle, KeyedStateHandle, OperatorSnapshot, OperatorStateHandle
from raystream.ids import OperatorUid
from raystream.operators.operator import Operator
from raystream.runtime.restore import KeyedOwner
from raystream.state.backend import KeyedSnapshot
from raystream.state.operator_state import OperatorState, encode_elements

UID = OperatorUid("operator-under-test")


@dataclass(frozen=True, slots=True)
class HarnessSnapshot:
    """The state of all subtasks of a harness, encoded as in a checkpoint."""

    subtasks: tuple[OperatorSnapshot, ...]


@dataclass(frozen=True, slots=True)
class FrozenSubtask:
    """The snapshot of one subtask after its synchronous part."""

    owner: KeyedOwner | None
    states: list[OperatorState]
    keyed: KeyedSnapshot | None

    @classmethod
    def of(cls, operator: Operator, owner: KeyedOwner | None, checkpoint_id: int) -> Self:
        """Take the synchronous part, in the order in which a subtask does it."""
        operator.prepare_barrier(checkpoint_id)
        states = operator.snapshot(checkpoint_id)
        return cls(owner, states, None if owner is None else owner.backend.freeze(checkpoint_id))

    def encode(self, index: int) -> OperatorSnapshot:
        """Return the snapshot as a checkpoint would hold it, everything inline."""
        keyed: tuple[KeyedStateHandle, ...] = ()
        if self.keyed is not None and self.owner is not None:
            while not self.keyed.advance(lambda: True):
                pass
            blob = InlineHandle(data=b"".join(self.keyed.blob()))
            keyed = (KeyedStateHandle(groups=self.owner.groups, entries=self.keyed.entries, data=blob),)
        return OperatorSnapshot(
            uid=UID,
            subtask=index,
            states=(
                *(() if self.keyed is None else self.keyed.states),
                *(state.info for state in self.states if state.info is not None),
            ),
            keyed=keyed,
            operator=tuple(
                OperatorStateHandle(
                    name=state.name,
                    mode=state.mode,
                    element_count=len(state.elements),
                    data=InlineHandle(data=encode_elements(state.elements)),
                )
                for state in self.states
            ),
        )


class SnapshotInProgress:
    """A snapshot whose synchronous part is done."""

    def __init__(self, subtasks: Sequence[FrozenSubtask]) -> None:
        self._subtasks = subtasks

    def finish(self) -> HarnessSnapshot:
        """Do the rest, in the smallest slices that there are, and return the snapshot."""
        return HarnessSnapshot(tuple(subtask.encode(index) for index, subtask in enumerate(self._subtasks)))
