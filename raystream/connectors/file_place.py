"""The directory that a file sink writes to, and the marker by which it is known again.

    <directory>/.raystream-<job id>     a random token, left there when the job first comes

A file that is not where it was written has been read and removed, or the directory is not the one
that it was: its disk is not mounted, it was made anew, or it is that of another node.  Only the
marker tells.  So a missing file counts as removed where the token is the one that was stored with
its name, and nowhere else; and unfinished files are swept only there.

What is to be told from each other is asked of one open directory, so that a disk that comes or
goes between two questions does no harm.  The marker stays for good: a savepoint of the job may be
restored at any time.
"""

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raystream.connectors.file_rename import rename_exclusively
from raystream.errors import ConfigError, StorageError

logger = logging.getLogger(__name__)

_TOKEN_BYTES = 8


def marker_name(job_id: str) -> str:
    """Return the name of a job's marker; hidden, as all names are that begin with a dot."""
    return f".raystream-{job_id}"


def claim(directory: Path, job_id: str, *, attempt: int = 1) -> str:
    """Make the directory and the job's marker unless they are there, durably; return the token.

    All subtasks of a job that share a directory get one token, and get it again in later attempts.
    A later attempt that finds no marker says so: none before it may have come so far, but the
    directory may also be away, and nothing that is still to be committed tells which it is.

    Raises:
        ConfigError: the directory cannot be made or written.
        StorageError: the marker cannot be read or written.
    """
    _make_writable(directory)
    marker = directory / marker_name(job_id)
    try:
        with opened(directory) as place:
            if token_in(place, job_id) is None:
                if attempt > 1:
                    logger.warning(
                        "output directory is one that no earlier attempt has written to",
                        extra={"path": str(directory), "attempt": attempt},
                    )
                _leave_marker(marker)
            os.fsync(place)  # Also when another subtask left it: that one may not have come so far.
            token = token_in(place, job_id)
    except OSError as error:
        raise StorageError(
            "output directory cannot be marked", path=str(marker), reason=error.strerror or str(error)
        ) from error
    if token is None:
        raise StorageError("output directory was replaced while it was marked", path=str(directory))
    return token


def removed(directory: Path, names: Sequence[str], *, job_id: str, token: str) -> bool:
    """Return whether this is the directory that a job knows by a token, and none of the names is in it.

    Raises:
        OSError: the directory is not there, or does not answer.
    """
    with opened(directory) as place:
        return token_in(place, job_id) == token and not any(_has(place, name) for name in names)


@contextmanager
def opened(directory: Path) -> Iterator[int]:
    """Open a directory; yield its descriptor.

    Raises:
        OSError: it is not there, or does not answer.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def token_in(place: int, job_id: str) -> str | None:
    """Return the token of a job in an open directory; None when the job was never there.

    Raises:
        OSError: the directory does not answer.
    """
    try:
        descriptor = os.open(marker_name(job_id), os.O_RDONLY | os.O_CLOEXEC, dir_fd=place)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        return file.read().decode("ascii", "replace").strip()


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    with opened(directory) as place:
        os.fsync(place)


def _leave_marker(marker: Path) -> None:
    """Make a marker that is whole from the start; one that somebody else makes meanwhile stays."""
    token = secrets.token_hex(_TOKEN_BYTES)
    unfinished = marker.with_name(f"{marker.name}-{token}")
    with unfinished.open("xb") as file:
        file.write(token.encode())
        file.flush()
        os.fsync(file.fileno())
    try:
        rename_exclusively(unfinished, marker)
    except FileExistsError:
        unfinished.unlink()


def _has(place: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=place, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _make_writable(directory: Path) -> None:
    try:
        _make_directory(directory)
    except OSError as error:
        raise ConfigError(
            "output directory cannot be made", path=str(directory), reason=error.strerror or str(error)
        ) from error
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError("output directory cannot be written by this user", path=str(directory))


def _make_directory(directory: Path) -> None:
    """Make a directory and those above it, each one durably."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)
