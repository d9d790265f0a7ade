"""The snapshots of one job, as its coordinator sees them: where they go, complete, read, delete.

All calls block; the coordinator runs them in a thread.  Knows files and handles; which snapshot
counts is decided by the job log (`raystream.storage.job_log`), never by what lies in a directory.

A snapshot has a *location*: the URL of its directory, or `jobmanager:<id>` for a checkpoint that
lives in the memory of this process.  `write_metadata` returns it, and `load` and `delete` take
it.  Within a snapshot every data file is durable before `_metadata` is written, and `_metadata`
is removed before any data file: a directory with `_metadata` is whole.
"""

import itertools
from collections.abc import Collection, Iterable

import xxhash

from raystream.errors import ConfigError, StateCorruptError, StateRestoreError, StorageError
from raystream.handles import FileHandle, Handle, InlineHandle
from raystream.ids import CheckpointId, JobId
from raystream.storage.blobs import LOST, delete_files
from raystream.storage.filesystem import (
    TEMPORARY_PREFIX,
    FileSystem,
    MissingFileError,
    OpenFileSystem,
    join_url,
    split_url,
)
from raystream.storage.layout import (
    METADATA_NAME,
    JobLayout,
    checkpoint_of,
    claim_path,
    job_of,
    metadata_path,
    owned_by_snapshot,
    resolve,
    savepoint_dir,
    shared_file,
    written_for,
)
from raystream.storage.metadata import (
    SnapshotMetadata,
    blobs_of,
    decode_metadata,
    encode_metadata,
    files_of,
    map_blobs,
)
from raystream.storage.stores import open_file_system, to_url

INLINE_TOTAL_BYTES_MAX = 16 * 1024 * 1024
"""Inline blobs of one snapshot in all; the largest of those above it get files."""

NAMED_MAX = 3
"""Snapshots that an error names, in place of one that is not there."""

_MEMORY = "jobmanager:"


