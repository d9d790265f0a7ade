"""The turns of the subtasks of a slot: who processes records, in which order, and for how long.

Most downstream subtasks come first, so that data leaves the slot before more comes in.  Sources have their
turn even while input waits: a slot that always put the records of others first would never read its own
splits, and its peers would do all the reading.
"""

from collections.abc import Sequence

from raystream.clock import Clock
from raystream.runtime import log_place
from raystream.runtime.subtask import Subtask
from raystream.runtime.task_times import TaskTimes

TURNS_PER_CHANNEL_MAX = 4
"""Elements that a channel may hand over between two turns of the sources.  With one, a slot whose
source is slow, or slower than its peers', would let its channels fill to their credit: every
barrier waits behind that (measured: 4 times as long after 5 s, and growing)."""

TURNS_MS_MAX = 50.0
"""Time after which each subtask has one more turn only, where barriers overtake and should be looked at."""


class Turns:
    """Runs the subtasks of a slot.

    Args:
        clock: measures the time of all turns.
        subtasks: sources first.
        times: is told who ran.
        bounded: barriers overtake, so that turns end after a while.
    """

    def __init__(self, clock: Clock, subtasks: Sequence[Subtask], times: TaskTimes, *, bounded: bool) -> None:
        self._clock = clock
        self._subtasks = subtasks
        self._sources = [subtask for subtask in subtasks if subtask.source is not None]
        self._consumers = [subtask for subtask in reversed(subtasks) if subtask.source is None]
        self._places = {subtask: (subtask.vertex.name, str(subtask.index)) for subtask in subtasks}
        self._times = times
        self._bounded = bounded

    def run(self) -> bool:
        """Give every channel that has input a few turns, then every source one; True when any was used."""
        ran, times, here = False, self._times, log_place.here
        times.begin()
        until_ms = self._clock.monotonic_ms() + TURNS_MS_MAX if self._bounded else None
        for subtask in self._consumers:
            if subtask.can_run:
                here.at = self._places[subtask]
                self._run(subtask, until_ms)
                times.ran(subtask)
                ran = True
        for subtask in self._sources:
            if subtask.can_poll:
                here.at = self._places[subtask]
                ran |= subtask.poll_source()
                times.ran(subtask)  # A poll that finds nothing takes its time too.
        for subtask in self._subtasks:
            if subtask.can_run_woken:
                here.at = self._places[subtask]
                subtask.run_woken()
                times.ran(subtask)
                ran = True
        here.at = log_place.NOWHERE
        times.end()
        return ran

    def _run(self, subtask: Subtask, until_ms: float | None) -> None:
        for _ in range(subtask.ready_count * TURNS_PER_CHANNEL_MAX):
            if subtask.can_run:
                subtask.run()
                if until_ms is not None and self._clock.monotonic_ms() >= until_ms:
                    break
