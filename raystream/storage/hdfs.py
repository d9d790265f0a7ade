"""The HDFS client for `hdfs://`: the library hdfs-native, which speaks the NameNode's own protocol.

It reads Hadoop's configuration (`HADOOP_CONF_DIR`) and finds the NameNodes of a name service there; the
user is `HADOOP_USER_NAME`, or who runs the process.  The library knows no time limits, so that each of
its calls runs in a thread of its own, which is left to itself when it takes too long.  (Its asyncio
calls could be given up, but panic when a connection is refused.)
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from raystream.errors import ConfigError
from raystream.storage.filesystem import Buffer
from raystream.storage.hdfs_client import (
    CALL_TIMEOUT_S,
    DATA_TIMEOUT_S,
    PIECE_BYTES,
    FileStatus,
    HdfsError,
    Trouble,
    java_error,
    one_line,
)

if TYPE_CHECKING:
    import hdfs_native

T = TypeVar("T")

HUNG_CALLS_MAX = 64
"""Calls that were left to themselves; with more of them nothing is asked any more until some end."""

_OPTIONS = {
    # A look at each NameNode of a name service.  The store itself tries again, and knows how long.
    "dfs.client.failover.max.attempts": "3",
    "dfs.client.failover.sleep.base.millis": "100",
    "dfs.client.failover.sleep.max.millis": "200",
}

_RPC_ERROR = re.compile(r'(?:Fatal)?RPCError\("([^"]*)", "(.*)"\)', re.DOTALL)
"""How the library shows an exception of a server: its class, and its message."""
_OWN_ERROR = re.compile(r'\w+\("(.*?)(?:: \[.*)?"\)', re.DOTALL)
"""How it shows an error of its own: a kind, and a message that may end with a list of structures."""
_NUMBER = re.compile(r" \(os error \d+\)")


class NativeClient:
    """An HDFS by way of its NameNode's own protocol.

    Args:
        root: `hdfs://<host>:<port>`, `hdfs://<name service>`, or `hdfs://` for the configured one.

    Raises:
        ConfigError: the library is not installed, or the configuration names no NameNode.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._hung = 0
        self._client = self._connect()

    def status(self, path: str) -> FileStatus:
        return _status(self._ask(lambda client: client.get_file_info(path)))

    def list_dir(self, path: str) -> list[FileStatus]:
        found = self._ask(lambda client: list(client.list_status(path)))
        return [_status(status) for status in found if status.path != path]

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        reader = self._ask(lambda client: client.read(path))
        end = len(reader) if length is None else min(offset + length, len(reader))
        starts = range(offset, end, PIECE_BYTES)
        return b"".join(
            self._move(lambda at=at: reader.read_range(at, min(PIECE_BYTES, end - at)))  # type: ignore[misc]
            for at in starts
        )

    def create(self, path: str, pieces: Iterable[Buffer], size_bytes: int) -> None:
        from hdfs_native import WriteOptions

        options = WriteOptions(create_parent=True, overwrite=False)
        writer = self._ask(lambda client: client.create(path, options))
        for piece in pieces:
            self._move(lambda piece=piece: writer.write(piece))  # type: ignore[misc]
        # It returns when all DataNodes have the file, and they sync it with `dfs.datanode.synconclose`.
        # Not `hsync` before it: that waits for ever when a DataNode dies, and nothing ends its thread.
        self._move(writer.close)

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        self._ask(lambda client: client.rename(source, target, overwrite))

    def delete(self, path: str, *, recursive: bool) -> None:
        self._ask(lambda client: client.delete(path, recursive))

    def _ask(self, call: "Callable[[hdfs_native.Client], T]") -> T:
        """Return what the NameNode answers."""
        client = self._client
        try:
            with _translated(Trouble.UNREACHABLE):
                return self._bounded(lambda: call(client), CALL_TIMEOUT_S)
        except HdfsError as error:
            if error.trouble is Trouble.UNREACHABLE:
                with self._lock:
                    if self._client is client:  # Its connection may never answer again.
                        self._client = self._connect()
            raise

    def _move(self, call: Callable[[], T]) -> T:
        """Return the outcome of a call that moves data, by the DataNodes."""
        with _translated(Trouble.DATA_NODE):
            return self._bounded(call, DATA_TIMEOUT_S)

    def _bounded(self, call: Callable[[], T], timeout_s: float) -> T:
        if self._hung >= HUNG_CALLS_MAX:
            raise TimeoutError(f"{self._hung} earlier calls still wait for an answer")
        done = _Call(call)
        threading.Thread(target=done.run, name="hdfs-call", daemon=True).start()
        if not done.ended.wait(timeout_s):
            with self._lock:
                self._hung += 1
            done.when_ended(self._one_hung_less)
            raise TimeoutError(f"no answer within {timeout_s:.0f} s")
        return done.result()

    def _one_hung_less(self) -> None:
        with self._lock:
            self._hung -= 1

    def _connect(self) -> "hdfs_native.Client":
        """Return a new client; it connects when it is first asked."""
        try:
            import hdfs_native
        except ImportError as error:
            raise ConfigError(
                "hdfs:// needs the package hdfs-native, which is not installed",
                path=self._root,
                hint="pip install 'raystream[hdfs]' on every node, or use webhdfs://, which needs nothing",
            ) from error
        try:
            return hdfs_native.Client(self._root if self._root != "hdfs://" else None, _OPTIONS)
        except Exception as error:
            raise ConfigError(
                "HDFS is not configured",
                path=self._root,
                cause=_cause(error),
                hint="name the NameNode as hdfs://host:port, or set HADOOP_CONF_DIR to a directory whose"
                " hdfs-site.xml has the name service",
            ) from error


