"""State on its way between a slot and a snapshot: blobs and files, written once, verified when read.

Knows bytes and handles; what a blob means is known to `raystream.state`.  A blob is *inline*
(it travels with the acknowledgement and ends up in `_metadata`) when it is small, and a file in
the snapshot's directory when not.  A file beside a blob is in that directory too, or, when other checkpoints
may need it, in the job's shared directory, whatever its size.
With `jobmanager` storage there is no directory, so that everything is inline and bounded.

A whole read verifies size and checksum.  A range read verifies only that the range is there, and the
end of the blob when it reads that: the keyed format says there, with a checksum for each, where the sections
are, so that a subtask which reads a tenth of a file need not read it all to trust it, and to know that it
is the file that was written.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import xxhash

from raystream.errors import CheckpointError, StateCorruptError
from raystream.handles import FOOTER_BYTES_MAX, FileHandle, Footer, Handle, InlineHandle, SharedFile
from raystream.storage.filesystem import (
    Buffer,
    Data,
    FileSystem,
    MissingFileError,
    OpenFileSystem,
    buffers,
    join_url,
)
from raystream.storage.layout import metadata_path, resolve, shared_file
from raystream.storage.local_copies import CopiedFile, LocalCopies
from raystream.storage.stores import open_file_system
from raystream.storage.transfers import Transfers

A = TypeVar("A")
T = TypeVar("T")

INLINE_BYTES_MAX = 1024 * 1024
"""No blob above this is inline in a snapshot that has a directory, whatever the configuration says."""

JOBMANAGER_BYTES_MAX = 5 * 1024 * 1024
"""Largest blob that `jobmanager` storage takes."""

FETCH_BYTES = 16 << 20
"""Piece in which a large file is copied from the store to the local disk."""

LOST = "restore the file from a backup, or start from another checkpoint or savepoint"
"""Advice where a file of a snapshot is missing or damaged."""


class RangeReader(Protocol):
    """Reads parts of a stored blob."""

    @property
    def path(self) -> str:
        """Where it is, for errors."""

    @property
    def size_bytes(self) -> int:
        """Length of the whole blob."""

    def read_range(self, offset: int, length: int) -> bytes:
        """Return exactly the bytes `[offset, offset + length)`.

        Raises:
            StateCorruptError: the blob is not there or ends before.
            StorageError: the store did not answer.
        """

    def read_all(self) -> bytes:
        """Return the whole blob, its checksum verified.

        Raises:
            StateCorruptError: the blob is not there, or not what was written.
            StorageError: the store did not answer.
        """


class SnapshotFiles:
    """Writes and reads the blobs of snapshots; what a slot knows of storage.

    Attributes:
        open_fs: gives the store of a URL.
        copies: on the disk of this node, of what is written; read in place of the store where they are
            right.
        copied_bytes: size of the files that were opened and have such a copy.
        stored_bytes: size of those that have none.
    """

    def __init__(self, open_fs: OpenFileSystem = open_file_system, copies: LocalCopies | None = None) -> None:
        self.open_fs = open_fs
        self.copies = copies
        self.copied_bytes = 0
        self.stored_bytes = 0
        self._transfers = Transfers()

    def each(self, directory: str, work: Callable[[A], T], items: Iterable[A]) -> list[T]:
        """Return the work's result for each item in order; several at once where the store gains by it.

        Args:
            directory: URL of the directory that the work is about; empty with `jobmanager` storage.
            work: blocks; what it raises is raised when nothing of this is under way any more.  It must
                not call this itself.
            items: what to work on.
        """
        if directory and self.open_fs(directory).parallel:
            return self._transfers.each(work, items)
        return list(map(work, items))

    def write_blob(self, directory: str, name: str, data: Data, *, inline_bytes_max: int) -> Handle:
        """Store a blob durably and return its handle.

        Args:
            directory: URL of the snapshot's directory, `Barrier.directory`; empty with
                `jobmanager` storage.
            name: of `layout.data_file`; never used before.
            data: the blob, as one buffer or several in a row.
            inline_bytes_max: the configured threshold; a blob up to this size gets no file.

        Raises:
            CheckpointError: the blob is too large for `jobmanager` storage.
            StorageError: the store refused.
        """
        parts = buffers(data)
        size_bytes = sum(memoryview(part).nbytes for part in parts)
        if not directory and size_bytes > JOBMANAGER_BYTES_MAX:
            raise CheckpointError(
                "state of one subtask is too large for checkpoint storage jobmanager",
                state=name,
                size_bytes=size_bytes,
                size_bytes_max=JOBMANAGER_BYTES_MAX,
                hint="set execution.checkpointing.dir, so that state goes to files (storage filesystem)",
            )
        if not directory or size_bytes <= min(inline_bytes_max, INLINE_BYTES_MAX):
            return InlineHandle(data=b"".join(parts))
        hasher = xxhash.xxh3_64()
        for part in parts:
            hasher.update(part)
        self.open_fs(directory).write(join_url(directory, name), parts)
        if self.copies is not None:
            self.copies.write(directory, name, parts)
        end = _end(parts, FOOTER_BYTES_MAX)
        footer = Footer(size_bytes=len(end), checksum=xxhash.xxh3_64_hexdigest(end))
        return FileHandle(path=name, size_bytes=size_bytes, checksum=hasher.hexdigest(), footer=footer)

    def write_file(self, directory: str, file: FileHandle, data: Data) -> None:
        """Store a file of a snapshot durably.

        Args:
            directory: URL of the snapshot's directory.
            file: what is known of it; its path was never used before.
            data: its content.

        Raises:
            StateCorruptError: the path leads out of the directory.
            StorageError: the store refused.
        """
        self.open_fs(directory).write(resolve(directory, file.path), data)

    def write_shared(self, directory: str, file: SharedFile, data: Data) -> None:
        """Store a file that several checkpoints may need durably.

        Args:
            directory: URL of the directory of the checkpoint that it is written for.
            file: what is known of it; its name was never used before.
            data: its content.

        Raises:
            StorageError: the store refused.
        """
        self.open_fs(directory).write(shared_file(directory, file.name), data)

    def link_shared(self, directory: str, file: SharedFile, source: Path) -> bool:
        """Store such a file without a copy; False where the store is not on its file system.

        Args:
            directory: as for `write_shared`.
            file: likewise.
            source: where it lies on this node; it never changes.

        Raises:
            StorageError: the store refused.
        """
        return self.open_fs(directory).link(shared_file(directory, file.name), source)

    def copy_shared(self, directory: str, file: SharedFile, source: Path) -> None:
        """Keep a copy of a shared file on the disk of this node, which is a link.

        Args:
            directory: URL of the directory of a checkpoint that needs it.
            file: what is known of it.
            source: where it lies on this node; it never changes.
        """
        if self.copies is not None:
            self.copies.link(directory, file.name, source)

    def delete_shared(self, directory: str, file: SharedFile) -> None:
        """Remove a file that no checkpoint will refer to.

        Raises:
            StorageError: the store refused.
        """
        self.open_fs(directory).delete_file(shared_file(directory, file.name))

    def read_shared(self, directory: str, file: SharedFile) -> Iterator[bytes]:
        """Yield a shared file in pieces; they are verified when the last one was taken.

        Raises:
            StateCorruptError: the file is not there, or not what was written.
            StorageError: the store did not answer.
        """
        url = shared_file(directory, file.name)
        handle = FileHandle(path=file.name, size_bytes=file.size_bytes, checksum=file.checksum)
        return self._reader(directory, url, handle).pieces()

    def read_file(self, directory: str, file: FileHandle) -> Iterator[bytes]:
        """Yield a file of a snapshot in pieces; they are verified when the last one was taken.

        Raises:
            StateCorruptError: the file is not there, or not what was written.
            StorageError: the store did not answer.
        """
        return self._reader(directory, resolve(directory, file.path), file).pieces()

    def delete_handle(self, directory: str, handle: FileHandle) -> None:
        """Remove a file that no snapshot will refer to; raises as `delete_files`."""
        delete_files(self.open_fs(directory), directory, [handle])

    def read_handle(self, directory: str, handle: Handle) -> bytes:
        """Return a whole blob, its size and checksum verified.

        Raises:
            StateCorruptError: the blob is not there, or not what was written.
            StorageError: the store did not answer.
        """
        return self.open_handle(directory, handle).read_all()

    def open_handle(self, directory: str, handle: Handle) -> RangeReader:
        """Return a reader of parts of a blob; nothing is read yet.

        Raises:
            StateCorruptError: the handle leads out of the directory.
        """
        if isinstance(handle, InlineHandle):
            return _InlineReader(handle.data, metadata_path(directory) if directory else "")
        return self._reader(directory, resolve(directory, handle.path), handle)

    def _reader(self, directory: str, url: str, handle: FileHandle) -> "_FileReader":
        store = self.open_fs(directory)
        copy = None
        if self.copies is not None:
            copy = self.copies.open(directory, handle.path, handle.size_bytes, handle.checksum)
        if copy is None:
            self.stored_bytes += handle.size_bytes
            return _FileReader(store, url, handle)
        self.copied_bytes += handle.size_bytes
        return _FileReader(CopiedFile(copy, store, handle.size_bytes), url, handle)


def delete_files(fs: FileSystem, directory: str, files: Iterable[FileHandle]) -> None:
    """Remove files of a snapshot, and the directories within it that this leaves empty.

    Raises:
        StateCorruptError: a file leads out of the directory.
        StorageError: the store refused.
    """
    parents = set()
    for file in files:
        fs.delete_file(resolve(directory, file.path))
        parts = file.path.split("/")
        parents |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    for parent in sorted(parents, key=lambda path: (-len(path), path)):  # Deeper ones first.
        url = join_url(directory, parent)
        if not fs.list_dir(url):
            fs.delete_dir(url)


@dataclass(frozen=True, slots=True)
class _InlineReader:
    data: bytes
    path: str

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def read_range(self, offset: int, length: int) -> bytes:
        found = self.data[offset : offset + length]
        if len(found) != length:
            raise StateCorruptError(
                "inline state is shorter than it should be", offset=offset, length=length, found=len(found)
            )
        return found

    def read_all(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class _FileReader:
    fs: FileSystem | CopiedFile
    url: str
    handle: FileHandle

    @property
    def path(self) -> str:
        return self.url

    @property
    def size_bytes(self) -> int:
        return self.handle.size_bytes

    def read_range(self, offset: int, length: int) -> bytes:
        last = offset + length == self.size_bytes
        found = self._read(offset, length, last=last)
        footer = self.handle.footer
        if footer is None or not last or length != footer.size_bytes:
            return found
        if xxhash.xxh3_64_hexdigest(found) != footer.checksum:
            raise StateCorruptError("file of the snapshot is damaged", path=self.url, hint=LOST)
        return found

    def _read(self, offset: int, length: int, *, last: bool = False) -> bytes:
        """Return a range; with `last` make sure, in the same call, that nothing follows it."""
        try:
            found = self.fs.read_range(self.url, offset, length + last)
        except MissingFileError as error:
            raise _missing(self.url) from error
        if len(found) > length:
            raise StateCorruptError(
                "file of the snapshot is longer than it should be",
                path=self.url,
                size_bytes=self.size_bytes,
                hint=LOST,
            )
        if len(found) < length:
            raise StateCorruptError(
                "file of the snapshot is shorter than it should be",
                path=self.url,
                offset=offset,
                length=length,
                found=len(found),
                hint=LOST,
            )
        return found

    def pieces(self) -> Iterator[bytes]:
        hasher = xxhash.xxh3_64()
        for offset in range(0, max(self.size_bytes, 1), FETCH_BYTES):  # An empty file has one piece too.
            length = min(FETCH_BYTES, self.size_bytes - offset)
            piece = self._read(offset, length, last=offset + length == self.size_bytes)
            hasher.update(piece)
            yield piece
        if hasher.hexdigest() != self.handle.checksum:
            raise StateCorruptError("file of the snapshot is damaged", path=self.url, hint=LOST)

    def read_all(self) -> bytes:
        try:
            data = self.fs.read(self.url)
        except MissingFileError as error:
            raise _missing(self.url) from error
        if len(data) != self.handle.size_bytes:
            raise StateCorruptError(
                "file of the snapshot has another size",
                path=self.url,
                size_bytes=len(data),
                expected=self.handle.size_bytes,
                hint=LOST,
            )
        if xxhash.xxh3_64_hexdigest(data) != self.handle.checksum:
            raise StateCorruptError("file of the snapshot is damaged", path=self.url, hint=LOST)
        return data


def _end(parts: Sequence[Buffer], length: int) -> bytes:
    """Return the last bytes of a blob."""
    end: list[bytes] = []
    for part in reversed(parts):
        if length <= 0:
            break
        end.insert(0, bytes(memoryview(part).cast("B")[-length:]))
        length -= len(end[0])
    return b"".join(end)


def _missing(url: str) -> StateCorruptError:
    return StateCorruptError("file of the snapshot is missing", path=url, hint=LOST)
