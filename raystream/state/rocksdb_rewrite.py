"""Rewrites a restored state that the program declares in another way than it was stored.

Values get their declared type, times of writing are begun or dropped.  The old entries are deleted by
whoever asked for it, when the new ones are there.
"""

import logging
from collections.abc import Iterable
from itertools import islice
from typing import Any

from raystream.clock import Clock
from raystream.keys import decode_key
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.chunk_form import timed_form
from raystream.state.descriptor import StateKind
from raystream.state.rocksdb import RocksDbStore
from raystream.state.rocksdb_collections import map_key_of
from raystream.state.rocksdb_full import stored_contents
from raystream.state.rocksdb_items import value_of
from raystream.state.rocksdb_restore import RestoredTable, alive
from raystream.state.rocksdb_tables import CachedTable

logger = logging.getLogger(__name__)

REWRITE_KEYS = 256
"""Keys whose contents are written together."""


class StateRewrite:
    """Moves the entries of one state.

    Args:
        store: where they are.
        table: where they go.
        decoder: makes declared values of stored ones.
        restored_ms: time of writing of values that were stored without one, or with one of another domain.
        clock: tells how long it takes.
    """

    def __init__(
        self,
        store: RocksDbStore,
        table: CachedTable,
        decoder: ChunkDecoder,
        *,
        restored_ms: int,
        clock: Clock,
    ) -> None:
        self._store = store
        self._table = table
        self._decoder = decoder
        self._restored_ms = restored_ms
        self._clock = clock
        self._keeps_times = False

    def run(self, restored: RestoredTable, groups: Iterable[int]) -> None:
        """Fill the table with what was restored; takes as long as there are entries.

        Raises:
            StateRestoreError: a stored value cannot be read as the declared type, or not be migrated.
            StateError: the local disk failed.
        """
        state, begun_ms = self._table.descriptor.name, self._clock.monotonic_ms()
        logger.info("restored state is rewritten, since it is declared differently", extra={"state": state})
        entries = self._run(restored, groups)
        took_ms = round(self._clock.monotonic_ms() - begun_ms)
        done = {"state": state, "entries": entries, "took_ms": took_ms}
        logger.info("restored state was rewritten", extra=done)

    def _run(self, restored: RestoredTable, groups: Iterable[int]) -> int:
        """Do it, and return the number of keys."""
        entries = 0
        view, kind = self._store.view(), self._table.descriptor.kind
        self._keeps_times = restored.timed <= {0, timed_form(self._table.descriptor.ttl)}
        for group in groups:
            contents = stored_contents(view, restored.number, kind, group)
            cutoff_ms = restored.cutoff_of(group)
            while batch := list(islice(contents, REWRITE_KEYS)):
                left = [(key, list(alive(items, cutoff_ms))) for key, items in batch]
                keys = [decode_key(key) for key, items in left if items]
                values = [self._content(kind, items) for _, items in left if items]
                self._store.write(self._table.changes_of(keys, values))
                entries += len(keys)
        return entries

    def _content(self, kind: StateKind, items: list[tuple[bytes, bytes]]) -> Any:
        values = [self._value(item) for _, item in items]
        if kind.single:
            return values[0]
        if kind is StateKind.MAP:
            return {map_key_of(suffix, 0): value for (suffix, _), value in zip(items, values, strict=True)}
        return values

    def _value(self, item: bytes) -> Any:
        wide, written_ms, data = value_of(item)
        value = self._decoder.value(data, wide=wide)
        if self._table.descriptor.ttl is None:
            return value
        kept = written_ms is not None and self._keeps_times
        return (written_ms if kept else self._restored_ms), value
