"""The write-back cache in front of RocksDB: one table for each state, of decoded contents by key.

    Table.self      contents in use; `dirty` names those that RocksDB does not have yet
      │ old         contents that were in use before the last `rotate`, all clean
      │ frozen      layers of what was dirty at a barrier, oldest first, on the way into RocksDB
    RocksDB         everything else

A table is the same for all key groups of its state, and is a dict, so that a key in use costs what it costs
on the heap.  A key that is in none of these is read from RocksDB; that there is nothing is remembered too.

At a barrier (and when there is much that is dirty) what is dirty moves into a *layer*, from where it is
written in steps.  Until then RocksDB may not get anything newer, so that a view of it shows the barrier.
User code may change in place what it is handed, so a content that can be changed leaves the table with
its layer, and is encoded when it is asked for before its turn.

Contents go in two generations: `rotate` drops the old one and makes the present one old.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from raystream.keys import decode_key
from raystream.state.descriptor import StateDescriptor
from raystream.state.heap_tables import Table
from raystream.state.immutable import IMMUTABLE_TYPES, immutable
from raystream.state.rocksdb import RocksDbStore
from raystream.state.rocksdb_items import PREFIX_BYTES, ItemCodec, StoredKeys, state_prefix, suffix_bytes

STEP_KEYS = 256
"""Keys whose items are written at once."""

MISSES_MAX = 256
"""Contents that a table lacked after which the bounds are looked at within a batch."""

ITEM_OVERHEAD_BYTES = 150
"""What a decoded item takes beside its encoded size: objects, and places in dicts."""

MISSING: Any = object()

Change = tuple[bytes, bytes | None]
"""Stored key and item; None deletes."""


class Early:
    """What one key of a layer comes to, encoded before its turn.

    Attributes:
        wiped: stored key below which everything is deleted before, or None.
    """

    __slots__ = ("changes", "wiped")

    def __init__(self, wiped: bytes | None, changes: list[Change]) -> None:
        self.wiped = wiped
        self.changes = changes


class Layer:
    """What was dirty in one table at one moment."""

    __slots__ = ("away", "pending")

    def __init__(self) -> None:
        self.pending: dict[Any, Any] = {}
        """By key: what is to be written."""
        self.away: dict[Any, Any] = {}
        """Contents that can be changed in place and may not be handed out before they are encoded."""


class CachedTable(Table, ABC):
    """Contents of one state by canonical key; the present generation of the cache."""

    positions = 0
    """Above the position of every element, in RocksDB or on the way there, of a list state."""

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
            tend: keeps the bounds of the cache; may write layers out and rotate.
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
        self.dirty: dict[Any, None] = {}
        self.old: dict[Any, Any] = {}
        self.frozen: list[Layer] = []
        self.misses = 0
        """How often a content was not in the present generation since the last look at the bounds."""

    @property
    def size_bytes(self) -> int:
        """About what the present generation takes."""
        return self.item_count * (self.codec.item_bytes + ITEM_OVERHEAD_BYTES)

    @property
    def dirty_bytes(self) -> int:
        """About what is dirty."""
        return self.dirty_count * (self.codec.item_bytes + ITEM_OVERHEAD_BYTES)

    @property
    def item_count(self) -> int:
        """Number of items in the present generation."""
        return len(self)

    @property
    def dirty_count(self) -> int:
        """Number of items that are dirty."""
        return len(self.dirty)

    # ---- reading ----

    def __missing__(self, key: Any) -> Any:
        content = self._thaw(key) if self.frozen else MISSING
        if content is MISSING:
            self.misses += 1
            if self.misses >= MISSES_MAX:
                self._tend()
                if key in self:  # It came back with its layer.
                    return self[key]
            content = self.old.pop(key, MISSING)
        if content is MISSING:
            content = self._load(key)
        self[key] = content
        return content

    def split(self, stored: bytes) -> tuple[Any, bytes]:
        """Return the key and the suffix in a stored key."""
        end = len(stored) - suffix_bytes(self.descriptor.kind, stored)
        return decode_key(stored[PREFIX_BYTES:end]), stored[end:]

    def _thaw(self, key: Any) -> Any:
        """Return the content of a key that is away with a layer, encoding what the layer has of it."""
        for layer in reversed(self.frozen):
            if key in layer.away:
                layer.pending[key] = self._early(key, layer.pending[key])
                return layer.away.pop(key)
        return MISSING

    def _away(self, key: Any) -> bool:
        return any(key in layer.away for layer in self.frozen)

    @abstractmethod
    def _load(self, key: Any) -> Any:
        """Return the content of a key in RocksDB."""

    # ---- writing ----

    def freeze(self) -> Layer | None:
        """Move what is dirty into a layer of its own, and return it; None when nothing is."""
        if not self.dirty:
            return None
        layer = Layer()
        self._move_dirty(layer)
        self.dirty.clear()
        self.frozen.append(layer)
        return layer

    def write_step(self, layer: Layer) -> bool:
        """Write some keys of the oldest layer; return True when it is written, and gone.

        Raises:
            StateError: RocksDB failed, or a value cannot be encoded at all; what was not written is
                still there.
        """
        assert self.frozen[0] is layer
        keys = list(islice(layer.pending, STEP_KEYS))
        changes: list[Change] = []
        late: list[tuple[Any, Any]] = []
        for key in keys:
            pending = layer.pending[key]
            if type(pending) is Early:
                changes += self._wipe(pending.wiped) + pending.changes
            else:
                late.append((key, pending))
        self.store.write([*changes, *self._changes(late)])
        for key in keys:
            del layer.pending[key]
        for key in keys if layer.away else ():
            content = layer.away.pop(key, MISSING)
            # A value may have been replaced without being read, perhaps before a newer barrier.
            if content is not MISSING and key not in self and not self._away(key):
                self[key] = content
        if layer.pending:
            return False
        self.frozen.pop(0)
        return True

    @abstractmethod
    def _move_dirty(self, layer: Layer) -> None:
        """Put into a layer what is to be written of each dirty key, and contents that can be changed."""

    @abstractmethod
    def _changes(self, entries: Sequence[tuple[Any, Any]]) -> list[Change]:
        """Encode what is to be written of some keys."""

    @abstractmethod
    def _early(self, key: Any, pending: Any) -> Early:
        """Encode what is to be written of one key, before older layers are written."""

    @abstractmethod
    def changes_of(self, keys: Sequence[Any], contents: Sequence[Any]) -> list[Change]:
        """Return what puts restored contents into RocksDB."""

    def _wipe(self, wiped: bytes | None) -> list[Change]:
        return [] if wiped is None else [(stored, None) for stored, _ in self.store.scan(wiped)]

    # ---- generations ----

    def rotate(self) -> None:
        """Drop the old generation and make the present one old; nothing may be dirty or frozen."""
        assert not self.dirty
        assert not self.frozen
        self.old = dict(self)
        self.clear()

    # ---- expiry ----

    @abstractmethod
    def expire(self, key: Any, suffixes: Iterable[bytes], cutoff_ms: int) -> None:
        """Remove from a key, of which these items seem to have expired, what has expired indeed."""


class SingleTable(CachedTable):
    """Values, reductions or accumulators; None where there is none."""

    def discard(self, key: Any) -> Any:
        self[key] = None
        self.dirty[key] = None
        return None

    def prefetch(self, keys: Iterable[Any]) -> None:
        """Read what the cache lacks of some keys with one call."""
        absent = {key: None for key in keys if key not in self}
        if not absent:
            return
        old = self.old
        wanted = []
        for key in absent:
            if key in old:
                self[key] = old.pop(key)
            elif not self._away(key):
                wanted.append(key)
        if not wanted:
            return
        stored = self.stored_keys
        items = self.store.get_many([stored[key] for key in wanted])
        found = self.codec.decode([item for item in items if item is not None])
        values = iter(found)
        for key, item in zip(wanted, items, strict=True):
            self[key] = None if item is None else next(values)

    def _load(self, key: Any) -> Any:
        item = self.store.get(self.stored_keys[key])
        return None if item is None else self.codec.decode((item,))[0]

    def _move_dirty(self, layer: Layer) -> None:
        keys = self.dirty
        layer.pending = dict(zip(keys, map(self.__getitem__, keys), strict=True))
        if not set(map(type, layer.pending.values())) <= IMMUTABLE_TYPES:
            for key, content in layer.pending.items():
                if not immutable(content):
                    layer.away[key] = self.pop(key)

    def _changes(self, entries: Sequence[tuple[Any, Any]]) -> list[Change]:
        stored = self.stored_keys
        removed: list[Change] = [(stored[key], None) for key, value in entries if value is None]
        if len(removed) == len(entries):
            return removed
        if removed:
            entries = [(key, value) for key, value in entries if value is not None]
        items = self.codec.encode([value for _, value in entries])
        return [*removed, *((stored[key], item) for (key, _), item in zip(entries, items, strict=True))]

    def _early(self, key: Any, pending: Any) -> Early:
        return Early(None, self._changes([(key, pending)]))

    def changes_of(self, keys: Sequence[Any], contents: Sequence[Any]) -> list[Change]:
        return self._changes(list(zip(keys, contents, strict=True)))

    def expire(self, key: Any, suffixes: Iterable[bytes], cutoff_ms: int) -> None:
        pair = self[key]
        if pair is not None and pair[0] <= cutoff_ms:
            self.discard(key)
