"""Value, list and map state with a time to live, for every backend.

Each wraps a state of the backend that holds pairs `(written_ms, value)` and makes them values again:
what has expired is left out, or returned once where the declaration allows that, and removed where
it is found.  Every access ends with a step of the backend's own clean-up (`sweep`), which looks at
some keys of the state.  (It ends with it so that the access itself sees what it came for.)

Questions (`contains`, `len`, `is_empty`, `keys`) neither renew an entry nor count as the one read that
may see it expired.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from raystream.state.backend import ListState, MapState, ValueState
from raystream.state.list_elements import checked_elements
from raystream.state.ttl import Expiry, StateTtl, TtlUpdate, TtlVisibility

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

Pair = tuple[int, T]
"""Time of writing in ms since the epoch, and value."""

_MISSING: Any = object()


class Lifetime:
    """What the wrappers of one state share: its declaration, its time, its clean-up.

    Args:
        ttl: as declared.
        expiry: the same with the present time.
        sweep: looks at some keys of the state and removes what has expired.
    """

    __slots__ = ("cutoff_ms", "renewed", "returned_once", "sweep", "written_ms")

    def __init__(self, ttl: StateTtl, expiry: Expiry, sweep: Callable[[], None]) -> None:
        self.written_ms = expiry.written_ms
        self.cutoff_ms = expiry.cutoff_ms
        self.sweep = sweep
        self.renewed = ttl.update is TtlUpdate.ON_READ_AND_WRITE
        """Reads renew."""
        self.returned_once = ttl.visibility is TtlVisibility.RETURN_EXPIRED_IF_NOT_CLEANED_UP
        """The first read after a value has expired returns it."""


class TtlValueState(Generic[T]):
    """A `ValueState` with a time to live."""

    __slots__ = ("_fresh_default", "_life", "_pairs")

    def __init__(
        self, pairs: ValueState[Pair[T]], life: Lifetime, fresh_default: Callable[[], T | None]
    ) -> None:
        self._pairs = pairs
        self._life = life
        self._fresh_default = fresh_default

    def value(self) -> T | None:
        life = self._life
        pair = self._pairs.value()
        if pair is not None:
            if pair[0] <= life.cutoff_ms():
                self._pairs.clear()
                pair = pair if life.returned_once else None
            elif life.renewed:
                self._pairs.update((max(pair[0], life.written_ms()), pair[1]))
        life.sweep()
        return self._fresh_default() if pair is None else pair[1]

    def update(self, value: T | None) -> None:
        self._pairs.update(None if value is None else (self._life.written_ms(), value))
        self._life.sweep()

    def clear(self) -> None:
        self._pairs.clear()


class TtlListState(Generic[T]):
    """A `ListState` whose elements have a time to live."""

    __slots__ = ("_life", "_name", "_pairs")

    def __init__(self, name: str, pairs: ListState[Pair[T]], life: Lifetime) -> None:
        self._name = name
        self._pairs = pairs
        self._life = life

    def get(self) -> list[T]:
        life = self._life
        pairs = self._pairs.get()
        cutoff_ms = life.cutoff_ms()
        alive = [pair for pair in pairs if pair[0] > cutoff_ms]
        if life.renewed:
            read_ms = life.written_ms()
            self._pairs.update([(max(written_ms, read_ms), value) for written_ms, value in alive])
        elif len(alive) < len(pairs):
            self._pairs.update(alive)
        life.sweep()
        return [value for _, value in (pairs if life.returned_once else alive)]

    def add(self, element: T) -> None:
        self.add_all((element,))

    def add_all(self, elements: Iterable[T]) -> None:
        self._pairs.add_all(self._paired(elements))
        self._life.sweep()

    def update(self, elements: Iterable[T]) -> None:
        self._pairs.update(self._paired(elements))
        self._life.sweep()

    def clear(self) -> None:
        self._pairs.clear()

    def _paired(self, elements: Iterable[T]) -> list[Pair[T]]:
        checked = checked_elements(self._name, elements)
        written_ms = self._life.written_ms()
        return [(written_ms, element) for element in checked]


class TtlMapState(Generic[K, V]):
    """A `MapState` whose entries have a time to live."""

    __slots__ = ("_life", "_pairs")

    def __init__(self, pairs: MapState[K, Pair[V | None]], life: Lifetime) -> None:
        self._pairs = pairs
        self._life = life

    def get(self, key: K, default: V | None = None) -> V | None:
        pair = self._pairs.get(key)
        value: V | None = _MISSING if pair is None else self._read(key, pair)
        self._life.sweep()
        return default if value is _MISSING else value

    def put(self, key: K, value: V | None) -> None:
        self._pairs.put(key, (self._life.written_ms(), value))
        self._life.sweep()

    def put_all(self, entries: Mapping[K, V | None] | Iterable[tuple[K, V | None]]) -> None:
        written_ms = self._life.written_ms()
        pairs = entries.items() if isinstance(entries, Mapping) else entries
        self._pairs.put_all([(key, (written_ms, value)) for key, value in pairs])
        self._life.sweep()

    def remove(self, key: K) -> None:
        self._pairs.remove(key)

    def contains(self, key: object) -> bool:
        pair = self._pairs.get(key)  # type: ignore[arg-type]  # asked of any object, as `in` does
        return pair is not None and self._visible(pair)

    def items(self) -> Iterator[tuple[K, V | None]]:
        return self._alive(self._pairs.items())

    def keys(self) -> Iterator[K]:
        return (key for key, pair in self._pairs.items() if self._visible(pair))

    def values(self) -> Iterator[V | None]:
        return (value for _, value in self.items())

    def is_empty(self) -> bool:
        return not any(map(self._visible, self._pairs.values()))

    def clear(self) -> None:
        self._pairs.clear()

    def __getitem__(self, key: K) -> V | None:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    __setitem__ = put

    def __delitem__(self, key: K) -> None:
        there = self.contains(key)
        self._pairs.remove(key)
        if not there:
            raise KeyError(key)

    __contains__ = contains
    __iter__ = keys

    def __len__(self) -> int:
        return sum(map(self._visible, self._pairs.values()))

    def _visible(self, pair: Pair[V | None] | None) -> bool:
        assert pair is not None, "values of the wrapped map are pairs"
        return self._life.returned_once or pair[0] > self._life.cutoff_ms()

    def _alive(self, pairs: Iterator[tuple[K, Pair[V | None] | None]]) -> Iterator[tuple[K, V | None]]:
        for key, pair in pairs:
            assert pair is not None, "values of the wrapped map are pairs"
            value = self._read(key, pair)
            if value is not _MISSING:
                yield key, value
        self._life.sweep()

    def _read(self, key: K, pair: Pair[V | None]) -> Any:
        """Return the value of an entry that is read, or `_MISSING`; renew or remove the entry."""
        life = self._life
        if pair[0] <= life.cutoff_ms():
            self._pairs.remove(key)
            return pair[1] if life.returned_once else _MISSING
        if life.renewed:
            self._pairs.put(key, (max(pair[0], life.written_ms()), pair[1]))
        return pair[1]
