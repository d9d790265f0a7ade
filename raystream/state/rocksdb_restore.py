"""Fills the store of a new RocksDB backend from snapshots; blocks, and belongs into a thread.

    one snapshot of files, same key groups     its files become the store's
    several, or another range of key groups    the files of the one with most of the wanted key groups become
                                               the store's, what is not wanted is deleted; others are copied
    a snapshot of chunks                       its entries are written one by one, chunk by chunk

None of this needs the program's declarations: values are moved as they are stored.  What a state that is
declared differently needs is done when it is registered, by the backend.
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from raystream.errors import StateRestoreError
from raystream.handles import SharedFile, StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.keys import KeyGroupCache, decode_key
from raystream.records.elements import WATERMARK_MIN_MS
from raystream.state.chunk_form import timed_form
from raystream.state.descriptor import StateKind
from raystream.state.rocksdb import RocksDbMemory, RocksDbStore, disk_failure
from raystream.state.rocksdb_chunks import ChunkItems
from raystream.state.rocksdb_incremental import BACKEND
from raystream.state.rocksdb_items import PREFIX_BYTES, group_prefix, state_prefix, suffix_bytes, time_of
from raystream.state.snapshot_files import FilesIndex, StoredFiles, TableInfo
from raystream.state.stored import Entries, Stored
from raystream.state.ttl import Expiry

logger = logging.getLogger(__name__)

WRITE_ITEMS = 1024
"""Items that are copied together."""

_ANY_TIME_MS = 2 * WATERMARK_MIN_MS
"""Before every time of writing."""


@dataclass(slots=True, kw_only=True)
class RestoredTable:
    """A state that is in the store and not registered yet."""

    number: int
    info: StateInfo
    timed: set[int] = field(default_factory=set)
    """Which times of writing its values carry (`raystream.state.chunk_form`), 0 for none; several only when
    snapshots differ in that."""
    positions: int = 0
    """Above the position of every element of its lists."""
    cutoff_ms: int | None = None
    """Newest time of writing that had expired in `base`; such items may still be there."""
    base: KeyGroupRange | None = None
    """Key groups of the snapshot whose files were taken over, and not of what was copied to them."""
    copied_ms: int | None = None
    """What was copied had not expired, and was written after this; None when there is nothing of the kind."""

    def cutoff_of(self, group: int) -> int | None:
        """Return the newest time of writing that had expired in a key group; None when all there had not."""
        return self.cutoff_ms if self.base is not None and group in self.base else None

    def copied_after(self, written_ms: int | None) -> None:
        """Take note that items were copied that were written after this, if they have times."""
        if written_ms is not None:
            self.copied_ms = written_ms if self.copied_ms is None else min(self.copied_ms, written_ms)

    def expired_ms(self, expiry: Expiry | None) -> int | None:
        """Return until when written values had expired, unless the declared time to live says as much.

        Args:
            expiry: by the declared time to live; None without one.
        """
        if expiry is None or self.cutoff_ms is None:
            return None
        return None if self.cutoff_ms <= max(expiry.cutoff_ms(), WATERMARK_MIN_MS) else self.cutoff_ms

    def can_tell_expired(self, expiry: Expiry | None) -> bool:
        """Return whether `expired_ms` tells what had expired from what was copied or is written later.

        Other subtasks may have been behind in event time; and after its end it begins anew.
        """
        expired_ms = self.expired_ms(expiry)
        if expiry is None or expired_ms is None:
            return True
        return expired_ms < expiry.now_ms() and (self.copied_ms is None or expired_ms <= self.copied_ms)


def alive(items: Iterable[tuple[bytes, bytes]], cutoff_ms: int | None) -> Iterator[tuple[bytes, bytes]]:
    """Return the items that had not expired; None stands for no time to live."""
    if cutoff_ms is None:
        return iter(items)
    return (pair for pair in items if time_of(pair[1]) > cutoff_ms)


class StoreRestore:
    """Fills one store.

    Args:
        directory: of the backend; the store will be in `db` in it.
        memory: of the slot.
        groups: the key groups of the backend.
        max_parallelism: their number in all.
        check: called before every file, piece of one, chunk and batch of entries; an error that it raises
            ends the restore.
    """

    def __init__(
        self,
        directory: Path,
        memory: RocksDbMemory,
        groups: KeyGroupRange,
        max_parallelism: int,
        *,
        check: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._memory = memory
        self._groups = groups
        self._max_parallelism = max_parallelism
        self._check = check
        self._cache = KeyGroupCache(max_parallelism)
        self._copies = 0
        self._moved = 0
        self.store: RocksDbStore | None = None
        self.tables: dict[str, RestoredTable] = {}
        self.known: dict[str, SharedFile] = {}
        """Files of the store that are part of a checkpoint of this job."""

    @property
    def numbers(self) -> int:
        """The least number that no table has."""
        return max((table.number for table in self.tables.values()), default=-1) + 1

    def run(self, snapshots: Iterable[Stored]) -> RocksDbStore:
        """Return the store with everything that belongs into it.

        Raises:
            StateCorruptError: a snapshot is damaged.
            StateRestoreError: a snapshot is of another backend.
            StateError: the local disk failed; names the path.
            StorageError: the checkpoint store did not answer.
        """
        stored = list(snapshots)
        base = self._base(stored)
        if base is not None:
            self._open_on(base)
        for snapshot in stored:
            if isinstance(snapshot, StoredFiles):
                if snapshot is not base:
                    self._copy(snapshot)
            else:
                self._write_chunks(snapshot)
        if self._moved:
            logger.info("restored entries moved to other key groups", extra={"entries": self._moved})
        return self._opened()

    def _opened(self) -> RocksDbStore:
        if self.store is None:
            self._check()
            self.store = RocksDbStore(self._directory / "db", self._memory)
        return self.store

    # ---- files -------------------------------------------------------------------

    def _base(self, stored: list[Stored]) -> StoredFiles | None:
        """Return the snapshot whose files the store begins with; None when no file can be used as it is."""
        best, most = None, 0
        for snapshot in stored:
            if not isinstance(snapshot, StoredFiles):
                continue
            if snapshot.index.backend != BACKEND:
                raise StateRestoreError("snapshot is of another backend", backend=snapshot.index.backend)
            overlap = snapshot.index.groups.intersect(self._groups)
            if overlap is None or snapshot.index.max_parallelism != self._max_parallelism:
                continue
            if len(overlap) > most:
                best, most = snapshot, len(overlap)
        return best

    def _open_on(self, base: StoredFiles) -> None:
        path = self._directory / "db"
        self._fetch(base, path)
        self._check()
        store = self.store = RocksDbStore(path, self._memory, existing=True)
        for table in base.index.tables:
            self.tables[table.name] = RestoredTable(
                number=table.number,
                info=table.info,
                timed={timed_form(table.ttl)},
                positions=table.positions,
                cutoff_ms=base.index.cutoff_ms(table),
                base=base.index.groups,
            )
            first, stop = group_prefix(table.number, 0), state_prefix(table.number + 1)
            if base.index.first_group < self._groups.start:
                store.delete_range(first, group_prefix(table.number, self._groups.start))
            if base.index.end_group > self._groups.stop:
                store.delete_range(group_prefix(table.number, self._groups.stop), stop)
        self.known = dict(base.known)

    def _copy(self, snapshot: StoredFiles) -> None:
        """Copy what is wanted out of a store that is opened for this alone."""
        self._copies += 1
        path = self._directory / f"restore-{self._copies}"
        self._fetch(snapshot, path)
        self._check()
        source = RocksDbStore(path, self._memory, existing=True)
        try:
            for table in snapshot.index.tables:
                copied = self._table(table.info, timed=timed_form(table.ttl), positions=table.positions)
                cutoff_ms = snapshot.index.cutoff_ms(table)
                copied.copied_after(cutoff_ms)
                items = alive(self._wanted(source, table, snapshot.index), cutoff_ms)
                renumbered = state_prefix(copied.number)
                entries = ((renumbered + key[len(renumbered) :], item) for key, item in items)
                if snapshot.index.max_parallelism == self._max_parallelism:  # They are in order.
                    path_in = self._directory / f"taken-in-{copied.number}"
                    self._opened().take_in(self._batched(entries), path_in)
                else:
                    self._write(entries)
        finally:
            source.close()
            shutil.rmtree(path, ignore_errors=True)

    def _fetch(self, snapshot: StoredFiles, path: Path) -> None:
        try:
            snapshot.fetch_into(path, self._check)
        except OSError as error:
            raise disk_failure("state could not be restored to the local disk", path, error) from error

    def _wanted(
        self, source: RocksDbStore, table: TableInfo, index: FilesIndex
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and item of each entry of the own key groups, the key with its key group of now."""
        if index.max_parallelism == self._max_parallelism:
            overlap = index.groups.intersect(self._groups)
            for group in overlap or ():
                yield from source.scan(group_prefix(table.number, group))
            return
        kind = StateKind(table.kind)
        for stored, item in source.scan(state_prefix(table.number)):
            key: Any = decode_key(stored[PREFIX_BYTES : len(stored) - suffix_bytes(kind, stored)])
            group = self._cache[key[0] if table.namespaced else key]
            if group in self._groups:
                prefix = group_prefix(table.number, group)
                self._moved += not stored.startswith(prefix)
                yield prefix + stored[PREFIX_BYTES:], item

    # ---- chunks ------------------------------------------------------------------

    def _write_chunks(self, snapshot: Entries) -> None:
        for state in snapshot.states:
            self._table(state.info)
        for info, stored in snapshot.chunks():
            self._check()
            items = ChunkItems(stored.chunk, info)
            table = self._table(info, timed=items.timed, positions=items.positions)
            table.copied_after(_ANY_TIME_MS)  # Nothing in the blob says what had expired.
            self._write(self._placed(table, items, snapshot.max_parallelism, stored.group))

    def _placed(
        self,
        table: RestoredTable,
        entries: Iterable[tuple[bytes, bytes, bytes]],
        max_parallelism: int,
        group: int,
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield stored key and item of entries `(encoded key, suffix, item)` of a key group."""
        if max_parallelism == self._max_parallelism:
            prefix = group_prefix(table.number, group)
            for key, suffix, item in entries:
                yield prefix + key + suffix, item
            return
        for key, suffix, item in entries:
            decoded: Any = decode_key(key)
            found = self._cache[decoded[0] if table.info.namespaced else decoded]
            if found in self._groups:
                self._moved += found != group
                yield group_prefix(table.number, found) + key + suffix, item

    # ---- both --------------------------------------------------------------------

    def _table(self, info: StateInfo, *, timed: int | None = None, positions: int = 0) -> RestoredTable:
        """Return the table of a state in the store, which has got such items."""
        table = self.tables.get(info.name)
        if table is None:
            table = self.tables[info.name] = RestoredTable(number=self.numbers, info=info)
        if timed is not None:
            table.timed.add(timed)
        table.positions = max(table.positions, positions)
        return table

    def _write(self, items: Iterator[tuple[bytes, bytes]]) -> None:
        store = self._opened()
        while changes := list(islice(items, WRITE_ITEMS)):
            self._check()
            store.write(changes)

    def _batched(self, items: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items, and look after every so many whether to go on."""
        while batch := list(islice(items, WRITE_ITEMS)):
            self._check()
            yield from batch
