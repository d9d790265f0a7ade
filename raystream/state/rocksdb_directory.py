"""Directories of local stores: one for each backend, never used twice.

    <parent>/raystream-state-<token>        the store
    <parent>/raystream-state-<token>.lock   locked by the process for as long as it uses the store

The lock goes with its process, however that ends.  So whoever makes a directory can tell which of its
neighbours have lost their owner, and removes them: local files are of no use to anybody else, since
state is restored from checkpoints.
"""

import fcntl
import logging
import os
import secrets
import shutil
import weakref
from pathlib import Path

from raystream.errors import StateError

logger = logging.getLogger(__name__)

_NAME = "raystream-state-"
_LOCK = ".lock"


class StoreDirectory:
    """A new directory that is locked until `remove`.

    Args:
        parent: where it is made; created when it is missing.

    Raises:
        StateError: it cannot be made; names the path.
    """

    def __init__(self, parent: Path) -> None:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(parent)
            lock_path, lock = _new_lock(parent)
            self.path = lock_path.with_suffix("")
            # Also when nobody removes it: when the last reference goes, and when the process ends.
            self.remove = weakref.finalize(self, _release, self.path, lock_path, lock, os.getpid())
            """Removes the directory with all it holds; may be called again."""
            self.path.mkdir(mode=0o700)  # State is nobody else's, and this may be below `/tmp`.
        except OSError as error:
            raise StateError(
                "local directory for state could not be made",
                hint="set state.backend.rocksdb.localdir to a directory on a local disk with room",
                path=str(parent),
                cause=str(error),
            ) from error


def remove_abandoned(parent: Path) -> None:
    """Remove the directories whose process has ended."""
    for path in sorted(parent.glob(f"{_NAME}*{_LOCK}")):
        lock = _try_lock(path, os.O_RDWR)
        if lock is None:
            continue
        try:
            _remove(path.with_suffix(""), path)
            logger.info("abandoned local state removed", extra={"path": str(path.with_suffix(""))})
        finally:
            os.close(lock)


def _new_lock(parent: Path) -> tuple[Path, int]:
    while True:
        path = parent / f"{_NAME}{secrets.token_hex(8)}{_LOCK}"
        lock = _try_lock(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        if lock is not None:  # Else another process took it for abandoned, before it was locked.
            return path, lock


def _try_lock(path: Path, flags: int) -> int | None:
    """Return a descriptor that holds the lock, or None when another one does or the file is gone."""
    try:
        lock = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == path.stat().st_ino:
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def _release(directory: Path, lock_path: Path, lock: int, owner: int) -> None:
    if os.getpid() == owner:  # Not in a process that was forked from it.
        _remove(directory, lock_path)
    os.close(lock)


def _remove(directory: Path, lock: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    lock.unlink(missing_ok=True)
