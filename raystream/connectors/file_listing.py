"""Finding the files that a path or a pattern stands for, in a fixed order.

A path that exists is meant literally, even if it looks like a pattern.  A directory
stands for every file below it, except names that begin with `.` or `_`: those are the
unfinished and the marker files of whoever writes there.
"""

import errno
import fnmatch
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raystream.connectors.file_birth import birth_of
from raystream.errors import ConfigError, RaystreamError, StorageError
from raystream.storage.stores import with_both_slashes

_HIDDEN_PREFIXES = (".", "_")
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""A path that leads nowhere, also because it was removed since its directory was listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A regular file and what identifies it."""

    path: str
    device: int
    inode: int
    birth_ns: int
    """When it was made, ns since epoch; 0 where the file system does not say."""
    size: int


def local_path(path_or_glob: str | os.PathLike[str]) -> str:
    """Return an absolute path or pattern.

    Raises:
        ConfigError: it is empty, or the URL of another store.
    """
    text = os.fspath(path_or_glob)
    if not text:
        raise ConfigError("path is empty")
    text = with_both_slashes(text)
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

    A file that is missing in the result was not there: what cannot be listed is an error.

    Args:
        pattern: what to look for; `**` crosses directories.
        required: refuse a pattern without a file.  An empty directory is never refused.

    Raises:
        ConfigError: nothing is there although it is required, or this user may not read something.
        StorageError: a directory or file does not answer.
    """
    itself = _status(pattern)
    if itself is not None and stat.S_ISDIR(itself.st_mode):
        paths = list(_walk(pattern))
    elif os.path.lexists(pattern):
        paths = [pattern]
    else:
        paths = sorted(set(_expand("/", pattern.split("/")[1:])))
        if required and not any(map(os.path.lexists, paths)):
            raise ConfigError("no such file", hint=_missing_hint(pattern), path=pattern)
    found = []
    for path in paths:
        status = _status(path)
        if status is None:
            if required and path == pattern:
                raise ConfigError("no such file", hint=_missing_hint(pattern), path=path)
            continue  # Renamed or removed since it was listed.
        if stat.S_ISREG(status.st_mode):
            _check_readable(path)
            found.append(
                FoundFile(
                    path=path,
                    device=status.st_dev,
                    inode=status.st_ino,
                    birth_ns=birth_of(path),
                    size=status.st_size,
                )
            )
        elif path == pattern:
            raise ConfigError("not a regular file", path=path)
    return found


def shown_without_text(path: str) -> str | None:
    """Return how to show a path whose bytes are no UTF-8 text, so that no record or snapshot can hold it.

    None for every other path.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    return None


def _walk(directory: str) -> Iterator[str]:
    """Yield the visible files below a directory, sorted by path at each level; follow no link to another."""
    below = []
    for name, is_directory in _list(directory):
        if name.startswith(_HIDDEN_PREFIXES):
            continue
        path = str(Path(directory, name))
        if not is_directory:
            yield path
        elif not Path(path).is_symlink():
            below.append(path)
    for path in below:
        yield from _walk(path)


def _expand(directory: str, parts: Sequence[str]) -> Iterator[str]:
    """Yield the paths below a directory that fit the rest of a pattern, perhaps more than once.

    Not `glob`, which leaves out without a word what it cannot list.  `*` and `**` stand for no name
    that begins with a `.`.
    """
    part, rest = parts[0], parts[1:]
    if part == "**":
        for below in _directories(directory, frozenset()):
            yield from _expand(below, rest or ["*"])
        return
    names = [(part, True)]
    if glob.has_magic(part):
        names = [
            (name, is_directory)
            for name, is_directory in _list(directory)
            if fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
        ]
    for name, is_directory in names:
        path = str(Path(directory, name))
        if not rest:
            yield path
        elif is_directory:
            yield from _expand(path, rest)


def _directories(directory: str, above: frozenset[str]) -> Iterator[str]:
    """Yield a directory and the visible ones below it; links are followed, but never in a circle."""
    real = os.path.realpath(directory)
    if real in above:
        return
    yield directory
    for name, is_directory in _list(directory):
        if is_directory and not name.startswith("."):
            yield from _directories(str(Path(directory, name)), above | {real})


def _list(directory: str) -> list[tuple[str, bool]]:
    """Return the names in a directory, sorted, each with whether it leads to a directory."""
    try:
        with os.scandir(directory) as entries:
            return sorted((entry.name, _leads_to_directory(entry)) for entry in entries)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return []
        raise _unreadable("directory cannot be listed", directory, error) from error


def _leads_to_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return False
        raise


def _status(path: str) -> os.stat_result | None:
    """Return the status of what a path leads to, or None when nothing is there."""
    try:
        return os.stat(path)  # noqa: PTH116 - half the time of `Path.stat`, for every file of every listing
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise _unreadable("file cannot be looked at", path, error) from error


def _unreadable(message: str, path: str, error: OSError) -> RaystreamError:
    kind = ConfigError if isinstance(error, PermissionError) else StorageError
    return kind(message, path=path, reason=error.strerror or str(error))


def _check_readable(path: str) -> None:
    if not os.access(path, os.R_OK):
        raise ConfigError("file cannot be read by this user", path=path)


def _missing_hint(pattern: str) -> str:
    if glob.has_magic(pattern):
        return "no file matches the pattern on the node that runs the job"
    return "the path must exist on every node that runs the job"
