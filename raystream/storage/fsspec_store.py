"""Stores that fsspec knows: it reads, lists and deletes, and this module says what went wrong.

Each store that needs more than that is a subclass in a module of its own.
"""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from raystream.errors import StorageError
from raystream.storage.filesystem import Data, Entry, MissingFileError, buffers

GONE = (FileNotFoundError, NotADirectoryError)
"""What is raised for a file that is not there, nor its directory."""

_ADVICE = {
    errno.EACCES: "check that the user who runs the job may read and write there",
    errno.EPERM: "check that the user who runs the job may write there, and that the store has hard links",
    errno.EROFS: "the disk is mounted read-only; choose another directory",
    errno.ENOSPC: "the disk is full; free some space or choose another directory",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another directory",
    errno.ENOENT: "a directory above it cannot be made; choose another directory",
    errno.ENOTDIR: "a part of the path is a file; choose another directory",
    errno.EOPNOTSUPP: "the store has no hard links, which the job log needs; choose another directory",
}


class FsspecFileSystem:
    """A store that fsspec knows; as it stands, the one in the memory of this process.

    Args:
        fs: fsspec's own object for it.
    """

    parallel = False

    # A store in memory has one process, and neither its own check for existence nor its deletions are atomic.
    _exclusive = threading.Lock()

    def __init__(self, fs: fsspec.AbstractFileSystem) -> None:
        self._fs: Any = fs

    def read(self, url: str) -> bytes:
        with translated("read file", url, missing=GONE):
            return bytes(self._fs.cat_file(url))

    def read_range(self, url: str, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        with translated("read file", url, missing=GONE):
            return bytes(self._fs.cat_file(url, start=offset, end=offset + length))

    def write(self, url: str, data: Data) -> None:
        with translated("write file", url):
            self._fs.pipe_file(url, b"".join(buffers(data)))

    def link(self, url: str, source: Path) -> bool:
        return False

    def create_exclusive(self, url: str, data: Data) -> bool:
        with translated("create file", url), self._exclusive:
            try:
                self._fs.pipe_file(url, b"".join(buffers(data)), mode="create")
            except FileExistsError:
                return False
            return True

    def list_dir(self, url: str) -> list[Entry]:
        with translated("list directory", url):
            try:
                found = self._fs.ls(url, detail=True)
            except GONE:
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
        with translated("look up file", url):
            try:
                self._fs.info(url)
            except GONE:
                return False
            return True

    def delete_file(self, url: str) -> None:
        with translated("delete file", url), self._exclusive, suppress(*GONE):
            self._fs.rm_file(url)

    def delete_dir(self, url: str) -> None:
        with translated("delete directory", url), self._exclusive, suppress(*GONE):
            self._fs.rm(url, recursive=True)


@contextmanager
def translated(attempted: str, url: str, *, missing: tuple[type[OSError], ...] = ()) -> Iterator[None]:
    """Turn what the operating system and fsspec raise into a `StorageError` that names the path.

    Args:
        attempted: what is done in the context.
        url: to what.
        missing: errors that say that what is read is not there.
    """
    try:
        yield
    except missing as error:
        raise MissingFileError("file does not exist", path=url) from error
    except (OSError, ValueError) as error:
        code = error.errno if isinstance(error, OSError) else None
        raise StorageError(
            f"could not {attempted}",
            path=url,
            cause=(os.strerror(code) if code else str(error)),
            hint=_ADVICE.get(code, "") if code else "",
        ) from error
