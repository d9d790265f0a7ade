"""Snapshots that consist of files which a backend keeps anyway, and the blob that says how to use them.

    header   magic "RSKF", version, two zero bytes
    content  msgpack: backend, max parallelism, key groups, time, states, small files, names of large files

The large files never change, so that a later snapshot can refer to those which an earlier one has stored; a
savepoint has all of them for itself.  Only the backend that made such a snapshot can restore it.  The blob is
read whole, and its checksum is in its handle.

What else a restore may get is known to `raystream.state.stored`.
"""

import mmap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec
import xxhash

from raystream.clock import TimeDomain
from raystream.errors import StateCorruptError, StateError
from raystream.handles import SharedFile, StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.records.elements import WATERMARK_MIN_MS
from raystream.state.blob_header import HEADER, read_index
from raystream.state.snapshot_format import StoredInfo
from raystream.state.ttl import Moment, StateTtl, latest_cutoff_ms

FORMAT_VERSION = 1

MAGIC = b"RSKF"

Pieces = Callable[[], Iterator[bytes]]
"""Yields a stored file in pieces, verified when the last one was taken."""

Each = Callable[[Callable[[str], None], Iterable[str]], object]
"""Does some work for each of these; perhaps for several at once, in threads."""


def one_by_one(work: Callable[[str], None], items: Iterable[str]) -> None:
    """Do some work for each item, in the caller's thread."""
    for item in items:
        work(item)


