"""The write-back cache in front of RocksDB: one table for each state, of decoded contents by key.

    Table.self      contents in use                                        ┐ the cache of contents:
      │ old         contents that were in use before the last `rotate`     ┘ may be dropped at any time
      │ active      what changed since the last barrier, lately            ┐
      │ cooling     what changed since the last barrier, before that       │ layers: not in RocksDB yet
      │ frozen      what changed before barriers, oldest first             ┘
    RocksDB         everything else

A table is the same for all key groups of its state, and is a dict, so that a key in use costs what it costs
on the heap.  A key that is in none of these is read from RocksDB; that there is nothing is remembered too.

What changed is kept twice: in the content, and in a *layer*, from which it is written.  So contents may be
dropped before they are written, and a barrier costs nothing: the active layer becomes a frozen one, another
takes its place.  Frozen layers are written in steps; until then RocksDB may not get anything newer, so that
a view of it shows the barrier.  User code may change in place what it is handed, so a value that can be
changed is encoded for the frozen layers when it is handed out before their turn (`thaw`).

Between barriers only the cooling layer is written, and of that only what did not change again: a hot key
is written at barriers alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import filterfalse, islice
from typing import Any

from raystream.keys import decode_key
from raystream.state.descriptor import StateDescriptor
from raystream.state.heap_tables import Table
from raystream.state.immutable import IMMUTABLE_TYPES, immutable
from raystream.state.rocksdb import RocksDbStore
from raystream.state.rocksdb_items import PREFIX_BYTES, ItemCodec, StoredKeys, state_prefix, suffix_bytes

STEP_KEYS = 256
"""Keys, or items of collections, that are written at once."""

MISSES_MAX = 256
"""Contents that a table lacked after which the bounds are looked at within a batch."""

ITEM_OVERHEAD_BYTES = 150
"""What a decoded item takes beside its encoded size: objects, and places in dicts."""

MISSING: Any = object()

Change = tuple[bytes, bytes | None]
"""Stored key and item; None deletes."""


class Layer:
    """What changed in one table from one moment to another, and is not in RocksDB yet.

    Attributes:
        changes: by key, in the order of the first change.
        wiped: keys below which everything older is deleted.
        encoded: items of what was handed out after the layer was frozen, by key.
        after: the layer that follows, if no barrier is between them: what changed there too is not written.
        items: about the number of items, of collections.
        rest: keys and changes that are still to be written; None before the first step.
        cut: the key of which a part is in the step, and what is left of its change; or None.
        step: what is being written, or what could not be written.
        done: number of keys that are written; they stay until all are.
    """

    __slots__ = ("after", "changes", "cut", "done", "encoded", "items", "rest", "step", "wiped")

    def __init__(self, changes: dict[Any, Any]) -> None:
        self.changes = changes
        self.wiped: dict[Any, None] = {}
        self.encoded: dict[Any, Any] = {}
        self.after: Layer | None = None
        self.items = 0
        self.rest: Iterator[tuple[Any, Any]] | None = None
        self.cut: tuple[Any, Any] | None = None
        self.step: list[tuple[Any, Any]] = []
        self.done = 0


class CachedTable(Table, ABC):
    """Contents of one state by canonical key; the present generation of the cache."""

    positions = 0
    """Above the position of every element, in RocksDB or on the way there, of a list state."""
    expired_ms: int | None = None
    """What was written until then had expired when it was restored, though the time to live is longer now."""
    overhead_bytes = ITEM_OVERHEAD_BYTES

    def __init__(
        self,
        number: int,
        descriptor: StateDescriptor,
        store: RocksDbStore,
        tend: Callable[[], None],
        keys: StoredKeys,
    ) -> None:
        """Make an empty table.

        Args:
            number: of the state, in stored keys.
            descriptor: of the state.
            store: where everything is that is not in the cache.
            tend: keeps the bounds of the cache; may write and rotate.
            keys: stored keys of the state.
        """
        super().__init__()
        self._tend = tend
        self.number = number
        self.descriptor = descriptor
        self.prefix = state_prefix(number)
        self.codec = ItemCodec(descriptor)
        self.store = store
        self.stored_keys = keys
        self.old: dict[Any, Any] = {}
        self.active = Layer(self._no_changes())
        self.dirty = self.active.changes
        """Changes of the active layer."""
        self.cooling: Layer | None = None
        self.frozen: list[Layer] = []
        self.misses = 0
        """How often a content was not in the present generation since the last look at the bounds."""

    @property
    def size_bytes(self) -> int:
        """About what the present generation takes."""
        return len(self) * self.item_bytes

    @property
    def active_bytes(self) -> int:
        """About what the active layer takes."""
        return self._bytes(self.active)

    @property
    def dirty_bytes(self) -> int:
        """About what all layers take."""
        return sum(map(self._bytes, self._layers()))

    @property
    def item_bytes(self) -> int:
        """About what an item takes in memory."""
        return self.codec.item_bytes + self.overhead_bytes

    def _no_changes(self) -> dict[Any, Any]:
        return {}

    def _bytes(self, layer: Layer) -> int:
        return (len(layer.changes) - layer.done) * self.item_bytes

    def _layers(self) -> list[Layer]:
        """Return what is not in RocksDB yet, oldest first."""
        cooling = () if self.cooling is None else (self.cooling,)
        return [*self.frozen, *cooling, self.active]

    @abstractmethod
    def weigh(self) -> None:
        """Have the size of a value that changed lately count in `item_bytes`."""

    # ---- reading ----

    def __missing__(self, key: Any) -> Any:
        self.missed()
        if key in self:  # The bounds were looked at, which may read.
            return self[key]
        content = self.old.pop(key, MISSING)
        if content is MISSING:
            content = self._load(key)
        self[key] = content
        return content

    def missed(self) -> None:
        """Count something that had to be looked for; look at the bounds when that was often."""
        self.misses += 1
        if self.misses >= MISSES_MAX:
            self._tend()

    def split(self, stored: bytes) -> tuple[Any, bytes]:
        """Return the key and the suffix in a stored key."""
        end = len(stored) - suffix_bytes(self.descriptor.kind, stored)
        return decode_key(stored[PREFIX_BYTES:end]), stored[end:]

    @abstractmethod
    def _load(self, key: Any) -> Any:
        """Return the content of a key that is not in the cache, from the layers and RocksDB."""

    # ---- layers ----

    def cool(self) -> None:
        """Let the active layer cool; nothing may be cooling."""
        assert self.cooling is None
        if self.dirty:
            self.cooling = self.active
            self.cooling.after = self._next_layer()

    def freeze(self) -> Layer | None:
        """Freeze what changed, and return the layer behind which all of it is written; None if nothing is."""
        layers = [] if self.cooling is None else [self.cooling]
        self.cooling = None
        if self.dirty:
            layers.append(self.active)
            self._next_layer()
        elif layers:
            layers[0].after = None
        self.frozen += layers
        return layers[-1] if layers else None

    def _next_layer(self) -> Layer:
        self.active = Layer(self._no_changes())
        self.dirty = self.active.changes
        return self.active

    def write_step(self, layer: Layer) -> bool:
        """Write some keys of the oldest frozen layer; return True when this one is written, and gone.

        Raises:
            StateError: RocksDB failed, or a value cannot be encoded at all; what was not written is
                still there.
        """
        oldest = self.frozen[0]
        if not self._write(oldest):
            return False
        self.frozen.pop(0)
        return oldest is layer

    def write_back_step(self) -> bool:
        """Write some keys of the oldest layer but the active one; return False when there is none.

        Nothing of the backend may be frozen for a snapshot that is not cut.  Raises as `write_step`.
        """
        if self.frozen:  # Left by an error.
            self.write_step(self.frozen[0])
        elif self.cooling is None:
            return False
        elif self._write(self.cooling):
            self.cooling = None
        return True

    def _write(self, layer: Layer) -> bool:
        """Write some changes of a layer, those that came last first; return True when none is left."""
        if layer.rest is None:
            layer.rest = reversed(layer.changes.items())
        step = layer.step = layer.step or self._step(layer, layer.rest)
        self.store.write(self._changes(layer, step))
        self._written(layer)
        layer.step = []
        layer.done += len(step) - (layer.cut is not None)
        return layer.done == len(layer.changes)

    def _step(self, layer: Layer, rest: Iterator[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """Take as many changes of a layer as are written at once."""
        return list(islice(rest, STEP_KEYS))

    @abstractmethod
    def _changes(self, layer: Layer, step: Sequence[tuple[Any, Any]]) -> Iterable[Change]:
        """Return what puts some changes of a layer into RocksDB."""

    def _written(self, layer: Layer) -> None:
        """Remember that the step of a layer is in RocksDB."""

    @abstractmethod
    def changes_of(self, keys: Sequence[Any], contents: Sequence[Any]) -> Iterable[Change]:
        """Return what puts restored contents into RocksDB."""

    def _wipe(self, body: bytes) -> Iterator[Change]:
        return ((stored, None) for stored, _ in self.store.scan(body))

    # ---- generations ----

    def rotate(self) -> None:
        """Drop the old generation and make the present one old."""
        self.old = dict(self)
        self.clear()

    # ---- expiry ----

    @abstractmethod
    def expire(self, key: Any, suffixes: Iterable[bytes], cutoff_ms: int) -> None:
        """Remove from a key, of which these items seem to have expired, what has expired indeed."""


class SingleTable(CachedTable):
    """Values, reductions or accumulators; None where there is none."""

    def discard(self, key: Any) -> Any:
        self[key] = self.dirty[key] = None
        return None

    def weigh(self) -> None:
        value = self.dirty[next(reversed(self.dirty))] if self.dirty else None
        if value is not None:
            self.codec.weigh(value)

    def thaw(self, key: Any) -> None:
        """Encode what frozen layers have of a key that is about to be handed out, if it can be changed."""
        for layer in self.frozen:
            value = layer.changes.get(key)
            if type(value) not in IMMUTABLE_TYPES and key not in layer.encoded and not immutable(value):
                layer.encoded[key] = self.codec.encode((value,))[0]

    def prefetch(self, keys: Iterable[Any]) -> None:
        """Read what the cache lacks of some keys with one call."""
        absent = dict.fromkeys(filterfalse(self.__contains__, keys))
        if absent and self.old:
            self._take(absent, self.old)
        for layer in reversed(self._layers()):
            if absent and layer.changes:
                self._take(absent, layer.changes, layer)
        if not absent:
            return
        items = self.store.get_many(self.stored_keys.many(list(absent)))
        found = iter(self.codec.decode([item for item in items if item is not None]))
        self.update(zip(absent, [None if item is None else next(found) for item in items], strict=True))

    def _take(self, absent: dict[Any, None], contents: dict[Any, Any], layer: Layer | None = None) -> None:
        """Take into the present generation what is in an old one or in a layer."""
        here = list(filter(contents.__contains__, absent))
        if layer is None:
            self.update(zip(here, map(contents.pop, here), strict=True))
        elif layer.encoded:
            self.update([(key, self._changed(layer, key)) for key in here])
        else:
            self.update(zip(here, map(contents.__getitem__, here), strict=True))
        for key in here:
            del absent[key]

    def _changed(self, layer: Layer, key: Any) -> Any:
        item = layer.encoded.get(key)
        return layer.changes[key] if item is None else self.codec.decode((item,))[0]

    def _load(self, key: Any) -> Any:
        for layer in reversed(self._layers()):
            if key in layer.changes:
                return self._changed(layer, key)
        item = self.store.get(self.stored_keys.one(key))
        return None if item is None else self.codec.decode((item,))[0]

    def _changes(self, layer: Layer, step: Sequence[tuple[Any, Any]]) -> Iterable[Change]:
        if layer.after is not None:
            again = layer.after.changes
            step = [change for change in step if change[0] not in again]
        early: list[Change] = []
        if layer.encoded:
            encoded = layer.encoded
            early = [(self.stored_keys.one(key), encoded[key]) for key, _ in step if key in encoded]
            step = [change for change in step if change[0] not in encoded]
        return [*early, *self.changes_of([key for key, _ in step], [value for _, value in step])]

    def changes_of(self, keys: Sequence[Any], contents: Sequence[Any]) -> Iterable[Change]:
        items = self.codec.encode([value for value in contents if value is not None])
        stored = self.stored_keys.many(keys)
        if len(items) == len(keys):
            return zip(stored, items, strict=True)
        item = iter(items)
        return [
            (where, None if value is None else next(item))
            for where, value in zip(stored, contents, strict=True)
        ]

    def expire(self, key: Any, suffixes: Iterable[bytes], cutoff_ms: int) -> None:
        pair = self[key]
        if pair is not None and pair[0] <= cutoff_ms:
            self.discard(key)
