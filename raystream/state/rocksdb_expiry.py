"""Removes expired items from RocksDB, so that state which is never read again goes too.

A look at RocksDB begins with a search, so the looks that accesses and batches are good for are saved up and
had together.  They go through all keys of the state in order, round and round, while a round can find
anything.  Batches are good for looks whether the state is accessed or not.  Beside that, a full snapshot
tells what it left out.
"""

from itertools import islice
from typing import Any

from raystream.state.rocksdb_items import time_of
from raystream.state.rocksdb_tables import CachedTable
from raystream.state.ttl import Expiry, SweepRounds

SWEEP_ITEMS = 512
"""Items looked at together."""

_ITEMS_PER_BATCH = 32
_ITEMS_PER_RECORD = 2
"""Items that a batch is good for.  Two for each record keep up with records that add an item each: while a
round goes over a state, half as many come."""

_LOOKS_MAX = 4
"""Looks that are had one after the other."""


class RocksDbSweep:
    """The clean-up of one state with a time to live; called after each access and before each batch."""

    __slots__ = ("_due", "_expiry", "_items_per_call", "_rounds", "_start", "_table")

    def __init__(self, table: CachedTable, expiry: Expiry, items_per_call: int) -> None:
        self._table = table
        self._expiry = expiry
        self._items_per_call = items_per_call
        self._due = 0
        self._start = b""
        self._rounds = SweepRounds(expiry)

    def __call__(self) -> None:
        """Count an access."""
        self._save_up(self._items_per_call)

    def batch(self, records: int) -> None:
        """Count a batch of any number of records, which may access the state or not."""
        self._save_up(_ITEMS_PER_BATCH + _ITEMS_PER_RECORD * records)

    def _save_up(self, items: int) -> None:
        """Look at some items when enough looks are saved up, and remove what has expired."""
        self._due = min(self._due + items, _LOOKS_MAX * SWEEP_ITEMS)
        while self._due >= SWEEP_ITEMS:
            self._due -= SWEEP_ITEMS
            if self._rounds.due:
                self.look()

    def look(self) -> None:
        """Look at the next items in RocksDB, and remove what has expired."""
        table, rounds, cutoff_ms = self._table, self._rounds, self._expiry.cutoff_ms()
        if not self._start:
            rounds.begun()
        found = list(islice(table.store.scan(table.prefix, self._start), SWEEP_ITEMS))
        self._start = found[-1][0] + b"\0" if len(found) == SWEEP_ITEMS else b""
        expired: dict[Any, list[bytes]] = {}
        for stored, item in found:
            written_ms = time_of(item)
            if written_ms <= cutoff_ms:
                key, suffix = table.split(stored)
                expired.setdefault(key, []).append(suffix)
            else:
                rounds.seen(written_ms)
        if not self._start:
            rounds.ended()
        for key, suffixes in expired.items():
            table.expire(key, suffixes, cutoff_ms)

    def remove(self, key: Any, suffixes: list[bytes]) -> None:
        """Remove what has expired of a key, of which a snapshot found these items expired."""
        self._table.expire(key, suffixes, self._expiry.cutoff_ms())
