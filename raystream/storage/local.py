"""Disks of this machine, and network disks mounted on it.

fsspec reads, lists and deletes.  It has neither fsync nor an exclusive rename for local files, so this
module writes them itself.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

import fsspec

from raystream.storage.filesystem import TEMPORARY_PREFIX, Data, buffers
from raystream.storage.fsspec_store import GONE, FsspecFileSystem, translated

_DEFAULT_ACCESS = "system.posix_acl_default"


class LocalFileSystem(FsspecFileSystem):
    """A local or mounted disk.

    A file is written under a temporary name, synced, and then given its name by `rename`, or
    by `link`, which fails when the name is taken.  The directory is synced after it.  A file that is there
    already, and whole, gets its further name at once.
    """

    def __init__(self) -> None:
        super().__init__(fsspec.filesystem("file"))

    def write(self, url: str, data: Data) -> None:
        with translated("write file", url):
            path = _local_path(url)
            temporary = _write_temporary(path.parent, data)
            try:
                temporary.rename(path)
            except OSError:
                _discard(temporary)
                raise
            _sync(path.parent)

    def link(self, url: str, source: Path) -> bool:
        path = _local_path(url)
        # Whatever fails here, `write` can do without, or meets again and explains: it gives the name anew.
        with suppress(OSError):
            _make_directory(path.parent)
            if _gives_access_of_its_own(path.parent, source):
                return False
            try:
                path.hardlink_to(source)
            except FileExistsError:
                if not path.samefile(source):  # As in `create_exclusive`.
                    raise
            _sync(path)
            _sync(path.parent)
            return True
        return False

    def create_exclusive(self, url: str, data: Data) -> bool:
        with translated("create file", url):
            path = _local_path(url)
            temporary = _write_temporary(path.parent, data)
            try:
                path.hardlink_to(temporary)
                created = True
            except FileExistsError:
                # A network disk sends a call again whose answer was lost, and then meets its own file.
                created = path.samefile(temporary)
            finally:
                _discard(temporary)
            # Also when the name was taken: its owner may have died before it came so far.
            _sync(path.parent)
            return created

    def delete_file(self, url: str) -> None:
        with translated("delete file", url):
            path = _local_path(url)
            # Gone already, or its directory is by now: a sweep may remove the same checkpoint meanwhile.
            with suppress(*GONE):
                path.unlink()
                _sync(path.parent)

    def delete_dir(self, url: str) -> None:
        with translated("delete directory", url):
            _remove_tree(_local_path(url))


def local_url(rest: str) -> str:
    """Return the URL of a path, absolute, with `~` expanded."""
    # Not `Path.resolve`: a link that the user has set up stays in the names that we store.
    return "file://" + os.path.abspath(Path(rest).expanduser())  # noqa: PTH100


def _gives_access_of_its_own(directory: Path, file: Path) -> bool:
    """Return whether files of a directory are to have another group, or access lists, unlike this one."""
    status = directory.stat()
    if status.st_mode & stat.S_ISGID and status.st_gid != file.stat().st_gid:
        return True
    with suppress(OSError, AttributeError):  # There is none, or no such thing on this disk or system.
        return bool(os.getxattr(directory, _DEFAULT_ACCESS))
    return False


def _local_path(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def _write_temporary(directory: Path, data: Data) -> Path:
    """Write and sync a new file with a name of its own in a directory; return its path."""
    _make_directory(directory)
    path = directory / (TEMPORARY_PREFIX + os.urandom(8).hex())
    try:
        with path.open("xb") as file:
            for buffer in buffers(data):
                file.write(buffer)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # Also what the data itself raises, when nobody wants it any more.
        _discard(path)
        raise
    return path


def _discard(path: Path) -> None:
    # What cannot be removed is swept later; the caller's own error is the one that matters.
    with suppress(OSError):
        path.unlink()


def _remove_tree(directory: Path) -> None:
    """Remove a directory and all below it; what somebody else removes meanwhile counts as removed.

    (Before Python 3.13 `shutil.rmtree`, which fsspec calls, ends at the first such file and leaves the rest.)
    """
    gone = suppress(*GONE)
    entries: list[os.DirEntry[str]] = []
    with gone, os.scandir(directory) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(Path(entry))
        else:
            with gone:
                Path(entry).unlink()
    with gone:
        directory.rmdir()


def _make_directory(path: Path) -> None:
    """Create a directory and those above it, each one durably."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Let what a file or directory holds survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
