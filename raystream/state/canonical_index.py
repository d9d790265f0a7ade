"""What describes the keyed state of one subtask in a canonical savepoint: an index, and where its parts are.

    header   magic "RSKC", version, two zero bytes
    content  msgpack: max parallelism, key groups, time, states, and which of these have a part

The index is small and stands in `_metadata`, beside the paths and checksums of the parts.  What is in a part
is known to `raystream.state.canonical_reader`; nothing here imports Parquet, so that a job which neither
takes nor restores such a savepoint does without.
"""

from dataclasses import dataclass
from typing import Self

import msgspec
import xxhash

from raystream.errors import StateCorruptError
from raystream.handles import FileHandle
from raystream.state.blob_header import HEADER, read_index
from raystream.state.snapshot_format import ReadRange, StoredInfo
from raystream.state.ttl import Moment

FORMAT_VERSION = 1

MAGIC = b"RSKC"


class CanonicalIndex(msgspec.Struct, frozen=True, kw_only=True):
    """What describes the keyed state of one subtask."""

    max_parallelism: int
    first_group: int
    end_group: int
    taken_ms: int
    event_ms: int
    states: list[StoredInfo]
    parts: list[int]
    """Positions of the states that have rows, and so a part, which is called by this number."""

    @property
    def taken(self) -> Moment:
        """When the savepoint was taken."""
        return Moment(processing_ms=self.taken_ms, event_ms=self.event_ms)


_decode = msgspec.msgpack.Decoder(CanonicalIndex).decode


def encode_index(index: CanonicalIndex) -> bytes:
    """Return the bytes of an index."""
    return HEADER.pack(MAGIC, FORMAT_VERSION, 0) + msgspec.msgpack.encode(index)


def decode_index(data: bytes) -> CanonicalIndex:
    """Return what an index says.

    Raises:
        StateCorruptError: it is not as the format has it.
        StateRestoreError: a newer version wrote it.
    """
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise StateCorruptError("bytes are not the index of a savepoint's keyed state")
    index = read_index(data, _decode, newest=FORMAT_VERSION, what="savepoint")
    names = [state.name for state in index.states]
    parts_valid = sorted(set(index.parts)) == index.parts and set(index.parts) <= set(range(len(names)))
    if not parts_valid or len(set(names)) != len(names):
        raise StateCorruptError("index of keyed state contradicts itself")
    return index


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPlace:
    """Where a part is, and how to know that it is the one that was written.

    Attributes:
        path: of the file, for errors.
        read_range: returns `length` bytes from `offset`.
        footer_checksum: xxh3-64, 16 hex digits.
    """

    path: str
    read_range: ReadRange
    size_bytes: int
    footer_bytes: int
    footer_checksum: str

    @classmethod
    def of(cls, file: FileHandle, path: str, read_range: ReadRange) -> Self:
        """Return the place of a stored part.

        Raises:
            StateCorruptError: it does not say what its footer is.
        """
        if file.footer is None:
            raise StateCorruptError("part of a savepoint has no footer", path=path)
        return cls(
            path=path,
            read_range=read_range,
            size_bytes=file.size_bytes,
            footer_bytes=file.footer.size_bytes,
            footer_checksum=file.footer.checksum,
        )

    def read(self, offset: int, length: int, checksum: str) -> bytes:
        """Return verified bytes.

        Raises:
            StateCorruptError: they are not what was written.
        """
        data = self.read_range(offset, length)
        if len(data) != length or xxhash.xxh3_64_hexdigest(data) != checksum:
            raise StateCorruptError("part of a savepoint is damaged", path=self.path, offset=offset)
        return data
