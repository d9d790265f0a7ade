"""Which stores there are: the one table of schemes, and the two questions that it answers.

A store is added by a line in `STORES`.  Its module is imported when a URL of it is first opened, since
the libraries behind the distant ones take long to load.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import fsspec

from raystream.errors import ConfigError
from raystream.storage.filesystem import FileSystem
from raystream.storage.fsspec_store import FsspecFileSystem
from raystream.storage.hdfs_url import hdfs_url, webhdfs_url
from raystream.storage.local import LocalFileSystem, local_url
from raystream.storage.s3_url import s3_url

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_ONE_SLASH = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):/(?!/)")


@dataclass(frozen=True, slots=True)
class Store:
    """What is known of a scheme.

    Attributes:
        to_url: gives the absolute URL of what stands behind `<scheme>://`, without a slash at its end;
            raises ConfigError.  Its result is given back to it unchanged.
        open: gives the store that holds such a URL.
    """

    to_url: Callable[[str], str]
    open: Callable[[str], FileSystem]


def _memory_url(rest: str) -> str:
    return "memory://" + rest.strip("/")


def _open_local(_url: str) -> FileSystem:
    return LocalFileSystem()


def _open_memory(_url: str) -> FileSystem:
    return FsspecFileSystem(fsspec.filesystem("memory"))


def _open_s3(url: str) -> FileSystem:
    from raystream.storage.s3 import open_s3

    return open_s3(url)


def _open_hdfs(url: str) -> FileSystem:
    from raystream.storage.hdfs_files import open_hdfs

    return open_hdfs(url)


STORES = {
    "file": Store(local_url, _open_local),
    "memory": Store(_memory_url, _open_memory),
    "hdfs": Store(hdfs_url, _open_hdfs),
    "webhdfs": Store(webhdfs_url, _open_hdfs),
    "s3": Store(s3_url, _open_s3),
}
"""By scheme, in lower case."""


def to_url(path: str) -> str:
    """Return the absolute URL of a path or URL that a user wrote, without a slash at its end.

    Raises:
        ConfigError: the path is empty, or of a store that is not supported, or not as its store needs it.

    Example:
        >>> to_url("file:///data/checkpoints/")
        'file:///data/checkpoints'
    """
    if not path:
        raise ConfigError("path is empty", hint="give a directory, or a URL such as s3://bucket/path")
    path = with_both_slashes(path)
    match = _SCHEME.match(path)
    scheme, rest = (match[1].lower(), path[match.end() :]) if match else ("file", path)
    if scheme not in STORES:
        raise ConfigError(
            "store is not supported",
            scheme=scheme,
            path=path if "@" not in rest else f"{scheme}://...",  # It may have credentials in it.
            hint=f"use a directory or a URL of {', '.join(f'{name}://' for name in STORES)}",
        )
    return STORES[scheme].to_url(rest)


def with_both_slashes(path: str) -> str:
    """Return a path or URL as it is, but `file:/x`, which is a URL too, as `file:///x`.

    Raises:
        ConfigError: it is a URL of another store that lacks a slash; as a path it would be a directory of
            this machine, and state would go there unseen.

    Example:
        >>> with_both_slashes("file:/data")
        'file:///data'
    """
    match = _ONE_SLASH.match(path)
    scheme = match[1].lower() if match else ""
    if match is None or scheme not in STORES:
        return path
    if scheme != "file":
        raise ConfigError(
            "URL of a store lacks a slash",
            hint=f"write {scheme}://..., or ./{scheme}:/... for a directory of this name",
            scheme=scheme,
        )
    return f"file://{path[match.end() - 1 :]}"


def open_file_system(url: str) -> FileSystem:
    """Return the store that holds a path or URL.

    Raises:
        ConfigError: the store is not supported.
    """
    url = to_url(url)
    return STORES[url.partition("://")[0]].open(url)
