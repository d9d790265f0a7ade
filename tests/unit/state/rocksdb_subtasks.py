"""Subtasks that keep a number and a list for each of some keys in RocksDB."""

import threading

from raystream.clock import SystemClock
from raystream.config.options import BackendConfig
from raystream.keygroup import groups_of_subtask
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ListStateDescriptor, ValueStateDescriptor
from raystream.state.open_backend import BackendOpener
from raystream.state.snapshot_files import SnapshotForm
from raystream.testing.state_kit import Subtask, encode
from raystream.testing.stored_state import MemorySnapshot

HITS = ValueStateDescriptor("hits", int)
TEXTS = ListStateDescriptor("texts", str)
KEYS = 200


def beside_each_other(local_path):
    """Yield what opens a subtask of all 16 key groups, in one directory for all; close them in the end."""
    openers = []

    def open_one(backend="rocksdb", *, cache_bytes=64 << 20):
        config = BackendConfig(
            type=backend, rocksdb_directory=str(local_path), rocksdb_cache_bytes=cache_bytes
        )
        openers.append(BackendOpener(config, SystemClock()))
        cursor, groups = KeyCursor(), groups_of_subtask(0, 16, 1)
        return Subtask(openers[-1].open(groups, 16, cursor), cursor, clock=SystemClock())

    yield open_one
    for made in openers:
        made.close()


def subtasks_in(local_path):
    """Yield what opens a subtask, perhaps restored, in a directory of its own; close them in the end."""
    openers = []

    def open_one(restored=(), *, backend="rocksdb", subtask=0, parallelism=1, max_parallelism=16, own=False):
        config = BackendConfig(type=backend, rocksdb_directory=str(local_path / str(len(openers))))
        openers.append(BackendOpener(config, SystemClock()))
        cursor, groups = KeyCursor(), groups_of_subtask(subtask, max_parallelism, parallelism)
        made = Subtask(
            openers[-1].open(groups, max_parallelism, cursor), cursor, max_parallelism, clock=SystemClock()
        )
        made.backend.restore([stored.open(groups, max_parallelism, own=own) for stored in restored])
        made.hits, made.texts = made.backend.value_state(HITS), made.backend.list_state(TEXTS)
        made.groups = groups
        return made

    yield open_one
    for made in openers:
        made.close()


def fill(subtask, keys=range(KEYS), plus=0):
    for key in keys:
        subtask.at(key)
        if subtask.cursor.group in subtask.groups:
            subtask.hits.update(key + plus)
            subtask.texts.add(str(key))


def contents(*subtasks):
    """Return what the subtasks hold; each key is held by one of them."""
    found = {}
    for subtask in subtasks:
        texts = {key: values for _, key, values in subtask.backend.entries("texts")}
        for group, key, hits in subtask.backend.entries("hits"):
            assert group in subtask.groups
            assert key not in found
            found[key] = hits, texts.pop(key)
        assert texts == {}
    return found


EXPECTED = {key: (key, [str(key)]) for key in range(KEYS)}


def freeze(subtask, checkpoint_id, form=SnapshotForm.INCREMENTAL):
    snapshot = subtask.backend.freeze(checkpoint_id, form=form)
    encode(snapshot)
    return snapshot


def join_removals():
    """Wait until the links of snapshots that are over have gone."""
    for thread in threading.enumerate():
        if thread.name == "rocksdb-cut-removal":
            thread.join()


def take(subtask, checkpoint_id, *, completed=True):
    stored = MemorySnapshot.of(freeze(subtask, checkpoint_id))
    if completed:
        subtask.backend.checkpoint_completed(checkpoint_id)
    return stored


def created_by(stored):
    return [file.created_by for file in stored.shared]
