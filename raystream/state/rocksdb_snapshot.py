"""How a snapshot of the RocksDB backend begins: write out what was dirty, then take hold of what RocksDB has.

    frozen ──write layers step by step──> written ──take hold──> cut ──`files`, `blob`, in a thread──> stored

Freezing takes time per dirty item, of which there are few.  Until a snapshot is cut, nothing newer gets
into RocksDB; of several snapshots the oldest is cut first.  After that the backend goes on as if there
were no snapshot.  What is taken hold of is a view (`rocksdb_full`) or a set of files (`rocksdb_incremental`).
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raystream.clock import Clock
from raystream.errors import StateError
from raystream.handles import SharedFile, StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.state.chunk_form import Chunk
from raystream.state.rocksdb import RocksDbStore, StoreView
from raystream.state.rocksdb_cut import StoreCut
from raystream.state.rocksdb_directory import StoreDirectory
from raystream.state.rocksdb_tables import CachedTable, Layer
from raystream.state.snapshot_files import LocalFile
from raystream.state.ttl import Moment

HELD_WARN_MS = 100.0
"""Time that the loop is held by the files of one snapshot above which it is told why."""

EXPIRED_TOLD_MAX = 65_536
"""Keys that snapshots found expired and that are not removed yet; beyond, the oldest are forgotten."""


logger = logging.getLogger(__name__)


class KnownFiles:
    """Files of the store that are part of complete checkpoints, so that newer ones may refer to them.

    What uses a stored file are checkpoints in a row: one refers to it only when every older one that may
    still complete does so too.  So whoever deletes what the complete checkpoints need no longer takes
    nothing that a pending one refers to, also when subtasks hear late of completions.

    From any thread: uploads ask, the loop hears of completions.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, SharedFile] = {}
        self._anew: dict[int, frozenset[str]] = {}
        """By checkpoint, the files that it has stored anew; of those that may still complete."""
        self._uploaded: dict[int, dict[str, SharedFile]] = {}

    def restored(self, files: dict[str, SharedFile]) -> None:
        """The store was opened with files of a checkpoint of this job."""
        self._known = dict(files)

    def stored(self) -> dict[str, SharedFile]:
        """Return how files are stored that are part of complete checkpoints."""
        with self._lock:
            return dict(self._known)

    def refer(self, checkpoint_id: int, names: Iterable[str]) -> dict[str, SharedFile]:
        """Return how those files are stored that a checkpoint refers to; it stores the others anew."""
        with self._lock:
            anew = {name for older, files in self._anew.items() if older < checkpoint_id for name in files}
            found = {name: self._known[name] for name in names if name in self._known and name not in anew}
            self._anew[checkpoint_id] = frozenset(names) - found.keys()
            return found

    def store_anew(self, checkpoint_id: int, names: Iterable[str]) -> None:
        """A checkpoint stores all of its files anew, those too to which it could refer."""
        with self._lock:
            self._anew[checkpoint_id] = frozenset(names)

    def uploaded(self, checkpoint_id: int, files: dict[str, SharedFile]) -> None:
        """A snapshot with these files is stored; whether it counts is not known yet."""
        with self._lock:
            self._uploaded[checkpoint_id] = files

    def completed(self, checkpoint_id: int) -> None:
        """A checkpoint is complete; what older ones alone had is not referred to any more."""
        with self._lock:
            self._known = self._uploaded.get(checkpoint_id, self._known)
            for by_checkpoint in (self._uploaded, self._anew):
                for over in [other for other in by_checkpoint if other <= checkpoint_id]:
                    del by_checkpoint[over]


