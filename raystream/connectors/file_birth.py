"""When a file was born: what tells a file from a later one that got its inode.

Python has no `statx` before 3.15, so the C library is asked.  Knows numbers of one system call,
and that not every system and not every file system has an answer.
"""

import ctypes
import os
import struct
import sys

UNKNOWN = 0
"""The file system does not say.  Two files of which one says nothing may be the same."""

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_BTIME_OFFSET = 80
_NANOSECONDS = 1_000_000_000

_statx = getattr(ctypes.CDLL(None), "statx", None) if sys.platform == "linux" else None


def birth_of(file: str | int) -> int:
    """Return when a file was made, in ns since epoch, or `UNKNOWN`; a link counts as what it leads to.

    Args:
        file: path or descriptor.

    Example:
        >>> birth_of("/no/such/file") == UNKNOWN
        True
    """
    if _statx is None:
        return UNKNOWN
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if isinstance(file, int):
        failed = _statx(file, b"", _AT_EMPTY_PATH, _STATX_BTIME, answer)
    else:
        failed = _statx(_AT_FDCWD, os.fsencode(file), 0, _STATX_BTIME, answer)
    known, *_ = struct.unpack_from("=I", answer)
    if failed or not known & _STATX_BTIME:
        return UNKNOWN
    seconds, nanoseconds = struct.unpack_from("=qI", answer, _BTIME_OFFSET)
    return int(seconds) * _NANOSECONDS + int(nanoseconds)


def same_birth(one_ns: int, other_ns: int) -> bool:
    """Return whether two births of one inode may be of one file."""
    return one_ns == other_ns or UNKNOWN in (one_ns, other_ns)
