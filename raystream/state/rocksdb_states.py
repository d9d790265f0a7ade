"""The state objects of the RocksDB backend.

As those of the heap backend they look up `tables[cursor.group][cursor.current_key]`; what is not in the
cache, and what is written when, is the business of the tables (`raystream.state.rocksdb_tables`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, NoReturn, TypeVar

from raystream.keygroup import KeyGroupRange
from raystream.keys import canonical_key
from raystream.state.cursor import Cursor
from raystream.state.heap_tables import Guard, table_list
from raystream.state.list_elements import checked_elements, none_refused
from raystream.state.rocksdb_collections import ABSENT
from raystream.state.rocksdb_tables import CachedTable

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_CANONICAL = frozenset({str, int, bytes})
"""Types of map keys that are canonical as they are."""

_MISSING: Any = object()

Tables = list[Any]
"""The table of the state at each key group of its own; guards at the others and at -1."""


class RefusingTable:
    """Stands for a table where no entry may be read or written; every access is an error."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def _refuse(self, key: Any, *_: object) -> NoReturn:
        self._guard.refuse(key)

    __getitem__ = __setitem__ = discard = _refuse
    elements = append = replace = _refuse
    value = put = put_all = entries = _refuse


def tables_of(table: CachedTable, groups: KeyGroupRange, max_parallelism: int) -> Tables:
    """Return the table of a state at each of its own key groups, what refuses elsewhere."""
    return [
        RefusingTable(own) if isinstance(own, Guard) else table for own in table_list(groups, max_parallelism)
    ]


class RocksDbValueState(Generic[T]):
    """A `ValueState` in a `SingleTable`."""

    __slots__ = ("_cursor", "_fresh_default", "_tables")

    def __init__(self, tables: Tables, cursor: Cursor, fresh_default: Callable[[], T | None]) -> None:
        self._tables = tables
        self._cursor = cursor
        self._fresh_default = fresh_default

    def value(self) -> T | None:
        cursor = self._cursor
        value: T | None = self._tables[cursor.group][cursor.current_key]
        return self._fresh_default() if value is None else value

    def update(self, value: T | None) -> None:
        cursor = self._cursor
        key = cursor.current_key
        table = self._tables[cursor.group]
        table[key] = value
        table.dirty[key] = None

    def clear(self) -> None:
        cursor = self._cursor
        self._tables[cursor.group].discard(cursor.current_key)


class RocksDbListState(Generic[T]):
    """A `ListState` in a `ListTable`."""

    __slots__ = ("_cursor", "_name", "_tables")

    def __init__(self, name: str, tables: Tables, cursor: Cursor) -> None:
        self._name = name
        self._tables = tables
        self._cursor = cursor

    def get(self) -> list[T]:
        cursor = self._cursor
        elements: list[T] = self._tables[cursor.group].elements(cursor.current_key)
        return elements

    def add(self, element: T) -> None:
        if element is None:
            raise none_refused(self._name)
        cursor = self._cursor
        self._tables[cursor.group].append(cursor.current_key, (element,))

    def add_all(self, elements: Iterable[T]) -> None:
        added = checked_elements(self._name, elements)
        cursor = self._cursor
        self._tables[cursor.group].append(cursor.current_key, added)

    def update(self, elements: Iterable[T]) -> None:
        replacement = checked_elements(self._name, elements)
        cursor = self._cursor
        self._tables[cursor.group].replace(cursor.current_key, replacement)

    def clear(self) -> None:
        cursor = self._cursor
        self._tables[cursor.group].discard(cursor.current_key)


class RocksDbMapState(Generic[K, V]):
    """A `MapState` in a `MapTable`."""

    __slots__ = ("_cursor", "_tables")

    def __init__(self, tables: Tables, cursor: Cursor) -> None:
        self._tables = tables
        self._cursor = cursor

    def get(self, key: K, default: V | None = None) -> V | None:
        cursor = self._cursor
        value: Any = self._tables[cursor.group].value(cursor.current_key, _canonical(key))
        return default if value is ABSENT else value

    def put(self, key: K, value: V | None) -> None:
        cursor = self._cursor
        self._tables[cursor.group].put(cursor.current_key, _canonical(key), value)

    def put_all(self, entries: Mapping[K, V | None] | Iterable[tuple[K, V | None]]) -> None:
        pairs = entries.items() if isinstance(entries, Mapping) else entries
        added = {_canonical(key): value for key, value in pairs}
        cursor = self._cursor
        self._tables[cursor.group].put_all(cursor.current_key, added)

    def remove(self, key: K) -> None:
        cursor = self._cursor
        self._tables[cursor.group].put(cursor.current_key, _canonical(key), ABSENT)

    def contains(self, key: object) -> bool:
        cursor = self._cursor
        return self._tables[cursor.group].value(cursor.current_key, _canonical(key)) is not ABSENT

    def items(self) -> Iterator[tuple[K, V | None]]:
        cursor = self._cursor
        table, key = self._tables[cursor.group], cursor.current_key
        return _live_items(table, key, list(table.entries(key)))

    def keys(self) -> Iterator[K]:
        return (key for key, _ in self.items())

    def values(self) -> Iterator[V | None]:
        return (value for _, value in self.items())

    def is_empty(self) -> bool:
        return not self._entries()

    def clear(self) -> None:
        cursor = self._cursor
        self._tables[cursor.group].discard(cursor.current_key)

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
        return len(self._entries())

    def _entries(self) -> dict[Any, Any]:
        cursor = self._cursor
        entries: dict[Any, Any] = self._tables[cursor.group].entries(cursor.current_key)
        return entries


def _canonical(key: object) -> Any:
    return key if type(key) in _CANONICAL else canonical_key(key)


def _live_items(table: Any, key: Any, map_keys: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the entries that are there when their turn comes; the map may change meanwhile."""
    for map_key in map_keys:
        value = table.value(key, map_key)
        if value is not ABSENT:
            yield map_key, value
