"""Any history of accesses, snapshots, crashes and restores leaves a backend equal to plain dicts.

The model is a dict of plain values, and a snapshot of the model is a deep copy.  Values are
changed in place wherever the contract allows it, time passes, snapshots overlap, are advanced by single
steps, are given up, and are restored into any number of backends that take the place of the old one.
Needs Hypothesis.

    class HeapMachine(StateMachine):
        contract = TestHeapBackend()

    class TestHeapMachine(HeapMachine.TestCase):
        settings = SETTINGS
"""

import copy
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from raystream.keygroup import groups_of_subtask
from raystream.keys import KeyGroupCache
from raystream.state.descriptor import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.ttl import StateTtl, TtlUpdate
from raystream.testing.state_kit import BackendContract, Subtask, at_once, counted, register

SETTINGS = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

MAX_PARALLELISM = 4
TTL_MS = 100


def joined(first: list[int], second: list[int]) -> list[int]:
    """Return the first list, changed in place."""
    first.extend(second)
    return first


class Collected:
    """An aggregate whose accumulator is changed in place."""

    def create_accumulator(self) -> list[int]:
        """Return an accumulator of nothing."""
        return []

    def add(self, value: int, accumulator: list[int]) -> list[int]:
        """Return the accumulator with one more value."""
        accumulator.append(value)
        return accumulator

    def get_result(self, accumulator: list[int]) -> list[int]:
        """Return what was collected."""
        return list(accumulator)

    def merge(self, first: list[int], second: list[int]) -> list[int]:
        """Return the accumulator of both."""
        return first + second


LIVED = StateTtl(TTL_MS)
RENEWED = replace(LIVED, update=TtlUpdate.ON_READ_AND_WRITE)

DESCRIPTORS: dict[str, Any] = {
    descriptor.name: descriptor
    for descriptor in (
        ValueStateDescriptor[Any]("count", int),
        ValueStateDescriptor[Any]("box", list[int]),
        ValueStateDescriptor[Any]("any"),
        ValueStateDescriptor[Any]("lived", list[int], ttl=LIVED),
        ValueStateDescriptor[Any]("renewed", ttl=RENEWED),
        ListStateDescriptor[Any]("list", list[int]),
        ListStateDescriptor[Any]("lived list", list[int], ttl=LIVED),
        MapStateDescriptor[Any, Any]("map", str, list[int]),
        MapStateDescriptor[Any, Any]("lived map", str, list[int], ttl=LIVED),
        ReducingStateDescriptor[Any]("reduced", joined, list[int]),
        AggregatingStateDescriptor[Any, Any, Any]("collected", Collected(), list[int], namespaced=True),
    )
}
VALUES = ["box", "any", "lived", "renewed"]
FOLDED = ["reduced", "collected"]
LISTS, MAPS = ["list", "lived list"], ["map", "lived map"]

KEYS = st.sampled_from([0, 1, 2, 3, "a", "b", (1, "c"), 2**64, "\udc80"])
NUMBERS = st.integers(-3, 3) | st.sampled_from([2**63, 2**64, -(2**70)])
MAP_VALUES = st.lists(NUMBERS, max_size=2) | st.none()
MAP_KEYS = st.sampled_from(["x", "y", "\udc80"])

Pair = tuple[int, Any]
Model = dict[tuple[str, Any], list[Pair] | dict[str, Pair]]
"""By state and key: pairs of time and value; single values as lists of one."""