class SnapshotStore:
    """Checkpoints and savepoints of one job.

    Args:
        job_id: the job.
        layout: where its checkpoints go; None for checkpoint storage `jobmanager`.  Savepoints
            have directories of their own in either case.
        open_fs: gives the store of a URL.
    """

    def __init__(
        self,
        job_id: JobId,
        layout: JobLayout | None = None,
        *,
        open_fs: OpenFileSystem = open_file_system,
    ) -> None:
        self._job_id = job_id
        self._layout = layout
        self._open_fs = open_fs
        self._in_memory: dict[str, SnapshotMetadata] = {}

    def checkpoint_directory(self, checkpoint_id: CheckpointId) -> str:
        """Return the URL for `Barrier.directory`; empty when the checkpoint has no directory."""
        return self._layout.checkpoint_dir(checkpoint_id) if self._layout else ""

    def savepoint_directory(self, base: str, token: str) -> str:
        """Return the URL of a new savepoint below `base`; `token` is 12 random hex digits.

        Raises:
            ConfigError: `base` is empty or of a store that is not supported.
        """
        return savepoint_dir(base, self._job_id, token)

    def write_metadata(self, directory: str, metadata: SnapshotMetadata) -> str:
        """Write `_metadata` durably, behind the files it needs, and return the snapshot's location.

        Repeating the call with the same content is harmless, so that a timeout can be retried.

        Raises:
            StorageError: the store refused, or the directory holds another snapshot already.
        """
        if not directory:
            location = f"{_MEMORY}{metadata.checkpoint_id}"
            self._in_memory[location] = metadata
            return location
        fs = self._open_fs(directory)
        content = encode_metadata(_spilled(fs, directory, metadata))
        path = metadata_path(directory)
        if not fs.create_exclusive(path, content) and fs.read(path) != content:
            raise StorageError("directory holds another snapshot already", path=directory)
        return directory

    def load(self, path: str) -> tuple[str, SnapshotMetadata]:
        """Return directory and content of a snapshot.

        Args:
            path: a location, or what a user gives to `-s`: the directory or the `_metadata` in it.

        Returns:
            The directory's URL, for `OperatorRestore.directory` (empty for one in memory), and
            the content.

        Raises:
            StateRestoreError: nothing is there, or it is not a snapshot that can be read.
            StateCorruptError: the snapshot is damaged.
            StorageError: the store did not answer.
        """
        if not path.startswith(_MEMORY):
            return load_snapshot(path, open_fs=self._open_fs)
        if path not in self._in_memory:
            raise StateRestoreError("checkpoint is not in memory any more", checkpoint=path)
        return "", self._in_memory[path]

    def load_complete(self, location: str) -> tuple[str, SnapshotMetadata]:
        """Return directory and content of a snapshot that the job log calls complete.

        Raises:
            StateCorruptError: it is missing or damaged.
            StateRestoreError: it is of a format that is not read.
            StorageError: the store did not answer.
        """
        if location.startswith(_MEMORY):
            return self.load(location)
        return location, load_complete(location, open_fs=self._open_fs)

    def delete(self, location: str, *, shared: Iterable[str] = ()) -> None:
        """Remove a checkpoint, whole or half-written, `_metadata` first; nothing when it is gone.

        Args:
            location: of the checkpoint.
            shared: names of shared files that nothing needs any more; they go last.

        Raises:
            StorageError: the store refused; to be repeated, or left to `sweep`.
        """
        if not location or location.startswith(_MEMORY):
            self._in_memory.pop(location, None)
            return
        if not owned_by_snapshot(location):
            raise StorageError("directory is not one that raystream made", path=location)
        fs = self._open_fs(location)
        fs.delete_file(metadata_path(location))
        fs.delete_dir(location)
        for name in shared:
            fs.delete_file(shared_file(location, name))

    def delete_files(self, directory: str, files: Iterable[FileHandle]) -> None:
        """Remove some files of a snapshot, such as those of an acknowledgement that came too late.

        Raises:
            StorageError: the store refused.
        """
        delete_files(self._open_fs(directory), directory, files)

    def sweep(
        self,
        live: Collection[CheckpointId],
        *,
        newest: CheckpointId,
        shared: Collection[str],
        writing: bool = False,
    ) -> list[str]:
        """Remove what earlier attempts left in the job's directory, and return its names.

        That is every checkpoint up to `newest` that is not in `live`, every shared file that was written for
        one of them and is not in `shared`, and unfinished files.  Ids are
        never given twice, so that this harms nobody, however late it comes: neither an attempt that
        runs meanwhile nor a job master that has replaced this one.  A file without a reference inside
        a live checkpoint goes with it.

        Args:
            live: complete checkpoints of this job that were retained when `newest` was the newest.
            newest: newest id that was given before.
            shared: names of the shared files of the live checkpoints.
            writing: an attempt of the job runs; unfinished files may be its own.  Else, with nothing live,
                the whole shared directory goes.

        Raises:
            StorageError: the store refused.
        """
        if self._layout is None:
            return []
        fs = self._open_fs(self._layout.job_dir)
        swept = []
        for entry in fs.list_dir(self._layout.job_dir):
            checkpoint_id = checkpoint_of(entry.name) if entry.directory else None
            if checkpoint_id is not None and checkpoint_id <= newest and checkpoint_id not in live:
                self.delete(self._layout.checkpoint_dir(checkpoint_id))
                swept.append(entry.name)
        if live or shared or writing:
            swept += self._sweep_shared(fs, shared, newest)
        elif fs.list_dir(self._layout.shared_dir):  # One call where there may be thousands of files.
            fs.delete_dir(self._layout.shared_dir)
            swept.append(split_url(self._layout.shared_dir)[1])
        unfinished_in = [self._layout.checkpoint_dir(checkpoint_id) for checkpoint_id in sorted(live)]
        if not writing:
            unfinished_in += [self._layout.job_dir, self._layout.log_dir, self._layout.shared_dir]
        for directory in unfinished_in:
            for entry in fs.list_dir(directory):
                if entry.name.startswith(TEMPORARY_PREFIX):
                    fs.delete_file(join_url(directory, entry.name))
                    swept.append(entry.name)
        return swept

    def _sweep_shared(self, fs: FileSystem, live: Collection[str], newest: CheckpointId) -> list[str]:
        assert self._layout is not None
        directory = self._layout.shared_dir
        swept = []
        for entry in fs.list_dir(directory):
            # An unfinished one may have its name behind the prefix; it is no live one's, whatever its name.
            checkpoint_id = written_for(entry.name.removeprefix(TEMPORARY_PREFIX))
            if checkpoint_id is not None and checkpoint_id <= newest and entry.name not in live:
                fs.delete_file(join_url(directory, entry.name))
                swept.append(entry.name)
        return swept


def load_snapshot(path: str, *, open_fs: OpenFileSystem = open_file_system) -> tuple[str, SnapshotMetadata]:
    """Return the directory's URL and the content of the snapshot that a user names.

    Args:
        path: a directory or the `_metadata` in it, as path or URL.
        open_fs: gives the store of a URL.

    Raises:
        StateRestoreError: nothing is there, or it is not a snapshot that can be read.
        StateCorruptError: the snapshot is damaged.
        StorageError: the store did not answer.
    """
    try:
        url = to_url(path)
    except ConfigError as error:
        raise StateRestoreError(error.message, hint=error.hint, **error.context) from error
    parent, name = split_url(url)
    directory = parent if name == METADATA_NAME else url
    fs = open_fs(directory)
    try:
        data = fs.read(metadata_path(directory))
    except MissingFileError as error:
        there = fs.exists(directory)
        advice = "give the directory of a checkpoint (.../chk-<n>) or savepoint (.../savepoint-...)"
        raise StateRestoreError(
            "path is not a snapshot: it has no _metadata" if there else "snapshot does not exist",
            path=path,
            hint=advice + _snapshots_in(fs, directory if there else split_url(directory)[0]),
        ) from error
    return directory, _decoded(data, directory)


