"""An embedded RocksDB, as far as keyed state needs it; the only module that knows `rocksdict`.

Keys and values are bytes.  There is no write-ahead log: what must survive the process is in checkpoints.
A write is seen by every read after it, and by no view that was taken before it.  Whatever RocksDB
raises becomes a `StateError` that names the directory: a full disk, most of all.

All stores of a slot share one `RocksDbMemory`, which bounds their write buffers and blocks together.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rocksdict import (
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DataBlockIndexType,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    RdictIter,
    SstFileWriter,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from raystream.errors import StateError

logger = logging.getLogger(__name__)

_WRITE_BUFFER_SHARE = 2
"""One half of the memory may be write buffers; they are charged to the cache of blocks."""

_WRITE_BUFFER_BYTES_MAX = 16 << 20
"""Larger ones make each write search more; smaller ones make more files."""
_WRITE_BUFFER_BYTES_MIN = 64 << 10
_STALLED = "Write stall"
"""In the error of a write that would have to wait."""
_BLOCK_BYTES = 16 << 10
_INDEX_RESTART_INTERVAL = 16
"""Index entries between two whole keys.  Keys of a kibibyte would make an index as large as the cache."""
_BLOOM_BITS_PER_KEY = 10
_MEMTABLE_BLOOM_RATIO = 0.02
"""Share of a write buffer that tells which keys are not in it; most that are read are not."""
_HASH_RATIO = 0.75
_BACKGROUND_JOBS = 2
COMPACTION_FILES = 8
"""Flushed files after which compaction begins; every incremental checkpoint flushes one."""
_LOG_FILE_BYTES_MAX = 1 << 20
_MANIFEST_BYTES_MAX = 1 << 20
"""The list of files is a part of every snapshot that refers to files; above this size a new one is begun."""


class RocksDbMemory:
    """Memory that the stores of one slot share.

    Args:
        size_bytes: bound of blocks and write buffers together.
        threads: merge files, and make those of snapshots, in the background; without it, which files there
            are, and when, depends on what is written alone.
    """

    def __init__(self, size_bytes: int, *, threads: bool = True) -> None:
        self.threads = threads
        self.cache = Cache.new_hyper_clock_cache(size_bytes, _BLOCK_BYTES)
        buffers_bytes = size_bytes // _WRITE_BUFFER_SHARE
        self.buffers = WriteBufferManager.new_write_buffer_manager_with_cache(
            buffers_bytes, False, self.cache
        )
        self.buffer_bytes = max(_WRITE_BUFFER_BYTES_MIN, min(_WRITE_BUFFER_BYTES_MAX, buffers_bytes // 2))


class _Range:
    """The entries whose keys begin with a prefix, and how far a view has gone through them.

    A search goes over everything that was deleted up to the next entry, so of scans in the order of their
    keys only the first one searches.  (An upper bound for the search is not to be had: `rocksdict` lets go
    of the bytes of the bound while the iterator still uses them.)
    """

    __slots__ = ("begins", "entries", "passed")

    def __init__(self, begins: bytes, entries: RdictIter) -> None:
        self.begins = begins
        self.entries = entries
        self.passed: bytes | None = None
        """What was scanned last: there is nothing between it and where the iterator stands."""

    def move(self, prefix: bytes) -> None:
        """Stand at the first key that may begin with `prefix`."""
        entries, passed = self.entries, self.passed
        behind = passed is not None and prefix > passed and not prefix.startswith(passed)
        if not behind or (entries.valid() and entries.key() < prefix):
            entries.seek(prefix)


class StoreView:
    """A store as it was when `RocksDbStore.view` was called, for any one thread.

    It consists of iterators, which keep what was there when they were made.  (Snapshots of `rocksdict`
    do not do: their iterators show what was written later.)
    """

    def __init__(self, entries: Iterable[tuple[bytes, RdictIter]], path: Path) -> None:
        """Make a view.

        Args:
            entries: prefixes that scans are below, and an iterator for each.
            path: of the store.
        """
        self._ranges = [_Range(begins, one) for begins, one in entries]
        self._path = path

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of each entry whose key begins with `prefix`, in order; one scan at a time."""
        within = next(one for one in self._ranges if prefix.startswith(one.begins))
        entries = within.entries
        valid, key_of, value_of, step = entries.valid, entries.key, entries.value, entries.next
        try:
            within.move(prefix)
            within.passed = None
            while valid() and (key := key_of()).startswith(prefix):
                yield key, value_of()
                step()
            entries.status()
            within.passed = prefix
        except GeneratorExit:
            raise
        except Exception as error:
            raise disk_failure("state could not be read", self._path, error) from error


