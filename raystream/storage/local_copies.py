"""Copies of checkpoints on the disk of their node, for a recovery that need not wait for the store.

    <parent>/raystream-copies-<job id>/lock               held, shared, by every slot of the job on this node
    <parent>/raystream-copies-<job id>/chk-<n>/<name>     a file of checkpoint n, as it is called in the store

Names of files in a snapshot are never given twice, so a copy is known by its job, checkpoint and name;
whether it is right, only size and checksum say, which stand in the snapshot.  A copy that is not right is not
used, and so it needs neither be synced nor be whole: all that may fail here is a copy, never a checkpoint
and never a restore.

Files of state that lie on the same disk are linked and cost nothing; whatever else a checkpoint has is
written once more.  Each checkpoint has a directory of its own, with a link to each file that it shares
with others, so that what a checkpoint no longer needs goes with its directory, whoever removes it: any
slot of the job, when a newer checkpoint is complete, when this one is aborted, or when an attempt begins from
another.  Slots of several processes do that at the same time, and none needs to know the others.

The last slot of a job that closes in order removes everything.  Where none did, since they were killed and
their successors run elsewhere, a slot that opens later, of any job, removes what has not been used for
long.
"""

import errno
import fcntl
import logging
import os
import secrets
import shutil
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

from raystream.clock import Clock
from raystream.ids import CheckpointId, JobId
from raystream.storage.filesystem import TEMPORARY_PREFIX, Buffer, Data, FileSystem, buffers, split_url
from raystream.storage.layout import checkpoint_of, job_of

logger = logging.getLogger(__name__)

FREE_BYTES_MIN = 1 << 30
"""What a copy leaves free on the disk; where there is less, none is written."""

UNUSED_MS_MAX = 600_000
"""Time after which the copies of a job without a slot on this node are removed; one that is replaced
comes back sooner."""

PIECE_BYTES = 4 << 20
"""Piece in which a copy is verified."""

LOCK_ATTEMPTS_MAX = 100
"""How often a directory is made that others remove at the same time."""

_PREFIX = "raystream-copies-"
_LOCK = "lock"


class LocalCopies:
    """The copies of one job on this node, for one slot.  Thread-safe; no method raises `OSError`.

    Args:
        parent: directory on a local disk; made when it is missing.
        job_id: of the job.
        clock: tells how long other jobs' copies were not used.
    """

    def __init__(self, parent: Path, job_id: JobId, clock: Clock) -> None:
        self._directory = parent / f"{_PREFIX}{job_id}"
        self._job_id = job_id
        self._lock: int | None = None
        self._refused = False
        self._closed = False
        try:
            _remove_unused(parent, clock.wall_ms())
            self._lock = _lock(self._directory)
        except OSError as error:
            self._refuse(error)

    def write(self, directory: str, name: str, data: Data) -> None:
        """Copy a file that was stored.

        Args:
            directory: URL of its snapshot; one that is no checkpoint has no copies.
            name: of the file.
            data: its content; what it raises itself is passed on.
        """
        target = self._path(directory, name)
        if target is None or self._refused:
            return
        parts = buffers(data)
        try:
            target.parent.mkdir(exist_ok=True)
            _leave_room(target.parent, sum(memoryview(part).nbytes for part in parts))
            _write(target, parts)
        except FileNotFoundError:
            return  # The checkpoint is not wanted any more, and another slot has removed the directory.
        except OSError as error:
            self._refuse(error)

    def link(self, directory: str, name: str, source: Path) -> None:
        """Copy a file that was stored, now or for an older checkpoint, by a link to where it lies.

        Args:
            directory: URL of the checkpoint that needs it.
            name: of the file in the store.
            source: the local file, which never changes.
        """
        target = self._path(directory, name)
        if target is None or self._refused:
            return
        try:
            target.parent.mkdir(exist_ok=True)
            with suppress(FileExistsError):
                target.hardlink_to(source)
        except FileNotFoundError:
            return  # As above, or the backend was closed.
        except OSError as error:
            self._refuse(error)

    def open(self, directory: str, name: str, size_bytes: int, checksum: str) -> "LocalCopy | None":
        """Return a copy after all of it was read and is right; None when it is not, or there is none."""
        path = self._path(directory, name)
        if path is None:
            return None
        try:
            copy = LocalCopy(path)
        except OSError:
            return None
        if copy.matches(size_bytes, checksum):
            return copy
        logger.warning("local copy is damaged, the checkpoint store is read", extra={"path": str(path)})
        return None

    def attempt_began(self, restored: CheckpointId) -> None:
        """Remove all copies but those of the checkpoint that every slot restores; blocks."""
        self._refused = self._lock is None
        self._remove(lambda checkpoint_id: checkpoint_id != restored)

    def checkpoint_completed(self, checkpoint_id: CheckpointId) -> None:
        """Remove the copies of older checkpoints; blocks."""
        self._remove(lambda other: other < checkpoint_id)

    def checkpoint_aborted(self, checkpoint_id: CheckpointId) -> None:
        """Remove the copies of a checkpoint; blocks."""
        self._remove(lambda other: other == checkpoint_id)

    def close(self) -> None:
        """Have nothing more copied; remove everything, unless another slot of the job is on this node."""
        self._closed = True
        lock, self._lock = self._lock, None
        if lock is None:
            return
        os.close(lock)
        _remove_job(self._directory)

    def _path(self, directory: str, name: str) -> Path | None:
        base, last = split_url(directory)
        checkpoint_id = checkpoint_of(last)
        if checkpoint_id is None or job_of(split_url(base)[1]) != self._job_id:
            return None
        if self._lock is None or "/" in name:
            return None
        return self._directory / f"chk-{checkpoint_id}" / name

    def _remove(self, unwanted: Callable[[CheckpointId], bool]) -> None:
        if self._lock is None:
            return
        with suppress(OSError):
            os.utime(self._directory / _LOCK)
            for path in list(self._directory.iterdir()):
                checkpoint_id = checkpoint_of(path.name)
                if checkpoint_id is not None and unwanted(checkpoint_id):
                    shutil.rmtree(path, ignore_errors=True)

    def _refuse(self, error: OSError) -> None:
        """Make no more copies until the next attempt, and say why once."""
        if self._refused or self._closed:
            return
        self._refused = True
        logger.warning(
            "checkpoints are not copied to the local disk; a recovery reads the checkpoint store",
            extra={"path": str(self._directory), "cause": error.strerror or str(error)},
        )


