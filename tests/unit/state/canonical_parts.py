"""Parts of canonical savepoints, written to memory and read from there."""

import tempfile
from dataclasses import dataclass

from raystream.keygroup import KeyGroupRange
from raystream.keys import KeyGroupCache
from raystream.state.canonical_index import PartPlace
from raystream.state.canonical_part import PartWriter, SubtaskHead
from raystream.state.canonical_reader import PartReader
from raystream.state.chunk_codec import ChunkCodec
from raystream.state.chunk_decoder import ChunkDecoder
from raystream.state.ttl import Moment
from raystream.testing.state_kit import MAX_PARALLELISM as CONTRACT_MAX_PARALLELISM
from raystream.testing.state_kit import BackendContract
from raystream.testing.stored_state import MemorySnapshot

MAX_PARALLELISM = 8
GROUPS = KeyGroupRange(0, MAX_PARALLELISM)
TAKEN = Moment(processing_ms=1_800_000_000_000, event_ms=1_799_999_999_000)


@dataclass
class MemoryPart:
    """The bytes of a part, and what `_metadata` has of it."""

    data: bytes
    footer_bytes: int
    footer_checksum: str
    written: object

    def place(self, data=None, reads=None):
        content = self.data if data is None else data

        def read_range(offset, length):
            if reads is not None:
                reads.append((offset, length))
            return content[offset : offset + length]

        return PartPlace(
            path="u/s/part-0.parquet",
            read_range=read_range,
            size_bytes=len(self.data),
            footer_bytes=self.footer_bytes,
            footer_checksum=self.footer_checksum,
        )

    def open(self, data=None, reads=None):
        return PartReader(self.place(data, reads))


HEAD = SubtaskHead(uid="u", subtask=0, groups=GROUPS, max_parallelism=MAX_PARALLELISM, taken=TAKEN)


def written(info, chunks):
    """Return a part of chunks with their key groups; None when there is no row."""
    writer = PartWriter(HEAD, info, tempfile.TemporaryFile)
    for group, chunk in chunks:
        writer.add(group, chunk)
    part = writer.finish()
    if part is None:
        return None
    data = b"".join(part.pieces())
    part.close()
    assert len(data) == part.size_bytes
    return MemoryPart(data, part.footer_bytes, part.footer_checksum, part)


def chunks_of(descriptor, entries):
    """Return entries by key, encoded as a snapshot of the heap has them, by key group."""
    cache, codec = KeyGroupCache(MAX_PARALLELISM), ChunkCodec(descriptor)
    by_group = {}
    for key, content in entries.items():
        group = cache[key[0] if descriptor.namespaced else key]
        by_group.setdefault(group, ([], []))
        by_group[group][0].append(key)
        by_group[group][1].append(content)
    return [(group, chunk) for group, columns in sorted(by_group.items()) for chunk in codec.encode(*columns)]


def decoded(descriptor, chunks):
    """Return entries by key."""
    decoder = ChunkDecoder(descriptor, descriptor.info())
    found = {}
    for _, chunk in chunks:
        found.update(zip(*decoder.decode(chunk), strict=True))
    return found


def round_trip(descriptor, chunks):
    """Return chunks as they come out of a part."""
    part = written(descriptor.info(), chunks)
    return [] if part is None else [(stored.group, stored.chunk) for stored in part.open().chunks()]


def exact(value):
    """Return what tells values apart that Python calls equal."""
    if isinstance(value, list | tuple):
        return type(value), [exact(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(map(repr, map(exact, value)))
    if isinstance(value, dict):
        return [(exact(key), exact(item)) for key, item in value.items()]
    return type(value), repr(value)


def exact_entries(entries):
    """Return entries by key, in whatever order these come."""
    return sorted((repr(exact(key)), exact(content)) for key, content in entries.items())


class AsCanonicalSavepoints(BackendContract):
    """Every snapshot of a contract is stored as a canonical savepoint."""

    def freeze(self, subtask, checkpoint_id=1):
        snapshot = super().freeze(subtask, checkpoint_id)
        self.frozen_at = {**getattr(self, "frozen_at", {}), id(snapshot): subtask.max_parallelism}
        return snapshot

    def stored(self, snapshot):
        max_parallelism = getattr(self, "frozen_at", {}).get(id(snapshot), CONTRACT_MAX_PARALLELISM)
        groups = KeyGroupRange(0, max_parallelism)
        head = SubtaskHead(
            uid="u", subtask=0, groups=groups, max_parallelism=max_parallelism, taken=snapshot.taken
        )
        return MemorySnapshot.canonical(snapshot, head)