@dataclass(slots=True, kw_only=True)
class SnapshotOrigin:
    """What the snapshots of one backend share."""

    clock: Clock
    tables: Sequence[CachedTable]
    groups: KeyGroupRange
    max_parallelism: int
    store: Callable[[], RocksDbStore]
    directory: StoreDirectory
    unfinished: "deque[RocksDbSnapshot]" = field(default_factory=deque)
    """Snapshots that are not cut yet, oldest first."""
    cut: StoreCut | None = None
    """The files of the newest cut; while they are being made, nothing may be written."""
    known: KnownFiles = field(default_factory=KnownFiles)
    held_ms: float = 0.0
    """How long the loop was held in all, since what changed had no more room while files were made."""
    overwritten: dict[int, int] = field(default_factory=dict)
    """By state number, how many values that were refused for their type are known to be gone."""
    closed: bool = False
    """True when the directory is about to go."""
    names: int = 0
    expired: deque[tuple[str, bytes, list[bytes]]] = field(
        default_factory=lambda: deque(maxlen=EXPIRED_TOLD_MAX)
    )
    """State, encoded key and suffixes of what snapshots found expired, not yet removed."""

    def take_view(self) -> StoreView:
        """Return the store as it is now."""
        return self.store().view([table.prefix for table in self.tables])

    def new_path(self, kind: str) -> Path:
        """Return a path beside the store that was not used before."""
        self.names += 1
        return self.directory.path / f"{kind}-{self.names}"

    def hold(self) -> None:
        """Wait until the store may be written, for as long as it takes; the loop takes no input meanwhile."""
        if self.writable(0):
            return
        started_ms = self.clock.monotonic_ms()
        self.writable()
        held_ms = self.clock.monotonic_ms() - started_ms
        self.held_ms += held_ms
        if held_ms > HELD_WARN_MS:
            logger.warning(
                "input was held until the local files of a snapshot were made",
                extra={
                    "path": str(self.directory.path),
                    "held_ms": round(held_ms),
                    "held_total_ms": round(self.held_ms),
                    "hint": "give state.backend.rocksdb.localdir a faster disk, raise "
                    "state.backend.rocksdb.cache-size, or take checkpoints less often",
                },
            )

    def writable(self, timeout_s: float | None = None) -> bool:
        """Return whether the store may be written, after a wait for files that are being made.

        Args:
            timeout_s: longest wait; None for as long as it takes.
        """
        if self.cut is not None:
            if not self.cut.wait(timeout_s):
                return False
            self.cut = None
        return True


class RocksDbSnapshot(ABC):
    """A `KeyedSnapshot` of the RocksDB backend."""

    def __init__(
        self,
        checkpoint_id: int,
        states: tuple[StateInfo, ...],
        origin: SnapshotOrigin,
        taken: Moment,
    ) -> None:
        """Freeze the tables and join the unfinished snapshots of the backend."""
        self.checkpoint_id = checkpoint_id
        self.states = states
        self._origin = origin
        self._tables = tuple(origin.tables)
        self.taken = taken
        self._layers: deque[tuple[CachedTable, Layer]] = deque()
        for table in self._tables:
            layer = table.freeze()
            if layer is not None:
                self._layers.append((table, layer))
        self._cut = False
        self._discarded = False
        self._error: StateError | None = None
        origin.unfinished.append(self)

    @property
    @abstractmethod
    def entries(self) -> int | None:
        """As in `KeyedSnapshot`."""

    @abstractmethod
    def files(self) -> Sequence[LocalFile]:
        """As in `KeyedSnapshot`."""

    @abstractmethod
    def blob(self) -> Sequence[bytes | memoryview]:
        """As in `KeyedSnapshot`."""

    @abstractmethod
    def chunks(self) -> Iterator[tuple[int, int, Chunk]]:
        """As in `KeyedSnapshot`."""

    @property
    def local_directory(self) -> Path:
        """As in `KeyedSnapshot`."""
        return self._origin.directory.path

    @abstractmethod
    def stored(self, files: dict[str, SharedFile]) -> None:
        """As in `KeyedSnapshot`."""

    def advance(self, out_of_time: Callable[[], bool]) -> bool:
        while not self._cut:
            done = self._origin.unfinished[0].work(out_of_time)
            self._raise_error()
            if not done or (not self._cut and out_of_time()):
                return False
        self._raise_error()
        return True

    def wait(self) -> None:
        cut = self._origin.cut
        if cut is not None:
            cut.wait()

    def discard(self) -> None:
        self._discarded = True
        self._let_go()

    def work(self, out_of_time: Callable[[], bool]) -> bool:
        """Write layers until it is time to stop; return True when it is cut.  For the oldest only.

        Does nothing while the files of an older one are being made.
        """
        if not self._origin.writable(0):
            return False
        while self._layers:
            table, layer = self._layers[0]
            refused = table.codec.refused
            # A read may have written the layer already.
            if layer not in table.frozen or table.write_step(layer):
                self._layers.popleft()
            if table.codec.refused > refused:
                self._error = self._error or table.codec.refusal
            if self._layers and out_of_time():
                return False
        self._cut = True
        if not self._discarded:
            self._take()
        cut = self._origin.unfinished.popleft()
        assert cut is self
        return True

    @abstractmethod
    def _take(self) -> None:
        """Take hold of what the store has now."""

    @abstractmethod
    def _let_go(self) -> None:
        """Free it; may be called at any time and again."""

    def _raise_error(self) -> None:
        if self._error is not None and not self._discarded:
            raise self._error
