"""Tables of lists in front of RocksDB (`raystream.state.rocksdb_tables`, `rocksdb_collections`)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from raystream.state.immutable import immutable
from raystream.state.rocksdb_collections import CollectionTable
from raystream.state.rocksdb_items import POSITION
from raystream.state.rocksdb_tables import Change, Layer

ELEMENT_OVERHEAD_BYTES = 60
"""What an element takes beside its encoded size."""


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
    _found: list[tuple[Elements, bool, Sequence[Any], Sequence[int]]]
    """Contents in the cache and what being written makes of them: wiped, elements, positions."""

    def _no_changes(self) -> dict[Any, Any]:
        return defaultdict(list)

    def elements(self, key: Any) -> list[Any]:
        """Return the elements of a key as a new list."""
        elements: list[Any] = []
        if not any(key in layer.wiped for layer in self._layers()):
            elements += self[key]  # First, since the bounds may be looked at, and layers written.
        if self.frozen:
            self._thaw(key)
        for layer in self._layers():
            if key in layer.wiped:
                elements.clear()
            elements += layer.changes.get(key, ())
        return elements

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

    def _divisible(self, layer: Layer, key: Any) -> bool:
        return key not in layer.encoded

    def _divided(self, items: Any, count: int) -> tuple[Any, Any]:
        return items[:count], items[count:]

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
        if layer.cut is not None:
            key, layer.changes[key] = layer.cut
        super()._written(layer)

    def _new_positions(self, count: int) -> range:
        positions = range(self.positions, self.positions + count)
        self.positions = positions.stop
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
