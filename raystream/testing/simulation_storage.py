"""A durable store in memory, for the simulation: survives every process, and fails when it is told to.

Keeps the promises of `raystream.storage.filesystem`: a file is whole or not there, and of all
that create one name exclusively one is told True.  A directory is deleted file by file, so
that an error may leave half of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from raystream.storage.filesystem import Data, Entry, MissingFileError, buffers

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class StorageCall:
    """One call of the store."""

    operation: str
    """Name of the method."""
    url: str
    data: bytes = b""
    """What is written."""


class StorageWatcher(Protocol):
    """Sees every call; may raise instead of it, or instead of its answer."""

    def storage_called(self, call: StorageCall) -> None:
        """Called before anything has happened."""

    def storage_done(self, call: StorageCall) -> None:
        """Called when it has happened and the caller does not know it yet."""


class SimulatedFileSystem:
    """A store whose files are in memory.

    Attributes:
        files: content by URL.
    """

    parallel = False

    def __init__(self, watcher: StorageWatcher) -> None:
        self.files: dict[str, bytes] = {}
        self._watcher = watcher

    def read(self, url: str) -> bytes:
        return self._call(StorageCall("read", url), lambda: self._content(url))

    def read_range(self, url: str, offset: int, length: int) -> bytes:
        return self._call(
            StorageCall("read_range", url), lambda: self._content(url)[offset : offset + length]
        )

    def write(self, url: str, data: Data) -> None:
        content = b"".join(buffers(data))
        self._call(StorageCall("write", url, content), lambda: self._put(url, content))

    def link(self, url: str, source: Path) -> bool:
        if linked := source.exists():
            content = source.read_bytes()
            self._call(StorageCall("link", url, content), lambda: self._put(url, content))
        return linked

    def create_exclusive(self, url: str, data: Data) -> bool:
        content = b"".join(buffers(data))

        def create() -> bool:
            if url in self.files:
                return False
            self._put(url, content)
            return True

        return self._call(StorageCall("create_exclusive", url, content), create)

    def list_dir(self, url: str) -> list[Entry]:
        return self._call(StorageCall("list_dir", url), lambda: self._entries(url))

    def exists(self, url: str) -> bool:
        return self._call(StorageCall("exists", url), lambda: url in self.files or bool(self._below(url)))

    def delete_file(self, url: str) -> None:
        self._call(StorageCall("delete_file", url), lambda: self._remove(url))

    def delete_dir(self, url: str) -> None:
        for path in self._below(url):
            self.delete_file(path)

    def _call(self, call: StorageCall, effect: Callable[[], R]) -> R:
        self._watcher.storage_called(call)
        result = effect()
        self._watcher.storage_done(call)
        return result

    def _content(self, url: str) -> bytes:
        if url not in self.files:
            raise MissingFileError("file does not exist", path=url)
        return self.files[url]

    def _put(self, url: str, content: bytes) -> None:
        self.files[url] = content

    def _remove(self, url: str) -> None:
        self.files.pop(url, None)

    def _below(self, url: str) -> list[str]:
        return sorted(path for path in self.files if path.startswith(url + "/"))

    def _entries(self, url: str) -> list[Entry]:
        entries: dict[str, Entry] = {}
        for path in self._below(url):
            name, _, deeper = path[len(url) + 1 :].partition("/")
            size_bytes = 0 if deeper else len(self.files[path])
            entries[name] = Entry(name=name, directory=bool(deeper), size_bytes=size_bytes)
        return [entries[name] for name in sorted(entries)]
