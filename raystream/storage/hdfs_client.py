"""What the HDFS store asks of a client, and what can be in its way, whichever protocol it speaks.

Knows Hadoop's exceptions by their Java names; knows no library and no connection.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from raystream.storage.filesystem import Buffer

USER_VARIABLE = "HADOOP_USER_NAME"
"""Environment variable with the user; who runs the process, without it."""
TOKEN_VARIABLE = "WEBHDFS_DELEGATION_TOKEN"  # noqa: S105 - a name
"""Environment variable with a delegation token for REST."""

CALL_TIMEOUT_S = 6.0
"""After which a NameNode counts as not answering; an idle one answers within milliseconds."""
DATA_TIMEOUT_S = 60.0
"""After which a piece of a file counts as not moved; a DataNode in trouble is replaced within it."""
PIECE_BYTES = 4 << 20
"""Piece in which a file is written and read."""


class Trouble(Enum):
    """Why HDFS did not do what was asked, as far as somebody has to act differently."""

    MISSING = "missing"
    TAKEN = "taken"
    NOT_A_DIRECTORY = "not-a-directory"
    DENIED = "denied"
    QUOTA = "quota"
    SAFE_MODE = "safe-mode"
    STANDBY = "standby"
    UNREACHABLE = "unreachable"
    """No answer from the NameNode: whether it has done what was asked is not known."""
    NO_DATA_NODE = "no-data-node"
    """The NameNode knows none; if it has just started, it soon will."""
    DATA_NODE = "data-node"
    """The DataNodes that it has named did not take or give the data."""
    OTHER = "other"


PASSING = frozenset({Trouble.SAFE_MODE, Trouble.STANDBY, Trouble.UNREACHABLE, Trouble.NO_DATA_NODE})
"""What the start or the fail-over of a NameNode looks like; soon over, if it is that."""


class HdfsError(Exception):
    """HDFS did not do what was asked."""

    def __init__(self, trouble: Trouble, cause: str) -> None:
        super().__init__(trouble, cause)
        self.trouble = trouble
        self.cause = cause
        """One line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """A file or directory."""

    name: str
    """Last part of its path."""
    directory: bool
    size_bytes: int
    identity: tuple[object, ...]
    """What a file keeps when it is renamed, and no other file has."""


class HdfsClient(Protocol):
    """One HDFS.  Calls block, for a bounded time; they are thread-safe and raise `HdfsError`.

    Paths are absolute and not encoded.
    """

    def status(self, path: str) -> FileStatus:
        """Return what is known of a file or directory."""

    def list_dir(self, path: str) -> list[FileStatus]:
        """Return what is directly in a directory; nothing for a file."""

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        """Return a range of a file, cut off at its end; all behind `offset` without a length."""

    def create(self, path: str, pieces: Iterable[Buffer], size_bytes: int) -> None:
        """Write a new file and the directories above it, and return when all its DataNodes have it.

        Args:
            path: nobody else's.
            pieces: the content, up to `PIECE_BYTES` each; what going through them raises is passed on.
            size_bytes: of all together.
        """

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """Give a file another name at once; a target that exists is replaced, or `TAKEN`."""

    def delete(self, path: str, *, recursive: bool) -> None:
        """Remove a file or directory; nothing happens when it does not exist."""


_TROUBLES = {
    "FileNotFoundException": Trouble.MISSING,
    "FileAlreadyExistsException": Trouble.TAKEN,
    "AlreadyBeingCreatedException": Trouble.TAKEN,
    "ParentNotDirectoryException": Trouble.NOT_A_DIRECTORY,
    "PathIsNotDirectoryException": Trouble.NOT_A_DIRECTORY,
    "AccessControlException": Trouble.DENIED,
    "AuthorizationException": Trouble.DENIED,
    "SecurityException": Trouble.DENIED,
    "AuthenticationException": Trouble.DENIED,
    "InvalidToken": Trouble.DENIED,
    "NSQuotaExceededException": Trouble.QUOTA,
    "DSQuotaExceededException": Trouble.QUOTA,
    "QuotaByStorageTypeExceededException": Trouble.QUOTA,
    "QuotaExceededException": Trouble.QUOTA,
    "SafeModeException": Trouble.SAFE_MODE,
    "RetriableException": Trouble.SAFE_MODE,
    "StandbyException": Trouble.STANDBY,
    "BlockMissingException": Trouble.DATA_NODE,
    # What a DataNode or gateway answers that has lost the NameNode itself.
    "EOFException": Trouble.UNREACHABLE,
    "ConnectException": Trouble.UNREACHABLE,
    "SocketException": Trouble.UNREACHABLE,
    "SocketTimeoutException": Trouble.UNREACHABLE,
    "ConnectTimeoutException": Trouble.UNREACHABLE,
}
_PHRASES = {
    "is not a directory": Trouble.NOT_A_DIRECTORY,  # An AccessControlException, too.
    "There are 0 datanode(s) running": Trouble.NO_DATA_NODE,
    "Failed to find datanode": Trouble.NO_DATA_NODE,
    "could only be written to": Trouble.DATA_NODE,
    "Could not obtain block": Trouble.DATA_NODE,
    "in safe mode": Trouble.SAFE_MODE,
}
"""What tells apart those that are plain IOExceptions, or of a class for several things."""

CAUSE_CHARACTERS_MAX = 300


def java_error(exception: str, message: str) -> HdfsError:
    """Return what an exception of a server means.

    Args:
        exception: name of its class, with or without its package.
        message: its own, perhaps with the stack behind it.
    """
    name = exception.rpartition(".")[2].rpartition("$")[2]
    cause = one_line(message)
    by_phrase = (trouble for phrase, trouble in _PHRASES.items() if phrase in cause)
    return HdfsError(next(by_phrase, _TROUBLES.get(name, Trouble.OTHER)), cause or name)


def one_line(message: str) -> str:
    """Return the first line of a message, without the stack that Hadoop sends with it."""
    first = message.strip().partition("\n")[0].strip()
    return first if len(first) <= CAUSE_CHARACTERS_MAX else first[:CAUSE_CHARACTERS_MAX] + "..."
