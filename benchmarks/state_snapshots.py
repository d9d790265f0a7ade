"""What an incremental checkpoint of much state writes, and how long a restore takes per GB.

    python benchmarks/state_snapshots.py [--keys 1000000] [--value-bytes 1000] [--copy]

One RocksDB backend is filled; then checkpoints go to a local directory as a job's do, by links, or, with
--copy, as to another disk: one of everything, ten of which each comes after another percent of the keys has
changed, and a full one.  They are restored by one subtask, by one of two (which gets half of it), and, from
two halves, by one.  Reading a few keys proves each.
"""

import argparse
import random
import tempfile
import time
from functools import partial
from pathlib import Path

import xxhash

from raystream.clock import SystemClock
from raystream.handles import SharedFile
from raystream.ids import CheckpointId
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.keys import KeyGroupCache
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.state.snapshot_files import SnapshotForm
from raystream.state.stored import open_stored
from raystream.storage.blobs import SnapshotFiles

MAX_PARALLELISM = 128
ALL = KeyGroupRange(0, MAX_PARALLELISM)
BATCH = 1024
ROUNDS = 10
LAST = 1 + ROUNDS
FULL = LAST + 1
HALVES = FULL + 1
LINE = ValueStateDescriptor("line", bytes)
GROUPS = KeyGroupCache(MAX_PARALLELISM, 0)


class OnAnotherDisk(SnapshotFiles):
    """A checkpoint directory that is not on the disk of the state."""

    def link_shared(self, directory, file, source):
        return False


class Subtask:
    """A backend of some key groups."""

    def __init__(self, directory: Path, groups: KeyGroupRange) -> None:
        self.groups = groups
        self.cursor = KeyCursor()
        settings = RocksDbSettings(parent=directory, memory=RocksDbMemory(256 << 20), cache_bytes=64 << 20)
        self.backend = RocksDbBackend(
            groups, MAX_PARALLELISM, self.cursor, settings=settings, clock=SystemClock()
        )

    def write(self, keys: list[int], values: list[bytes]) -> None:
        """Set the values of keys, batch by batch."""
        state = self.backend.value_state(LINE)
        for at in range(0, len(keys), BATCH):
            self.backend.prefetch(keys[at : at + BATCH])
            for key, value in zip(keys[at : at + BATCH], values[at : at + BATCH], strict=True):
                self.cursor.current_key, self.cursor.group = key, GROUPS[key]
                state.update(value)

    def checkpoint(self, number: int, files: SnapshotFiles, directory: str, form=SnapshotForm.INCREMENTAL):
        """Store a checkpoint; return blob, files, bytes written, and ms in the loop and in a thread."""
        started = time.perf_counter()
        snapshot = self.backend.freeze(number, form=form)
        while not snapshot.advance(lambda: False):
            pass
        encoded = time.perf_counter()
        shared, written = {}, 0
        for file in snapshot.files():
            if file.shared is None:
                content = file.path.read_bytes()
                stored = SharedFile(
                    name=f"c{number}-{file.local}",
                    local=file.local,
                    created_by=CheckpointId(number),
                    size_bytes=len(content),
                    checksum=xxhash.xxh3_64_hexdigest(content),
                )
                checkpoint = f"{directory}/chk-{number}"
                if not files.link_shared(checkpoint, stored, file.path):
                    files.write_shared(checkpoint, stored, content)
                written += len(content)
            shared[file.local] = file.shared or stored
        blob = files.write_blob(
            f"{directory}/chk-{number}", "keyed", list(snapshot.blob()), inline_bytes_max=0
        )
        snapshot.stored(shared)
        snapshot.discard()
        self.backend.checkpoint_completed(number)
        ended = time.perf_counter()
        return blob, shared, written + blob.size_bytes, (encoded - started) * 1e3, (ended - encoded) * 1e3

    def restore(self, stored: list) -> float:
        """Restore, and return seconds until the state can be used."""
        started = time.perf_counter()
        self.backend.restore(stored)
        self.backend.value_state(LINE)
        return time.perf_counter() - started


