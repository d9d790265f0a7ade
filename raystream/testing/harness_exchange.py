"""What stands around an operator in the harness in place of channels and side outputs."""

from collections.abc import Callable

from raystream.operators.dead_letters import DEAD_LETTERS
from raystream.operators.operator import Emit
from raystream.records.batch import RowBatch
from raystream.records.elements import Barrier, Control
from raystream.runtime.channel import Backlog
from raystream.runtime.in_flight import Route


class HandOver:
    """The sending end of a channel that hands batches over at once."""

    has_room = True
    route: Route | None = None

    def __init__(self, target: Emit) -> None:
        self.send = target
        self.backlog = Backlog()

    def send_control(self, control: Control) -> None:
        raise AssertionError("a harness sends no control elements")

    def send_ahead(self, barrier: Barrier) -> list[tuple[RowBatch, int]]:
        raise AssertionError("a harness has no barriers")

    def holds(self, barrier: Barrier) -> bool:
        return False

    def flush(self) -> bool:
        return False

    take_held = flush

    def granted(self, size_bytes: int) -> None:
        raise AssertionError("a harness has no credit")


class SideOutputs(dict[str, Emit]):
    """Takes whatever tag a function emits to.

    Args:
        make: returns what takes the records of a tag.
        dead_letters: there are dead letters among them, so that the operator makes some.
    """

    def __init__(self, make: Callable[[str], Emit], *, dead_letters: bool) -> None:
        super().__init__()
        self._make = make
        self._dead_letters = dead_letters

    def __contains__(self, tag: object) -> bool:
        return self._dead_letters or tag != DEAD_LETTERS

    def __missing__(self, tag: str) -> Emit:
        emit = self[tag] = self._make(tag)
        return emit
