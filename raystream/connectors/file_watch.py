"""Watching files that grow: the enumerator and the reader of an unbounded file source.

The enumerator lists the pattern at every interval and makes one split of each file it
has not seen, dealt out in turn; the split stays with its reader for ever.  The reader
looks at its own files at the same interval (`file_tail` says what it finds there).

    enumerator                                         reader of the file
    new file             --WatchedSplit(number, path)-->  read it from its start
    moved, or back       --Sighting(number, path)------>  go on behind the last line
    missing in ABSENCES_MAX listings
                         --Sighting(number, no path)-->  read what is left, close it, remember it

Only the enumerator lists, so that both always mean the same file: a sighting goes to
all readers, and the number of the split tells whose it is.  A listing that fails says
nothing about any file; after `FAILED_LISTINGS_MAX` in a row the attempt fails.

A file is recognised by inode and birth (`file_birth`), so it keeps its place when it is
renamed, also when it leaves the pattern and comes back.  When `REMEMBERED_MAX` files have been
found since it went, it is forgotten, by its reader never before the enumerator.

What cannot be guaranteed:
  - what is written to a file and removed from the pattern, or cut off, between two
    looks or while the job does not run, is never seen;
  - a copy is a new file: with `copytruncate`, use a pattern that does not match the copies;
  - a file that comes back after it was forgotten is read from its start again;
  - a file that was overwritten with content whose bytes before the reading position
    are the same as before counts as unchanged; so does a new one with the inode of an old
    one, where the file system does not say when a file was born.
"""

import glob
import logging
from collections import deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from raystream.connectors.file_birth import same_birth
from raystream.connectors.file_lines import LineDecoder
from raystream.connectors.file_listing import FoundFile, find_files, shown_without_text
from raystream.connectors.file_tail import Sighting, TailedFile, WatchedSplit, decode_word
from raystream.connectors.versioned import decode, encode
from raystream.errors import RaystreamError
from raystream.operators.source import (
    END,
    NOTHING,
    EnumeratorContext,
    ReaderContext,
    ReaderSignal,
    SplitBatch,
)
from raystream.records.batch import RowBatch

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
ABSENCES_MAX = 2
"""Listings in a row without a file after which it has gone; one may miss a file that is being renamed."""
FAILED_LISTINGS_MAX = 10
"""Listings in a row that may fail once the source has started."""
REMEMBERED_MAX = 10_000
"""Files found since a file went after which it is forgotten."""
DESCRIPTORS_MAX = 256
"""Open files of one reader that have nothing to read, and again so many that have.  More files at
rest are closed and looked at by name."""

_Identity = tuple[int, int]
"""Device and inode."""


class _KnownFile(msgspec.Struct, array_like=True):
    """A file that was turned into a split."""

    device: int
    inode: int
    birth_ns: int
    number: int
    absences: int = 0
    absent_since: int = 0
    """How many files had been dealt out when it went."""


class _EnumeratorState(msgspec.Struct, frozen=True, array_like=True):
    known: list[_KnownFile]
    waiting: list[WatchedSplit]
    dealt: int


@dataclass(frozen=True, slots=True)
class FailedListing:
    """What `discover` returns when it could not list; not raised, since that would fail the attempt."""

    error: RaystreamError


