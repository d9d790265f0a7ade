"""What an access to keyed state costs: heap and RocksDB backends, a dict, and RocksDB key by key.

    python benchmarks/state_backends.py [--keys 500000] [--records 300000]

Each record reads the value of its key, adds one and stores it; lists and maps add and put.  All
measurements are of one run on one machine, in microseconds per record, the best of `--rounds`.

    zipf      keys as often as Zipf's law with exponent 1.1 has it; the cache holds what is hot
    uniform   all keys equally often; the state is four times the cache
"""

import argparse
import pickle
import random
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rocksdict import Options, Rdict, WriteOptions

from raystream.clock import SystemClock
from raystream.keygroup import KeyGroupRange
from raystream.keys import KeyGroupCache
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.heap import HeapBackend
from raystream.state.rocksdb import RocksDbMemory
from raystream.state.rocksdb_backend import RocksDbBackend, RocksDbSettings
from raystream.state.rocksdb_tables import ITEM_OVERHEAD_BYTES

MAX_PARALLELISM = 128
BATCH = 1024
MANAGED_BYTES = 256 << 20
DEFAULT_CACHE_BYTES = 64 << 20
GROUPS = KeyGroupRange(0, MAX_PARALLELISM)

Batch = tuple[list[str], list[int]]


def batches(keys: Sequence[str]) -> list[Batch]:
    """Return keys with their groups, cut as an exchange cuts them."""
    cache = KeyGroupCache(MAX_PARALLELISM)
    parts = (keys[at : at + BATCH] for at in range(0, len(keys), BATCH))
    return [(list(part), [cache[key] for key in part]) for part in parts]


def measure(run: Callable[[], None], records: int, rounds: int) -> float:
    """Return microseconds per record of the best round."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best / records * 1e6


def on_backend(backend: Any, cursor: KeyCursor, work: Sequence[Batch], access: Callable[[Any], None]) -> None:
    """Access state once for each record, batch by batch as an operator does."""
    prefetch = backend.prefetch
    for keys, groups in work:
        if prefetch is not None:
            prefetch(keys)
        for cursor.current_key, cursor.group in zip(keys, groups, strict=True):
            access(cursor)


def accesses(backend: Any) -> dict[str, Callable[[Any], None]]:
    """Return what is done for a record, by name."""
    value = backend.value_state(ValueStateDescriptor("value", int, default=0))
    elements = backend.list_state(ListStateDescriptor("list", int))
    entries = backend.map_state(MapStateDescriptor("map", str, int))

    def count(_: Any) -> None:
        value.update(value.value() + 1)

    def read(_: Any) -> None:
        value.value()

    def put(_: Any) -> None:
        entries.put("n", (entries.get("n") or 0) + 1)

    def add(_: Any) -> None:
        elements.add(1)

    return {"value read+update": count, "value read": read, "map get+put": put, "list add": add}


def dict_accesses(work: Sequence[Batch], keys: Sequence[str]) -> dict[str, Callable[[], None]]:
    """Return the same on bare dicts."""
    drawn = [key for batch, _ in work for key in batch]
    value: dict[str, int] = dict.fromkeys(keys, 1)
    entries: dict[str, dict[str, int]] = {key: {"n": 1} for key in keys}
    elements: dict[str, list[int]] = {key: [1] for key in keys}

    def count() -> None:
        for key in drawn:
            value[key] = value.get(key, 0) + 1

    def read() -> None:
        for key in drawn:
            value.get(key)

    def put() -> None:
        for key in drawn:
            content = entries[key]
            content["n"] = content.get("n", 0) + 1

    def add() -> None:
        for key in drawn:
            elements[key].append(1)

    return {"value read+update": count, "value read": read, "map get+put": put, "list add": add}


def one_by_one(path: Path, work: Sequence[Batch], keys: Sequence[str]) -> Callable[[], None]:
    """Return read and update on RocksDB called key by key, with pickled values."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    store, no_log = Rdict(str(path / "key-by-key"), options), WriteOptions()
    no_log.disable_wal = True  # type: ignore[method-assign,assignment]  # a property in truth
    for key in keys:
        store.put(key.encode(), pickle.dumps(1), no_log)
    store.flush()

    def count() -> None:
        for batch, _ in work:
            for key in batch:
                stored = key.encode()
                data = store.get(stored)
                store.put(stored, pickle.dumps(pickle.loads(data) + 1), no_log)

    return count


