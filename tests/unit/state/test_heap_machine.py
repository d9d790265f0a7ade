"""Any history of accesses, snapshots and restores leaves the heap backend equal to plain dicts.

The model is a dict of plain values, and a snapshot of the model is a deep copy.  Values are
changed in place wherever the contract allows it, snapshots overlap, are advanced by single steps,
are given up, and are restored into any number of backends that take the place of the old one.
"""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from raystream.keygroup import groups_of_subtask
from raystream.keys import KeyGroupCache
from raystream.state import heap_snapshot, heap_tables
from raystream.state.cursor import KeyCursor
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.heap import HeapBackend
from tests.unit.state.contract_kit import at_once, finish

MAX_PARALLELISM = 4
DESCRIPTORS = (
    ValueStateDescriptor("count", int),
    ValueStateDescriptor("box", list[int]),
    ValueStateDescriptor("any"),
    ListStateDescriptor("list", list[int]),
    MapStateDescriptor("map", str, list[int]),
)

KEYS = st.sampled_from([0, 1, 2, 3, "a", "b", (1, "c"), 2**64, "\udc80"])
NUMBERS = st.integers(-3, 3) | st.sampled_from([2**63, 2**64, -(2**70)])
MAP_KEYS = st.sampled_from(["x", "y", "\udc80"])

Model = dict[tuple[str, Any], Any]


