"""HDFS as a store, with either client.

A file is written under a temporary name and closed, which takes until every DataNode of it has all of
it; then it gets its name by one rename, so that it is seen whole or not at all.  A machine may crash then.
Whether a power cut of all of them at once may cost the newest files is for the cluster to say: by REST they
are synced in any case, by the NameNode's own protocol when `dfs.datanode.synconclose` is set.  The file of a
dead writer stays open under its temporary name until it is swept: nobody ever opens it again, since its lease
may still be held.

A claim is a rename that does not overwrite.  Its answer may be lost, and a client may send it again by
itself, so that even "taken" may be the answer to a second sending of our own.  Whose file has the name is
then read back: ours is no longer under its temporary name, which nobody else has, and what a file keeps when
it is renamed is the same.
"""

import os
import posixpath
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from raystream.clock import Clock, SystemClock
from raystream.errors import StorageError
from raystream.storage.filesystem import TEMPORARY_PREFIX, Buffer, Data, Entry, MissingFileError, buffers
from raystream.storage.hdfs_client import (
    PASSING,
    PIECE_BYTES,
    TOKEN_VARIABLE,
    USER_VARIABLE,
    FileStatus,
    HdfsClient,
    HdfsError,
    Trouble,
)

T = TypeVar("T")

FIRST_PATIENCE_S = 5.0
"""For how long a NameNode is asked again that has never answered: its address may be wrong."""
PATIENCE_S = 30.0
"""For how long one is asked again that has answered before: the time of a restart or fail-over."""
TRIES_MAX = 60
PAUSE_FIRST_S = 0.1
PAUSE_LONGEST_S = 2.0
STORES_MAX = 16
"""Stores that are kept open, each with its connections."""

_NEVER = threading.Event()
"""Is never set: to wait for it is a pause."""
_GONE = frozenset({Trouble.MISSING, Trouble.NOT_A_DIRECTORY})
"""Nothing has the name, and nothing can where a part of the path is a file."""

_ADVICE = {
    Trouble.NOT_A_DIRECTORY: "a part of the path is a file; choose another directory",
    Trouble.DENIED: "check that the user may write there; HADOOP_USER_NAME says who that is",
    Trouble.QUOTA: "the quota of the directory is used up; raise it (hdfs dfsadmin), or choose another one",
    Trouble.SAFE_MODE: "wait until the NameNode has left safe mode (hdfs dfsadmin -safemode get)",
    Trouble.STANDBY: "name the active NameNode, or the name service of both with HADOOP_CONF_DIR set",
    Trouble.UNREACHABLE: "check host and port of the NameNode in the URL, and that it runs",
    Trouble.NO_DATA_NODE: "check that DataNodes run and have found the NameNode",
    Trouble.DATA_NODE: "check that the DataNodes run, have space, and can be reached from here",
}


