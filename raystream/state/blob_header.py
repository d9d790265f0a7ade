"""What blobs of state begin with, and how an index of keyed state is read from behind that.

    header   magic, version, two zero bytes     little-endian
    content  msgpack

Each format has a magic and versions of its own and says what is in its content.
"""

import struct
from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from raystream.errors import StateCorruptError, StateRestoreError
from raystream.keygroup import KEY_GROUPS_MAX

HEADER = struct.Struct("<4sHH")
MAGIC_BYTES = 4


class OfKeyGroups(Protocol):
    """An index of the keyed state of one subtask."""

    @property
    def max_parallelism(self) -> int:
        """Number of key groups of the operator."""

    @property
    def first_group(self) -> int:
        """The first of the subtask."""

    @property
    def end_group(self) -> int:
        """Behind the last of the subtask."""


T = TypeVar("T")
Index = TypeVar("Index", bound=OfKeyGroups)


def check_version(version: int, newest: int, what: str, **where: str) -> None:
    """Check that a format is known.

    Args:
        version: what the bytes say.
        newest: that can be read.
        what: has this format, for errors.
        where: it is stored, for errors.

    Raises:
        StateRestoreError: a newer version wrote it.
    """
    if version > newest:
        raise StateRestoreError(
            f"{what} was written by a newer raystream",
            hint="restore with the version that wrote it, or a later one",
            **where,
            version=version,
            newest_readable=newest,
        )


def decoded(decode: Callable[[bytes | memoryview], T], content: bytes | memoryview) -> T:
    """Return an index of keyed state.

    Raises:
        StateCorruptError: it does not follow its format.
    """
    try:
        return decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateCorruptError("index of keyed state cannot be read", cause=str(error)[:200]) from error


def groups_valid(index: OfKeyGroups) -> bool:
    """Return whether the key groups of an index are possible."""
    return 0 <= index.first_group < index.end_group <= index.max_parallelism <= KEY_GROUPS_MAX


def read_index(
    blob: bytes, decode: Callable[[bytes | memoryview], Index], *, newest: int, what: str
) -> Index:
    """Return the index that a blob consists of.

    Args:
        blob: has a header, whose magic is known.
        decode: makes it of the content.
        newest: version that can be read.
        what: is described by it, for errors.

    Raises:
        StateCorruptError: it is not as the format has it.
        StateRestoreError: a newer version wrote it.
    """
    _, version, zero = HEADER.unpack_from(blob)
    check_version(version, newest, what)
    index = decoded(decode, memoryview(blob)[HEADER.size :])
    if zero or not groups_valid(index):
        raise StateCorruptError("index of keyed state contradicts itself")
    return index