def snapshot_stop(backend: RocksDbBackend) -> tuple[float, float, float]:
    """Return ms of the synchronous part, of the longest slice, and of encoding in a thread."""
    started = time.perf_counter()
    snapshot = backend.freeze(1)
    stop_ms = (time.perf_counter() - started) * 1e3
    longest_ms = 0.0
    done = False
    while not done:
        started = time.perf_counter()
        deadline = started + 0.003
        done = snapshot.advance(lambda end=deadline: time.perf_counter() >= end)
        longest_ms = max(longest_ms, (time.perf_counter() - started) * 1e3)
    started = time.perf_counter()
    thread = threading.Thread(target=snapshot.blob)
    thread.start()
    thread.join()
    return stop_ms, longest_ms, (time.perf_counter() - started) * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keys", type=int, default=500_000)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rng = random.Random(1)
    keys = [f"key-{n}" for n in range(arguments.keys)]
    zipf = rng.choices(keys, [1 / rank**1.1 for rank in range(1, len(keys) + 1)], k=arguments.records)
    uniform = rng.choices(keys, k=arguments.records)
    small = len(keys) * (ITEM_OVERHEAD_BYTES + 2) // 4
    with tempfile.TemporaryDirectory() as directory:
        for name, drawn, cache_bytes in (
            ("zipf 1.1", zipf, DEFAULT_CACHE_BYTES),
            ("uniform, 4 x cache", uniform, small),
        ):
            work = batches(drawn)
            print(f"--- {name}: {len(keys)} keys, {len(drawn)} records, us per record")
            path = Path(directory) / name.replace(" ", "-")
            _compare(path, cache_bytes, work, keys, arguments.rounds)


def _backends(parent: Path, cache_bytes: int) -> dict[str, tuple[KeyCursor, Any]]:
    heap, rocksdb = KeyCursor(), KeyCursor()
    settings = RocksDbSettings(parent=parent, memory=RocksDbMemory(MANAGED_BYTES), cache_bytes=cache_bytes)
    clock = SystemClock()
    return {
        "heap": (heap, HeapBackend(GROUPS, MAX_PARALLELISM, heap, clock=clock)),
        "rocksdb": (
            rocksdb,
            RocksDbBackend(GROUPS, MAX_PARALLELISM, rocksdb, settings=settings, clock=clock),
        ),
    }


def _compare(path: Path, cache_bytes: int, work: Sequence[Batch], keys: Sequence[str], rounds: int) -> None:
    records = sum(len(batch) for batch, _ in work)
    everything = batches(keys)
    for operation, on_dict in dict_accesses(work, keys).items():
        row = {"dict": measure(on_dict, records, rounds)}
        backends = _backends(path, cache_bytes)
        for name, (cursor, backend) in backends.items():
            of_backend = accesses(backend)
            filling = "value read+update" if operation == "value read" else operation
            on_backend(backend, cursor, everything, of_backend[filling])  # So that every key is there.
            access = of_backend[operation]
            row[name] = measure(
                lambda b=backend, c=cursor, a=access: on_backend(b, c, work, a), records, rounds
            )
        if operation == "value read+update":
            row["rocksdict, key by key"] = measure(one_by_one(path, work, keys), records, 1)
        print(f"{operation:20}", "  ".join(f"{name} {us:.2f}" for name, us in row.items()))
        stop_ms, slice_ms, encode_ms = snapshot_stop(backends["rocksdb"][1])
        print(f"    snapshot: stop {stop_ms:.1f} ms, slice {slice_ms:.1f} ms, thread {encode_ms:.0f} ms")
        for _, backend in backends.values():
            backend.close()


if __name__ == "__main__":
    main()
