"""Snapshots of the RocksDB backend that consist of the store's files.

A file of RocksDB never changes; compaction replaces files by others.  A native snapshot has all of them
stored.  An incremental one refers to a file that is part of a checkpoint known to be complete, and has every
other one stored anew, also when an older snapshot that has not completed yet has stored it.
"""

from collections.abc import Iterator, Mapping, Sequence

from raystream.errors import StateError
from raystream.handles import SharedFile
from raystream.state.chunk_form import Chunk
from raystream.state.rocksdb import StoreView
from raystream.state.rocksdb_cut import StoreCut
from raystream.state.rocksdb_items import MISTYPED
from raystream.state.rocksdb_snapshot import RocksDbSnapshot
from raystream.state.rocksdb_tables import CachedTable
from raystream.state.snapshot_files import FilesIndex, LocalFile, TableInfo, encode_index

BACKEND = "rocksdb"


class NativeSnapshot(RocksDbSnapshot):
    """A `KeyedSnapshot` that consists of the store's files."""

    _files: StoreCut | None = None
    _suspect: StoreView | None = None
    """What the store has, when a value in it may have another type than declared."""
    _refused: Sequence[tuple[CachedTable, int]] = ()
    """Tables that may hold such values, and how many they had refused."""

    @property
    def entries(self) -> int | None:
        return None

    def files(self) -> Sequence[LocalFile]:
        self._check_types()
        paths = self._held().files()
        earlier = self._origin.known.stored()
        known = self._known([path.name for path in paths])
        return [LocalFile(path.name, path, known.get(path.name), earlier.get(path.name)) for path in paths]

    def chunks(self) -> Iterator[tuple[int, int, Chunk]]:
        raise AssertionError("a snapshot of files has no chunks")

    def blob(self) -> Sequence[bytes | memoryview]:
        origin = self._origin
        index = FilesIndex(
            backend=BACKEND,
            max_parallelism=origin.max_parallelism,
            first_group=origin.groups.start,
            end_group=origin.groups.stop,
            taken_ms=self.taken.processing_ms,
            event_ms=self.taken.event_ms,
            tables=[
                TableInfo.of_table(
                    info,
                    number=table.number,
                    ttl=table.descriptor.ttl,
                    positions=table.positions,
                    expired_ms=table.expired_ms,
                )
                for info, table in zip(self.states, self._tables, strict=True)
            ],
            small_files=self._held().small_files(),
            shared=[path.name for path in self._held().files()],
        )
        return [encode_index(index)]

    def stored(self, files: dict[str, SharedFile]) -> None:
        """Do nothing: no other snapshot refers to the files."""

    def _known(self, names: Sequence[str]) -> Mapping[str, SharedFile]:
        """Return how those files are stored that are referred to."""
        return {}

    def _held(self) -> StoreCut:
        if self._files is None or self._origin.closed:
            raise StateError("backend of the state was closed", checkpoint_id=self.checkpoint_id)
        return self._files

    def _check_types(self) -> None:
        """See that no value has another type than declared; nearly always nobody has ever written one."""
        suspect, overwritten = self._suspect, self._origin.overwritten
        if suspect is None:
            return
        for table, refused in self._refused:
            if any(item[0] & MISTYPED for _, item in suspect.scan(table.prefix)):
                assert table.codec.refusal is not None
                raise table.codec.refusal
            # What was encoded when it was handed out is refused already, but not in the store yet.
            if refused:
                overwritten[table.number] = max(overwritten.get(table.number, 0), refused)

    def _take(self) -> None:
        origin = self._origin
        self._refused = [
            (table, 0 if any(layer.encoded for layer in table.frozen) else table.codec.refused)
            for table in self._tables
            if table.codec.refused > origin.overwritten.get(table.number, 0)
        ]
        if self._refused:
            self._suspect = origin.take_view()
        try:
            origin.cut = self._files = StoreCut(
                origin.store(), origin.new_path("files"), keeps=origin.directory
            )
        except StateError as error:
            self._error = error

    def _let_go(self) -> None:
        self._suspect = None
        if self._files is not None:
            self._files.remove()


class IncrementalSnapshot(NativeSnapshot):
    """A `KeyedSnapshot` that refers to files of older ones."""

    def stored(self, files: dict[str, SharedFile]) -> None:
        self._origin.known.uploaded(self.checkpoint_id, files)

    def _known(self, names: Sequence[str]) -> Mapping[str, SharedFile]:
        return self._origin.known.refer(self.checkpoint_id, names)


class AnewSnapshot(IncrementalSnapshot):
    """A `KeyedSnapshot` to whose files newer ones refer, and that refers to none itself."""

    def _known(self, names: Sequence[str]) -> Mapping[str, SharedFile]:
        self._origin.known.store_anew(self.checkpoint_id, names)
        return {}
