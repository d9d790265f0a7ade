"""What an access to keyed state costs: both backends, beside bare dicts and bare RocksDB key by key.

    python benchmarks/state_backends.py [--keys 500000] [--records 100000] [--rounds 3] [--only map]

Every key holds something before.  Each record then does one thing with the state of its key: in a plain
loop with a dict, in the same loop with a state of each backend, in batches of 1,024 as an operator gets
them.  Contenders take turns; a ratio is the median of those of the rounds.

    zipf      keys as often as Zipf's law with exponent 1.1 has it; the cache holds what is hot
    uniform   all keys equally often; the state is four times the cache
    bare      one `get` and one `put` of rocksdict for each record, in raw bytes, without a log

Figures are microseconds of CPU time of the thread per record.  `barrier` is what the writing out of a
barrier after the round adds to each record; it counts in the ratio to `bare`.  `threads` is what RocksDB's
threads used meanwhile.
"""

import argparse
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from state_operations import KINDS, Batch, Run, bare, on_backend, on_dict

from raystream.clock import SystemClock
from raystream.keygroup import KeyGroupRange
from raystream.keys import KeyGroupCache
from raystream.state.cursor import KeyCursor
from raystream.state.heap import HeapBackend
from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.state.rocksdb_tables import ITEM_OVERHEAD_BYTES

MAX_PARALLELISM = 128
BATCH = 1024
MANAGED_BYTES = 256 << 20
DEFAULT_CACHE_BYTES = 64 << 20
GROUPS = KeyGroupRange(0, MAX_PARALLELISM)

HEAP_GOAL = 3.0
"""Heap beside a dict, at most."""
HOT_GOAL = 2.0
"""RocksDB with hot keys beside the heap, at most."""
UNIFORM_GOAL = 2.0
"""Rate of RocksDB with uniform keys beside bare RocksDB, at least."""


def batches(keys: Sequence[str]) -> list[Batch]:
    """Return keys with their groups, cut as an exchange cuts them."""
    cache = KeyGroupCache(MAX_PARALLELISM)
    parts = (keys[at : at + BATCH] for at in range(0, len(keys), BATCH))
    return [(list(part), [cache[key] for key in part]) for part in parts]


# ---- measuring ----