class WatchEnumerator:
    """Finds new files, deals them out in turn, and says where the others are."""

    def __init__(
        self, pattern: str, interval_ms: int, context: EnumeratorContext, state: bytes | None
    ) -> None:
        self.discovery_interval_ms: int | None = interval_ms
        self._pattern = pattern
        self._splits: list[list[WatchedSplit]] = [[] for _ in range(context.parallelism)]
        self._sightings: list[dict[int, Sighting]] = [{} for _ in range(context.parallelism)]
        self._dealt = 0
        self._started = self._devices_may_differ = state is not None
        self._failed_listings = 0
        self._passed_over: set[str] = set()
        self._known: dict[_Identity, _KnownFile] = {}
        self._told: dict[int, str | None] = {}  # Where readers think a file is; nothing of restored ones.
        if state is not None:
            stored = decode(state, FORMAT_VERSION, _EnumeratorState, "file enumerator")
            self._known = {(file.device, file.inode): file for file in stored.known}
            self._dealt = stored.dealt
            for split in stored.waiting:
                self._splits[split.number % context.parallelism].append(split)

    def discover(self) -> list[FoundFile] | FailedListing:
        """List the pattern; only at the very first start must that succeed, and a path be there.

        Raises:
            ConfigError: nothing matches a path that is not a pattern, or something may not be read.
            StorageError: a directory or file does not answer.
        """
        required = not self._started and not glob.has_magic(self._pattern)
        try:
            return find_files(self._pattern, required=required)
        except RaystreamError as error:
            if not self._started:
                raise
            return FailedListing(error)

    def discovered(self, found: list[FoundFile] | FailedListing) -> None:
        """Make splits of new files, and say which ones have moved, gone or come back.

        Raises:
            RaystreamError: the listing has failed too often.
        """
        if isinstance(found, FailedListing):
            self._listing_failed(found.error)
            return
        self._failed_listings = 0
        self._started = True
        present: dict[_Identity, list[FoundFile]] = {}  # A file may have several names.
        for file in self._readable_names(found):
            present.setdefault((file.device, file.inode), []).append(file)
        if self._devices_may_differ:
            self._devices_may_differ = False
            self._take_over_devices(present)
        for names in present.values():
            self._seen(names)
        for known in [known for identity, known in self._known.items() if identity not in present]:
            self._missed(known)

    def _readable_names(self, found: list[FoundFile]) -> list[FoundFile]:
        """Leave out names that are not text, and warn of new ones: one of them shall not end the job."""
        readable, passed_over = [], set()
        for file in found:
            if (shown := shown_without_text(file.path)) is None:
                readable.append(file)
                continue
            passed_over.add(shown)
            if shown not in self._passed_over:
                logger.warning("file is not read: its name is not UTF-8 text", extra={"path": shown})
        self._passed_over = passed_over
        return readable

    def next_splits(self, subtask: int) -> list[bytes]:
        """Return the files that were dealt to this subtask, and what there is to say about any file."""
        splits, self._splits[subtask] = self._splits[subtask], []
        sightings, self._sightings[subtask] = self._sightings[subtask], {}
        return [
            *(split.encode() for split in splits),
            *(sighting.encode() for sighting in sightings.values()),
        ]

    @property
    def exhausted(self) -> bool:
        """False: a file may come at any time."""
        return False

    def snapshot(self) -> bytes:
        """Return which files were seen, and those that no reader has yet."""
        waiting = [split for splits in self._splits for split in splits]
        return encode(FORMAT_VERSION, _EnumeratorState([*self._known.values()], waiting, self._dealt))

    def _listing_failed(self, error: RaystreamError) -> None:
        self._failed_listings += 1
        if self._failed_listings > FAILED_LISTINGS_MAX:
            raise error
        if self._failed_listings == 1:
            logger.warning("watched files cannot be listed; new ones are not found", exc_info=error)

    def _take_over_devices(self, present: Mapping[_Identity, object]) -> None:
        """Recognise restored files by inode alone, once.

        Device numbers may change when a node boots or another one takes over; inodes do not.
        """
        new = {identity[1]: identity for identity in present if identity not in self._known}
        for identity in [identity for identity in self._known if identity not in present]:
            now = new.pop(identity[1], None)
            if now is not None:
                known = self._known[now] = self._known.pop(identity)
                known.device = now[0]

    def _seen(self, names: Sequence[FoundFile]) -> None:
        """Take in one file of a listing, under all its names."""
        file = names[0]
        identity = (file.device, file.inode)
        known = self._known.get(identity)
        if known is not None and not same_birth(known.birth_ns, file.birth_ns):
            known.absent_since = self._dealt  # Its inode has been given to another file.
            self._tell(known, None)
            self._forget(known)
            known = None
        if known is None:
            self._known[identity] = _KnownFile(file.device, file.inode, file.birth_ns, self._dealt)
            split = WatchedSplit(file.path, file.inode, file.birth_ns, self._dealt)
            self._told[split.number] = file.path
            self._splits[split.number % len(self._splits)].append(split)
            self._dealt += 1
            return
        known.absences = 0
        if self._told.get(known.number) not in [name.path for name in names]:
            self._tell(known, file.path)

    def _missed(self, known: _KnownFile) -> None:
        """Take in that a listing had no such file."""
        known.absences += 1
        if known.absences == ABSENCES_MAX:
            known.absent_since = self._dealt
        if known.absences < ABSENCES_MAX:
            return
        if self._told.get(known.number, "") is not None:
            self._tell(known, None)
        if known.absent_since <= self._dealt - REMEMBERED_MAX:
            self._forget(known)

    def _tell(self, known: _KnownFile, path: str | None) -> None:
        """Say to every reader where a file is; only the one that has it listens."""
        self._told[known.number] = path
        for sightings in self._sightings:
            sightings[known.number] = Sighting(known.number, path, known.absent_since)

    def _forget(self, known: _KnownFile) -> None:
        del self._known[known.device, known.inode]
        del self._told[known.number]


