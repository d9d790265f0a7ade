"""Giving a file a name that no other file has, at one stroke.

`rename` overwrites, and `link` leaves two names for a moment, so that a crash then would let a
reader meet the file twice.  The system call that does neither is not in Python, so the C library
is asked.  Knows names, nothing of what is in the files.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NOT_THERE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})
"""Answers of systems and file systems that do not have the call."""

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_libc, "renameat2", None) if sys.platform == "linux" else None


def rename_exclusively(source: Path, target: Path) -> None:
    """Rename a file unless the new name is taken.

    Where there is no such call the name is looked at first: what takes it in between is overwritten.

    Raises:
        FileExistsError: something has the new name already.
        FileNotFoundError: there is no such file.
        OSError: the file system refused.
    """
    code = errno.ENOSYS
    if _renameat2 is not None:
        old, new = os.fsencode(source), os.fsencode(target)
        if _renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
    if code in _NOT_THERE:
        if not os.path.lexists(target):
            source.rename(target)
            return
        code = errno.EEXIST
    raise OSError(code, os.strerror(code), str(source), None, str(target))
