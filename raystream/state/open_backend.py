"""Opens the keyed state backends of a slot, as configured."""

import os
import tempfile
from pathlib import Path

from raystream.clock import Clock
from raystream.config.options import BackendConfig
from raystream.keygroup import KeyGroupRange
from raystream.state.backend import KeyedStateBackend
from raystream.state.cursor import KeyCursor
from raystream.state.heap import HeapBackend
from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings


def local_directory(config: BackendConfig) -> Path:
    """Return the directory of a node for everything that has to do with state; it may not be there yet.

    Unless it is configured, each user has one: nobody could write into that of another one.
    """
    return Path(config.rocksdb_directory or Path(tempfile.gettempdir()) / f"raystream-state-{os.getuid()}")


class BackendOpener:
    """Opens backends that share the memory of one slot, and closes them together.

    Args:
        config: which backend, and how much memory.
        clock: tells the processing time.
        keyed_operators: how many backends will be opened.
        threads: whether backends merge and link their files in threads of their own, when these come to it.
    """

    def __init__(
        self, config: BackendConfig, clock: Clock, *, keyed_operators: int = 1, threads: bool = True
    ) -> None:
        self._clock = clock
        self._opened: list[KeyedStateBackend] = []
        self._rocksdb: RocksDbSettings | None = None
        if config.type == "rocksdb" and keyed_operators:
            self._rocksdb = RocksDbSettings(
                parent=local_directory(config),
                memory=RocksDbMemory(config.rocksdb_managed_bytes, threads=threads),
                cache_bytes=config.rocksdb_cache_bytes // keyed_operators,
            )

    def open(self, groups: KeyGroupRange, max_parallelism: int, cursor: KeyCursor) -> KeyedStateBackend:
        """Return a new, empty backend.

        Args:
            groups: key groups that the subtask owns.
            max_parallelism: number of key groups of the operator.
            cursor: says which key is meant.

        Raises:
            StateError: the local directory cannot be made; names the path.
        """
        backend: KeyedStateBackend
        if self._rocksdb is None:
            backend = HeapBackend(groups, max_parallelism, cursor, clock=self._clock)
        else:
            backend = RocksDbBackend(
                groups, max_parallelism, cursor, settings=self._rocksdb, clock=self._clock
            )
        self._opened.append(backend)
        return backend

    def close(self) -> None:
        """Close all backends and let go of them; may be called again."""
        opened, self._opened = self._opened, []
        for backend in opened:
            backend.close()