class _Call(Generic[T]):
    """A call that runs in a thread, and what became of it."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.ended = threading.Event()
        self._call = call
        self._lock = threading.Lock()
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._then: Callable[[], None] | None = None

    def run(self) -> None:
        try:
            self._values.append(self._call())
        except BaseException as error:  # The library panics with what is not an Exception.
            self._error = error
        with self._lock:
            self.ended.set()
            then = self._then
        if then is not None:
            then()

    def when_ended(self, then: Callable[[], None]) -> None:
        """Call this at the end, or now when it is over."""
        with self._lock:
            if not self.ended.is_set():
                self._then = then
                return
        then()

    def result(self) -> T:
        if self._error is None:
            return self._values[0]
        if isinstance(self._error, Exception):
            raise self._error
        raise RuntimeError(str(self._error)) from self._error


def _status(status: "hdfs_native.FileStatus") -> FileStatus:
    return FileStatus(
        name=status.path.rstrip("/").rpartition("/")[2],
        directory=status.isdir,
        size_bytes=0 if status.isdir else status.length,
        # The number of its inode is not told.  Two files with all of this in common would have been
        # created in one millisecond and finished in one; the store asks for it only where it must.
        identity=(status.access_time, status.modification_time, status.length, status.owner),
    )


@contextmanager
def _translated(silence: Trouble) -> Iterator[None]:
    """Turn what the library raises into an `HdfsError`; `silence` is what a broken connection means."""
    try:
        yield
    except FileNotFoundError as error:
        raise HdfsError(Trouble.MISSING, _cause(error)) from error
    except FileExistsError as error:
        cause = _cause(error)
        taken = "not a directory" not in cause
        raise HdfsError(Trouble.TAKEN if taken else Trouble.NOT_A_DIRECTORY, cause) from error
    except PermissionError as error:
        raise HdfsError(Trouble.DENIED, _cause(error)) from error
    except OSError as error:
        raise HdfsError(silence, _cause(error)) from error
    except (RuntimeError, ValueError) as error:
        remote = _RPC_ERROR.search(str(error))
        if remote is not None:
            raise java_error(remote[1], remote[2].replace("\\n", "\n").replace('\\"', '"')) from error
        lost = silence is Trouble.DATA_NODE
        raise HdfsError(silence if lost else Trouble.OTHER, _cause(error)) from error


def _cause(error: BaseException) -> str:
    own = _OWN_ERROR.fullmatch(str(error))
    return one_line(_NUMBER.sub("", own[1] if own else str(error)))
