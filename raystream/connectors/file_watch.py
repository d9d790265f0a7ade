"""Watching files that grow: the enumerator and the reader of an unbounded file source.

The enumerator lists the pattern at every interval and makes one split of each file it
has not seen, dealt out in turn; the split stays with its reader for ever.  The reader
looks at its own files at the same interval (`file_tail` says what it finds there).

A file is recognised by its inode, so it keeps its place when it is renamed within the
pattern.  An inode that is missing in `ABSENCES_MAX` listings in a row is forgotten, so
that a new file that gets the same inode later counts as new.  Readers hold the
descriptor of a removed file longer than that, which keeps its inode from being reused
before it is forgotten.

What cannot be guaranteed:
  - what is written to a file and removed from the pattern, or cut off, between two
    looks or while the job does not run, is never seen;
  - a copy is a new file: with `copytruncate`, use a pattern that does not match the copies;
  - a file that leaves the pattern and comes back may be read from its start again;
  - a file that was overwritten with content whose bytes before the reading position
    are the same as before counts as unchanged.
"""

import glob
from collections import deque
from collections.abc import Sequence

import msgspec

from raystream.connectors.file_lines import LineDecoder
from raystream.connectors.file_listing import FoundFile, find_files
from raystream.connectors.file_tail import TailedFile, WatchedSplit
from raystream.connectors.versioned import decode, encode
from raystream.operators.source import END, NOTHING, EnumeratorContext, ReaderContext, ReaderSignal
from raystream.records.batch import RowBatch

FORMAT_VERSION = 1
ABSENCES_MAX = 2
"""Listings in a row without a file after which it is forgotten; one may miss a file that is being renamed."""
DESCRIPTORS_MAX = 256
"""Open files of one reader that have nothing to read, and again so many that have.  More files at
rest are closed and looked at by name."""


class _KnownFile(msgspec.Struct, array_like=True):
    """A file that was turned into a split."""

    device: int
    inode: int
    absences: int = 0


class _EnumeratorState(msgspec.Struct, frozen=True, array_like=True):
    known: list[_KnownFile]
    waiting: list[WatchedSplit]


class WatchEnumerator:
    """Finds new files and deals them out in turn."""

    def __init__(
        self, pattern: str, interval_ms: int, context: EnumeratorContext, state: bytes | None
    ) -> None:
        self.discovery_interval_ms: int | None = interval_ms
        self._pattern = pattern
        self._queues: list[list[WatchedSplit]] = [[] for _ in range(context.parallelism)]
        self._dealt = 0
        self._started = state is not None
        self._known: dict[tuple[int, int], _KnownFile] = {}
        # Device numbers may change when a node boots or another one takes over, inodes do not:
        # what was restored is recognised by inode alone, once.
        self._restored: dict[int, _KnownFile] = {}
        if state is not None:
            stored = decode(state, FORMAT_VERSION, _EnumeratorState, "file enumerator")
            self._restored = {file.inode: file for file in stored.known}
            for split in stored.waiting:
                self._deal(split)

    def discover(self) -> list[FoundFile]:
        """List the pattern; only at the very first start must there be something.

        Raises:
            ConfigError: nothing matches a path that is not a pattern, or a file cannot be read.
        """
        return find_files(self._pattern, required=not self._started and not glob.has_magic(self._pattern))

    def discovered(self, found: list[FoundFile]) -> None:
        """Make splits of new files and forget those that are gone."""
        self._started = True
        present = {(file.device, file.inode) for file in found}
        for file in found:
            identity = (file.device, file.inode)
            known = self._known.get(identity) or self._restored.pop(file.inode, None)
            if known is None:
                known = _KnownFile(file.device, file.inode)
                self._deal(WatchedSplit(file.path, file.inode))
            known.device, known.absences = file.device, 0
            self._known[identity] = known
        for restored in self._restored.values():
            self._known.setdefault((restored.device, restored.inode), restored)
        self._restored = {}
        for identity in [identity for identity in self._known if identity not in present]:
            self._known[identity].absences += 1
            if self._known[identity].absences >= ABSENCES_MAX:
                del self._known[identity]

    def next_splits(self, subtask: int) -> list[bytes]:
        """Return the files that were dealt to this subtask."""
        splits, self._queues[subtask] = self._queues[subtask], []
        return [split.encode() for split in splits]

    @property
    def exhausted(self) -> bool:
        """False: a file may come at any time."""
        return False

    def snapshot(self) -> bytes:
        """Return which files were seen, and those that no reader has yet."""
        known = [*self._known.values(), *self._restored.values()]
        waiting = [split for queue in self._queues for split in queue]
        return encode(FORMAT_VERSION, _EnumeratorState(known, waiting))

    def _deal(self, split: WatchedSplit) -> None:
        self._queues[self._dealt % len(self._queues)].append(split)
        self._dealt += 1


