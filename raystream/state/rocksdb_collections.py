"""Tables of lists and maps in front of RocksDB (`raystream.state.rocksdb_tables`).

An element of a list and an entry of a map is an item of its own: adding to a list or putting into a map
reads nothing and rewrites nothing.

    table      contents                                   changes in a layer
    lists      `Elements`: what is in RocksDB, once read  elements added, behind what is wiped
    maps       `Entries`: what is known of the map        values by map key, behind what is wiped
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from raystream.keys import decode_key
from raystream.state import rocksdb_tables
from raystream.state.chunk_codec import checked_map_key
from raystream.state.immutable import IMMUTABLE_TYPES, immutable
from raystream.state.rocksdb_items import MAP_KEY_LENGTH, POSITION, map_suffix
from raystream.state.rocksdb_tables import CachedTable, Change, Layer
from raystream.state.value_types import ValueTypeMismatch

KEPT_ITEMS_MAX = 4096
"""A content of more items is not kept when it goes out of use, but read again item by item."""

CONTENT_OVERHEAD_BYTES = 300
"""What an empty content takes."""

CHANGE_OVERHEAD_BYTES = 200
"""What a key in a layer takes beside the items."""

ELEMENT_OVERHEAD_BYTES = 60
"""What an element of a list takes beside its encoded size."""

ABSENT: Any = object()
"""Stands for a map key that is known not to be there."""


class CollectionTable(CachedTable):
    """What tables of lists and of maps have in common: they count items, not keys.

    Attributes:
        held: about the number of items in the contents of the present generation.
        added: items that were added to the active layer; one that is added again counts twice.
    """

    held = 0
    added = 0

    @property
    def size_bytes(self) -> int:
        return self.held * self.item_bytes + len(self) * CONTENT_OVERHEAD_BYTES

    def _bytes(self, layer: Layer) -> int:
        keys = len(layer.changes)
        if layer is self.active:
            return keys * CHANGE_OVERHEAD_BYTES + self.added * self.item_bytes
        return (keys - layer.done) * (CHANGE_OVERHEAD_BYTES + layer.items * self.item_bytes // keys)

    def _next_layer(self) -> Layer:
        self.active.items = self.added
        self.added = 0
        return super()._next_layer()

    def cool(self) -> None:
        self.added = sum(map(len, self.dirty.values()))
        super().cool()

    def _step(self, rest: Iterator[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        step: list[tuple[Any, Any]] = []
        left = rocksdb_tables.STEP_KEYS
        while left > 0 and (change := next(rest, None)) is not None:
            step.append(change)
            left -= 1 + len(change[1])
        return step

    def rotate(self) -> None:
        super().rotate()
        for key in [key for key, content in self.old.items() if len(content) > KEPT_ITEMS_MAX]:
            del self.old[key]
        self.held = 0


class Elements(list[Any]):
    """The elements of a list that are in RocksDB.

    Attributes:
        positions: of the elements.
    """

    __slots__ = ("positions",)

    def __init__(self, elements: Iterable[Any], positions: list[int]) -> None:
        super().__init__(elements)
        self.positions = positions


class ListTable(CollectionTable):
    """Lists by key."""

    overhead_bytes = ELEMENT_OVERHEAD_BYTES
    _next_position = 0

    _found: list[tuple[Elements, bool, Sequence[Any], Sequence[int]]]
    """Contents in the cache and what being written makes of them: wiped, elements, positions."""

    def _no_changes(self) -> dict[Any, Any]:
        return defaultdict(list)

    def elements(self, key: Any) -> list[Any]:
        """Return the elements of a key as a new list."""
        if self.frozen:
            self._thaw(key)
        parts: list[Sequence[Any]] = []
        for layer in reversed(self._layers()):
            parts.append(layer.changes.get(key, ()))
            if key in layer.wiped:
                break
        else:
            parts.append(self[key])
        return list(chain.from_iterable(reversed(parts)))

    def append(self, key: Any, elements: Sequence[Any]) -> None:
        """Add elements at the end."""
        if elements:
            self.dirty[key] += elements
            self.added += len(elements)

    def replace(self, key: Any, elements: list[Any]) -> None:
        """Let the list of a key consist of these elements."""
        self.dirty[key] = elements
        self.active.wiped[key] = None
        self.added += len(elements)

    def discard(self, key: Any) -> Any:
        self.replace(key, [])
        return None

    def weigh(self) -> None:
        elements = self.dirty[next(reversed(self.dirty))] if self.dirty else ()
        if elements:
            self.codec.weigh(elements[-1])

    def _thaw(self, key: Any) -> None:
        """Encode what frozen layers have of a key that is about to be handed out, if it can be changed."""
        for layer in self.frozen:
            elements = layer.changes.get(key)
            if elements and key not in layer.encoded and not all(map(immutable, elements)):
                layer.encoded[key] = self.codec.encode(elements)

    def _load(self, key: Any) -> Elements:
        body = self.stored_keys.one(key)
        entries = list(self.store.scan(body))
        self.held += len(entries)
        return Elements(
            self.codec.decode([item for _, item in entries]),
            [POSITION.unpack_from(stored, len(body))[0] for stored, _ in entries],
        )

    def _changes(self, layer: Layer, step: Sequence[tuple[Any, Any]]) -> Iterable[Change]:
        if layer.after is not None and layer.after.wiped:
            again = layer.after.wiped
            step = [change for change in step if change[0] not in again]
        changes: list[Change] = []
        elements: list[Any] = []
        late: list[bytes] = []
        self._found = []
        bodies = self.stored_keys.many([key for key, _ in step])
        for (key, added), body in zip(step, bodies, strict=True):
            positions = self._new_positions(len(added))
            stored = [body + POSITION.pack(position) for position in positions]
            content: Elements | None = self.get(key, self.old.get(key))
            wiped = key in layer.wiped
            if content is not None:
                self._found.append((content, wiped, added, positions))
            if wiped:
                changes += self._wipe(body) if content is None else removed(body, content.positions)
            if key in layer.encoded:
                changes += zip(stored, layer.encoded[key], strict=True)
            else:
                late += stored
                elements += added
        return [*changes, *zip(late, self.codec.encode(elements), strict=True)]

    def _written(self, layer: Layer) -> None:
        for content, wiped, elements, positions in self._found:
            if wiped:
                content.clear()
                content.positions.clear()
            content.extend(elements)
            content.positions.extend(positions)
            self.held += len(elements)
        for key, _ in layer.step:
            layer.changes[key] = ()  # It may be read before all of the layer is written.
            layer.wiped.pop(key, None)

    def _new_positions(self, count: int) -> range:
        positions = range(self._next_position, self._next_position + count)
        self._next_position = positions.stop
        return positions

    def changes_of(self, keys: Sequence[Any], contents: Sequence[Any]) -> Iterable[Change]:
        stored = [
            body + POSITION.pack(position)
            for body, elements in zip(self.stored_keys.many(keys), contents, strict=True)
            for position in self._new_positions(len(elements))
        ]
        return zip(stored, self.codec.encode([one for content in contents for one in content]), strict=True)

    def expire(self, key: Any, suffixes: Iterable[bytes], cutoff_ms: int) -> None:
        pairs = self.elements(key)
        left = [pair for pair in pairs if pair[0] > cutoff_ms]
        if len(left) < len(pairs):
            self.replace(key, left)


def removed(body: bytes, positions: Sequence[int]) -> list[Change]:
    """Return what removes elements of a list from RocksDB."""
    return [(body + POSITION.pack(position), None) for position in positions]


class Entries(dict[Any, Any]):
    """What is known of one map: values by map key, `ABSENT` for one that is not there.

    A map key that is not in it is looked up in RocksDB.

    Attributes:
        complete: no other map keys are there.
    """

    __slots__ = ("_key", "_table", "complete")

    def __init__(self, table: "MapTable", key: Any) -> None:
        super().__init__()
        self._table = table
        self._key = key
        self.complete = False

    def __missing__(self, map_key: Any) -> Any:
        if self.complete:
            return ABSENT
        value = self[map_key] = self._table.read(self._key, map_key)
        return value


class MapTable(CollectionTable):
    """Maps by key."""

    @property
    def size_bytes(self) -> int:
        return super().size_bytes + self.added * self.item_bytes

    def _no_changes(self) -> dict[Any, Any]:
        return defaultdict(dict)

    def _next_layer(self) -> Layer:
        self.held += self.added  # Contents have what is added, too.
        return super()._next_layer()

    def rotate(self) -> None:
        super().rotate()
        self.held = -self.added  # Of which the contents are old now.

    def value(self, key: Any, map_key: Any) -> Any:
        """Return the value of a map key, or `ABSENT`."""
        if self.frozen:
            self.thaw(key, map_key)
        return self[key][map_key]

    def read(self, key: Any, map_key: Any) -> Any:
        """Return the value of a map key in RocksDB, or `ABSENT`."""
        self.missed()
        item = self.store.get(self.stored_keys.one(key) + map_suffix(map_key))
        self.held += 1
        return ABSENT if item is None else self.codec.decode((item,))[0]

    def put_all(self, key: Any, entries: Mapping[Any, Any]) -> None:
        """Set the values of several map keys."""
        if entries:
            self[key].update(entries)
            self.dirty[key].update(entries)
            self.added += len(entries)

    def remove(self, key: Any, map_key: Any) -> None:
        """Remove a map key."""
        content: Entries = self[key]
        if content.complete:
            content.pop(map_key, None)
        else:
            content[map_key] = ABSENT
        self.dirty[key][map_key] = ABSENT
        self.added += 1

    def entries(self, key: Any) -> dict[Any, Any]:
        """Return all entries of a key, as a new dict."""
        content: Entries = self[key]
        if not content.complete:
            self._read_all(key, content)
        return {map_key: value for map_key, value in content.items() if value is not ABSENT}

    def discard(self, key: Any) -> Any:
        content: Entries = self[key]
        content.clear()
        content.complete = True
        self.dirty[key] = {}
        self.active.wiped[key] = None
        return None

    def weigh(self) -> None:
        changed = self.dirty[next(reversed(self.dirty))] if self.dirty else {}
        value = next(reversed(changed.values())) if changed else ABSENT
        if value is not ABSENT:
            self.codec.weigh(value)

    def thaw(self, key: Any, map_key: Any) -> None:
        """Encode what frozen layers have of an entry that is about to be handed out, if it can be changed."""
        for layer in self.frozen:
            changed = layer.changes.get(key)
            value = changed.get(map_key) if changed else None
            if type(value) in IMMUTABLE_TYPES or value is ABSENT or immutable(value):
                continue
            encoded = layer.encoded.setdefault(key, {})
            if map_key not in encoded:
                encoded[map_key] = self._items_of([(map_key, value)])[0]

    def _load(self, key: Any) -> Entries:
        content = Entries(self, key)
        for layer in self._layers():
            if key in layer.wiped:
                content.clear()
                content.complete = True
            content.update(layer.changes.get(key, ()))
        self.held += len(content)
        return content

    def _read_all(self, key: Any, content: Entries) -> None:
        body = self.stored_keys.one(key)
        entries = list(self.store.scan(body))
        values = self.codec.decode([item for _, item in entries])
        # What is known may be newer than what is stored.
        for (stored, _), value in zip(entries, values, strict=True):
            content.setdefault(map_key_of(stored, len(body)), value)
        content.complete = True
        self.held += len(entries)

    def _changes(self, layer: Layer, step: Sequence[tuple[Any, Any]]) -> Iterable[Change]:
        after = layer.after
        changes: list[Change] = []
        bodies: list[bytes] = []
        put: list[tuple[Any, Any]] = []
        for (key, changed), body in zip(step, self.stored_keys.many([key for key, _ in step]), strict=True):
            if after is not None and key in after.wiped:
                continue
            if key in layer.wiped:
                changes += self._wipe(body)
            again = {} if after is None else after.changes.get(key, {})
            early = layer.encoded.get(key, {})
            for map_key, value in changed.items():
                if map_key in again:
                    continue
                if value is ABSENT or map_key in early:
                    changes.append((body + map_suffix(map_key), early.get(map_key)))
                else:
                    bodies.append(body)
                    put.append((map_key, value))
        return [*changes, *self._puts(bodies, put)]

    def _puts(self, bodies: Sequence[bytes], entries: Sequence[tuple[Any, Any]]) -> Iterable[Change]:
        stored = [body + map_suffix(map_key) for body, (map_key, _) in zip(bodies, entries, strict=True)]
        return zip(stored, self._items_of(entries), strict=True)

    def _items_of(self, entries: Sequence[tuple[Any, Any]]) -> list[bytes]:
        items = self.codec.encode([value for _, value in entries])
        declared = checked_map_key(self.descriptor)
        if declared is not None:
            for n, (map_key, value) in enumerate(entries):
                if type(map_key) is not declared:
                    error = ValueTypeMismatch(f"{declared.__name__} as map key", type(map_key).__name__)
                    items[n] = self.codec.mistyped(value, error)
        return items

    def changes_of(self, keys: Sequence[Any], contents: Sequence[Any]) -> Iterable[Change]:
        stored = self.stored_keys.many(keys)
        return self._puts(
            [body for body, content in zip(stored, contents, strict=True) for _ in content],
            [entry for content in contents for entry in content.items()],
        )

    def expire(self, key: Any, suffixes: Iterable[bytes], cutoff_ms: int) -> None:
        for suffix in suffixes:
            map_key = map_key_of(suffix, 0)
            pair = self.value(key, map_key)
            if pair is not ABSENT and pair[0] <= cutoff_ms:
                self.remove(key, map_key)


def map_key_of(stored: bytes, start: int) -> Any:
    """Return the map key in a stored key whose suffix begins at `start`."""
    return decode_key(stored[start : -MAP_KEY_LENGTH.size])