def _snapshots_in(fs: FileSystem, directory: str) -> str:
    """Return a text that names some of the snapshots in a directory; empty if there are none."""
    try:
        entries = fs.list_dir(directory)
    except StorageError:  # What was asked for is missing all the same.
        return ""
    names = [e.name for e in entries if e.directory and owned_by_snapshot(join_url(directory, e.name))]
    shown = ", ".join(names[:NAMED_MAX]) + (", ..." if len(names) > NAMED_MAX else "")
    return f"; there are {shown} in {directory}" if names else ""


def load_complete(directory: str, *, open_fs: OpenFileSystem = open_file_system) -> SnapshotMetadata:
    """Return the content of a snapshot of which a job log says that it was complete.

    Raises:
        StateCorruptError: it is missing or damaged.
        StateRestoreError: it is of a format that is not read.
        StorageError: the store did not answer.
    """
    path = metadata_path(directory)
    try:
        return _decoded(open_fs(directory).read(path), directory)
    except MissingFileError as error:
        raise StateCorruptError("snapshot is not there any more", path=path, hint=LOST) from error
    except StateRestoreError as error:
        if "format" in error.context:
            raise
        # It has no likeness to a snapshot any more: it was emptied, as a crash of the machine may do.
        raise StateCorruptError(
            "snapshot file is damaged", path=path, cause=error.message, hint=LOST
        ) from error


def _decoded(data: bytes, directory: str) -> SnapshotMetadata:
    """Return the content of the `_metadata` in a directory.

    Raises:
        StateCorruptError: it is damaged, or that of a snapshot which the directory's name does not mean.
        StateRestoreError: it is not a snapshot's, or of a format that is not read.
    """
    path = metadata_path(directory)
    metadata = decode_metadata(data, path=path)
    parent, name = split_url(directory)
    said = checkpoint_of(name), job_of(split_url(parent)[1])
    found = metadata.checkpoint_id, metadata.job_id
    if any(one not in (None, other) for one, other in zip(said, found, strict=True)):
        raise StateCorruptError(
            "snapshot file is another snapshot's", path=path, checkpoint_id=found[0], job=found[1], hint=LOST
        )
    return metadata


def delete_snapshot(fs: FileSystem, directory: str, metadata: SnapshotMetadata) -> None:
    """Remove a snapshot, `_metadata` first; repeating the call does the rest of what it did not do.

    In a directory that raystream did not name, files that it does not refer to stay.  Shared files do so in
    any case.

    Raises:
        StateCorruptError: the snapshot names a file outside of its directory; nothing was deleted.
        StorageError: the store refused.
    """
    files = files_of(metadata)
    for file in files:
        resolve(directory, file.path)
    fs.delete_file(metadata_path(directory))
    delete_files(fs, directory, files)
    fs.delete_file(claim_path(directory))
    if owned_by_snapshot(directory) or not fs.list_dir(directory):
        fs.delete_dir(directory)


def _spilled(fs: FileSystem, directory: str, metadata: SnapshotMetadata) -> SnapshotMetadata:
    """Return the snapshot with its largest inline blobs in files, where there is too much inline."""
    sizes = {
        position: handle.size_bytes
        for position, handle in enumerate(blobs_of(metadata))
        if isinstance(handle, InlineHandle)
    }
    excess = sum(sizes.values()) - INLINE_TOTAL_BYTES_MAX
    if excess <= 0:
        return metadata
    spilled: set[int] = set()
    for position in sorted(sizes, key=lambda position: sizes[position], reverse=True):
        if excess <= 0:
            break
        spilled.add(position)
        excess -= sizes[position]
    positions = itertools.count()

    def spill(handle: Handle) -> Handle:
        position = next(positions)
        if position not in spilled or not isinstance(handle, InlineHandle):
            return handle
        checksum = xxhash.xxh3_64_hexdigest(handle.data)
        # The name says what is in it, so that repeating the call meets only its own files.
        name = f"inline-{position}-{checksum}"
        fs.write(join_url(directory, name), handle.data)
        return FileHandle(path=name, size_bytes=handle.size_bytes, checksum=checksum)

    return map_blobs(metadata, spill)
