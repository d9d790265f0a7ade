"""What the contracts of keyed state backends are written with."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import pytest

from raystream.clock import Clock
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.keys import KeyGroupCache, canonical_key
from raystream.state.backend import KeyedSnapshot, KeyedStateBackend
from raystream.state.cursor import NO_KEY_GROUP, KeyCursor
from raystream.state.descriptor import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.snapshot_files import SnapshotForm
from raystream.testing.source_run import ManualClock
from raystream.testing.stored_state import MemorySnapshot

MAX_PARALLELISM = 16
START_MS = 1000
"""What the clock of a contract shows at first."""


class Mean:
    """An aggregate of ints: `[sum, count]` -> their mean."""

    def create_accumulator(self) -> list[int]:
        """Return an accumulator of nothing."""
        return [0, 0]

    def add(self, value: int, accumulator: list[int]) -> list[int]:
        """Return the accumulator with one more value, changed in place."""
        accumulator[0] += value
        accumulator[1] += 1
        return accumulator

    def get_result(self, accumulator: list[int]) -> float:
        """Return the mean."""
        return accumulator[0] / accumulator[1]

    def merge(self, first: list[int], second: list[int]) -> list[int]:
        """Return the accumulator of both."""
        return [first[0] + second[0], first[1] + second[1]]


def add(first: int, second: int) -> int:
    """Return the sum."""
    return first + second


HITS = ValueStateDescriptor[Any]("hits", int)
BOX = ValueStateDescriptor[Any]("box", dict[str, int])
ANYTHING = ValueStateDescriptor[Any]("anything")
ELEMENTS = ListStateDescriptor[Any]("elements", int)
BOXES = ListStateDescriptor[Any]("boxes")
COUNTS = MapStateDescriptor[Any, Any]("counts", str, int)
BY_ANY = MapStateDescriptor[Any, Any]("by any")
TOTAL = ReducingStateDescriptor[int]("total", add, int)
MEAN = AggregatingStateDescriptor[int, list[int], float]("mean", Mean(), list[int])


def never() -> bool:
    """Return False: there is always time left."""
    return False


def at_once() -> bool:
    """Return True: there is never time left."""
    return True


def encode(snapshot: KeyedSnapshot) -> None:
    """Encode a snapshot to its end."""
    while not snapshot.advance(never):
        snapshot.wait()


@dataclasses.dataclass
class Visit:
    """A record."""

    path: str
    hits: int = 0


def counted(snapshots: Iterable[KeyedSnapshot]) -> int | None:
    """Return the number of entries in snapshots that are stored; None when they are not counted."""
    entries = [snapshot.entries for snapshot in snapshots]
    return None if None in entries else sum(count or 0 for count in entries)


class Subtask:
    """A backend with its cursor and clock, as an operator has them."""

    def __init__(
        self,
        backend: KeyedStateBackend,
        cursor: KeyCursor,
        max_parallelism: int = MAX_PARALLELISM,
        *,
        clock: ManualClock | None = None,
    ) -> None:
        self.backend = backend
        self.cursor = cursor
        self.clock = clock or ManualClock(START_MS)
        self.max_parallelism = max_parallelism
        self._cache = KeyGroupCache(max_parallelism)

    def at(self, key: Any, namespace: Any = None) -> None:
        """Make `key` the current key."""
        self.cursor.namespace = namespace
        self.cursor.current_key = canonical_key(key)
        self.cursor.group = self._cache[self.cursor.current_key]

    def leave(self) -> None:
        """Have no current key."""
        self.cursor.current_key, self.cursor.group = None, NO_KEY_GROUP

    def group(self, key: Any) -> int:
        """Return the key group of a key."""
        return self._cache[canonical_key(key)]


def missing_states(backend: KeyedStateBackend) -> tuple[Any, ...]:
    """Return what was restored and is not registered."""
    return tuple(match.stored for match in backend.restored_states() if match.verdict == "missing")


def register(backend: KeyedStateBackend, descriptor: Any) -> Any:
    """Register a descriptor of any kind."""
    match descriptor:
        case ValueStateDescriptor():
            return backend.value_state(descriptor)
        case ListStateDescriptor():
            return backend.list_state(descriptor)
        case MapStateDescriptor():
            return backend.map_state(descriptor)
        case ReducingStateDescriptor():
            return backend.reducing_state(descriptor)
        case _:
            return backend.aggregating_state(descriptor)


def write(state: Any, value: Any) -> None:
    """Make an empty state of any kind hold just a value."""
    if hasattr(state, "put"):
        state.put("n", value)
    elif hasattr(state, "value"):
        state.update(value)
    else:
        state.add(value)


def read(state: Any) -> Any:
    """Return the value that `write` wrote, or None."""
    if hasattr(state, "value"):
        return state.value()
    if hasattr(state, "put"):
        return state.get("n")
    number = state.get()
    return (number[0] if number else None) if isinstance(number, list) else number


class Contents:
    """States of all kinds for the current key, with values that can and that cannot be changed in place."""

    COUNT = 9
    EMPTY: tuple[Any, ...] = (None, None, None, [], [], {}, {}, None, None)

    def __init__(self, backend: KeyedStateBackend) -> None:
        self.hits = backend.value_state(HITS)
        self.box = backend.value_state(BOX)
        self.anything = backend.value_state(ANYTHING)
        self.elements = backend.list_state(ELEMENTS)
        self.boxes = backend.list_state(BOXES)
        self.counts = backend.map_state(COUNTS)
        self.by_any = backend.map_state(BY_ANY)
        self.total = backend.reducing_state(TOTAL)
        self.mean = backend.aggregating_state(MEAN)

    @staticmethod
    def expected(n: int) -> tuple[Any, ...]:
        """Return what `get` returns after `set(n)`."""
        return (
            n, {"n": n}, [n, Visit("x", n)], [n, 1], [[n], {n}], {"n": n}, {(n, 1): [n], "e": None},
            n + 1, n / 2,
        )  # fmt: skip

    def get(self) -> tuple[Any, ...]:
        """Return everything that there is."""
        return (
            self.hits.value(),
            self.box.value(),
            self.anything.value(),
            self.elements.get(),
            self.boxes.get(),
            dict(self.counts.items()),
            dict(self.by_any.items()),
            self.total.get(),
            self.mean.get(),
        )

    def set(self, n: int) -> None:
        """Replace everything."""
        self.clear()
        values = self.expected(n)
        self.hits.update(values[0])
        self.box.update(values[1])
        self.anything.update(values[2])
        self.elements.update(values[3])
        self.boxes.update(values[4])
        self.counts.put_all(values[5])
        self.by_any.put_all(values[6])
        self._fold(n)

    def change_in_place(self, n: int) -> None:
        """Do as `set`, by changing the objects that are handed out."""
        self.hits.update(n)
        box: Any = self.box.value()
        box["n"] = n
        self.box.update(box)
        anything: Any = self.anything.value()
        anything[0] = anything[1].hits = n
        self.anything.update(anything)
        self.elements.update([n, *self.elements.get()[1:]])
        first, second = self.boxes.get()
        first[0] = n
        second.clear()
        second.add(n)
        self.boxes.update([first, second])
        self.counts["n"] = n
        value: Any
        for key, value in self.by_any.items():
            if isinstance(key, tuple):
                self.by_any.remove(key)
                value[0] = n
                self.by_any.put((n, 1), value)
        self.total.clear()
        self.mean.clear()
        self._fold(n)

    def _fold(self, n: int) -> None:
        for value in (1, n):
            self.total.add(value)
        for value in (0, n):
            self.mean.add(value)

    def clear(self) -> None:
        """Remove everything."""
        for state in vars(self).values():
            state.clear()


class BackendContract(ABC):
    """What the contracts of a backend share; a subclass says how a backend is made.

    Attributes:
        form: of the snapshots.
    """

    form: ClassVar[SnapshotForm] = SnapshotForm.FULL

    @abstractmethod
    def make_backend(
        self, groups: KeyGroupRange, max_parallelism: int, cursor: KeyCursor, *, clock: Clock
    ) -> KeyedStateBackend:
        """Return an empty backend."""

    @abstractmethod
    def count_held(self, backend: KeyedStateBackend, name: str) -> int:
        """Return how many keys the backend holds anything for, expired or not."""

    def clean_up(self, backend: KeyedStateBackend) -> None:  # noqa: B027 - not every backend has one
        """Let the backend remove what it removes in the background."""

    def freeze(self, subtask: "Subtask", checkpoint_id: int = 1) -> KeyedSnapshot:
        """Return a snapshot of a subtask, of the kind that the contract is about."""
        return subtask.backend.freeze(checkpoint_id, form=self.form)

    def stored(self, snapshot: KeyedSnapshot) -> MemorySnapshot:
        """Store a snapshot that is encoded to its end."""
        return MemorySnapshot.of(snapshot)

    def finish(self, snapshot: KeyedSnapshot) -> MemorySnapshot:
        """Encode a snapshot to its end and store it."""
        encode(snapshot)
        return self.stored(snapshot)

    def make_subtask(
        self,
        restored: Iterable[MemorySnapshot] = (),
        *,
        subtask: int = 0,
        parallelism: int = 1,
        max_parallelism: int = MAX_PARALLELISM,
        now_ms: int = START_MS,
        own: bool = False,
    ) -> Subtask:
        """Return a subtask of an operator, restored, perhaps from a checkpoint of its own job."""
        groups = groups_of_subtask(subtask, max_parallelism, parallelism)
        cursor, clock = KeyCursor(), ManualClock(now_ms)
        backend = self.make_backend(groups, max_parallelism, cursor, clock=clock)
        backend.restore([stored.open(groups, max_parallelism, own=own) for stored in restored])
        return Subtask(backend, cursor, max_parallelism, clock=clock)

    def assert_empty(self, subtask: Subtask) -> None:
        """Check that nothing is stored, also not an empty list or map."""
        snapshot = subtask.backend.freeze(1)
        self.finish(snapshot)
        assert snapshot.entries == 0

    @pytest.fixture(autouse=True)
    def row(self, request: pytest.FixtureRequest) -> tuple[str, ...]:
        """Names of the rules that the test proves."""
        rules: tuple[str, ...] = getattr(request, "param", ())
        return rules

    @pytest.fixture
    def subtask(self) -> Subtask:
        """A subtask that owns all key groups, at key "k"."""
        subtask = self.make_subtask()
        subtask.at("k")
        return subtask
