"""Durable stores: the operations that snapshots and the job log need, and nothing else.

Knows files, bytes and URLs; knows nothing of snapshots.  Paths are absolute URLs
(`file:///data/x`, `memory://x`); `to_url` makes one from what a user wrote.

The interface fits object stores as well as disks: names are written once and never
reused, there is no rename and no append, a directory needs no creation and one that is
not there is simply empty, and the only atomic operation is "create if absent".

What a store promises, and `tests/unit/storage/contract.py` checks for each of them:

* a reader sees a whole file or none;
* when `write` or `create_exclusive` has returned, the file survives a crash of the machine;
* of all callers of `create_exclusive` for one name, at most one is told True.

fsspec reads, lists and deletes.  It has neither fsync nor an exclusive rename for local
files, so `LocalFileSystem` writes them itself.
"""

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import fsspec

from raystream.errors import ConfigError, StorageError

TEMPORARY_PREFIX = ".tmp-"
"""How names of unfinished files start; one that outlives its writer is garbage."""

Buffer = bytes | bytearray | memoryview
Data = Buffer | Sequence[Buffer]
"""What is written: one buffer, or several that follow each other without being joined."""

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")

_ADVICE = {
    errno.EACCES: "check that the user who runs the job may read and write there",
    errno.EPERM: "check that the user who runs the job may write there, and that the store has hard links",
    errno.EROFS: "the disk is mounted read-only; choose another directory",
    errno.ENOSPC: "the disk is full; free some space or choose another directory",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another directory",
    errno.ENOTDIR: "a part of the path is a file; choose another directory",
    errno.EOPNOTSUPP: "the store has no hard links, which the job log needs; choose another directory",
}


class MissingFileError(StorageError):
    """The file does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file or directory in a listing."""

    name: str
    """Last part of its path."""
    directory: bool
    size_bytes: int
    """0 for directories."""


class FileSystem(Protocol):
    """A durable store.  All calls block, are thread-safe and raise `StorageError`."""

    def read(self, url: str) -> bytes:
        """Return the whole file.

        Raises:
            MissingFileError: there is no such file.
        """

    def read_range(self, url: str, offset: int, length: int) -> bytes:
        """Return bytes `[offset, offset + length)`, fewer where the file ends before.

        Raises:
            MissingFileError: there is no such file.
        """

    def write(self, url: str, data: Data) -> None:
        """Create the file durably, with the directories above it; the name was never used before."""

    def create_exclusive(self, url: str, data: Data) -> bool:
        """Create the file durably unless the name is taken; False when it is, with nothing changed.

        With either answer the file that has the name is durable.

        Raises:
            StorageError: the outcome is not known; asking again tells.
        """

    def list_dir(self, url: str) -> list[Entry]:
        """Return what is directly inside a directory, by name; nothing when it does not exist."""

    def exists(self, url: str) -> bool:
        """Return whether a file or a directory has this name."""

    def delete_file(self, url: str) -> None:
        """Remove a file; nothing happens when it does not exist."""

    def delete_dir(self, url: str) -> None:
        """Remove a directory and all below it; nothing happens when it does not exist."""


OpenFileSystem = Callable[[str], FileSystem]
"""Gives the store of a URL; what everything in `raystream.storage` is built with."""


def to_url(path: str) -> str:
    """Return the absolute URL of a path or URL that a user wrote, without a slash at its end.

    Raises:
        ConfigError: the path is empty or of a store that is not supported.

    Example:
        >>> to_url("file:///data/checkpoints/")
        'file:///data/checkpoints'
    """
    if not path:
        raise ConfigError("path is empty", hint="give a directory or a file:// URL")
    match = _SCHEME.match(path)
    scheme, rest = (match[1].lower(), path[match.end() :]) if match else ("file", path)
    if scheme == "file":
        # Not `Path.resolve`: a link that the user has set up stays in the names that we store.
        return "file://" + os.path.abspath(Path(rest).expanduser())  # noqa: PTH100
    if scheme == "memory":
        return "memory://" + rest.strip("/")
    raise ConfigError(
        "store is not supported", scheme=scheme, path=path, hint="use a directory or a file:// URL"
    )


def join_url(url: str, *names: str) -> str:
    """Return the URL of something below a directory.

    Example:
        >>> join_url("file:///data", "chk-3", "_metadata")
        'file:///data/chk-3/_metadata'
    """
    return "/".join((url.rstrip("/"), *names))


def split_url(url: str) -> tuple[str, str]:
    """Return the URL of the directory that something is in, and its name there."""
    directory, _, name = url.rpartition("/")
    return directory, name