class SnapshotForm(Enum):
    """What a snapshot of keyed state consists of."""

    FULL = "full"
    """One blob with every entry, which every backend reads."""
    NATIVE = "native"
    """All of the files that the backend keeps anyway; one blob where it keeps none."""
    INCREMENTAL = "incremental"
    """Likewise, but what checkpoints have stored that are complete is only referred to."""
    ANEW = "anew"
    """All of the files, stored anew; later incremental ones refer to these."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of a snapshot that is being taken.

    Attributes:
        local: what the backend calls it.
        path: where it is until the snapshot is discarded.
        shared: how it is stored already, for a checkpoint that is complete; None when it is to be stored.
        earlier: how a complete checkpoint has stored it, so that its content is known; None when none has.
    """

    local: str
    path: Path
    shared: SharedFile | None
    earlier: SharedFile | None = None

    def content(self) -> tuple[memoryview, str]:
        """Return what is in it, mapped into memory so that a large one is not read at once, and its checksum.

        Raises:
            StateCorruptError: it is not what it was when an earlier checkpoint stored it.
            StateError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise StateError(
                "local file of state cannot be read", path=str(self.path), cause=str(error)
            ) from error
        checksum = xxhash.xxh3_64_hexdigest(content)
        if self.earlier is not None and checksum != self.earlier.checksum:
            raise StateCorruptError(
                "local file of state is damaged since a checkpoint has stored it",
                hint="the disk has failed, or something has written into the files of a checkpoint",
                path=str(self.path),
                stored_as=self.earlier.name,
            )
        return content, checksum


class TableInfo(StoredInfo, frozen=True, kw_only=True):
    """One state in the files.

    Attributes:
        number: by which its entries are found there.
        ttl_ms: time to live of its values, which then carry their time of writing; else None.
        by_event_time: whether these are times of event time.
        positions: above the position of every element of its lists.
        expired_ms: what was written until then has expired, though by its time to live it has not.
    """

    namespaced: bool  # Never left out here.
    number: Annotated[int, msgspec.Meta(ge=0, lt=0xFFFF)]
    ttl_ms: int | None
    positions: int
    by_event_time: bool = False
    expired_ms: int | None = None

    @classmethod
    def of_table(
        cls,
        info: StateInfo,
        *,
        number: int,
        ttl: StateTtl | None,
        positions: int,
        expired_ms: int | None = None,
    ) -> "TableInfo":
        """Return what describes a registered state."""
        return cls.of(
            info,
            number=number,
            ttl_ms=None if ttl is None else ttl.ttl_ms,
            positions=positions,
            by_event_time=ttl is not None and ttl.time is TimeDomain.EVENT_TIME,
            expired_ms=expired_ms,
        )

    @property
    def ttl(self) -> StateTtl | None:
        """The time to live of its values, as far as they depend on it."""
        domain = TimeDomain.EVENT_TIME if self.by_event_time else TimeDomain.PROCESSING_TIME
        return None if self.ttl_ms is None else StateTtl(self.ttl_ms, time=domain)


class FilesIndex(msgspec.Struct, frozen=True, kw_only=True):
    """What the blob says."""

    backend: str
    max_parallelism: int
    first_group: int
    end_group: int
    taken_ms: int
    tables: list[TableInfo]
    small_files: dict[str, bytes]
    """By local name; those that are not shared."""
    shared: list[str]
    """Local names of the large files, whether other snapshots may need them too or not."""
    event_ms: int = WATERMARK_MIN_MS

    @property
    def taken(self) -> Moment:
        """When the snapshot was taken."""
        return Moment(processing_ms=self.taken_ms, event_ms=self.event_ms)

    @property
    def groups(self) -> KeyGroupRange:
        """The key groups of the subtask that took it."""
        return KeyGroupRange(self.first_group, self.end_group)

    def cutoff_ms(self, table: TableInfo) -> int | None:
        """Return the newest time of writing that had expired in a state; None without a time to live."""
        return latest_cutoff_ms(self.taken.cutoff_ms(table.ttl), table.expired_ms)


_decode = msgspec.msgpack.Decoder(FilesIndex).decode


class StoredFiles:
    """A snapshot that consists of files, to be restored.

    Attributes:
        index: what its blob says.
        known: by local name the files of checkpoints of this job, to which the next one may refer.
        taken_ms: processing time of the snapshot, ms since epoch.
        watermark_ms: event time of the snapshot; None when nothing is known.
    """

    def __init__(
        self,
        index: FilesIndex,
        files: Mapping[str, Pieces],
        *,
        known: Mapping[str, SharedFile],
        each: Each = one_by_one,
    ) -> None:
        self.index = index
        self.taken_ms = index.taken_ms
        self.watermark_ms = index.taken.watermark_ms
        self.known = known
        self._files = files
        self._each = each

    def fetch_into(self, directory: Path, check: Callable[[], None]) -> None:
        """Put all files into a new local directory, whose parent is there; blocks.

        Args:
            directory: to be made.
            check: called before each piece of a file, from any thread; an error that it raises ends this.

        Raises:
            StateCorruptError: a file is missing or is not what was written.
            StorageError: the store did not answer.
            OSError: the local disk failed.
        """
        check()
        directory.mkdir()
        for name, content in self.index.small_files.items():
            (directory / name).write_bytes(content)

        def fetch(name: str) -> None:
            check()
            with (directory / name).open("xb") as local:
                for piece in self._files[name]():
                    local.write(piece)
                    check()

        self._each(fetch, self._files)


def encode_index(index: FilesIndex) -> bytes:
    """Return the blob."""
    return HEADER.pack(MAGIC, FORMAT_VERSION, 0) + msgspec.msgpack.encode(index)


def decode_index(blob: bytes) -> FilesIndex:
    """Return what a blob says.

    Raises:
        StateCorruptError: it is not as the format has it.
        StateRestoreError: a newer version wrote it.
    """
    if len(blob) < HEADER.size:
        raise StateCorruptError("index of keyed state is cut off", size=len(blob))
    return read_index(blob, _decode, newest=FORMAT_VERSION, what="keyed state")


def open_files(
    blob: bytes, files: Mapping[str, Pieces], *, known: Mapping[str, SharedFile], each: Each
) -> StoredFiles:
    """Return the snapshot that a blob describes.

    Args:
        blob: whole and verified.
        files: its files by local name.
        known: as `raystream.state.stored.open_stored`.
        each: fetches the files.

    Raises:
        StateCorruptError: it is not as the format has it.
        StateRestoreError: a newer version wrote it.
    """
    return StoredFiles(_checked(decode_index(blob), files), files, known=known, each=each)


def _checked(index: FilesIndex, files: Collection[str]) -> FilesIndex:
    """Check that the files are those of the index, and that no name leads elsewhere."""
    names = [*index.small_files, *index.shared]
    if set(index.shared) != set(files) or any(
        name != Path(name).name or name in ("", ".", "..") or "\0" in name for name in names
    ):
        raise StateCorruptError("files of keyed state are not those that its index names")
    tables = index.tables
    for unique in (names, [table.name for table in tables], [table.number for table in tables]):
        if len(set(unique)) != len(unique):
            raise StateCorruptError("index of keyed state names a file or a state twice")
    return index