class WatchReader:
    """Follows files, a batch from each in turn, and looks for growth at every interval."""

    def __init__(self, pattern: str, interval_ms: int, decoder: LineDecoder, context: ReaderContext) -> None:
        self._pattern = pattern
        self._interval_ms = interval_ms
        self._decoder = decoder
        self._context = context
        self._files: list[TailedFile] = []
        self._ready: deque[TailedFile] = deque()
        self._at_rest: dict[TailedFile, None] = {}  # Those that may be open; longest at rest first.
        self._next_look_ms = float("-inf")
        self._complete = False

    def poll(self, records_max: int, bytes_max: int) -> RowBatch | ReaderSignal:
        """Return the next whole lines of a file that has some.

        Raises:
            StorageError: a file cannot be read.
            ConfigError: a line cannot be decoded.
        """
        now_ms = self._context.clock.monotonic_ms()
        if now_ms >= self._next_look_ms:
            self._look()
            self._next_look_ms = now_ms + self._interval_ms
        while self._ready:
            file = self._ready.popleft()
            values = file.take(records_max, bytes_max)
            self._file_away(file)
            if values:
                return RowBatch(values)
        if self._complete and not self._files:
            return END
        self._context.wake_at(self._next_look_ms)
        return NOTHING

    def add_splits(self, splits: Sequence[bytes]) -> None:
        """Follow these files too."""
        files = [TailedFile(WatchedSplit.decode(raw), self._decoder) for raw in splits]
        self._files.extend(files)
        self._ready.extend(files)
        self._context.wake()

    def no_more_splits(self) -> None:
        """No new file will be found; those in hand are followed on."""
        self._complete = True
        self._context.wake()

    @property
    def wants_splits(self) -> bool:
        """True: each reader takes the files that are dealt to it as they appear."""
        return not self._complete

    def snapshot(self) -> list[bytes]:
        """Return every file with the position behind the last line handed out."""
        return [file.split().encode() for file in self._files]

    def checkpoint_complete(self, checkpoint_id: int) -> None:
        """Do nothing: files keep what was read."""

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()

    def _look(self) -> None:
        """Find out which files grew, moved or went away."""
        listing = _LazyListing(self._pattern)
        ready = set(self._ready)
        for file in [file for file in self._files if file not in ready]:
            file.look(listing)
            if file.ready or file.finished:
                self._file_away(file)

    def _file_away(self, file: TailedFile) -> None:
        """Put a file where it belongs after a look or a read, and keep the number of open ones in bounds."""
        self._at_rest.pop(file, None)
        if file.finished:
            file.close()
            self._files.remove(file)
        elif file.ready:
            # In turn, unless so many have something that all of them open would be too many.
            crowded = len(self._ready) >= DESCRIPTORS_MAX
            (self._ready.appendleft if crowded else self._ready.append)(file)
        else:
            self._at_rest[file] = None
            if len(self._at_rest) > DESCRIPTORS_MAX:
                longest_at_rest = next(iter(self._at_rest))
                del self._at_rest[longest_at_rest]
                longest_at_rest.rest()


class _LazyListing:
    """Where inodes are now; lists the pattern at most once, only when a file has moved."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._paths: dict[int, str] | None = None

    def path_of(self, inode: int) -> str | None:
        """Return the path of a file of the pattern, or None when it has none."""
        if self._paths is None:
            self._paths = {file.inode: file.path for file in find_files(self._pattern, required=False)}
        return self._paths.get(inode)
