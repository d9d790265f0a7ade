"""Stories: what happens to a key, record by record, told in batches with a restore behind each.

A story is a generator: what it does up to a `yield` is one record of its key.  The stage tells it for so
many keys at once that there is more than one batch, and replaces the backend after every batch by one
that is restored from its snapshot.  So a rule that is told as a story holds however the input is cut.

    @row("keyed.update-none")
    def test_updating_with_none_clears(self, tell):
        def story(stage):
            stage.state(HITS).update(1)

Yield:
            stage.state(HITS).update(None)
            yield
            assert stage.state(HITS).value() is None

        tell(story)
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raystream.keys import canonical_key
from raystream.state.descriptor import StateDescriptor
from raystream.state.timers import TimerQueue
from raystream.testing.state_kit import BackendContract, Subtask, register

BATCH_SIZES = (1, 7, 1000)
TIMERS_MAX = 1_000_000

_KEY_COUNTS = {1: 2, 7: 3, 1000: 340}
"""Keys for which a story is told, so that its records are more than a batch."""

Story = Iterator[Any]
"""Yields behind each record but the last; a number is how many ms pass before the next ones."""


class Stage:
    """One subtask that is restored after every batch; what a story sees of it is its key's.

    Args:
        contract: makes the backends.
        batch_size: records between two restores.
    """

    def __init__(self, contract: BackendContract, batch_size: int) -> None:
        self._contract = contract
        self._batch_size = batch_size
        self._records = 0
        self._descriptors: dict[str, StateDescriptor] = {}
        self._queues: dict[str, TimerQueue] = {}
        self._contents: dict[str, dict[Any, Any]] = {}
        self._fired: dict[tuple[str, Any], list[tuple[int, Any]]] = {}
        self.subtask: Subtask = contract.make_subtask()
        self.key: Any = None
        self.restores = 0

    # ---- for stories ----

    def state(self, descriptor: StateDescriptor, namespace: Any = None) -> Any:
        """Return a state of the story's key, and register it when that is new."""
        state = register(self.subtask.backend, descriptor)
        self._descriptors[descriptor.name] = descriptor
        self.subtask.at(self.key, namespace)
        return state

    def content(self, descriptor: StateDescriptor) -> Any:
        """Return what is stored for the story's key, None when nothing is, without a read that counts.

        Ask before the record changes anything: all keys are looked at with the first that asks.
        """
        self.state(descriptor)
        if descriptor.name not in self._contents:
            entries = self.subtask.backend.entries(descriptor.name)
            self._contents[descriptor.name] = {key: content for _, key, content in entries}
        return self._contents[descriptor.name].get(canonical_key(self.key))

    def timers(self, name: str, namespace: Any = None) -> TimerQueue:
        """Return a queue of timers, for the story's key and a namespace."""
        if name not in self._queues:
            self._queues[name] = TimerQueue(name, self.subtask.backend, self.subtask.cursor)
        self.subtask.at(self.key, namespace)
        return self._queues[name]

    def fired(self, name: str, until_ms: int) -> list[tuple[int, Any]]:
        """Let all timers up to a time fire; return time and namespace of those of the story's key."""
        queue, cursor, times = self.timers(name), self.subtask.cursor, []
        for time_ms in queue.due(until_ms, TIMERS_MAX):
            times.append(time_ms)
            self._fired.setdefault((name, cursor.current_key), []).append((time_ms, cursor.namespace))
        assert times == sorted(times)
        self.subtask.at(self.key)
        return self._fired.pop((name, canonical_key(self.key)), [])

    # ---- the telling ----

    def tell(self, story: "Callable[[Stage], Story]") -> None:
        """Tell a story for all keys, each of its records for every key in turn."""
        count = _KEY_COUNTS[self._batch_size]
        keys = [str(n) if n % 3 else n for n in range(count)]
        told = {key: story(self) for key in keys}
        while told:
            self._contents.clear()
            passed_ms = {self._tell_record(key, told) for key in keys}
            assert len(passed_ms) == 1, "time passes for all keys alike"
            self.subtask.clock.now_ms += passed_ms.pop()
        assert self.restores, "the story is shorter than a batch"

    def _tell_record(self, key: Any, told: dict[Any, Story]) -> int:
        """Tell the next record of a key; return how much time passes behind it."""
        if self._records == self._batch_size:
            self._restore()
        if self.subtask.backend.prefetch is not None:
            self.subtask.backend.prefetch([canonical_key(key)])
        self._records += 1
        self.key = key
        self.subtask.at(key)
        try:
            return int(next(told[key]) or 0)
        except StopIteration:
            del told[key]
            return 0

    def _restore(self) -> None:
        """Go on with a backend that is restored from a snapshot of the present one."""
        old = self.subtask
        stored = self._contract.finish(self._contract.freeze(old, self.restores + 1))
        self.subtask = self._contract.make_subtask([stored], now_ms=int(old.clock.now_ms))
        for descriptor in self._descriptors.values():
            register(self.subtask.backend, descriptor)
        self._queues = {
            name: TimerQueue(name, self.subtask.backend, self.subtask.cursor) for name in self._queues
        }
        verdicts = {match.verdict.value for match in self.subtask.backend.restored_states()}
        assert verdicts <= {"matched"}
        old.backend.close()
        self._records = 0
        self.restores += 1


Tell = Callable[[Callable[[Stage], Story]], None]


class StoryContract(BackendContract):
    """Has what its tests tell their stories with."""

    @pytest.fixture(params=BATCH_SIZES, ids="batches of {}".format)
    def tell(self, request: pytest.FixtureRequest) -> Tell:
        """What tells a story with a restore after every so many records."""
        return Stage(self, request.param).tell
