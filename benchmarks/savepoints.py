"""How long a canonical savepoint of much state takes, and its restore.

    python benchmarks/savepoints.py [--entries 1000000] [--only value]

Two subtasks, each in a process of its own, hold half of the entries each.  `encode` is what the loop does of
a savepoint, between batches; `write` makes Parquet files of it and stores them in a local directory;
`restore` reads them into an empty backend until the state can be used.  Figures are seconds of the slower
subtask, and bytes of both.  Each restored subtask is looked at: it has as many entries as were written.

    value     str -> int
    record    str -> a dataclass of four fields
    list      str -> 10 ints with a time to live, each an entry
    map       str -> 10 entries of str -> int
    window    (str, (int, int)) -> int, as windows have it
"""

import argparse
import functools
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raystream.clock import SystemClock
from raystream.config.options import BackendConfig
from raystream.handles import FileHandle
from raystream.ids import OperatorUid
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.keys import KeyGroupCache
from raystream.runtime.messages import OperatorRestore
from raystream.runtime.restore import KeyedOwner, read_operator
from raystream.savepoint.subtask_parts import SubtaskParts
from raystream.state.canonical_files import Part
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.open_backend import BackendOpener
from raystream.state.ttl import StateTtl
from raystream.storage.blobs import SnapshotFiles

MAX_PARALLELISM = 128
PARALLELISM = 2
BATCH = 1024
PER_KEY = 10
WRITE_GOAL_S, RESTORE_GOAL_S = 5.0, 8.0
"""Of a million entries of `value`, at most."""


@dataclass
class Visit:
    """A record."""

    path: str
    hits: int
    share: float
    tags: list[str]


SHAPES: dict[str, Any] = {
    "value": ValueStateDescriptor("s", int),
    "record": ValueStateDescriptor("s", Visit),
    "list": ListStateDescriptor("s", int, ttl=StateTtl("30d")),
    "map": MapStateDescriptor("s", str, int),
    "window": ValueStateDescriptor("s", int, namespaced=True),
}


def state_of(backend: Any, shape: str) -> Any:
    """Register the state of a shape."""
    register = {"list": backend.list_state, "map": backend.map_state}.get(shape, backend.value_state)
    return register(SHAPES[shape])


def put(state: Any, shape: str, number: int) -> None:
    """Write the content of the current key."""
    if shape == "list":
        state.update(range(number, number + PER_KEY))
    elif shape == "map":
        state.put_all({str(n): number + n for n in range(PER_KEY)})
    elif shape == "record":
        state.update(Visit(f"/page/{number}", number, number / 7, ["a", str(number)]))
    else:
        state.update(number)


class Subtask:
    """A backend of one of the two subtasks."""

    def __init__(self, name: str, subtask: int, directory: Path) -> None:
        self.groups: KeyGroupRange = groups_of_subtask(subtask, MAX_PARALLELISM, PARALLELISM)
        self.cursor = KeyCursor()
        config = BackendConfig(type=name, rocksdb_directory=str(directory / f"local-{subtask}"))
        self.opener = BackendOpener(config, SystemClock())
        self.backend = self.opener.open(self.groups, MAX_PARALLELISM, self.cursor)

    def fill(self, shape: str, keys: int) -> int:
        """Write as many keys of the subtask; return their number."""
        state, cache, number, written = state_of(self.backend, shape), KeyGroupCache(MAX_PARALLELISM, 1), 0, 0
        while written < keys:
            batch = [f"user-{n}" for n in range(number, number + BATCH)]
            batch = [key for key in batch if cache[key] in self.groups][: keys - written]
            if self.backend.prefetch is not None:
                self.backend.prefetch(batch)
            for key in batch:
                self.cursor.current_key, self.cursor.group = key, cache[key]
                self.cursor.namespace = (number, number + 60_000) if shape == "window" else None
                put(state, shape, number)
            number, written = number + BATCH, written + len(batch)
        return written

    def entries(self) -> int:
        """Return the number of keys."""
        return sum(1 for _ in self.backend.entries("s"))


def measure(
    directory: Path, shape: str, names: tuple[str, str], keys: int, subtask: int
) -> tuple[float, ...]:
    """Take a savepoint of one subtask and restore it; return seconds and bytes."""
    files, url = SnapshotFiles(), directory.as_uri()
    before = Subtask(names[0], subtask, directory)
    written = before.fill(shape, keys)

    def store(handle: FileHandle, part: Part) -> None:
        files.write_file(url, handle, part.pieces())

    upload = SubtaskParts(
        uid=OperatorUid("bench"),
        subtask=subtask,
        max_parallelism=MAX_PARALLELISM,
        parallelism=PARALLELISM,
        created_ms=0,
        store=store,
        look=lambda: None,
    )
    moments = [time.perf_counter()]
    snapshot = before.backend.freeze(1)
    while not snapshot.advance(lambda: False):
        pass
    moments.append(time.perf_counter())
    local = snapshot.local_directory
    handle = upload.keyed(snapshot.states, snapshot.chunks(), taken=snapshot.taken, directory=local)
    moments.append(time.perf_counter())
    snapshot.discard()
    before.opener.close()
    after = Subtask(names[1], subtask, directory / "restored")
    owner = KeyedOwner(backend=after.backend, groups=after.groups, max_parallelism=MAX_PARALLELISM)
    moments.append(time.perf_counter())
    read_operator(files, OperatorRestore(directory=url, keyed=(handle,)), owner)
    state_of(after.backend, shape)
    moments.append(time.perf_counter())
    assert after.entries() == written == handle.entries
    after.opener.close()
    size = sum(file.file.size_bytes for file in handle.files)
    return moments[1] - moments[0], moments[2] - moments[1], moments[4] - moments[3], size


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--only", choices=SHAPES)
    options = parser.parse_args()
    print(f"{'':8}{'from':>9}{'to':>9}{'encode s':>10}{'write s':>10}{'restore s':>11}{'MB':>8}")
    with multiprocessing.get_context("spawn").Pool(PARALLELISM) as pool:
        for shape in [options.only] if options.only else SHAPES:
            keys = options.entries // PARALLELISM // (PER_KEY if shape in ("list", "map") else 1)
            for names in (("hashmap", "hashmap"), ("hashmap", "rocksdb"), ("rocksdb", "hashmap")):
                with tempfile.TemporaryDirectory(prefix="rs") as scratch:
                    one = functools.partial(measure, Path(scratch), shape, names, keys)
                    found = list(zip(*pool.map(one, range(PARALLELISM)), strict=True))
                seconds, size = [max(figures) for figures in found[:3]], sum(found[3])
                figures = f"{seconds[0]:10.2f}{seconds[1]:10.2f}{seconds[2]:11.2f}{size / 1e6:8.1f}"
                goal = ""
                if shape == "value" and options.entries == 1_000_000:
                    kept = seconds[0] + seconds[1] <= WRITE_GOAL_S and seconds[2] <= RESTORE_GOAL_S
                    goal = "   goal kept" if kept else "   GOAL MISSED"
                print(f"{shape:8}{names[0]:>9}{names[1]:>9}{figures}{goal}", flush=True)


if __name__ == "__main__":
    main()