class StateMachine(RuleBasedStateMachine):
    """One operator at a changing parallelism; a subclass says with which backend."""

    contract: ClassVar[BackendContract]

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1000
        self.model: Model = {}
        self.pending: list[tuple[list[Any], Model]] = []
        self.checkpoint_id = 0
        self.complete: list[tuple[list[Any], Model]] = []
        self.cache = KeyGroupCache(MAX_PARALLELISM)

    @initialize(parallelism=st.integers(1, MAX_PARALLELISM))
    def start(self, parallelism: int) -> None:
        """Begin with nothing."""
        self._deploy(parallelism, [])

    def _deploy(self, parallelism: int, stored: list[Any], *, own: bool = False) -> None:
        self.pending.clear()
        self.subtasks: list[tuple[Any, Subtask, dict[str, Any]]] = []
        for index in range(parallelism):
            subtask = self.contract.make_subtask(
                stored,
                subtask=index,
                parallelism=parallelism,
                max_parallelism=MAX_PARALLELISM,
                now_ms=self.now_ms,
                own=own,
            )
            states = {name: register(subtask.backend, d) for name, d in DESCRIPTORS.items()}
            assert {match.verdict.value for match in subtask.backend.restored_states()} <= {"new", "matched"}
            self.subtasks.append((groups_of_subtask(index, MAX_PARALLELISM, parallelism), subtask, states))

    def _at(self, name: str, key: Any) -> Any:
        for groups, subtask, states in self.subtasks:
            if self.cache[key] in groups:
                subtask.at(key, (key, 1))
                return states[name]
        raise AssertionError(key)

    # ---- the model ----

    def _alive(self, name: str, pair: Pair) -> bool:
        return DESCRIPTORS[name].ttl is None or pair[0] + TTL_MS > self.now_ms

    def _seen(self, name: str, key: Any) -> Any:
        """Return what is stored for a key, without what has expired, as plain values."""
        content = self.model.get((name, key), [])
        if isinstance(content, dict):
            return {k: pair[1] for k, pair in content.items() if self._alive(name, pair)}
        return [pair[1] for pair in content if self._alive(name, pair)]

    def _expire(self, model: Model) -> Model:
        """Return a copy of the model without what has expired."""
        left: Model = {}
        for (name, key), content in model.items():
            alive: Any
            if isinstance(content, dict):
                alive = {k: pair for k, pair in content.items() if self._alive(name, pair)}
            else:
                alive = [pair for pair in content if self._alive(name, pair)]
            if alive:
                left[name, key] = copy.deepcopy(alive)
        return left

    def _write(self, name: str, key: Any, values: list[Any]) -> None:
        self.model[name, key] = [(self.now_ms, copy.deepcopy(value)) for value in values]

    def _check(self, name: str, key: Any) -> None:
        """Compare a state with the model, without renewing anything."""
        subtask = next(subtask for groups, subtask, _ in self.subtasks if self.cache[key] in groups)
        wanted_key = (key, (key, 1)) if DESCRIPTORS[name].namespaced else key
        found = [content for _, k, content in subtask.backend.entries(name) if k == wanted_key]
        seen = self._seen(name, key)
        if name in LISTS + MAPS:
            assert found == ([seen] if seen else [])
        else:
            assert found == seen

    # ---- accesses ----

    @rule(passed_ms=st.sampled_from([1, 30, 60, TTL_MS]))
    def time_passes(self, passed_ms: int) -> None:
        """Move every clock."""
        self.now_ms += passed_ms
        for _, subtask, _ in self.subtasks:
            subtask.clock.now_ms = self.now_ms

    @rule(key=KEYS, number=NUMBERS)
    def count(self, key: Any, number: int) -> None:
        """Replace a value that cannot be changed in place."""
        state = self._at("count", key)
        assert state.value() == next(iter(self._seen("count", key)), None)
        state.update(number)
        self._write("count", key, [number])

    @rule(name=st.sampled_from(VALUES), key=KEYS, number=NUMBERS, mutate=st.booleans())
    def change_in_place(self, name: str, key: Any, number: int, mutate: bool) -> None:
        """Read a value, change it, write it back."""
        state = self._at(name, key)
        value = state.value()
        assert value == next(iter(self._seen(name, key)), None)
        if mutate and value is not None:
            value.append(number)
        else:
            value = [number]
        state.update(value)
        self._write(name, key, [value])

    @rule(key=KEYS)
    def read_renews(self, key: Any) -> None:
        """Read a value that lives on when it is read."""
        seen = self._seen("renewed", key)
        assert self._at("renewed", key).value() == next(iter(seen), None)
        self._write("renewed", key, seen)

    @rule(name=st.sampled_from(FOLDED), key=KEYS, number=NUMBERS)
    def fold(self, name: str, key: Any, number: int) -> None:
        """Add to a reduction or an aggregation."""
        state = self._at(name, key)
        before: list[Any] = next(iter(self._seen(name, key)), [])
        assert (state.get() or []) == before
        state.add([number] if name == "reduced" else number)
        self._write(name, key, [[*before, number]])

    @rule(name=st.sampled_from(list(DESCRIPTORS)), key=KEYS)
    def clear(self, name: str, key: Any) -> None:
        """Remove everything."""
        self._at(name, key).clear()
        self.model.pop((name, key), None)

    @rule(name=st.sampled_from(LISTS), key=KEYS, number=NUMBERS)
    def add(self, name: str, key: Any, number: int) -> None:
        """Append to a list."""
        self._at(name, key).add([number])
        content: Any = self.model.setdefault((name, key), [])
        content.append((self.now_ms, [number]))

    @rule(name=st.sampled_from(LISTS), key=KEYS, number=NUMBERS)
    def change_elements_in_place(self, name: str, key: Any, number: int) -> None:
        """Read a list, change its elements, write it back."""
        state = self._at(name, key)
        elements = state.get()
        assert elements == self._seen(name, key)
        for element in elements:
            element.append(number)
        state.update(elements)
        self._write(name, key, elements)

    @rule(
        name=st.sampled_from(MAPS),
        key=KEYS,
        map_key=MAP_KEYS,
        value=st.lists(NUMBERS, max_size=2) | st.none(),
    )
    def put(self, name: str, key: Any, map_key: str, value: Any) -> None:
        """Set an entry of a map."""
        self._at(name, key).put(map_key, copy.deepcopy(value))
        self._entries(name, key)[map_key] = (self.now_ms, value)

    @rule(name=st.sampled_from(MAPS), key=KEYS, map_key=MAP_KEYS, number=NUMBERS)
    def change_map_value_in_place(self, name: str, key: Any, map_key: str, number: int) -> None:
        """Read an entry of a map, change it, write it back."""
        state = self._at(name, key)
        value = state.get(map_key)
        seen: Any = self._seen(name, key) or {}
        assert value == seen.get(map_key)
        if value is not None:
            value.append(number)
            state.put(map_key, value)
            self._entries(name, key)[map_key] = (self.now_ms, copy.deepcopy(value))

    @rule(name=st.sampled_from(MAPS), key=KEYS, map_keys=st.sets(MAP_KEYS))
    def remove_while_iterating(self, name: str, key: Any, map_keys: set[str]) -> None:
        """Iterate over a map and remove some of its entries."""
        state = self._at(name, key)
        expected = self._seen(name, key) or {}
        seen = {}
        for map_key, value in state.items():
            seen[map_key] = copy.deepcopy(value)
            if map_key in map_keys:
                state.remove(map_key)
        assert seen == expected
        for map_key in seen.keys() & map_keys:
            del self._entries(name, key)[map_key]

    def _entries(self, name: str, key: Any) -> dict[str, Pair]:
        entries = self.model.setdefault((name, key), {})
        assert isinstance(entries, dict)
        return entries

    # ---- snapshots ----

    @rule()
    def freeze(self) -> None:
        """Begin a snapshot."""
        self.checkpoint_id += 1
        snapshots = [self.contract.freeze(subtask, self.checkpoint_id) for _, subtask, _ in self.subtasks]
        self.pending.append((snapshots, self._expire(self.model)))

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), steps=st.integers(1, 4))
    def advance(self, data: Any, steps: int) -> None:
        """Work on one of the snapshots a little."""
        snapshots, _ = data.draw(st.sampled_from(self.pending))
        for snapshot in snapshots:
            for _ in range(steps):
                snapshot.advance(at_once)

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), steps=st.integers(0, 4))
    def give_up(self, data: Any, steps: int) -> None:
        """Discard one of the snapshots."""
        position = data.draw(st.integers(0, len(self.pending) - 1))
        for snapshot in self.pending.pop(position)[0]:
            snapshot.discard()
            for _ in range(steps):
                snapshot.advance(at_once)

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), told=st.booleans())
    def finish(self, data: Any, told: bool) -> None:
        """Complete one of the snapshots; the backends may hear of it late, or never."""
        snapshots, expected = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        stored = [self.contract.finish(snapshot) for snapshot in snapshots]
        assert counted(snapshots) in (None, len(expected))
        for _, subtask, _ in self.subtasks if told else ():
            subtask.backend.checkpoint_completed(snapshots[0].checkpoint_id)
        self.complete.append((stored, expected))

    @rule(data=st.data(), parallelism=st.integers(1, MAX_PARALLELISM), own=st.booleans())
    def crash(self, data: Any, parallelism: int, own: bool) -> None:
        """Lose every backend, and go on from a complete snapshot or from nothing."""
        stored, expected = data.draw(st.sampled_from([*self.complete, ([], {})]))
        self._restore(parallelism, stored, expected, own=own)

    def _restore(self, parallelism: int, stored: list[Any], expected: Model, *, own: bool = False) -> None:
        self._deploy(parallelism, stored, own=own)
        self.model = self._expire(expected)
        for name, key in expected:
            self._check(name, key)

    def teardown(self) -> None:
        """Complete and restore what is left."""
        for name, key in self.model:
            self._check(name, key)
        pending, self.pending = self.pending, []
        for snapshots, expected in pending:
            self._restore(1, [self.contract.finish(snapshot) for snapshot in snapshots], expected)
