"""Tables of lists and maps in front of RocksDB (`raystream.state.rocksdb_tables`).

An element of a list and an entry of a map is an item of its own: adding to a list or putting into a map
reads nothing and rewrites nothing.  The content of a key is an object that says what is known of it.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raystream.keys import decode_key
from raystream.state.chunk_codec import checked_map_key
from raystream.state.immutable import immutable
from raystream.state.rocksdb_items import MAP_KEY_LENGTH, POSITION, map_suffix
from raystream.state.rocksdb_tables import MISSING, CachedTable, Change, Early, Layer
from raystream.state.value_types import ValueTypeMismatch

KEPT_ITEMS_MAX = 4096
"""A content of more items is not kept when it goes out of use, but read again item by item."""

ABSENT: Any = object()
"""Stands for a map key that is known not to be there."""


class Elements:
    """What is known of one list.

    Attributes:
        written: elements in RocksDB or on the way there; None when they were not read.
        positions: of these; None when they were not read.
        tail: elements added since, which are dirty.
        replaced: everything before `tail` is gone; `positions` says what is to be deleted.
    """

    __slots__ = ("positions", "replaced", "tail", "written")

    def __len__(self) -> int:
        return len(self.written or ())

    def __init__(self) -> None:
        self.written: list[Any] | None = None
        self.positions: list[int] | None = None
        self.tail: list[Any] = []
        self.replaced = False


class CollectionTable(CachedTable):
    """What tables of lists and of maps have in common: they count items, not keys."""

    _items = 0
    """Items of the present generation that are clean."""
    _added = 0
    """Items that became dirty since the last freeze."""

    @property
    def item_count(self) -> int:
        return self._items + self._added + len(self)

    @property
    def dirty_count(self) -> int:
        return self._added + len(self.dirty)

    def __missing__(self, key: Any) -> Any:
        content = super().__missing__(key)
        self._items += len(content)
        return content

    def freeze(self) -> Layer | None:
        self._items += self._added
        self._added = 0
        return super().freeze()

    def _move_dirty(self, layer: Layer) -> None:
        for key in self.dirty:
            layer.pending[key], fixed = self._pending(self[key])
            if not fixed:
                layer.away[key] = self.pop(key)

    @abstractmethod
    def _pending(self, content: Any) -> tuple[Any, bool]:
        """Return what is to be written of a dirty content, and whether nobody can change that."""

    def rotate(self) -> None:
        super().rotate()
        self.old = {key: content for key, content in self.old.items() if len(content) <= KEPT_ITEMS_MAX}
        self._items = 0


class ListTable(CollectionTable):
    """Lists by key; none is None."""

    def elements(self, key: Any) -> list[Any]:
        """Return the elements of a key as a new list."""
        content: Elements = self[key]
        if content.written is None:
            self._read(key, content)
        assert content.written is not None
        return content.written + content.tail

    def append(self, key: Any, elements: Iterable[Any]) -> None:
        """Add elements at the end."""
        content: Elements = self[key]
        before = len(content.tail)
        content.tail.extend(elements)
        self._added += len(content.tail) - before
        self.dirty[key] = None

    def replace(self, key: Any, elements: list[Any]) -> None:
        """Let the list of a key consist of these elements."""
        content: Elements = self[key]
        content.written = []
        content.tail = elements
        content.replaced = True
        self._added += len(elements)
        self.dirty[key] = None

    def discard(self, key: Any) -> Any:
        self.replace(key, [])
        return None

    def _load(self, key: Any) -> Elements:
        return Elements()

    def _read(self, key: Any, content: Elements) -> None:
        while self.frozen:  # What is on its way is not in RocksDB, and not in the content either.
            self.write_step(self.frozen[0])
        body = self.stored_keys[key]
        entries = list(self.store.scan(body))
        content.positions = [POSITION.unpack_from(stored, len(body))[0] for stored, _ in entries]
        content.written = self.codec.decode([item for _, item in entries])
        self._items += len(entries)

    def _pending(self, content: Elements) -> tuple[Any, bool]:
        tail = content.tail
        positions = list(range(self.positions, self.positions + len(tail)))
        self.positions += len(tail)
        gone = content.positions if content.replaced else []
        if content.replaced:
            content.positions = positions
        elif content.positions is not None:
            content.positions = content.positions + positions
        if content.written is not None:
            content.written = content.written + tail
        content.tail, content.replaced = [], False
        return (gone, positions, tail), all(map(immutable, tail))

    def _changes(self, entries: Sequence[tuple[Any, Any]]) -> list[Change]:
        stored = self.stored_keys
        changes: list[Change] = []
        keys: list[bytes] = []
        elements: list[Any] = []
        for key, (gone, positions, tail) in entries:
            body = stored[key]
            if gone is None:
                changes += self._wipe(body)
            elif gone:
                changes += [(body + POSITION.pack(position), None) for position in gone]
            keys += [body + POSITION.pack(position) for position in positions]
            elements += tail
        return [*changes, *zip(keys, self.codec.encode(elements), strict=True)]

    def _early(self, key: Any, pending: Any) -> Early:
        gone, positions, tail = pending
        wiped = self.stored_keys[key] if gone is None else None
        return Early(wiped, self._changes([(key, (gone or (), positions, tail))]))

    def changes_of(self, keys: Sequence[Any], contents: Sequence[Any]) -> list[Change]:
        entries = []
        for key, elements in zip(keys, contents, strict=True):
            positions = range(self.positions, self.positions + len(elements))
            self.positions = positions.stop
            entries.append((key, ((), positions, elements)))
        return self._changes(entries)

    def expire(self, key: Any, suffixes: Iterable[bytes], cutoff_ms: int) -> None:
        pairs = self.elements(key)
        left = [pair for pair in pairs if pair[0] > cutoff_ms]
        if len(left) < len(pairs):
            self.replace(key, left)


class Entries:
    """What is known of one map.

    Attributes:
        known: values by map key; `ABSENT` for one that is not there.
        complete: no other map keys are there.
        changed: map keys that are dirty.
        cleared: everything that is in RocksDB is to be deleted first.
    """

    __slots__ = ("changed", "cleared", "complete", "known")

    def __len__(self) -> int:
        return len(self.known)

    def __init__(self) -> None:
        self.known: dict[Any, Any] = {}
        self.complete = False
        self.changed: dict[Any, None] = {}
        self.cleared = False


class MapTable(CollectionTable):
    """Maps by key; none is None."""

    def value(self, key: Any, map_key: Any) -> Any:
        """Return the value of a map key, or `ABSENT`."""
        content: Entries = self[key]
        value = content.known.get(map_key, MISSING)
        if value is not MISSING:
            return value
        if content.complete:
            return ABSENT
        item = self.store.get(self.stored_keys[key] + map_suffix(map_key))
        value = content.known[map_key] = ABSENT if item is None else self.codec.decode((item,))[0]
        self._items += 1
        return value

    def put(self, key: Any, map_key: Any, value: Any) -> None:
        """Set the value of a map key; `ABSENT` removes it."""
        content: Entries = self[key]
        content.known[map_key] = value
        content.changed[map_key] = None
        self._added += 1
        self.dirty[key] = None

    def put_all(self, key: Any, entries: Mapping[Any, Any]) -> None:
        """Set the values of several map keys."""
        if not entries:
            return
        content: Entries = self[key]
        content.known.update(entries)
        content.changed.update(dict.fromkeys(entries))
        self._added += len(entries)
        self.dirty[key] = None

    def entries(self, key: Any) -> dict[Any, Any]:
        """Return all entries of a key, as a new dict."""
        content: Entries = self[key]
        if not content.complete:
            self._read(key, content)
        return {map_key: value for map_key, value in content.known.items() if value is not ABSENT}

    def discard(self, key: Any) -> Any:
        content: Entries = self[key]
        content.known = {}
        content.changed = {}
        content.complete = content.cleared = True
        self.dirty[key] = None
        return None

    def _load(self, key: Any) -> Entries:
        return Entries()

    def _read(self, key: Any, content: Entries) -> None:
        body = self.stored_keys[key]
        entries = list(self.store.scan(body))
        values = self.codec.decode([item for _, item in entries])
        map_keys = [map_key_of(stored, len(body)) for stored, _ in entries]
        # What is known may be newer than what is stored.
        content.known = {**dict(zip(map_keys, values, strict=True)), **content.known}
        content.complete = True
        self._items += len(entries)

    def _pending(self, content: Entries) -> tuple[Any, bool]:
        known = content.known
        changes = [(map_key, known[map_key]) for map_key in content.changed]
        pending = (content.cleared, changes)
        content.cleared = False
        content.changed = {}
        if content.complete:
            for map_key, value in changes:
                if value is ABSENT:
                    del known[map_key]
        return pending, all(value is ABSENT or immutable(value) for _, value in changes)

    def _changes(self, entries: Sequence[tuple[Any, Any]]) -> list[Change]:
        stored = self.stored_keys
        changes: list[Change] = []
        put: list[tuple[bytes, Any]] = []
        for key, (cleared, changed) in entries:
            body = stored[key]
            if cleared:
                changes += self._wipe(body)
            for map_key, value in changed:
                if value is ABSENT:
                    changes.append((body + map_suffix(map_key), None))
                else:
                    put.append((body, (map_key, value)))
        return changes + self._puts(put)

    def _puts(self, put: Sequence[tuple[bytes, tuple[Any, Any]]]) -> list[Change]:
        if not put:
            return []
        items = self.codec.encode([value for _, (_, value) in put])
        declared = checked_map_key(self.descriptor)
        if declared is not None:
            for n, (_, (map_key, value)) in enumerate(put):
                if type(map_key) is not declared:
                    error = ValueTypeMismatch(f"{declared.__name__} as map key", type(map_key).__name__)
                    items[n] = self.codec.mistyped(value, error)
        return [
            (body + map_suffix(map_key), item) for (body, (map_key, _)), item in zip(put, items, strict=True)
        ]

    def _early(self, key: Any, pending: Any) -> Early:
        cleared, changed = pending
        return Early(self.stored_keys[key] if cleared else None, self._changes([(key, (False, changed))]))

    def changes_of(self, keys: Sequence[Any], contents: Sequence[Any]) -> list[Change]:
        stored = self.stored_keys
        return self._puts(
            [
                (stored[key], entry)
                for key, content in zip(keys, contents, strict=True)
                for entry in content.items()
            ]
        )

    def expire(self, key: Any, suffixes: Iterable[bytes], cutoff_ms: int) -> None:
        for suffix in suffixes:
            map_key = map_key_of(suffix, 0)
            pair = self.value(key, map_key)
            if pair is not ABSENT and pair[0] <= cutoff_ms:
                self.put(key, map_key, ABSENT)


def map_key_of(stored: bytes, start: int) -> Any:
    """Return the map key in a stored key whose suffix begins at `start`."""
    return decode_key(stored[start : -MAP_KEY_LENGTH.size])
