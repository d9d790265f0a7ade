"""Durable stores: the operations that snapshots and the job log need, and nothing else.

Knows files, bytes and URLs; knows nothing of snapshots, and of no store in particular.  Paths are
absolute URLs (`file:///data/x`, `memory://x`); `raystream.storage.stores` makes one from what a user
wrote, and opens the store that holds it.

The interface fits object stores as well as disks: names are written once and never
reused, there is no rename and no append, a directory needs no creation and one that is
not there is simply empty, and the only atomic operation is "create if absent".

What a store promises, and `tests/unit/storage/contract.py` checks for each of them:

* a reader sees a whole file or none;
* when `write` or `create_exclusive` has returned, or `link` has with True, the file survives a crash of the
  machine;
* of all callers of `create_exclusive` for one name, at most one is told True.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raystream.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"
"""How names of unfinished files start; one that outlives its writer is garbage."""

Buffer = bytes | bytearray | memoryview
Data = Buffer | Sequence[Buffer]
"""What is written: one buffer, or several that follow each other without being joined."""


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

    @property
    def parallel(self) -> bool:
        """Whether several files at once are faster than one after the other, as with a distant store."""

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

    def link(self, url: str, source: Path) -> bool:
        """Create the file durably as a second name of a local one that never changes; costs no copy.

        The name was never used before.  False where the store cannot, since it is no disk of this machine, or
        another file system than that of the file: `write` is to be called then.
        """

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


def buffers(data: Data) -> Sequence[Buffer]:
    """Return the data as a sequence of buffers, none of them copied."""
    return (data,) if isinstance(data, bytes | bytearray | memoryview) else data
