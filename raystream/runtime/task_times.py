"""Where the time of a slot goes: busy, back-pressured and idle time of each of its subtasks.

A slot runs its subtasks one after the other, in rounds, so their times are found with one look at the
clock for each subtask that ran in a round, never for a record:

    busy            the subtask ran
    back-pressured  it did not, for what is downstream of it: an output had no room, or there was something
                    to do while the slot ran a subtask that it feeds, directly or not
    idle            everything else, so that the three are the time that has passed

The second kind of back-pressure is what another engine shows for a task that has a thread of its own: a
source whose slow receiver is in the same slot is held up by it just as by one in another slot.
"""

from collections.abc import Iterable, Mapping, Sequence

from raystream.clock import Clock
from raystream.graph.physical import PhysicalPlan
from raystream.ids import VertexId
from raystream.runtime.subtask import Subtask


class TaskTime:
    """The time of one subtask, in ms since the start of the attempt.

    Attributes:
        busy_ms: of rounds that are over.
        back_pressured_ms: likewise.
    """

    __slots__ = ("back_pressured_ms", "busy_ms", "fed", "stuck", "subtask", "turn_ms", "waits")

    def __init__(self, subtask: Subtask) -> None:
        self.subtask = subtask
        self.busy_ms = 0.0
        self.back_pressured_ms = 0.0
        self.turn_ms = 0.0
        self.fed: list[TaskTime] = []
        """Downstream, in this slot."""
        self.stuck = False
        """There was no room in an output at the end of the last round."""
        self.waits = False
        """There was room, and something to do."""


class TaskTimes:
    """Measures the subtasks of a slot in one attempt; `begin`, `ran` for each subtask that ran, `end`.

    Args:
        clock: measures.
        plan: says which subtask feeds which.
    """

    def __init__(self, clock: Clock, plan: PhysicalPlan, subtasks: Sequence[Subtask]) -> None:
        self._clock = clock
        self._times = {subtask: TaskTime(subtask) for subtask in subtasks}
        below = _downstream(plan)
        for time in self._times.values():
            vertices = below[time.subtask.vertex.id]
            time.fed = [other for other in self._times.values() if other.subtask.vertex.id in vertices]
        self._all = list(self._times.values())
        self._began_ms = self._mark_ms = clock.monotonic_ms()

    def of(self, subtask: Subtask) -> TaskTime:
        """Return the time of a subtask."""
        return self._times[subtask]

    def begin(self) -> None:
        """A round begins; what has passed since the last one was not spent on records."""
        now_ms = self._clock.monotonic_ms()
        passed_ms = now_ms - self._mark_ms
        for time in self._all:
            if time.stuck:
                time.back_pressured_ms += passed_ms
        self._began_ms = self._mark_ms = now_ms

    def ran(self, subtask: Subtask) -> None:
        """The subtask has run since `begin`, or since the last one that did."""
        now_ms = self._clock.monotonic_ms()
        self._times[subtask].turn_ms += now_ms - self._mark_ms
        self._mark_ms = now_ms

    def end(self) -> None:
        """The round is over; what follows until the next one is not spent on records."""
        round_ms = self._mark_ms - self._began_ms
        for time in self._all:
            if round_ms:
                if time.stuck:
                    time.back_pressured_ms += round_ms - time.turn_ms
                elif time.waits:
                    for fed in time.fed:
                        time.back_pressured_ms += fed.turn_ms
            time.stuck = not time.subtask.outputs.has_room
            time.waits = not time.stuck and time.subtask.has_work
        if round_ms:
            for time in self._all:
                time.busy_ms += time.turn_ms
                time.turn_ms = 0.0


def _downstream(plan: PhysicalPlan) -> Mapping[VertexId, frozenset[VertexId]]:
    """Return, for each vertex, all that its records lead to."""
    found: dict[VertexId, frozenset[VertexId]] = {}
    for vertex in reversed(plan.vertices):  # In topological order.
        targets: Iterable[VertexId] = [edge.target for edge in plan.edges if edge.source == vertex.id]
        found[vertex.id] = frozenset(targets).union(*(found[target] for target in targets))
    return found
