"""The HDFS client for `webhdfs://`: Hadoop's REST interface, of a NameNode or an HttpFS gateway.

Not fsspec's: that one knows no time limits, takes a rename that was refused for done, loses which
exception the server has sent, cuts names at `#` and `?`, and opens a file again for each piece of it.

The user is `HADOOP_USER_NAME`, or who runs the process; with a delegation token in
`WEBHDFS_DELEGATION_TOKEN` it is the token's owner.  URLs of requests may have the token, and so never
get into messages or logs.
"""

import getpass
import http.client
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from raystream.storage.filesystem import Buffer
from raystream.storage.hdfs_client import (
    CALL_TIMEOUT_S,
    DATA_TIMEOUT_S,
    PIECE_BYTES,
    TOKEN_VARIABLE,
    USER_VARIABLE,
    FileStatus,
    HdfsError,
    Trouble,
    java_error,
    one_line,
)

PORT = 9870
"""Of a NameNode, where the URL has none."""

_REST = "/webhdfs/v1"
_BODY = {"Content-Type": "application/octet-stream"}
_ERROR_BYTES_MAX = 1 << 20


class WebHdfsClient:
    """An HDFS by way of HTTP.

    Args:
        authority: `<host>:<port>` of the NameNode or gateway.
    """

    def __init__(self, authority: str) -> None:
        self._authority = authority
        token = os.environ.get(TOKEN_VARIABLE)
        user = os.environ.get(USER_VARIABLE) or getpass.getuser()
        self._identity = {"delegation": token} if token else {"user.name": user}

    def status(self, path: str) -> FileStatus:
        answer = self._ask("GET", path, "GETFILESTATUS")["FileStatus"]
        return _status(answer, path.rpartition("/")[2])

    def list_dir(self, path: str) -> list[FileStatus]:
        found = self._ask("GET", path, "LISTSTATUS")["FileStatuses"]["FileStatus"]
        return [_status(status, status["pathSuffix"]) for status in found if status["pathSuffix"]]

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        size_bytes = self.status(path).size_bytes
        end = size_bytes if length is None else min(offset + length, size_bytes)
        starts = range(offset, end, PIECE_BYTES)
        if not starts and length is None:
            self._redirected("GET", path, "OPEN")  # A directory has size 0, too, and is refused.
        return b"".join(self._piece(path, at, min(PIECE_BYTES, end - at)) for at in starts)

    def create(self, path: str, pieces: Iterable[Buffer], size_bytes: int) -> None:
        # SYNC_BLOCK brings each block to the disk when it is full or the file ends.
        flags = {"overwrite": "false", "createparent": "true", "createflag": "CREATE,SYNC_BLOCK"}
        target = self._redirected("PUT", path, "CREATE", **flags)
        with self._connection(target, DATA_TIMEOUT_S) as connection:
            with _translated(Trouble.DATA_NODE):
                connection.putrequest("PUT", _path_of(target))
                for name, value in (*_BODY.items(), ("Content-Length", str(size_bytes))):
                    connection.putheader(name, value)
                connection.endheaders()
            for piece in pieces:
                try:
                    connection.send(piece)
                except OSError:
                    break  # The answer says why it takes no more.
            with _translated(Trouble.DATA_NODE):
                answer = connection.getresponse()
                _check(answer)

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        how = "OVERWRITE" if overwrite else "NONE"
        answer = self._ask("PUT", source, "RENAME", destination=target, renameoptions=how)
        # With an option a NameNode raises, and answers nothing when it is done; others may not know it.
        if answer.get("boolean") is False:
            raise HdfsError(Trouble.TAKEN, "rename was refused")

    def delete(self, path: str, *, recursive: bool) -> None:
        self._ask("DELETE", path, "DELETE", recursive=str(recursive).lower())

    def _ask(self, method: str, path: str, operation: str, **parameters: str) -> dict[str, Any]:
        """Return what the NameNode answers, as JSON; nothing where the answer is empty."""
        url = self._url(path, operation, parameters)
        with self._connection(url, CALL_TIMEOUT_S) as connection, _translated(Trouble.UNREACHABLE):
            connection.request(method, _path_of(url))
            answer = connection.getresponse()
            _check(answer)
            content = answer.read()
        try:
            decoded: dict[str, Any] = json.loads(content) if content else {}
        except ValueError as error:
            raise self._not_webhdfs("its answer is no JSON") from error
        return decoded

    def _redirected(self, method: str, path: str, operation: str, **parameters: str) -> str:
        """Return the URL at a DataNode that the NameNode names for data."""
        url = self._url(path, operation, parameters)
        with self._connection(url, CALL_TIMEOUT_S) as connection, _translated(Trouble.UNREACHABLE):
            connection.request(method, _path_of(url), headers=_BODY if method == "PUT" else {})
            answer = connection.getresponse()
            _check(answer)
            target = answer.getheader("Location")
        if target is None:
            raise self._not_webhdfs("it names no DataNode")
        return target

    def _not_webhdfs(self, why: str) -> HdfsError:
        return HdfsError(Trouble.OTHER, f"{self._authority} is not WebHDFS: {why}")

    def _piece(self, path: str, offset: int, length: int) -> bytes:
        target = self._redirected("GET", path, "OPEN", offset=str(offset), length=str(length))
        with self._connection(target, DATA_TIMEOUT_S) as connection, _translated(Trouble.DATA_NODE):
            connection.request("GET", _path_of(target))
            answer = connection.getresponse()
            _check(answer)
            data = answer.read()
        if len(data) != length:  # Not every server says how long its answer is.
            raise HdfsError(Trouble.DATA_NODE, f"answer has {len(data)} of {length} bytes")
        return data

    def _url(self, path: str, operation: str, parameters: dict[str, str]) -> str:
        query = urlencode({"op": operation, **parameters, **self._identity})
        return f"http://{self._authority}{_REST}{quote(path)}?{query}"

    @contextmanager
    def _connection(self, url: str, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        with closing(kind(parts.hostname or "", parts.port, timeout=timeout_s)) as connection:
            yield connection


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def _status(answer: dict[str, Any], name: str) -> FileStatus:
    directory = answer["type"] == "DIRECTORY"
    return FileStatus(
        name=name,
        directory=directory,
        size_bytes=0 if directory else answer["length"],
        # The number of the inode; a gateway to another store has none.
        identity=(answer.get("fileId"), answer["modificationTime"], answer["length"], answer["owner"]),
    )


def _check(answer: http.client.HTTPResponse) -> None:
    """Raise what a server has answered, if that is an exception."""
    if answer.status < http.HTTPStatus.BAD_REQUEST:
        return
    try:
        remote = json.loads(answer.read(_ERROR_BYTES_MAX))["RemoteException"]
        exception, message = str(remote["exception"]), str(remote.get("message") or "")
    except (ValueError, KeyError, TypeError):
        denied = answer.status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
        silent = answer.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
        trouble = Trouble.DENIED if denied else Trouble.UNREACHABLE if silent else Trouble.OTHER
        raise HdfsError(trouble, f"HTTP {answer.status} {answer.reason}") from None
    raise java_error(exception, message)


@contextmanager
def _translated(silence: Trouble) -> Iterator[None]:
    """Turn what breaks a connection into an `HdfsError`; `silence` is what that means."""
    try:
        yield
    except TimeoutError as error:
        raise HdfsError(silence, "no answer in time") from error
    except OSError as error:
        raise HdfsError(silence, one_line(error.strerror or str(error))) from error
    except http.client.HTTPException as error:
        raise HdfsError(silence, f"answer is not HTTP ({type(error).__name__})") from error
