"""What an access to keyed state costs: both backends, beside bare dicts and bare RocksDB key by key.

    python benchmarks/state_backends.py [--keys 500000] [--records 100000] [--rounds 3] [--only map]

Every key holds something before.  Each record then does one thing with the state of its key: in a plain
loop with a dict, in the same loop with a state of each backend, in batches of 1,024 as an operator gets
them.  Contenders take turns; a ratio is the median of those of the rounds.

    zipf      keys as often as Zipf's law with exponent 1.1 has it; the cache holds what is hot
    uniform   all keys equally often; the state is four times the cache
    bare      one `get` and one `put` of rocksdict for each record, in raw bytes, without a log

Figures are microseconds of CPU time of the thread per record.  `barrier` is what the writing out of a
barrier after the round adds to each record, `threads` what RocksDB's threads used meanwhile.
"""

import argparse
import gc
import heapq
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rocksdict import Options, Rdict, WriteOptions

from raystream.clock import SystemClock
from raystream.keygroup import KeyGroupRange
from raystream.keys import KeyGroupCache
from raystream.operators.timers import KeyedTimers
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import (
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.heap import HeapBackend
from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.state.rocksdb_tables import ITEM_OVERHEAD_BYTES

MAX_PARALLELISM = 128
BATCH = 1024
MANAGED_BYTES = 256 << 20
DEFAULT_CACHE_BYTES = 64 << 20
GROUPS = KeyGroupRange(0, MAX_PARALLELISM)
FAR_MS = 1 << 50

HEAP_GOAL = 3.0
"""Heap beside a dict, at most."""
HOT_GOAL = 2.0
"""RocksDB with hot keys beside the heap, at most."""
UNIFORM_GOAL = 2.0
"""Rate of RocksDB with uniform keys beside bare RocksDB, at least."""

Batch = tuple[list[str], list[int]]
Run = Callable[[Batch], None]
KINDS: dict[str, tuple[str, ...]] = {
    "value": ("get", "get+update"),
    "list": ("get", "add"),
    "map": ("get", "put"),
    "reducing": ("add",),
    "timers": ("set+fire",),
}


def batches(keys: Sequence[str]) -> list[Batch]:
    """Return keys with their groups, cut as an exchange cuts them."""
    cache = KeyGroupCache(MAX_PARALLELISM)
    parts = (keys[at : at + BATCH] for at in range(0, len(keys), BATCH))
    return [(list(part), [cache[key] for key in part]) for part in parts]


# ---- what is done for each record of a batch, and `fill`, which is done once for each key ----


def on_dict(kind: str) -> dict[str, Run]:
    """Return the operations of a kind on bare dicts."""
    match kind:
        case "value" | "reducing":
            return _dict_values()
        case "list":
            return _dict_lists()
        case "map":
            return _dict_maps()
    return _dict_timers()


def on_backend(kind: str, backend: Any, cursor: KeyCursor) -> dict[str, Run]:
    """Return the operations of a kind on a backend."""
    match kind:
        case "value":
            made = _state_values(backend, cursor)
        case "list":
            made = _state_lists(backend, cursor)
        case "map":
            made = _state_maps(backend, cursor)
        case "reducing":
            made = _state_reductions(backend, cursor)
        case _:
            made = _state_timers(backend, cursor)
    if backend.prefetch is None:
        return made
    return {name: _after_prefetch(backend.prefetch, run) for name, run in made.items()}


def _after_prefetch(prefetch: Callable[[Sequence[Any]], None], run: Run) -> Run:
    def prefetched(batch: Batch) -> None:
        prefetch(batch[0])
        run(batch)

    return prefetched


def _dict_values() -> dict[str, Run]:
    values: dict[str, int] = {}

    def read(batch: Batch) -> None:
        for key in batch[0]:
            values.get(key)

    def update(batch: Batch) -> None:
        for key in batch[0]:
            values[key] = values.get(key, 0) + 1

    def reduce(batch: Batch) -> None:
        for key in batch[0]:
            before = values.get(key)
            values[key] = 1 if before is None else _sum(before, 1)

    return {"fill": update, "get": read, "get+update": update, "add": reduce}


def _state_values(backend: Any, cursor: KeyCursor) -> dict[str, Run]:
    state = backend.value_state(ValueStateDescriptor("value", int, default=0))

    def read(batch: Batch) -> None:
        for cursor.current_key, cursor.group in zip(*batch, strict=True):
            state.value()

    def update(batch: Batch) -> None:
        for cursor.current_key, cursor.group in zip(*batch, strict=True):
            state.update(state.value() + 1)

    return {"fill": update, "get": read, "get+update": update}


def _dict_lists() -> dict[str, Run]:
    lists: dict[str, list[int]] = {}

    def read(batch: Batch) -> None:
        for key in batch[0]:
            list(lists[key])

    def add(batch: Batch) -> None:
        for key in batch[0]:
            elements = lists.get(key)
            if elements is None:
                lists[key] = [1]
            else:
                elements.append(1)

    return {"fill": add, "get": read, "add": add}


def _state_lists(backend: Any, cursor: KeyCursor) -> dict[str, Run]:
    state = backend.list_state(ListStateDescriptor("list", int))

    def read(batch: Batch) -> None:
        for cursor.current_key, cursor.group in zip(*batch, strict=True):
            state.get()

    def add(batch: Batch) -> None:
        for cursor.current_key, cursor.group in zip(*batch, strict=True):
            state.add(1)

    return {"fill": add, "get": read, "add": add}


def _dict_maps() -> dict[str, Run]:
    maps: dict[str, dict[str, int]] = {}

    def read(batch: Batch) -> None:
        for key in batch[0]:
            maps[key].get("n")

    def put(batch: Batch) -> None:
        for key in batch[0]:
            entries = maps.get(key)
            if entries is None:
                maps[key] = {"n": 1}
            else:
                entries["n"] = 1

    return {"fill": put, "get": read, "put": put}


def _state_maps(backend: Any, cursor: KeyCursor) -> dict[str, Run]:
    state = backend.map_state(MapStateDescriptor("map", str, int))

    def read(batch: Batch) -> None:
        for cursor.current_key, cursor.group in zip(*batch, strict=True):
            state.get("n")

    def put(batch: Batch) -> None:
        for cursor.current_key, cursor.group in zip(*batch, strict=True):
            state.put("n", 1)

    return {"fill": put, "get": read, "put": put}


def _sum(first: int, second: int) -> int:
    return first + second


def _state_reductions(backend: Any, cursor: KeyCursor) -> dict[str, Run]:
    state = backend.reducing_state(ReducingStateDescriptor("reduction", _sum, int))

    def add(batch: Batch) -> None:
        for cursor.current_key, cursor.group in zip(*batch, strict=True):
            state.add(1)

    return {"fill": add, "add": add}


def _dict_timers() -> dict[str, Run]:
    live: dict[tuple[int, str], None] = {}
    queue: list[tuple[int, str]] = []
    times, far = count(), count(FAR_MS)

    def register(timer: tuple[int, str]) -> None:
        if timer not in live:
            live[timer] = None
            heapq.heappush(queue, timer)

    def fill(batch: Batch) -> None:
        for timer in zip(far, batch[0], strict=False):
            register(timer)

    def fire(batch: Batch) -> None:
        for timer in zip(times, batch[0], strict=False):
            register(timer)
        while queue and queue[0][0] < FAR_MS:
            timer = heapq.heappop(queue)
            live.pop(timer, None)

    return {"fill": fill, "set+fire": fire}


def _state_timers(backend: Any, cursor: KeyCursor) -> dict[str, Run]:
    context: Any = SimpleNamespace(
        keyed_backend=backend, clock=SystemClock(), wake_at=lambda _: None, name="benchmark"
    )
    timers = KeyedTimers(context, cursor)
    timers.current_watermark = FAR_MS - 1
    times, far = count(), count(FAR_MS)

    def fill(batch: Batch) -> None:
        for cursor.current_key, cursor.group in zip(*batch, strict=True):
            timers.register_event_time(next(far))

    def fire(batch: Batch) -> None:
        for cursor.current_key, cursor.group in zip(*batch, strict=True):
            timers.register_event_time(next(times))
        for _ in timers.due_by_event_time():
            pass

    return {"fill": fill, "set+fire": fire}


# ---- bare RocksDB ----


def bare(path: Path) -> dict[str, Run]:
    """Return read and update on RocksDB called key by key."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    store, no_log = Rdict(str(path), options), WriteOptions()
    no_log.disable_wal = True  # type: ignore[method-assign,assignment]  # a property in truth
    get, put = store.get, store.put

    def fill(batch: Batch) -> None:
        for key in batch[0]:
            put(key.encode(), (1).to_bytes(8), no_log)

    def update(batch: Batch) -> None:
        for key in batch[0]:
            stored = key.encode()
            put(stored, (int.from_bytes(get(stored)) + 1).to_bytes(8), no_log)

    return {"fill": fill, "get+update": update}


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
            goals.append(_goal("bare/rocksdb", made["bare"].ratio(rocksdb), at_least=UNIFORM_GOAL))
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
