"""Timers as keyed state: a map for each key, and one queue over all keys in the order of time.

The map is what a snapshot stores, so timers are restored, move with their key group and work
on every backend without anything of their own.  The queue is in memory and made anew from the
maps after a restore.

    register ──▶ map of the key (time, namespace) -> None      stored
            └──▶ heap of (time, number, group, key, namespace)  in memory

A timer that is deleted stays in the heap until its time comes or until half of the heap are
such leftovers, which is when they are swept; a number tells a leftover from the timer that was
registered after it for the same time.
"""

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Any

from raystream.state.backend import KeyedStateBackend, MapState
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import MapStateDescriptor

_LEFTOVERS_MIN = 1024
"""As many deleted timers stay in the heap without being swept."""

_Timer = tuple[int, int, int, Any, Any]
"""Time in ms, number, key group, key, namespace; numbers differ, so keys are never compared."""


class TimerQueue:
    """The timers of one domain of time in one subtask, one for each (key, namespace, time).

    `register` and `delete` are for the key and namespace that the cursor is at.

    Args:
        name: of the state.
        backend: has taken over what is restored, and is told the state here.
        cursor: of the operator.
    """

    def __init__(self, name: str, backend: KeyedStateBackend, cursor: KeyCursor) -> None:
        self._cursor = cursor
        self._stored: MapState[tuple[int, Any], None] = backend.map_state(
            MapStateDescriptor(name, tuple, type(None), internal=True)
        )
        self._numbers = count()
        self._live: dict[tuple[int, Any, Any], int] = {}  # Number by (time, key, namespace).
        self._heap: list[_Timer] = []
        for group, key, times in backend.entries(name):
            for time_ms, namespace in times:
                self._push(time_ms, group, key, namespace)
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._live)

    @property
    def next_ms(self) -> int | None:
        """Time of the first timer, None when there is none."""
        self._drop_leftovers()
        return self._heap[0][0] if self._heap else None

    def register(self, time_ms: int) -> bool:
        """Add a timer; False when it is there already."""
        cursor = self._cursor
        key, namespace = cursor.current_key, cursor.namespace
        timer = (time_ms, key, namespace)
        if timer in self._live:
            return False
        self._stored.put((time_ms, namespace), None)  # First, since it fails without a key.
        number = self._live[timer] = next(self._numbers)
        heapq.heappush(self._heap, (time_ms, number, cursor.group, key, namespace))
        return True

    def delete(self, time_ms: int) -> None:
        """Remove a timer; one that is not there is left alone."""
        cursor = self._cursor
        if self._live.pop((time_ms, cursor.current_key, cursor.namespace), None) is None:
            return
        self._stored.remove((time_ms, cursor.namespace))
        leftovers = len(self._heap) - len(self._live)
        if leftovers > max(_LEFTOVERS_MIN, len(self._live)):
            self._heap = [timer for timer in self._heap if self._is_live(timer)]
            heapq.heapify(self._heap)

    def due(self, until_ms: int, count_max: int) -> Iterator[int]:
        """Remove timers up to a time, the earliest first; yield the time of each with the cursor at it.

        Timers that are registered meanwhile are seen.  The caller takes the cursor away afterwards.

        Args:
            until_ms: time of the last timer.
            count_max: how many timers at most.
        """
        cursor = self._cursor
        left = count_max
        while left and self._heap and self._heap[0][0] <= until_ms:
            time_ms, number, group, key, namespace = heapq.heappop(self._heap)
            timer = (time_ms, key, namespace)
            if self._live.get(timer) != number:
                continue  # Was deleted.
            del self._live[timer]
            cursor.group, cursor.current_key, cursor.namespace = group, key, namespace
            self._stored.remove((time_ms, namespace))
            left -= 1
            yield time_ms

    def _push(self, time_ms: int, group: int, key: Any, namespace: Any) -> None:
        number = self._live[time_ms, key, namespace] = next(self._numbers)
        self._heap.append((time_ms, number, group, key, namespace))

    def _is_live(self, timer: _Timer) -> bool:
        time_ms, number, _, key, namespace = timer
        return self._live.get((time_ms, key, namespace)) == number

    def _drop_leftovers(self) -> None:
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)