def stored(files: SnapshotFiles, directory: str, taken: tuple, groups: KeyGroupRange):
    """Return a checkpoint as a subtask of some key groups restores it."""
    return open_stored(
        files.open_handle(directory, taken[0]),
        {local: partial(files.read_shared, directory, file) for local, file in taken[1].items()},
        groups,
        MAX_PARALLELISM,
        known=taken[1],
        parts={},
    )


def measure_checkpoints(whole: Subtask, files: SnapshotFiles, job: str, keys: list[int], value_bytes: int):
    """Fill the state and print what checkpoints write; return the size, the last ones, and what to expect."""
    rng = random.Random(1)
    values = dict(zip(keys, (rng.randbytes(value_bytes) for _ in keys), strict=True))
    whole.write(keys, list(values.values()))
    first = whole.checkpoint(1, files, job)
    rounds = []
    for number in range(2, 2 + ROUNDS):
        changed = {key: rng.randbytes(value_bytes) for key in rng.sample(keys, len(keys) // 100)}
        values.update(changed)
        whole.write(list(changed), list(changed.values()))
        rounds.append(whole.checkpoint(number, files, job))
    full = whole.checkpoint(FULL, files, job, SnapshotForm.FULL)
    size = sum(file.size_bytes for file in rounds[-1][1].values())
    print(f"state {size / 1e6:,.0f} MB in {len(rounds[-1][1])} files")
    by_size = sorted(rounds, key=lambda taken: taken[2])
    for name, taken in (
        ("everything", first),
        ("1 % changed, median", by_size[ROUNDS // 2]),
        ("1 % changed, most", by_size[-1]),
        ("full", full),
    ):
        print(
            f"{name:20} {taken[2] / 1e6:9,.1f} MB written ({taken[2] / size:6.1%})"
            f"   {taken[3]:7.1f} ms between batches   {taken[4]:9,.0f} ms in a thread"
        )
    return size, rounds[-1], full, values


def measure_restores(scratch: Path, files: SnapshotFiles, job: str, size: int, *, last: tuple, full: tuple):
    """Print how long restores take; yield each restored subtask, to be looked at."""
    halves = []
    for part in range(2):
        groups = groups_of_subtask(part, MAX_PARALLELISM, 2)
        subtask = Subtask(scratch, groups)
        seconds = subtask.restore([stored(files, f"{job}/chk-{LAST}", last, groups)])
        halves.append((subtask.checkpoint(HALVES + part, files, job), HALVES + part))
        print(f"restore of half of it       {seconds / (size / 1e9):6.2f} s per GB that is read")
        subtask.backend.close()
    for name, parts in (
        ("restore of everything", [(last, LAST)]),
        ("restore of two halves", halves),
        ("restore of a full one", [(full, FULL)]),
    ):
        subtask = Subtask(scratch, ALL)
        seconds = subtask.restore(
            [stored(files, f"{job}/chk-{number}", taken, ALL) for taken, number in parts]
        )
        print(f"{name:27} {seconds / (size / 1e9):6.2f} s per GB")
        yield subtask
        subtask.backend.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-bytes", type=int, default=1000)
    parser.add_argument("--copy", action="store_true", help="as to another disk")
    options = parser.parse_args()
    keys = list(range(options.keys))
    with tempfile.TemporaryDirectory(prefix="rs") as scratch:
        files = OnAnotherDisk() if options.copy else SnapshotFiles()
        job, local = f"file://{scratch}/job", Path(scratch) / "local"
        whole = Subtask(local, ALL)
        size, last, full, values = measure_checkpoints(whole, files, job, keys, options.value_bytes)
        for subtask in measure_restores(local, files, job, size, last=last, full=full):
            state = subtask.backend.value_state(LINE)
            for key in random.Random(2).sample(keys, 100):
                subtask.cursor.current_key, subtask.cursor.group = key, GROUPS[key]
                assert state.value() == values[key]
        whole.backend.close()


if __name__ == "__main__":
    main()
