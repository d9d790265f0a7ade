"""Keyed snapshots that a test stores in memory and restores from there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile
from typing import Self

import xxhash

from raystream.handles import FileHandle, Footer, NamedFile, SharedFile
from raystream.ids import CheckpointId
from raystream.keygroup import KeyGroupRange
from raystream.state.backend import KeyedSnapshot
from raystream.state.canonical_files import Part
from raystream.state.canonical_index import PartPlace, encode_index
from raystream.state.canonical_part import SubtaskHead
from raystream.state.canonical_snapshot import PartsWriter
from raystream.state.stored import Stored, open_stored


@dataclass(frozen=True, slots=True)
class MemoryBlob:
    """A blob in memory."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        """Length of the blob."""
        return len(self.data)

    def read_range(self, offset: int, length: int) -> bytes:
        """Return the bytes `[offset, offset + length)`."""
        return self.data[offset : offset + length]

    @property
    def path(self) -> str:
        return "memory"

    def read_all(self) -> bytes:
        """Return the whole blob."""
        return self.data


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    """The keyed state of one subtask, as a checkpoint would hold it.

    Attributes:
        blob: the self-describing part.
        shared: files that belong to it.
        contents: of all its files, by their stored names.
        parts: files of a canonical savepoint, in place of those that are shared.
    """

    blob: bytes
    shared: tuple[SharedFile, ...]
    contents: Mapping[str, bytes]
    parts: tuple[NamedFile, ...] = ()

    @classmethod
    def canonical(cls, snapshot: KeyedSnapshot, head: SubtaskHead) -> Self:
        """Store a full snapshot that is encoded to its end as a canonical savepoint has it."""
        writer = PartsWriter(head, snapshot.states, TemporaryFile)
        for state, group, chunk in snapshot.chunks():
            writer.add(state, group, chunk)
        written = writer.finish()
        parts = tuple(
            NamedFile(local=one.local, file=_part_handle(one.part, f"{one.info.name}.parquet"))
            for one in written
        )
        contents = {
            part.file.path: b"".join(one.part.pieces()) for part, one in zip(parts, written, strict=True)
        }
        writer.discard()
        snapshot.discard()
        return cls(encode_index(writer.index(written)), (), contents, parts)

    @classmethod
    def of(cls, snapshot: KeyedSnapshot) -> Self:
        """Store a snapshot that is encoded to its end.

        A file that it refers to must be the one that was stored; the snapshot's checkpoint may be completed
        after this.
        """
        shared, contents = [], {}
        for file in snapshot.files():
            content = file.path.read_bytes()
            stored = file.shared or SharedFile(
                name=f"c{snapshot.checkpoint_id}-{file.local}",
                local=file.local,
                created_by=CheckpointId(snapshot.checkpoint_id),
                size_bytes=len(content),
                checksum=xxhash.xxh3_64_hexdigest(content),
            )
            assert stored.checksum == xxhash.xxh3_64_hexdigest(content), (
                "a file has changed after it was stored"
            )
            shared.append(stored)
            contents[stored.name] = content
        blob = b"".join(snapshot.blob())
        snapshot.stored({file.local: file for file in shared})
        snapshot.discard()
        return cls(blob, tuple(shared), contents)

    def open(self, groups: KeyGroupRange, max_parallelism: int, *, own: bool = False) -> Stored:
        """Return what a subtask restores of it.

        Args:
            groups: its key groups, under `max_parallelism`.
            max_parallelism: of the new operator.
            own: the snapshot belongs to a checkpoint of the same job.
        """

        def read(file: SharedFile) -> Iterator[bytes]:
            yield self.contents[file.name]

        files = {file.local: partial(read, file) for file in self.shared}
        known = {file.local: file for file in self.shared} if own else {}
        parts = {
            part.local: PartPlace.of(
                part.file, part.file.path, MemoryBlob(self.contents[part.file.path]).read_range
            )
            for part in self.parts
        }
        return open_stored(MemoryBlob(self.blob), files, groups, max_parallelism, known=known, parts=parts)


def _part_handle(part: Part, path: str) -> FileHandle:
    footer = Footer(size_bytes=part.footer_bytes, checksum=part.footer_checksum)
    return FileHandle(path=path, size_bytes=part.size_bytes, checksum=part.checksum, footer=footer)
