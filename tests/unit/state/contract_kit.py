"""What the contracts of keyed state backends are written with."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.keys import KeyGroupCache, canonical_key
from raystream.state.backend import KeyedSnapshot, KeyedStateBackend
from raystream.state.cursor import NO_KEY_GROUP, KeyCursor
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.snapshot_format import LoadedSnapshot, load_snapshot

MAX_PARALLELISM = 16

HITS = ValueStateDescriptor("hits", int)
BOX = ValueStateDescriptor("box", dict[str, int])
ANYTHING = ValueStateDescriptor("anything")
ELEMENTS = ListStateDescriptor("elements", int)
BOXES = ListStateDescriptor("boxes")
COUNTS = MapStateDescriptor("counts", str, int)
BY_ANY = MapStateDescriptor("by any")

Loader = Callable[[KeyGroupRange, int], LoadedSnapshot]


def never() -> bool:
    return False


def at_once() -> bool:
    return True


@dataclasses.dataclass
class Visit:
    path: str
    hits: int = 0


class Subtask:
    """A backend with its cursor, as an operator has them."""

    def __init__(
        self, backend: KeyedStateBackend, cursor: KeyCursor, max_parallelism: int = MAX_PARALLELISM
    ) -> None:
        self.backend = backend
        self.cursor = cursor
        self._cache = KeyGroupCache(max_parallelism)

    def at(self, key: Any) -> None:
        """Make `key` the current key."""
        self.cursor.current_key = canonical_key(key)
        self.cursor.group = self._cache[self.cursor.current_key]

    def leave(self) -> None:
        self.cursor.current_key, self.cursor.group = None, NO_KEY_GROUP

    def group(self, key: Any) -> int:
        return self._cache[canonical_key(key)]


def finish(snapshot: KeyedSnapshot) -> Loader:
    """Encode a snapshot to its end and return a way to load it."""
    assert snapshot.advance(never)
    return loader(snapshot.blob())


def loader(pieces: Iterable[bytes]) -> Loader:
    blob = b"".join(pieces)

    def load(groups: KeyGroupRange, max_parallelism: int) -> LoadedSnapshot:
        return load_snapshot(lambda at, n: blob[at : at + n], len(blob), groups, max_parallelism)

    return load


def register(backend: KeyedStateBackend, descriptor: Any) -> Any:
    """Register a descriptor of any kind."""
    match descriptor:
        case ValueStateDescriptor():
            return backend.value_state(descriptor)
        case ListStateDescriptor():
            return backend.list_state(descriptor)
        case _:
            return backend.map_state(descriptor)


class Contents:
    """States of all kinds, with values that can and that cannot be changed in place."""

    def __init__(self, backend: KeyedStateBackend) -> None:
        self.hits = backend.value_state(HITS)
        self.box = backend.value_state(BOX)
        self.anything = backend.value_state(ANYTHING)
        self.elements = backend.list_state(ELEMENTS)
        self.boxes = backend.list_state(BOXES)
        self.counts = backend.map_state(COUNTS)
        self.by_any = backend.map_state(BY_ANY)

    @staticmethod
    def expected(n: int) -> tuple[Any, ...]:
        return n, {"n": n}, [n, Visit("x", n)], [n, 1], [[n], {n}], {"n": n}, {(n, 1): [n], "e": None}

    def get(self) -> tuple[Any, ...]:
        return (
            self.hits.value(),
            self.box.value(),
            self.anything.value(),
            self.elements.get(),
            self.boxes.get(),
            dict(self.counts.items()),
            dict(self.by_any.items()),
        )

    def set(self, n: int) -> None:
        values = self.expected(n)
        self.hits.update(values[0])
        self.box.update(values[1])
        self.anything.update(values[2])
        self.elements.update(values[3])
        self.boxes.update(values[4])
        self.counts.clear()
        self.counts.put_all(values[5])
        self.by_any.clear()
        self.by_any.put_all(values[6])

    def change_in_place(self, n: int) -> None:
        """Do as `set`, by changing the objects that are handed out."""
        self.hits.update(n)
        box = self.box.value()
        box["n"] = n
        self.box.update(box)
        anything = self.anything.value()
        anything[0] = anything[1].hits = n
        self.anything.update(anything)
        self.elements.update([n, *self.elements.get()[1:]])
        first, second = self.boxes.get()
        first[0] = n
        second.clear()
        second.add(n)
        self.boxes.update([first, second])
        self.counts["n"] = n
        for key, value in self.by_any.items():
            if isinstance(key, tuple):
                self.by_any.remove(key)
                value[0] = n
                self.by_any.put((n, 1), value)

    def clear(self) -> None:
        for state in (
            self.hits, self.box, self.anything, self.elements, self.boxes, self.counts, self.by_any,
        ):  # fmt: skip
            state.clear()


class BackendContract(ABC):
    """What the contracts of a backend share; a subclass says how a backend is made."""

    @abstractmethod
    def make_backend(
        self, groups: KeyGroupRange, max_parallelism: int, cursor: KeyCursor
    ) -> KeyedStateBackend:
        """Return an empty backend."""

    def make_subtask(
        self,
        restored: Iterable[Loader] = (),
        *,
        subtask: int = 0,
        parallelism: int = 1,
        max_parallelism: int = MAX_PARALLELISM,
    ) -> Subtask:
        groups = groups_of_subtask(subtask, max_parallelism, parallelism)
        cursor = KeyCursor()
        backend = self.make_backend(groups, max_parallelism, cursor)
        backend.restore([load(groups, max_parallelism) for load in restored])
        return Subtask(backend, cursor, max_parallelism)

    @pytest.fixture
    def subtask(self) -> Subtask:
        subtask = self.make_subtask()
        subtask.at("k")
        return subtask
