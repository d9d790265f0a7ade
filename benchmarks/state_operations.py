"""What `state_backends.py` measures: what is done for each record of a batch, on states, dicts and RocksDB.

Each kind of contender has the operations of a kind of state by name, and `fill`, which is done once for each
key before.
"""

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rocksdict import Options, Rdict, WriteOptions

from raystream.clock import SystemClock
from raystream.operators.timers import KeyedTimers
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import (
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)

FAR_MS = 1 << 50
"""Timers from here on stay."""

Batch = tuple[list[str], list[int]]
Run = Callable[[Batch], None]
KINDS: dict[str, tuple[str, ...]] = {
    "value": ("get", "get+update"),
    "list": ("get", "add"),
    "map": ("get", "put"),
    "reducing": ("add",),
    "timers": ("set+fire",),
}


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