@dataclass
class Contender:
    """One of those that take turns.

    Attributes:
        runs: operations by name.
        rounds: CPU time of each round, in us per record.
        barriers: what writing out at a barrier behind each round added.
        threads: what other threads used.
    """

    runs: dict[str, Run]
    backend: Any = None
    rounds: list[float] = field(default_factory=list)
    barriers: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)

    def measure(self, operation: str, work: Sequence[Batch]) -> None:
        """Do one round."""
        run = self.runs[operation]
        records = sum(len(keys) for keys, _ in work)
        process, thread = time.process_time(), time.thread_time()
        for batch in work:
            run(batch)
        done = time.thread_time()
        if isinstance(self.backend, RocksDbBackend):
            self.backend.write_out()
        written = time.thread_time()
        self.rounds.append((done - thread) / records * 1e6)
        self.barriers.append((written - done) / records * 1e6)
        self.threads.append((time.process_time() - process - (written - thread)) / records * 1e6)

    def ratio(self, other: "Contender") -> float:
        """Return the median of what this one took, as a multiple of what the other one took."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))

    @property
    def written(self) -> "Contender":
        """The same with what the barriers added: what has to be written sooner or later."""
        rounds = [run + barrier for run, barrier in zip(self.rounds, self.barriers, strict=True)]
        return Contender(self.runs, self.backend, rounds)


def snapshot_stop(backend: RocksDbBackend) -> str:
    """Return what a barrier costs, as text."""
    started = time.perf_counter()
    snapshot = backend.freeze(1)
    stop_ms = (time.perf_counter() - started) * 1e3
    slices: list[float] = []
    done = False
    while not done:
        started = time.perf_counter()
        deadline = started + 0.001
        done = snapshot.advance(lambda end=deadline: time.perf_counter() >= end)
        slices.append((time.perf_counter() - started) * 1e3)
    snapshot.discard()
    return f"barrier: stop {stop_ms:.2f} ms, {len(slices)} slices of at most {max(slices):.1f} ms"


def contenders(kind: str, path: Path, cache_bytes: int, *, with_bare: bool) -> dict[str, Contender]:
    """Return who takes part, all empty."""
    clock = SystemClock()
    on_heap, on_disk = KeyCursor(), KeyCursor()
    heap = HeapBackend(GROUPS, MAX_PARALLELISM, on_heap, clock=clock)
    settings = RocksDbSettings(parent=path, memory=RocksDbMemory(MANAGED_BYTES), cache_bytes=cache_bytes)
    rocksdb = RocksDbBackend(GROUPS, MAX_PARALLELISM, on_disk, settings=settings, clock=clock)
    made = {
        "dict": Contender(on_dict(kind)),
        "heap": Contender(on_backend(kind, heap, on_heap), heap),
        "rocksdb": Contender(on_backend(kind, rocksdb, on_disk), rocksdb),
    }
    if with_bare:
        made["bare"] = Contender(bare(path / f"bare-{kind}"))
    return made


def compare(kind: str, made: dict[str, Contender], work: Sequence[Batch], rounds: int, *, hot: bool) -> None:
    """Measure the operations of a kind and print a line for each."""
    for operation in KINDS[kind]:
        for one in made.values():
            one.rounds, one.barriers, one.threads = [], [], []
        took_part = [one for one in made.values() if operation in one.runs]
        for one in took_part:
            one.rounds, one.barriers, one.threads = [], [], []
            one.measure(operation, work)  # Not counted: the cache gets to hold what is hot.
            one.rounds, one.barriers, one.threads = [], [], []
        for _ in range(rounds):
            for one in took_part:
                one.measure(operation, work)
        figures = "  ".join(
            f"{name} {statistics.median(one.rounds):.2f}" for name, one in made.items() if one.rounds
        )
        rocksdb = made["rocksdb"]
        barriers, threads = statistics.median(rocksdb.barriers), statistics.median(rocksdb.threads)
        extra = f"barrier {barriers:.2f}  threads {threads:.2f}"
        goals = [_goal("heap/dict", made["heap"].ratio(made["dict"]), at_most=HEAP_GOAL)]
        if hot:
            goals.append(_goal("rocksdb/heap", rocksdb.ratio(made["heap"]), at_most=HOT_GOAL))
        elif "bare" in made and made["bare"].rounds:
            goals.append(_goal("bare/rocksdb", made["bare"].ratio(rocksdb.written), at_least=UNIFORM_GOAL))
        print(f"{kind + ' ' + operation:18} {figures}  {extra}  | {'  '.join(goals)}", flush=True)


def _goal(name: str, ratio: float, *, at_most: float | None = None, at_least: float | None = None) -> str:
    met = (at_most is None or ratio <= at_most) and (at_least is None or ratio >= at_least)
    wanted = f"<={at_most:g}" if at_most is not None else f">={at_least:g}"
    return f"{name} {ratio:.2f} ({wanted} {'met' if met else 'MISSED'})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keys", type=int, default=500_000)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(KINDS), help="one kind of state")
    parser.add_argument("--distribution", choices=["zipf", "uniform"], help="one of the two")
    arguments = parser.parse_args()
    gc.set_threshold(100_000, 50, 100)  # As in a slot.
    rng = random.Random(1)
    keys = [f"key-{n}" for n in range(arguments.keys)]
    everything = batches(keys)
    weights = [1 / rank**1.1 for rank in range(1, len(keys) + 1)]
    drawn = {
        "zipf": batches(rng.choices(keys, weights, k=arguments.records)),
        "uniform": batches(rng.choices(keys, k=arguments.records)),
    }
    small = len(keys) * (ITEM_OVERHEAD_BYTES + 2) // 4
    for name, work in drawn.items():
        if arguments.distribution not in (None, name):
            continue
        hot = name == "zipf"
        print(f"--- {name}: {len(keys)} keys, {arguments.records} records, us of CPU time per record")
        for kind in [arguments.only] if arguments.only else KINDS:
            with tempfile.TemporaryDirectory() as directory:
                cache_bytes = DEFAULT_CACHE_BYTES if hot else small
                with_bare = kind == "value" and not hot
                made = contenders(kind, Path(directory), cache_bytes, with_bare=with_bare)
                for one in made.values():
                    one.measure("fill", everything)
                gc.collect()
                gc.freeze()
                compare(kind, made, work, arguments.rounds, hot=hot)
                for batch in work:
                    made["rocksdb"].runs[KINDS[kind][-1]](batch)
                print(f"    {snapshot_stop(made['rocksdb'].backend)}", flush=True)
                made["rocksdb"].backend.close()


if __name__ == "__main__":
    main()