class HeapMachine(RuleBasedStateMachine):
    """One operator at a changing parallelism."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Model = {}
        self.pending: list[tuple[list[Any], Model]] = []
        self.complete: list[tuple[list[Any], Model]] = []
        self.cache = KeyGroupCache(MAX_PARALLELISM)

    @initialize(parallelism=st.integers(1, MAX_PARALLELISM))
    def start(self, parallelism: int) -> None:
        self._deploy(parallelism, [])

    def _deploy(self, parallelism: int, loads: list[Any]) -> None:
        self.pending.clear()
        self.subtasks = []
        for i in range(parallelism):
            groups, cursor = groups_of_subtask(i, MAX_PARALLELISM, parallelism), KeyCursor()
            backend = HeapBackend(groups, MAX_PARALLELISM, cursor)
            backend.restore([load(groups, MAX_PARALLELISM) for load in loads])
            count, box, untyped, elements, entries = DESCRIPTORS
            states = {
                "count": backend.value_state(count),
                "box": backend.value_state(box),
                "any": backend.value_state(untyped),
                "list": backend.list_state(elements),
                "map": backend.map_state(entries),
            }
            assert backend.unregistered_states() == ()
            self.subtasks.append((groups, cursor, backend, states))

    def _at(self, name: str, key: Any) -> Any:
        group = self.cache[key]
        for groups, cursor, _, states in self.subtasks:
            if group in groups:
                cursor.current_key, cursor.group = key, group
                return states[name]
        raise AssertionError(group)

    # ---- accesses ----

    @rule(key=KEYS, number=NUMBERS)
    def count(self, key: Any, number: int) -> None:
        state = self._at("count", key)
        assert state.value() == self.model.get(("count", key))
        state.update(number)
        self.model["count", key] = number

    @rule(name=st.sampled_from(["box", "any"]), key=KEYS, number=NUMBERS, mutate=st.booleans())
    def change_in_place(self, name: str, key: Any, number: int, mutate: bool) -> None:
        state = self._at(name, key)
        value = state.value()
        assert value == self.model.get((name, key))
        if mutate and value is not None:
            value.append(number)
        else:
            value = [number]
        state.update(value)
        self.model[name, key] = copy.deepcopy(value)

    @rule(name=st.sampled_from(["count", "box", "any", "list", "map"]), key=KEYS)
    def clear(self, name: str, key: Any) -> None:
        self._at(name, key).clear()
        self.model.pop((name, key), None)

    @rule(key=KEYS, number=NUMBERS)
    def add(self, key: Any, number: int) -> None:
        self._at("list", key).add([number])
        self.model.setdefault(("list", key), []).append([number])

    @rule(key=KEYS, number=NUMBERS)
    def change_elements_in_place(self, key: Any, number: int) -> None:
        state = self._at("list", key)
        elements = state.get()
        assert elements == self.model.get(("list", key), [])
        for element in elements:
            element.append(number)
        state.update(elements)
        if elements:
            self.model["list", key] = copy.deepcopy(elements)

    @rule(key=KEYS, map_key=MAP_KEYS, value=st.lists(NUMBERS, max_size=2) | st.none())
    def put(self, key: Any, map_key: str, value: Any) -> None:
        self._at("map", key).put(map_key, copy.deepcopy(value))
        self.model.setdefault(("map", key), {})[map_key] = value

    @rule(key=KEYS, map_key=MAP_KEYS, number=NUMBERS)
    def change_map_value_in_place(self, key: Any, map_key: str, number: int) -> None:
        state = self._at("map", key)
        value = state.get(map_key)
        assert value == self.model.get(("map", key), {}).get(map_key)
        if value is not None:
            value.append(number)
            state.put(map_key, value)
            self.model["map", key][map_key] = copy.deepcopy(value)

    @rule(key=KEYS, map_keys=st.sets(MAP_KEYS))
    def remove_while_iterating(self, key: Any, map_keys: set[str]) -> None:
        state = self._at("map", key)
        expected = self.model.get(("map", key), {})
        seen = {}
        for map_key, value in state.items():
            seen[map_key] = copy.deepcopy(value)
            if map_key in map_keys:
                state.remove(map_key)
        assert seen == expected
        for map_key in map_keys:
            expected.pop(map_key, None)
        if not expected:
            self.model.pop(("map", key), None)

    # ---- snapshots ----

    @rule()
    def freeze(self) -> None:
        snapshots = [backend.freeze(1) for _, _, backend, _ in self.subtasks]
        self.pending.append((snapshots, copy.deepcopy(self.model)))

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), steps=st.integers(1, 4))
    def advance(self, data: Any, steps: int) -> None:
        snapshots, _ = data.draw(st.sampled_from(self.pending))
        for snapshot in snapshots:
            for _ in range(steps):
                snapshot.advance(at_once)

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), steps=st.integers(0, 4))
    def give_up(self, data: Any, steps: int) -> None:
        position = data.draw(st.integers(0, len(self.pending) - 1))
        for snapshot in self.pending.pop(position)[0]:
            snapshot.discard()
            for _ in range(steps):
                snapshot.advance(at_once)

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        snapshots, expected = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        loads = [finish(snapshot) for snapshot in snapshots]
        assert sum(snapshot.entries for snapshot in snapshots) == len(expected)
        self.complete.append((loads, expected))

    @precondition(lambda self: self.complete)
    @rule(data=st.data(), parallelism=st.integers(1, MAX_PARALLELISM))
    def restore(self, data: Any, parallelism: int) -> None:
        loads, expected = data.draw(st.sampled_from(self.complete))
        self._deploy(parallelism, loads)
        self.model = copy.deepcopy(expected)
        for (name, key), content in expected.items():
            assert self._read(name, key) == content

    def _read(self, name: str, key: Any) -> Any:
        state = self._at(name, key)
        match name:
            case "list":
                return state.get()
            case "map":
                return dict(state.items())
            case _:
                return state.value()

    def teardown(self) -> None:
        while self.pending:
            snapshots, expected = self.pending.pop()
            loads = [finish(snapshot) for snapshot in snapshots]
            self._deploy(1, loads)
            for (name, key), content in expected.items():
                assert self._read(name, key) == content


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    """Cut chunks and folds so small that every history crosses their edges."""
    monkeypatch.setattr(heap_snapshot, "CHUNK_ENTRIES_MAX", 2)
    monkeypatch.setattr(heap_tables, "FOLD_ENTRIES_MAX", 1)
    monkeypatch.setattr(heap_snapshot.HeapState, "__init__", _small_chunks(heap_snapshot.HeapState.__init__))


def _small_chunks(original):
    def init(self, **fields):
        original(self, **fields)
        self.entries_per_chunk = 1

    return init


class TestHeapMachine(HeapMachine.TestCase):
    settings = settings(
        max_examples=150,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
