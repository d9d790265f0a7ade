"""Tables of maps in front of RocksDB, and what they share with those of lists (`rocksdb_lists`).

An element of a list and an entry of a map is an item of its own: adding to a list or putting into a map
reads nothing and rewrites nothing.  (`raystream.state.rocksdb_tables` is about tables of all kinds.)

    table      contents                                   changes in a layer
    lists      `Elements`: what is in RocksDB, once read  elements added, behind what is wiped
    maps       `Entries`: what is known of the map        values by map key, behind what is wiped
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from raystream.keys import decode_key
from raystream.state import rocksdb_tables
from raystream.state.chunk_codec import checked_map_key
from raystream.state.immutable import IMMUTABLE_TYPES, immutable
from raystream.state.rocksdb_items import MAP_KEY_LENGTH, map_suffix
from raystream.state.rocksdb_tables import CachedTable, Change, Layer
from raystream.state.value_types import ValueTypeMismatch

KEPT_ITEMS_MAX = 4096
"""A content of more items is not kept when it goes out of use, but read again item by item."""

PARTS_MAX = 16
"""A change of one key is written in about so many parts at most, since each looks at all that is left."""

CONTENT_OVERHEAD_BYTES = 300
"""What an empty content takes."""

CHANGE_OVERHEAD_BYTES = 200
"""What a key in a layer takes beside the items."""

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

    def _step(self, layer: Layer, rest: Iterator[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        step: list[tuple[Any, Any]] = []
        left = rocksdb_tables.STEP_KEYS
        while left > 0 and (change := layer.cut or next(rest, None)) is not None:
            key, items = change
            layer.cut = None
            count = max(left, len(items) // PARTS_MAX)
            if len(items) > count and self._divisible(layer, key):
                items, others = self._divided(items, count)
                layer.cut = key, others
            step.append((key, items))
            left -= 1 + len(items)
        return step

    @abstractmethod
    def _divisible(self, layer: Layer, key: Any) -> bool:
        """Return whether the change of a key may be written in parts."""

    @abstractmethod
    def _divided(self, items: Any, count: int) -> tuple[Any, Any]:
        """Return the first items of a change, and the others."""

    def _written(self, layer: Layer) -> None:
        for key, _ in layer.step:
            layer.wiped.pop(key, None)  # Not again before the other parts.

    def rotate(self) -> None:
        super().rotate()
        for key in [key for key, content in self.old.items() if len(content) > KEPT_ITEMS_MAX]:
            del self.old[key]
        self.held = 0


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

    def _divisible(self, layer: Layer, key: Any) -> bool:
        return True

    def _divided(self, items: Any, count: int) -> tuple[Any, Any]:
        entries = list(items.items())
        return dict(entries[:count]), dict(entries[count:])

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
