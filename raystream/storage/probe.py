"""Finds out, before the first record, whether a directory can hold a job's checkpoints.

The job master creates a file twice and deletes another one before the first attempt.  That finds a
directory that cannot be written or cleaned up, and a store that cannot fence (the second create
succeeds).  The file stays until the job has ended: a slot reads it in every attempt, since it may be a
new one on a node that does not have the disk.
"""

import os
import socket
from contextlib import suppress

from raystream.errors import ConfigError, StorageError
from raystream.storage.filesystem import FileSystem, MissingFileError, OpenFileSystem, split_url
from raystream.storage.layout import JobLayout
from raystream.storage.stores import open_file_system


def write_probe(fs: FileSystem, layout: JobLayout) -> str:
    """Write the probe of a job and return its URL, for `Deploy.probe`.

    Raises:
        ConfigError: the directory cannot be written, nothing can be deleted there, or its store
            cannot fence.
    """
    _try_deletion(fs, layout)
    url = layout.probe_path(os.urandom(8).hex())
    content = _content(url)
    try:
        created = fs.create_exclusive(url, content)
        created_again = fs.create_exclusive(url, content)
        readable = fs.read(url) == content
    except StorageError as error:
        raise _refused("checkpoint directory cannot be written", layout, error) from error
    if not created or created_again or not readable:
        with suppress(StorageError):
            fs.delete_file(url)
        raise ConfigError(
            "checkpoint directory is on a store that cannot create a file only when it is absent",
            path=layout.base_dir,
            hint="two job masters could not be kept apart there; set execution.checkpointing.dir to"
            " a disk with hard links, or to an object store with conditional writes",
        )
    return url


def read_probe(
    url: str, *, served: bool = False, node: str = "", open_fs: OpenFileSystem = open_file_system
) -> None:
    """Read the probe from where a slot runs.

    Args:
        url: of `write_probe`.
        served: an earlier attempt has read it, so that a store or a mount is gone that may come back.
        node: address of this node, for the message; found out unless given.
        open_fs: gives the store of the URL.

    Raises:
        ConfigError: the directory is not shared with this node, or not readable from it.
        StorageError: the same, when it has `served`; another attempt may succeed.
    """
    refusal = StorageError if served else ConfigError
    place = {"node": node or _this_node(), "host": socket.gethostname(), "path": _base_of(url)}
    cause: StorageError | None = None
    try:
        intact = open_fs(url).read(url) == _content(url)
    except MissingFileError as error:
        intact, cause = False, error
    except StorageError as error:
        raise refusal(
            "checkpoint directory is not readable from a node of the cluster",
            hint=error.hint or "check that the user who runs Ray there may read the directory",
            cause=error.context.get("cause", error.message),
            **place,
        ) from error
    if not intact:
        raise refusal(
            "checkpoint directory is not shared with all nodes of the cluster",
            hint="set execution.checkpointing.dir to a disk that is mounted under this path on every node",
            **place,
        ) from cause


def remove_probe(fs: FileSystem, url: str) -> None:
    """Delete the probe; the job has ended.

    Raises:
        StorageError: the store refused.
    """
    fs.delete_file(url)


def _try_deletion(fs: FileSystem, layout: JobLayout) -> None:
    """Write a file and delete it: checkpoints would pile up where that is not possible."""
    url = layout.probe_path(os.urandom(8).hex())
    try:
        fs.write(url, _content(url))
    except StorageError as error:
        raise _refused("checkpoint directory cannot be written", layout, error) from error
    try:
        fs.delete_file(url)
    except StorageError as error:
        raise ConfigError(
            "files in the checkpoint directory cannot be deleted",
            path=_base_of(url),
            cause=error.context.get("cause", error.message),
            hint=error.hint or "check that the user who runs the job may delete files there",
        ) from error


def _content(url: str) -> bytes:
    return f"raystream probe {split_url(url)[1]}\n".encode()


def _base_of(url: str) -> str:
    """Return the checkpoint directory of a probe in `<checkpoint dir>/<job id>/probe-...`."""
    return split_url(split_url(url)[0])[0]


def _refused(message: str, layout: JobLayout, error: StorageError) -> ConfigError:
    return ConfigError(
        message,
        path=layout.base_dir,
        cause=error.context.get("cause", error.message),
        hint=error.hint or "set execution.checkpointing.dir to a directory that the job may write to",
    )


def _this_node() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "address not known"
