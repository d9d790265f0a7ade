"""The state objects of the heap backend.

They are on the path of every record, so each access is a lookup in two dicts and nothing
more: `tables[cursor.group][cursor.current_key]`.  What happens when there is no current
key, nothing stored, or a frozen table below, is decided by the tables themselves
(`raystream.state.heap_tables`); nothing of it is visible here.

Lists and maps belong to the state object and are never handed out, only their items.
The content of a key without items is removed, so that it takes no memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from raystream.keys import canonical_key
from raystream.state.cursor import Cursor
from raystream.state.heap_tables import TableList
from raystream.state.list_elements import checked_elements, none_refused

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_CANONICAL = frozenset({str, int, bytes})
"""Types of map keys that are canonical as they are."""

_MISSING: Any = object()


class HeapValueState(Generic[T]):
    """A `ValueState` in dicts."""

    __slots__ = ("_cursor", "_fresh_default", "_tables")

    def __init__(self, tables: TableList, cursor: Cursor, fresh_default: Callable[[], T | None]) -> None:
        self._tables = tables
        self._cursor = cursor
        self._fresh_default = fresh_default

    def value(self) -> T | None:
        cursor = self._cursor
        value = self._tables[cursor.group][cursor.current_key]
        return self._fresh_default() if value is None else value

    def update(self, value: T | None) -> None:
        cursor = self._cursor
        if value is None:
            self._tables[cursor.group].discard(cursor.current_key)
        else:
            self._tables[cursor.group][cursor.current_key] = value

    def clear(self) -> None:
        cursor = self._cursor
        self._tables[cursor.group].discard(cursor.current_key)


class HeapListState(Generic[T]):
    """A `ListState` in dicts of lists."""

    __slots__ = ("_cursor", "_name", "_tables")

    def __init__(self, name: str, tables: TableList, cursor: Cursor) -> None:
        self._name = name
        self._tables = tables
        self._cursor = cursor

    def get(self) -> list[T]:
        cursor = self._cursor
        elements = self._tables[cursor.group][cursor.current_key]
        return [] if elements is None else elements.copy()

    def add(self, element: T) -> None:
        if element is None:
            raise none_refused(self._name)
        cursor = self._cursor
        table = self._tables[cursor.group]
        elements = table[cursor.current_key]
        if elements is None:
            table[cursor.current_key] = [element]
        else:
            elements.append(element)

    def add_all(self, elements: Iterable[T]) -> None:
        added = checked_elements(self._name, elements)
        cursor = self._cursor
        table = self._tables[cursor.group]
        present = table[cursor.current_key]
        if present is not None:
            present.extend(added)
        elif added:
            table[cursor.current_key] = added

    def update(self, elements: Iterable[T]) -> None:
        replacement = checked_elements(self._name, elements)
        cursor = self._cursor
        if replacement:
            self._tables[cursor.group][cursor.current_key] = replacement
        else:
            self._tables[cursor.group].discard(cursor.current_key)

    def clear(self) -> None:
        cursor = self._cursor
        self._tables[cursor.group].discard(cursor.current_key)


class HeapMapState(Generic[K, V]):
    """A `MapState` in dicts of dicts."""

    __slots__ = ("_cursor", "_tables")

    def __init__(self, tables: TableList, cursor: Cursor) -> None:
        self._tables = tables
        self._cursor = cursor

    def get(self, key: K, default: V | None = None) -> V | None:
        map_key = key if type(key) in _CANONICAL else canonical_key(key)
        cursor = self._cursor
        entries: dict[Any, V | None] | None = self._tables[cursor.group][cursor.current_key]
        return default if entries is None else entries.get(map_key, default)

    def put(self, key: K, value: V | None) -> None:
        map_key = key if type(key) in _CANONICAL else canonical_key(key)
        cursor = self._cursor
        table = self._tables[cursor.group]
        entries = table[cursor.current_key]
        if entries is None:
            table[cursor.current_key] = {map_key: value}
        else:
            entries[map_key] = value

    def put_all(self, entries: Mapping[K, V | None] | Iterable[tuple[K, V | None]]) -> None:
        pairs = entries.items() if isinstance(entries, Mapping) else entries
        added = {_canonical(key): value for key, value in pairs}
        cursor = self._cursor
        table = self._tables[cursor.group]
        present = table[cursor.current_key]
        if present is not None:
            present.update(added)
        elif added:
            table[cursor.current_key] = added

    def remove(self, key: K) -> None:
        map_key = key if type(key) in _CANONICAL else canonical_key(key)
        cursor = self._cursor
        table = self._tables[cursor.group]
        entries = table[cursor.current_key]
        if entries is not None:
            entries.pop(map_key, None)
            if not entries:
                table.discard(cursor.current_key)

    def contains(self, key: object) -> bool:
        entries = self._entries()
        map_key = _canonical(key)
        return entries is not None and map_key in entries

    def items(self) -> Iterator[tuple[K, V | None]]:
        return _live_items(self._entries())

    def keys(self) -> Iterator[K]:
        return (key for key, _ in _live_items(self._entries()))

    def values(self) -> Iterator[V | None]:
        return (value for _, value in _live_items(self._entries()))

    def is_empty(self) -> bool:
        return self._entries() is None

    def clear(self) -> None:
        cursor = self._cursor
        live = self._tables[cursor.group].discard(cursor.current_key)
        if live is not None:
            live.clear()  # An iterator that is under way ends here.

    def __getitem__(self, key: K) -> V | None:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    __setitem__ = put

    def __delitem__(self, key: K) -> None:
        if not self.contains(key):
            raise KeyError(key)
        self.remove(key)

    __contains__ = contains
    __iter__ = keys

    def __len__(self) -> int:
        entries = self._entries()
        return 0 if entries is None else len(entries)

    def _entries(self) -> dict[Any, Any] | None:
        cursor = self._cursor
        entries: dict[Any, Any] | None = self._tables[cursor.group][cursor.current_key]
        return entries


def _canonical(key: object) -> Any:
    return key if type(key) in _CANONICAL else canonical_key(key)


def _live_items(entries: dict[Any, Any] | None) -> Iterator[tuple[Any, Any]]:
    """Yield the entries that are there when their turn comes; the dict may change meanwhile."""
    if entries is None:
        return
    for key in list(entries):
        value = entries.get(key, _MISSING)
        if value is not _MISSING:
            yield key, value
