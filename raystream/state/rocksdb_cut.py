"""Links to the files of a store as it is at one moment, made while the loop goes on.

    begin ──flush, in a thread of its own──> flushed ──link──> made ──> removed

RocksDB cannot be told to leave out what is written during its flush, so nothing may be: the loop keeps
newer values in its cache meanwhile, or waits.
"""

import shutil
import threading
from pathlib import Path

from raystream.errors import StateError
from raystream.state.rocksdb import RocksDbStore

LARGE_SUFFIX = ".sst"
"""Files that never change and are worth sharing; the others are small."""

_SMALL_PREFIXES = ("CURRENT", "MANIFEST-")
"""What is needed beside them to open the store; options are given anew."""


class StoreCut:
    """The files of a store, in a directory of links.

    Args:
        store: that refuses to be written until `wait` has returned True.
        path: of the new directory.
        keeps: is not let go before the thread has ended: the directory above, which goes with its last user.
    """

    def __init__(self, store: RocksDbStore, path: Path, *, keeps: object) -> None:
        self._store = store
        self._keeps = keeps
        self._path = path
        self._made = threading.Event()
        self._error: StateError | None = None
        self._removed = False
        store.linking = True
        if store.threads:
            threading.Thread(target=self._make, name="rocksdb-cut", daemon=True).start()
        else:
            self._make()

    def _make(self) -> None:
        try:
            self._store.link_files(self._path)
        except StateError as error:
            self._error = error
        finally:
            self._store.linking = False
            self._made.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return whether the files are there, or failed to, after a wait."""
        return self._made.wait(timeout_s)

    def files(self) -> list[Path]:
        """Return the files that never change; waits for them.

        Raises:
            StateError: they could not be made; names the path.
        """
        return [path for path in self._listed() if path.suffix == LARGE_SUFFIX]

    def small_files(self) -> dict[str, bytes]:
        """Return name and content of the others; raises as `files`."""
        small = [path for path in self._listed() if path.name.startswith(_SMALL_PREFIXES)]
        try:
            return {path.name: path.read_bytes() for path in small}
        except OSError as error:
            raise self._gone(error) from error

    def remove(self) -> None:
        """Have the directory removed by a thread of its own, when it is made; may be called again.

        There may be thousands of links, and the disk busy.  Meanwhile whoever has the store may remove
        all that is around the directory.
        """
        if not self._removed:
            self._removed = True
            threading.Thread(target=self._remove, name="rocksdb-cut-removal", daemon=True).start()

    def _remove(self) -> None:
        self._made.wait()
        shutil.rmtree(self._path, ignore_errors=True)

    def _listed(self) -> list[Path]:
        self._made.wait()
        if self._error is not None:
            raise self._error
        try:
            return sorted(self._path.iterdir())
        except OSError as error:
            raise self._gone(error) from error

    def _gone(self, error: OSError) -> StateError:
        return StateError("local files of state are gone", path=str(self._path), cause=str(error))