class LocalCopy:
    """A copy that is read; it may be removed meanwhile."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def matches(self, size_bytes: int, checksum: str) -> bool:
        """Return whether it is what was stored; reads all of it."""
        hasher = xxhash.xxh3_64()
        try:
            if os.fstat(self._file).st_size != size_bytes:
                return False
            for offset in range(0, size_bytes, PIECE_BYTES):
                hasher.update(os.pread(self._file, PIECE_BYTES, offset))
        except OSError:
            return False
        return hasher.hexdigest() == checksum

    def read_range(self, offset: int, length: int) -> bytes:
        """Return bytes `[offset, offset + length)`, fewer where it ends before.

        Raises:
            OSError: the disk failed.
        """
        pieces = []
        while length and (piece := os.pread(self._file, length, offset)):
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """Reads one file of a store from its copy, and from the store where the disk fails."""

    copy: LocalCopy
    store: FileSystem
    size_bytes: int

    def read(self, url: str) -> bytes:
        """Return the whole file."""
        try:
            return self.copy.read_range(0, self.size_bytes)
        except OSError:
            return self.store.read(url)

    def read_range(self, url: str, offset: int, length: int) -> bytes:
        """Return bytes `[offset, offset + length)`, fewer where the file ends before."""
        try:
            return self.copy.read_range(offset, length)
        except OSError:
            return self.store.read_range(url, offset, length)


def on_another_disk(store: str, parent: Path) -> bool:
    """Return whether a store is further away than local copies would be.

    Args:
        store: URL of a directory.
        parent: of the copies.
    """
    if not store.startswith("file://"):
        return not store.startswith("memory://")
    try:
        return _device(Path(store.removeprefix("file://"))) != _device(parent)
    except OSError:
        return False


def _device(path: Path) -> int:
    """Return the device of a path, or of what is above it and is there."""
    while not path.exists():
        path = path.parent
    return path.stat().st_dev


def _leave_room(directory: Path, size_bytes: int) -> None:
    disk = os.statvfs(directory)
    if disk.f_bavail * disk.f_frsize - size_bytes < FREE_BYTES_MIN:
        raise OSError(errno.ENOSPC, f"less than {FREE_BYTES_MIN >> 20} MiB would be left on the disk")


def _write(target: Path, parts: Sequence[Buffer]) -> None:
    """Write a file that is not there before it is whole, unless the machine stops."""
    unfinished = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        with unfinished.open("xb") as file:
            for part in parts:
                file.write(part)
        unfinished.rename(target)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def _lock(directory: Path) -> int:
    """Make a directory and return a descriptor that holds its lock, shared.

    Raises:
        OSError: the directory cannot be made or locked.
    """
    path = directory / _LOCK
    for _ in range(LOCK_ATTEMPTS_MAX):
        directory.mkdir(0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # It was being removed.
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if os.fstat(lock).st_ino == path.stat().st_ino:
                    return lock
            os.close(lock)
    raise OSError(errno.EAGAIN, "it is removed again and again")


def _remove_job(directory: Path) -> None:
    """Remove the copies of a job unless a slot holds their lock."""
    with suppress(OSError):
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # At one stroke, since a slot that comes now begins anew under the old name.
            gone = directory.with_name(f"{_PREFIX}removed-{secrets.token_hex(8)}")
            directory.rename(gone)
        finally:
            os.close(lock)
        shutil.rmtree(gone, ignore_errors=True)


def _remove_unused(parent: Path, now_ms: int) -> None:
    """Remove the copies of jobs that have had no slot here for long."""
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):
            if lock.stat().st_mtime * 1000 < now_ms - UNUSED_MS_MAX:
                _remove_job(lock.parent)
