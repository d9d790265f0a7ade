"""What an incremental checkpoint of much state writes, and how long a restore takes per GB.

    python benchmarks/state_snapshots.py [--keys 1000000] [--value-bytes 1000]

One RocksDB backend is filled; then checkpoints go to a local directory as a job's do: one of everything, ten
of which each comes after another percent of the keys has changed, and a full one.  They are restored by one
subtask, by one of two (which gets half of it), and, from two halves, by one.  Reading a few keys proves each.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from raystream.clock import SystemClock
from raystream.handles import SharedFile
from raystream.ids import CheckpointId
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.keys import KeyGroupCache
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.state.snapshot_files import open_stored
from raystream.storage.blobs import SnapshotFiles

MAX_PARALLELISM = 128
ALL = KeyGroupRange(0, MAX_PARALLELISM)
BATCH = 1024
ROUNDS = 10
LINE = ValueStateDescriptor("line", bytes)
GROUPS = KeyGroupCache(MAX_PARALLELISM, 0)


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

    def checkpoint(self, number: int, files: SnapshotFiles, directory: str, *, incremental: bool):
        """Store a checkpoint; return blob, files, bytes written, and ms in the loop and in a thread."""
        started = time.perf_counter()
        snapshot = self.backend.freeze(number, incremental=incremental)
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
                    checksum="",
                )
                files.write_shared(f"{directory}/chk-{number}", stored, content)
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


class Unverified(SnapshotFiles):
    """Copies files without looking at their checksums, which this benchmark does not make."""

    def fetch_shared(self, directory, file, path):
        url = f"{directory.rsplit('/', 1)[0]}/shared/{file.name}"
        path.write_bytes(self.open_fs(directory).read(url))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-bytes", type=int, default=1000)
    options = parser.parse_args()
    rng = random.Random(1)
    keys = list(range(options.keys))
    values = [rng.randbytes(options.value_bytes) for _ in keys]
    with tempfile.TemporaryDirectory(prefix="rs") as scratch:
        files, directory = Unverified(), f"file://{scratch}/job"
        whole = Subtask(Path(scratch) / "local", ALL)
        whole.write(keys, values)
        first = whole.checkpoint(1, files, directory, incremental=True)
        rounds, changed = [], set()
        for number in range(2, 2 + ROUNDS):
            some = rng.sample(keys, options.keys // 100)
            changed.update(some)
            whole.write(some, [rng.randbytes(options.value_bytes) for _ in some])
            rounds.append(whole.checkpoint(number, files, directory, incremental=True))
        second, last = rounds[-1], 1 + ROUNDS
        full = whole.checkpoint(last + 1, files, directory, incremental=False)
        size = sum(file.size_bytes for file in second[1].values())
        print(f"state {size / 1e6:,.0f} MB in {len(second[1])} files")
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

        def stored(taken, number, groups):
            return open_stored(
                files.open_handle(f"{directory}/chk-{number}", taken[0]),
                list(taken[1].values()),
                groups,
                MAX_PARALLELISM,
                fetch=lambda file, path: files.fetch_shared(f"{directory}/chk-{number}", file, path),
                own=True,
            )

        halves = []
        for part in range(2):
            half = groups_of_subtask(part, MAX_PARALLELISM, 2)
            subtask = Subtask(Path(scratch) / "local", half)
            seconds = subtask.restore([stored(second, last, half)])
            halves.append(subtask.checkpoint(100 + part, files, directory, incremental=True))
            print(f"restore of half of it       {seconds / (size / 1e9):6.2f} s per GB that is read")
            subtask.backend.close()
        for name, some in (
            ("restore of everything", [stored(second, last, ALL)]),
            ("restore of two halves", [stored(taken, 100 + part, ALL) for part, taken in enumerate(halves)]),
            ("restore of a full one", [stored(full, last + 1, ALL)]),
        ):
            subtask = Subtask(Path(scratch) / "local", ALL)
            seconds = subtask.restore(some)
            state = subtask.backend.value_state(LINE)
            for key in rng.sample(sorted(set(keys) - changed), 100):
                subtask.cursor.current_key, subtask.cursor.group = key, GROUPS[key]
                assert state.value() == values[key]
            print(f"{name:27} {seconds / (size / 1e9):6.2f} s per GB")
            subtask.backend.close()
        whole.backend.close()


if __name__ == "__main__":
    main()
