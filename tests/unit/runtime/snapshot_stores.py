"""What slots hold in histories of snapshots: made-up local files, and the store to which they go."""

import itertools
from collections import deque

from raystream.clock import SystemClock
from raystream.errors import StorageError
from raystream.handles import SavepointFormat
from raystream.records.elements import SnapshotKind
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.heap import HeapBackend
from raystream.state.rocksdb_snapshot import KnownFiles
from raystream.state.snapshot_files import LocalFile
from raystream.state.ttl import Moment
from tests.unit.runtime.coordinator_plans import HITS


class Flaky:
    """A store that refuses the next calls of an operation, before or after it has done them."""

    def __init__(self, fs):
        self.real = fs
        self.refusals = deque()  # Pairs of an operation and whether it has its effect all the same.

    def __getattr__(self, name):
        method = getattr(self.real, name)

        def call(url, *arguments):
            if not self.refusals or self.refusals[0][0] != name:
                return method(url, *arguments)
            _, effective = self.refusals.popleft()
            if effective:
                method(url, *arguments)
            elif name == "delete_dir":  # Half of it.
                for entry in self.real.list_dir(url)[:1]:
                    self.real.delete_file(f"{url}/{entry.name}")
            raise StorageError("store refused", path=url)

        return call


class LocalStore:
    """The sorted files that the state of one subtask consists of, in one attempt."""

    _numbers = itertools.count()

    def __init__(self, scratch):
        self.scratch = scratch
        self.known = KnownFiles()
        self.paths = {}
        self.number = 0
        self.grow()

    def put(self, local, content):
        path = self.scratch / f"{next(self._numbers)}"
        path.write_bytes(content)
        self.paths[local] = path

    def grow(self):
        self.number += 1
        self.put(f"{self.number:06d}.sst", f"content {next(self._numbers)}".encode())

    def merge(self, count):
        for local in sorted(self.paths)[:count]:
            del self.paths[local]
        self.grow()

    def adopt(self, contents, handle, *, own):
        """Go on with the files of a restored snapshot."""
        self.paths.clear()
        for local, content in contents.items():
            self.put(local, content)
            self.number = max(self.number, int(local.removesuffix(".sst")))
        if own:
            self.known.restored({file.local: file for file in handle.shared})


class FakeKeyed:
    """The snapshot of such a store: incremental, a native savepoint, or a canonical one with an entry."""

    states = (HITS,)
    entries = 1
    taken = Moment(processing_ms=0, event_ms=0)
    local_directory = None

    def __init__(self, store, trigger, groups):
        self.groups = groups
        self.checkpoint_id = trigger.checkpoint_id
        self.store = store
        self.incremental = trigger.kind is SnapshotKind.CHECKPOINT
        files = self.incremental or trigger.savepoint_format is SavepointFormat.NATIVE
        self.paths = dict(store.paths) if files else {}

    def files(self):
        known = self.store.known.refer(self.checkpoint_id, self.paths) if self.incremental else {}
        return [LocalFile(name, path, known.get(name)) for name, path in self.paths.items()]

    def blob(self):
        return [b"blob of checkpoint %d" % self.checkpoint_id]

    def chunks(self):
        cursor = KeyCursor()
        backend = HeapBackend(self.groups, 128, cursor, clock=SystemClock())
        state = backend.value_state(ValueStateDescriptor("hits", int))
        cursor.current_key, cursor.group = "key", self.groups.start
        state.update(self.checkpoint_id)
        snapshot = backend.freeze(self.checkpoint_id)
        snapshot.advance(lambda: False)
        return snapshot.chunks()

    def stored(self, files):
        if self.incremental:
            self.store.known.uploaded(self.checkpoint_id, files)

    def discard(self):
        pass