class HdfsFileSystem:
    """An HDFS.

    Args:
        client: speaks with it.
        first_patience_s: see `FIRST_PATIENCE_S`.
        patience_s: see `PATIENCE_S`.
        clock: measures both.
        pause: waits for so many seconds.
    """

    parallel = True

    def __init__(
        self,
        client: HdfsClient,
        *,
        first_patience_s: float = FIRST_PATIENCE_S,
        patience_s: float = PATIENCE_S,
        clock: Clock | None = None,
        pause: Callable[[float], object] = _NEVER.wait,
    ) -> None:
        self._client = client
        self._patience_s = first_patience_s
        self._later_patience_s = patience_s
        self._clock = clock or SystemClock()
        self._pause = pause

    def read(self, url: str) -> bytes:
        return self._read("read file", url, 0, None)

    def read_range(self, url: str, offset: int, length: int) -> bytes:
        return self._read("read file", url, offset, length)

    def write(self, url: str, data: Data) -> None:
        with _translated("write file", url):
            if not self._publish(_path(url), data, overwrite=True):
                raise HdfsError(Trouble.OTHER, "a directory has the name")

    def link(self, url: str, source: Path) -> bool:
        return False

    def create_exclusive(self, url: str, data: Data) -> bool:
        with _translated("create file", url):
            return self._publish(_path(url), data, overwrite=False)

    def list_dir(self, url: str) -> list[Entry]:
        with _translated("list directory", url):
            found = _unless_gone(lambda: self._patiently(lambda: self._client.list_dir(_path(url))))
        entries = [
            Entry(name=status.name, directory=status.directory, size_bytes=status.size_bytes)
            for status in found or []
        ]
        return sorted(entries, key=lambda entry: entry.name)

    def exists(self, url: str) -> bool:
        with _translated("look up file", url):
            return self._status(_path(url)) is not None

    def delete_file(self, url: str) -> None:
        self._delete("delete file", url, recursive=False)

    def delete_dir(self, url: str) -> None:
        self._delete("delete directory", url, recursive=True)

    def _read(self, attempted: str, url: str, offset: int, length: int | None) -> bytes:
        with _translated(attempted, url, missing=_GONE):
            return self._patiently(lambda: self._client.read(_path(url), offset, length))

    def _delete(self, attempted: str, url: str, *, recursive: bool) -> None:
        with _translated(attempted, url):
            _unless_gone(
                lambda: self._patiently(lambda: self._client.delete(_path(url), recursive=recursive))
            )

    def _status(self, path: str) -> FileStatus | None:
        return _unless_gone(lambda: self._patiently(lambda: self._client.status(path)))

    def _publish(self, path: str, data: Data, *, overwrite: bool) -> bool:
        """Return whether the data is now what has the name."""
        left: list[str] = []  # Temporary files that may be there.
        try:
            temporary = self._patiently(lambda: self._write_temporary(posixpath.dirname(path), data, left))
            mine = self._patiently(lambda: self._client.status(temporary))
            try:
                self._patiently(lambda: self._client.rename(temporary, path, overwrite=overwrite))
                published = True
            except HdfsError as error:
                published = self._settled(error, mine, temporary, path)
            if published:
                left.remove(temporary)
        except HdfsError as error:
            if error.trouble is Trouble.UNREACHABLE:
                left.clear()  # Nobody would be there to delete them; they are swept later.
            raise
        finally:  # Also when the data itself raises, since nobody wants it any more.
            for temporary in left:
                self._discard(temporary)
        return published

    def _write_temporary(self, directory: str, data: Data, left: list[str]) -> str:
        """Write a new file with a name of its own in a directory; return its path."""
        path = posixpath.join(directory, TEMPORARY_PREFIX + os.urandom(8).hex())
        left.append(path)
        parts = buffers(data)
        self._client.create(path, _pieces(parts), sum(memoryview(part).nbytes for part in parts))
        return path

    def _settled(self, error: HdfsError, mine: FileStatus, temporary: str, path: str) -> bool:
        """Return whether our file has got the name though the rename was not answered with a yes.

        Raises:
            HdfsError: neither our file nor another has it.
        """
        if error.trouble not in (Trouble.MISSING, Trouble.TAKEN):
            raise error
        waiting = self._status(temporary) is not None
        there = self._status(path)
        if there is None:
            raise error
        return not waiting and there.identity == mine.identity

    def _discard(self, path: str) -> None:
        # What cannot be removed is swept later; the caller's own error is the one that matters.
        with suppress(HdfsError):
            self._client.delete(path, recursive=False)

    def _patiently(self, call: Callable[[], T]) -> T:
        """Return what a call returns that may be repeated, as long as the NameNode may come back."""
        give_up_ms = self._clock.monotonic_ms() + self._patience_s * 1000
        for tried in range(TRIES_MAX):
            try:
                result = call()
            except HdfsError as error:
                pause_s = min(PAUSE_FIRST_S * 2**tried, PAUSE_LONGEST_S)
                over = self._clock.monotonic_ms() + pause_s * 1000 > give_up_ms
                if error.trouble not in PASSING or over or tried + 1 == TRIES_MAX:
                    raise
                self._pause(pause_s)
            else:
                self._patience_s = self._later_patience_s
                return result
        raise AssertionError("the last try returns or raises")


def open_hdfs(url: str) -> HdfsFileSystem:
    """Return the store that holds a URL of `raystream.storage.hdfs_url`.

    Raises:
        ConfigError: hdfs-native is not installed or not configured.
    """
    environment = tuple(os.environ.get(name) for name in (USER_VARIABLE, TOKEN_VARIABLE, "HADOOP_CONF_DIR"))
    return _store(*_split(url), environment)


@lru_cache(maxsize=STORES_MAX)
def _store(scheme: str, authority: str, _environment: tuple[str | None, ...]) -> HdfsFileSystem:
    """Return the one store of a NameNode, which all its users share with its connections."""
    if scheme == "hdfs":
        from raystream.storage.hdfs import NativeClient

        return HdfsFileSystem(NativeClient(f"hdfs://{authority}"))
    from raystream.storage.webhdfs import PORT, WebHdfsClient

    return HdfsFileSystem(WebHdfsClient(authority if ":" in authority else f"{authority}:{PORT}"))


def _split(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition("://")
    return scheme, rest.partition("/")[0]


def _path(url: str) -> str:
    return "/" + url.partition("://")[2].partition("/")[2]


def _pieces(parts: Sequence[Buffer]) -> Iterator[Buffer]:
    for part in parts:
        view = memoryview(part).cast("B")
        for at in range(0, len(view), PIECE_BYTES):
            yield view[at : at + PIECE_BYTES]


def _unless_gone(call: Callable[[], T]) -> T | None:
    """Return what a call returns; None when what it is about does not exist."""
    try:
        return call()
    except HdfsError as error:
        if error.trouble not in _GONE:
            raise
        return None


@contextmanager
def _translated(attempted: str, url: str, *, missing: frozenset[Trouble] = frozenset()) -> Iterator[None]:
    """Turn an `HdfsError` into a `StorageError` that names the path."""
    try:
        yield
    except HdfsError as error:
        if error.trouble in missing:
            raise MissingFileError("file does not exist", path=url) from error
        raise StorageError(
            f"could not {attempted}", path=url, cause=error.cause, hint=_ADVICE.get(error.trouble, "")
        ) from error
