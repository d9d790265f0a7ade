"""Finding the files that a path or a pattern stands for, in a fixed order.

A path that exists is meant literally, even if it looks like a pattern.  A directory
stands for every file below it, except names that begin with `.` or `_`: those are the
unfinished and the marker files of whoever writes there.
"""

import glob
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raystream.errors import ConfigError

_HIDDEN_PREFIXES = (".", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A regular file and what identifies it."""

    path: str
    device: int
    inode: int
    size: int


def local_path(path_or_glob: str | os.PathLike[str]) -> str:
    """Return an absolute path or pattern.

    Raises:
        ConfigError: it is empty, or the URL of another store.
    """
    text = os.fspath(path_or_glob)
    if not text:
        raise ConfigError("path is empty")
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "file":
        raise ConfigError(
            "only files of a local or mounted file system can be used here",
            hint="mount the store, or copy the files",
            path=text,
        )
    return os.path.abspath(rest if separator else text)  # noqa: PTH100 - links keep their names


def find_files(pattern: str, *, required: bool) -> list[FoundFile]:
    """Return the files of an absolute path, directory or pattern, sorted by path; blocks.

    Args:
        pattern: what to look for; `**` crosses directories.
        required: refuse a pattern without a file.  An empty directory is never refused.

    Raises:
        ConfigError: nothing is there although it is required, or a file cannot be read.
    """
    if Path(pattern).is_dir():
        paths = list(_walk(pattern))
    elif os.path.lexists(pattern):
        paths = [pattern]
    else:
        paths = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - `*` leaves out hidden files
        if required and not paths:
            raise ConfigError("no such file", hint=_missing_hint(pattern), path=pattern)
    found = []
    for path in paths:
        try:
            status = Path(path).stat()
        except FileNotFoundError as error:
            if required and path == pattern:
                raise ConfigError("no such file", hint=_missing_hint(pattern), path=path) from error
            continue  # Renamed or removed since it was listed.
        if stat.S_ISREG(status.st_mode):
            _check_readable(path)
            found.append(FoundFile(path=path, device=status.st_dev, inode=status.st_ino, size=status.st_size))
        elif path == pattern:
            raise ConfigError("not a regular file", path=path)
    return found


def _walk(directory: str) -> Iterator[str]:
    """Yield the visible files below a directory, sorted by path at each level."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise ConfigError("directory cannot be listed", path=error.filename) from error

    for parent, directories, names in os.walk(directory, onerror=refuse):
        directories[:] = sorted(name for name in directories if not name.startswith(_HIDDEN_PREFIXES))
        for name in sorted(names):
            if not name.startswith(_HIDDEN_PREFIXES):
                yield str(Path(parent, name))


def _check_readable(path: str) -> None:
    if not os.access(path, os.R_OK):
        raise ConfigError("file cannot be read by this user", path=path)


def _missing_hint(pattern: str) -> str:
    if glob.has_magic(pattern):
        return "no file matches the pattern on the node that runs the job"
    return "the path must exist on every node that runs the job"