def open_file_system(url: str) -> FileSystem:
    """Return the store that holds a URL of `to_url`.

    Raises:
        ConfigError: the store is not supported.
    """
    if to_url(url).startswith("file://"):
        return LocalFileSystem()
    return FsspecFileSystem(url)


def buffers(data: Data) -> Sequence[Buffer]:
    """Return the data as a sequence of buffers, none of them copied."""
    return (data,) if isinstance(data, bytes | bytearray | memoryview) else data


class FsspecFileSystem:
    """A store that fsspec knows, by the scheme of its URLs."""

    # A store in memory has one process, and its own check for existence is not atomic.
    _exclusive = threading.Lock()

    def __init__(self, url: str) -> None:
        self._fs: Any = fsspec.filesystem(to_url(url).partition("://")[0])

    def read(self, url: str) -> bytes:
        with _translated("read file", url):
            return bytes(self._fs.cat_file(url))

    def read_range(self, url: str, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        with _translated("read file", url):
            return bytes(self._fs.cat_file(url, start=offset, end=offset + length))

    def write(self, url: str, data: Data) -> None:
        with _translated("write file", url):
            self._fs.pipe_file(url, b"".join(buffers(data)))

    def create_exclusive(self, url: str, data: Data) -> bool:
        with _translated("create file", url), self._exclusive:
            try:
                self._fs.pipe_file(url, b"".join(buffers(data)), mode="create")
            except FileExistsError:
                return False
            return True

    def list_dir(self, url: str) -> list[Entry]:
        with _translated("list directory", url):
            try:
                found = self._fs.ls(url, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        entries = (
            Entry(
                name=item["name"].rstrip("/").rpartition("/")[2],
                directory=item["type"] == "directory",
                size_bytes=0 if item["type"] == "directory" else item["size"],
            )
            for item in found
        )
        return sorted(entries, key=lambda entry: entry.name)

    def exists(self, url: str) -> bool:
        # Not fsspec's own `exists`, which answers False to any error.
        with _translated("look up file", url):
            try:
                self._fs.info(url)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def delete_file(self, url: str) -> None:
        with _translated("delete file", url), suppress(FileNotFoundError, NotADirectoryError):
            self._fs.rm_file(url)

    def delete_dir(self, url: str) -> None:
        with _translated("delete directory", url), suppress(FileNotFoundError, NotADirectoryError):
            self._fs.rm(url, recursive=True)


class LocalFileSystem(FsspecFileSystem):
    """Disks of this machine, and network disks mounted on it.

    A file is written under a temporary name, synced, and then given its name by `rename`, or
    by `link`, which fails when the name is taken.  The directory is synced after it.
    """

    def __init__(self) -> None:
        super().__init__("file:///")

    def write(self, url: str, data: Data) -> None:
        with _translated("write file", url):
            path = _local_path(url)
            temporary = _write_temporary(path.parent, data)
            try:
                temporary.rename(path)
            except OSError:
                _discard(temporary)
                raise
            _sync_directory(path.parent)

    def create_exclusive(self, url: str, data: Data) -> bool:
        with _translated("create file", url):
            path = _local_path(url)
            temporary = _write_temporary(path.parent, data)
            try:
                path.hardlink_to(temporary)
                created = True
            except FileExistsError:
                created = False
            finally:
                _discard(temporary)
            # Also when the name was taken: its owner may have died before it came so far.
            _sync_directory(path.parent)
            return created

    def delete_file(self, url: str) -> None:
        with _translated("delete file", url):
            path = _local_path(url)
            # Gone already, or its directory is by now: a sweep may remove the same checkpoint meanwhile.
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
                _sync_directory(path.parent)


def _local_path(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def _write_temporary(directory: Path, data: Data) -> Path:
    """Write and sync a new file with a name of its own in a directory; return its path."""
    _make_directory(directory)
    path = directory / (TEMPORARY_PREFIX + os.urandom(8).hex())
    try:
        with path.open("xb") as file:
            for buffer in buffers(data):
                file.write(buffer)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # Also what the data itself raises, when nobody wants it any more.
        _discard(path)
        raise
    return path


def _discard(path: Path) -> None:
    # What cannot be removed is swept later; the caller's own error is the one that matters.
    with suppress(OSError):
        path.unlink()


def _make_directory(path: Path) -> None:
    """Create a directory and those above it, each one durably."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(attempted: str, url: str) -> Iterator[None]:
    """Turn what the operating system and fsspec raise into a `StorageError` that names the path."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError("file does not exist", path=url) from error
    except (OSError, ValueError) as error:
        code = error.errno if isinstance(error, OSError) else None
        raise StorageError(
            f"could not {attempted}",
            path=url,
            cause=(os.strerror(code) if code else str(error)),
            hint=_ADVICE.get(code, "") if code else "",
        ) from error