class RocksDbStore:
    """One RocksDB in a directory of its own; but for its views and links for one thread at a time.

    Args:
        path: its directory.
        memory: of the slot.
        existing: the directory holds what `link_files` made; else it must not hold a RocksDB.
    """

    def __init__(self, path: Path, memory: RocksDbMemory, *, existing: bool = False) -> None:
        self._write_options = _write_options(no_slowdown=False)
        self._write_at_once = _write_options(no_slowdown=True)
        try:
            self._options = _options(memory, existing=existing)
            self._db = Rdict(str(path), self._options)
        except Exception as error:
            raise disk_failure("local store of state could not be opened", path, error) from error
        self._path = path
        self.threads = memory.threads
        self.linking = False
        """Set while `link_files` is under way, by whoever calls it: whatever writes then is refused."""
        self.reads = 0
        """How many keys, and ranges of keys, were read."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key."""
        self.reads += 1
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise disk_failure("state could not be read", self._path, error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of keys, with one call."""
        self.reads += len(keys)
        try:
            values: list[bytes | None] | None = self._db.get(list(keys))
        except Exception as error:
            raise disk_failure("state could not be read", self._path, error) from error
        assert values is not None
        return values

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of each entry whose key begins with `prefix`, in order of the keys.

        Args:
            prefix: what the keys begin with.
            start: where to begin, if it is above `prefix`.
        """
        self.reads += 1
        try:
            # Not `items`: it ends at what cannot be read as it does at the end of the store.
            entries = self._db.iter()
            valid, key_of, value_of, step = entries.valid, entries.key, entries.value, entries.next
            entries.seek(max(prefix, start))
            while valid() and (key := key_of()).startswith(prefix):
                yield key, value_of()
                step()
            entries.status()
        except GeneratorExit:
            raise
        except Exception as error:
            raise disk_failure("state could not be read", self._path, error) from error

    def write(self, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Set the values of keys, or delete those whose value is None; all or none.

        Waits while RocksDB has too much to write to the disk.

        Raises:
            StateError: the disk is full or has failed; names the path.
        """
        self._check_not_linking()
        changes = list(changes)  # A batch can be written once.
        try:
            try:
                self._db.write(_batch(changes), self._write_at_once)
            except Exception as error:
                if _STALLED not in str(error):
                    raise
                # On a full disk RocksDB would have a write wait for ever, but a flush fails.
                if self._db.property_int_value("rocksdb.is-write-stopped"):
                    self._db.flush(True)
                self._db.write(_batch(changes), self._write_options)
        except Exception as error:
            raise disk_failure("state could not be written", self._path, error) from error

    def take_in(self, entries: Iterable[tuple[bytes, bytes]], path: Path) -> None:
        """Set the values of many keys at once, by way of a file: at least twice as fast as by writes.

        Args:
            entries: keys and values, in order of the keys.
            path: of the file, which becomes a part of the store.
        """
        self._check_not_linking()
        writer, some = SstFileWriter(self._options), False
        try:
            writer.open(str(path))
            for key, value in entries:
                writer[key] = value
                some = True
            if some:  # A file of nothing is an error.
                writer.finish()
                moved = IngestExternalFileOptions()
                moved.set_move_files(True)
                self._db.ingest_external_file([str(path)], moved)
        except StateError:
            raise
        except Exception as error:
            raise disk_failure("state could not be written", self._path, error) from error
        finally:
            path.unlink(missing_ok=True)

    def view(self, prefixes: Iterable[bytes] = (b"",)) -> StoreView:
        """Return the store as it is now.

        Args:
            prefixes: what the keys begin with that will be scanned; scans below each of them are best made
                in the order of their keys.
        """
        return StoreView([(prefix, self._db.iter()) for prefix in prefixes], self._path)

    def delete_range(self, start: bytes, stop: bytes) -> None:
        """Delete all keys `start <= key < stop`, in a time that does not depend on how many there are."""
        self._check_not_linking()
        try:
            self._db.delete_range(start, stop, self._write_options)
        except Exception as error:
            raise disk_failure("state could not be written", self._path, error) from error

    def link_files(self, path: Path) -> None:
        """Make a new directory with links to the files of the store as it is, from any thread.

        Nothing may be written meanwhile.  What is not in files yet is flushed before, which takes its time,
        in which other threads run; the links take some milliseconds, in which they do not.
        """
        try:
            self._db.flush(True)
            Checkpoint(self._db).create_checkpoint(str(path))
        except Exception as error:
            raise disk_failure("state could not be written", self._path, error) from error

    def _check_not_linking(self) -> None:
        """See that nothing gets into a snapshot that is newer than its barrier."""
        if self.linking:
            raise StateError(
                "state was written while the files of a snapshot were made", path=str(self._path)
            )

    def close(self) -> None:
        """Close the store, of which nothing is needed any more; views end with an error."""
        try:
            self._db.close()
        except Exception as error:  # It flushes, which a full disk refuses.
            details = {"path": str(self._path), "cause": str(error)[:200]}
            logger.warning("local store of state was closed with an error", extra=details)


def _batch(changes: Iterable[tuple[bytes, bytes | None]]) -> WriteBatch:
    batch = WriteBatch(raw_mode=True)
    put, delete = batch.put, batch.delete
    for key, value in changes:
        if value is None:
            delete(key)
        else:
            put(key, value)
    return batch


def _write_options(*, no_slowdown: bool) -> WriteOptions:
    options: Any = WriteOptions()  # Its properties are declared as methods.
    options.disable_wal = True
    options.no_slowdown = no_slowdown
    written: WriteOptions = options
    return written


def _options(memory: RocksDbMemory, *, existing: bool) -> Options:
    blocks = BlockBasedOptions()
    blocks.set_block_cache(memory.cache)
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_block_size(_BLOCK_BYTES)
    blocks.set_index_block_restart_interval(_INDEX_RESTART_INTERVAL)
    blocks.set_bloom_filter(_BLOOM_BITS_PER_KEY, False)
    blocks.set_data_block_index_type(DataBlockIndexType.binary_and_hash())
    blocks.set_data_block_hash_ratio(_HASH_RATIO)
    options = Options(raw_mode=True)
    options.create_if_missing(not existing)
    options.set_error_if_exists(not existing)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_manager(memory.buffers)
    options.set_write_buffer_size(memory.buffer_bytes)
    options.set_memtable_prefix_bloom_ratio(_MEMTABLE_BLOOM_RATIO)
    options.set_memtable_whole_key_filtering(True)
    options.set_compression_type(DBCompressionType.none())
    options.set_bottommost_compression_type(DBCompressionType.lz4())
    options.set_max_background_jobs(_BACKGROUND_JOBS)
    options.set_level_zero_file_num_compaction_trigger(COMPACTION_FILES)
    options.set_disable_auto_compactions(not memory.threads)
    options.set_keep_log_file_num(1)
    options.set_max_log_file_size(_LOG_FILE_BYTES_MAX)
    options.set_max_manifest_file_size(_MANIFEST_BYTES_MAX)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def disk_failure(message: str, path: Path, error: Exception) -> StateError:
    """Return the error that says which local files cannot be read or written, and what to look at."""
    return StateError(
        message,
        hint="look at the disk of state.backend.rocksdb.localdir: is it full, or has it failed?",
        path=str(path),
        cause=str(error)[:200],
    )
