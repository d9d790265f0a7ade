"""Finds out, before the first record, whether a directory can hold a job's checkpoints.

The job master writes a file and creates it a second time, every slot reads it, the job master
deletes it.  That finds a directory that cannot be written, a store that cannot fence (the second
create succeeds), and disks that are not shared between nodes.
"""

import os
import socket
from contextlib import suppress

from raystream.errors import ConfigError, StorageError
from raystream.storage.filesystem import (
    FileSystem,
    MissingFileError,
    OpenFileSystem,
    open_file_system,
    split_url,
)
from raystream.storage.layout import JobLayout


def write_probe(fs: FileSystem, layout: JobLayout) -> str:
    """Write the probe of a job and return its URL, for `Deploy.probe`.

    Raises:
        ConfigError: the directory cannot be written, or its store cannot fence.
    """
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
            " a local or network disk with hard links",
        )
    return url


def read_probe(url: str, *, node: str = "", open_fs: OpenFileSystem = open_file_system) -> None:
    """Read the probe from where a slot runs.

    Args:
        url: of `write_probe`.
        node: address of this node, for the message; found out unless given.
        open_fs: gives the store of the URL.

    Raises:
        ConfigError: the directory is not shared with this node, or not readable from it.
    """
    try:
        intact = open_fs(url).read(url) == _content(url)
    except MissingFileError as error:
        raise _not_shared(url, node) from error
    except StorageError as error:
        raise ConfigError(
            "checkpoint directory is not readable from a node of the cluster",
            node=node or _this_node(),
            host=socket.gethostname(),
            path=_base_of(url),
            cause=error.context.get("cause", error.message),
            hint=error.hint or "check that the user who runs Ray there may read the directory",
        ) from error
    if not intact:
        raise _not_shared(url, node)


def remove_probe(fs: FileSystem, url: str) -> None:
    """Delete the probe.

    Raises:
        ConfigError: nothing can be deleted there, so that checkpoints would pile up.
    """
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


def _not_shared(url: str, node: str) -> ConfigError:
    return ConfigError(
        "checkpoint directory is not shared with all nodes of the cluster",
        node=node or _this_node(),
        host=socket.gethostname(),
        path=_base_of(url),
        hint="set execution.checkpointing.dir to a disk that is mounted under this path on every node",
    )


def _this_node() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "address not known"