class WatchReader:
    """Follows files, a batch from each in turn, and looks for growth at every interval."""

    def __init__(self, interval_ms: int, decoder: LineDecoder, context: ReaderContext) -> None:
        self._interval_ms = interval_ms
        self._decoder = decoder
        self._context = context
        self._files: dict[int, TailedFile] = {}  # By number, also those that have gone.
        self._newest = 0
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
                return SplitBatch(file.number, values) if self._context.per_split else RowBatch(values)
        if self._complete and all(file.gone for file in self._files.values()):
            return END
        self._context.wake_at(self._next_look_ms)
        return NOTHING

    def add_splits(self, splits: Sequence[bytes]) -> None:
        """Follow these files too, and take in where others are."""
        for raw in splits:
            word = decode_word(raw)
            if isinstance(word, WatchedSplit):
                file = self._files[word.number] = TailedFile(word, self._decoder)
                self._newest = max(self._newest, word.number)
                if file.ready:
                    self._ready.append(file)
            elif word.number in self._files:
                self._files[word.number].sighted(word)
        # The enumerator has dealt out at least as many, so that it has forgotten these by now.
        limit = self._newest + 1 - REMEMBERED_MAX
        for file in [file for file in self._files.values() if file.gone]:
            if file.absent_since is not None and file.absent_since <= limit:
                del self._files[file.number]
        self._context.wake()

    def no_more_splits(self) -> None:
        """No new file will be found; those in hand are followed on."""
        self._complete = True
        self._context.wake()

    @property
    def wants_splits(self) -> bool:
        """True: each reader takes the files that are dealt to it as they appear."""
        return not self._complete

    def active_splits(self) -> Collection[Hashable]:
        """Return the numbers of the files that are followed."""
        return [file.number for file in self._files.values() if not file.gone]

    def snapshot(self) -> list[bytes]:
        """Return every file with the position behind the last line handed out."""
        return [file.split().encode() for file in self._files.values()]

    def checkpoint_complete(self, checkpoint_id: int) -> None:
        """Do nothing: files keep what was read."""

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    def _look(self) -> None:
        """Find out which files grew or went away."""
        ready = set(self._ready)
        for file in [file for file in self._files.values() if not file.gone and file not in ready]:
            file.look()
            if file.ready or file.gone:
                self._file_away(file)

    def _file_away(self, file: TailedFile) -> None:
        """Put a file where it belongs after a look or a read, and keep the number of open ones in bounds."""
        self._at_rest.pop(file, None)
        if file.gone:
            file.close()
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
