"""Operator state as user functions see it: lists of elements and broadcast maps of one subtask.

They belong to the subtask and not to a key, live in plain Python objects, and are encoded as a
whole at each barrier: operator state is small (positions, buffers, rules), unlike keyed state.
Which subtask gets what when the parallelism changes is in `raystream.protocol.redistribution`.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import NoneType
from typing import Any, Generic, NoReturn, TypeVar

from raystream.errors import StateError
from raystream.keys import canonical_key

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_CANONICAL = frozenset({str, int, bytes})
"""Types of map keys that are canonical as they are."""

_MISSING: Any = object()


class OperatorListState(Generic[T]):
    """A `ListState` of one subtask; None is not an element."""

    __slots__ = ("_elements", "_name")

    def __init__(self, name: str, elements: list[T]) -> None:
        self._name = name
        self._elements = elements

    def get(self) -> list[T]:
        """Return the elements in order, as a new list."""
        return self._elements.copy()

    def add(self, element: T) -> None:
        """Append an element.

        Raises:
            StateError: it is None, or, in raw state, anything but bytes.
        """
        self._elements.extend(self._checked((element,)))

    def add_all(self, elements: Iterable[T]) -> None:
        """Append elements, all or none; raises as `add`."""
        self._elements.extend(self._checked(elements))

    def update(self, elements: Iterable[T]) -> None:
        """Replace all elements; raises as `add`, and nothing has changed then."""
        self._elements = self._checked(elements)

    def clear(self) -> None:
        """Remove all elements."""
        self._elements = []

    def _checked(self, elements: Iterable[T]) -> list[T]:
        checked: list[Any] = [None] if elements is None else list(elements)
        if NoneType in set(map(type, checked)):
            raise StateError(
                "list state was given None as an element",
                hint="leave it out, or store a value that stands for nothing",
                state=self._name,
            )
        return checked


class RawState(OperatorListState[bytes]):
    """Bytes that the user encodes: one list per subtask, stored as they are."""

    __slots__ = ()

    def _checked(self, elements: Iterable[bytes]) -> list[bytes]:
        checked = super()._checked(elements)
        others = set(map(type, checked)) - {bytes}
        if others:
            raise StateError(
                "raw state was given something else than bytes",
                hint="encode it first, or use a list state, which does so",
                state=self._name,
                found=sorted(other.__name__ for other in others),
            )
        return checked


class BroadcastStateView(Generic[K, V]):
    """A broadcast map as the side that may not write sees it; values must not be changed in place either.

    Map keys follow the rules of the keys of a stream (`raystream.keys`) and come back in canonical form.
    While iterating, the entry that was just returned may be removed or replaced.
    """

    __slots__ = ("_entries", "_name")

    def __init__(self, name: str, entries: dict[K, V | None]) -> None:
        self._name = name
        self._entries = entries

    def get(self, key: K, default: V | None = None) -> V | None:
        """Return the value of a map key, else `default`."""
        return self._entries.get(_canonical(key), default)

    def contains(self, key: object) -> bool:
        """Return whether the map key is there; also `key in state`."""
        return _canonical(key) in self._entries

    def items(self) -> Iterator[tuple[K, V | None]]:
        """Return an iterator over the entries."""
        for key in list(self._entries):
            value = self._entries.get(key, _MISSING)
            if value is not _MISSING:
                yield key, value

    def keys(self) -> Iterator[K]:
        """Return an iterator over the map keys; also `iter(state)`."""
        return (key for key, _ in self.items())

    def values(self) -> Iterator[V | None]:
        """Return an iterator over the values."""
        return (value for _, value in self.items())

    def is_empty(self) -> bool:
        """Return whether there is no entry."""
        return not self._entries

    def __getitem__(self, key: K) -> V | None:
        return self._entries[_canonical(key)]

    __contains__ = contains
    __iter__ = keys

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V | None) -> None:
        """Refuse to set a value; raises `StateError`, as everything that writes does."""
        self._refuse()

    def put_all(self, entries: Mapping[K, V | None] | Iterable[tuple[K, V | None]]) -> None:
        """Refuse to set values."""
        self._refuse()

    def remove(self, key: K) -> None:
        """Refuse to remove a map key."""
        self._refuse()

    def clear(self) -> None:
        """Refuse to remove all entries."""
        self._refuse()

    def __setitem__(self, key: K, value: V | None) -> None:
        self.put(key, value)

    def __delitem__(self, key: K) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StateError(
            "broadcast state is written where it can only be read",
            hint="write it in process_broadcast_element(value, ctx)",
            state=self._name,
        )


class BroadcastState(BroadcastStateView[K, V]):
    """A broadcast map as the broadcast side sees it; a `MapState` of the subtask.

    It is the same in all subtasks as long as what is written follows from the broadcast records alone.
    """

    __slots__ = ()

    def put(self, key: K, value: V | None) -> None:
        """Set the value of a map key."""
        self._entries[_canonical(key)] = value

    def put_all(self, entries: Mapping[K, V | None] | Iterable[tuple[K, V | None]]) -> None:
        """Set the values of several map keys, all or none."""
        pairs = entries.items() if isinstance(entries, Mapping) else entries
        self._entries.update({_canonical(key): value for key, value in pairs})

    def remove(self, key: K) -> None:
        """Remove a map key; one that is not there is left alone."""
        self._entries.pop(_canonical(key), None)

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()

    def __delitem__(self, key: K) -> None:
        del self._entries[_canonical(key)]

    def view(self) -> BroadcastStateView[K, V]:
        """Return the same map for the side that may not write."""
        return BroadcastStateView(self._name, self._entries)


def _canonical(key: object) -> Any:
    return key if type(key) in _CANONICAL else canonical_key(key)
