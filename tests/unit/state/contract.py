"""The contract of a keyed state backend; runs against every one.

A subclass names its backend in `make_backend`; each test is one promise of
`raystream.state.backend` or one row of the table of keyed state in the specification.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from raystream.errors import KeyTypeError, StateError, StateRestoreError
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.keys import KeyGroupCache, canonical_key
from raystream.state.backend import KeyedSnapshot, KeyedStateBackend
from raystream.state.cursor import NO_KEY_GROUP, KeyCursor
from raystream.state.descriptor import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor
from raystream.state.snapshot_format import LoadedSnapshot, load_snapshot

MAX_PARALLELISM = 16

HITS = ValueStateDescriptor("hits", int)
BOX = ValueStateDescriptor("box", dict[str, int])
ANYTHING = ValueStateDescriptor("anything")
ELEMENTS = ListStateDescriptor("elements", int)
BOXES = ListStateDescriptor("boxes")
COUNTS = MapStateDescriptor("counts", str, int)
BY_ANY = MapStateDescriptor("by any")

Loader = Callable[[KeyGroupRange, int], LoadedSnapshot]


def never() -> bool:
    return False


def at_once() -> bool:
    return True


@dataclasses.dataclass
class Visit:
    path: str
    hits: int = 0


class Subtask:
    """A backend with its cursor, as an operator has them."""

    def __init__(
        self, backend: KeyedStateBackend, cursor: KeyCursor, max_parallelism: int = MAX_PARALLELISM
    ) -> None:
        self.backend = backend
        self.cursor = cursor
        self._cache = KeyGroupCache(max_parallelism)

    def at(self, key: Any) -> None:
        """Make `key` the current key."""
        self.cursor.current_key = canonical_key(key)
        self.cursor.group = self._cache[self.cursor.current_key]

    def leave(self) -> None:
        self.cursor.current_key, self.cursor.group = None, NO_KEY_GROUP

    def group(self, key: Any) -> int:
        return self._cache[canonical_key(key)]


def finish(snapshot: KeyedSnapshot) -> Loader:
    """Encode a snapshot to its end and return a way to load it."""
    assert snapshot.advance(never)
    return loader(snapshot.blob())


def loader(pieces: Iterable[bytes]) -> Loader:
    blob = b"".join(pieces)

    def load(groups: KeyGroupRange, max_parallelism: int) -> LoadedSnapshot:
        return load_snapshot(lambda at, n: blob[at : at + n], len(blob), groups, max_parallelism)

    return load


class KeyedStateContract:
    """Subclass it as `TestXBackend` and implement `make_backend`."""

    def make_backend(
        self, groups: KeyGroupRange, max_parallelism: int, cursor: KeyCursor
    ) -> KeyedStateBackend:
        raise NotImplementedError

    def make_subtask(
        self,
        restored: Iterable[Loader] = (),
        *,
        subtask: int = 0,
        parallelism: int = 1,
        max_parallelism: int = MAX_PARALLELISM,
    ) -> Subtask:
        groups = groups_of_subtask(subtask, max_parallelism, parallelism)
        cursor = KeyCursor()
        backend = self.make_backend(groups, max_parallelism, cursor)
        backend.restore([load(groups, max_parallelism) for load in restored])
        return Subtask(backend, cursor, max_parallelism)

    @pytest.fixture
    def subtask(self) -> Subtask:
        subtask = self.make_subtask()
        subtask.at("k")
        return subtask

    # ---- values ----

    def test_value_never_set_is_the_default(self, subtask):
        assert subtask.backend.value_state(ValueStateDescriptor("n", int, default=7)).value() == 7

    def test_value_never_set_without_a_default_is_none(self, subtask):
        assert subtask.backend.value_state(HITS).value() is None

    def test_default_is_a_fresh_copy_each_time(self, subtask):
        state = subtask.backend.value_state(ValueStateDescriptor("box", default=[]))
        state.value().append(1)
        assert state.value() == []

    def test_updating_with_none_clears(self, subtask):
        state = subtask.backend.value_state(HITS)
        state.update(1)
        state.update(None)
        assert state.value() is None
        assert finish(subtask.backend.freeze(1))(KeyGroupRange(0, 16), 16).chunks["hits"] == ()

    def test_value_belongs_to_its_key(self, subtask):
        state = subtask.backend.value_state(HITS)
        state.update(1)
        subtask.at("other")
        assert state.value() is None
        state.update(2)
        state.clear()
        subtask.at("k")
        assert state.value() == 1

    def test_falsy_values_are_values(self, subtask):
        state = subtask.backend.value_state(ValueStateDescriptor("n", int, default=7))
        state.update(0)
        assert state.value() == 0

    # ---- lists ----

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda s: s.add(None), id="add None"),
            pytest.param(lambda s: s.add_all(None), id="add_all None"),
            pytest.param(lambda s: s.add_all([3, None]), id="add_all with a None inside"),
            pytest.param(lambda s: s.update(None), id="update None"),
            pytest.param(lambda s: s.update([3, None]), id="update with a None inside"),
        ],
    )
    def test_none_in_a_list_is_an_error_and_changes_nothing(self, subtask, change):
        state = subtask.backend.list_state(ELEMENTS)
        state.update([1, 2])
        with pytest.raises(StateError, match="elements"):
            change(state)
        assert state.get() == [1, 2]

    def test_updating_a_list_with_nothing_clears_it(self, subtask):
        state = subtask.backend.list_state(ELEMENTS)
        state.update([1])
        state.update([])
        assert state.get() == []
        assert finish(subtask.backend.freeze(1))(KeyGroupRange(0, 16), 16).chunks["elements"] == ()

    def test_list_keeps_the_order_of_its_elements(self, subtask):
        state = subtask.backend.list_state(ELEMENTS)
        state.add(3)
        state.add_all(iter([1, 2]))
        state.add_all([])
        assert state.get() == [3, 1, 2]
        state.update(n for n in (9, 8))
        assert state.get() == [9, 8]
        state.clear()
        assert state.get() == []

    def test_list_may_be_changed_while_it_is_iterated(self, subtask):
        state = subtask.backend.list_state(ELEMENTS)
        state.update([1, 2])
        for element in state.get():
            state.add(element * 10)
        assert state.get() == [1, 2, 10, 20]

    # ---- maps ----

    def test_map_values_may_be_none(self, subtask):
        state = subtask.backend.map_state(COUNTS)
        state.put("a", None)
        assert state.contains("a")
        assert state.get("a", 5) is None
        assert state["a"] is None
        assert dict(state.items()) == {"a": None}

    def test_map_has_the_forms_of_a_dict(self, subtask):
        state = subtask.backend.map_state(COUNTS)
        assert state.is_empty()
        assert len(state) == 0
        state["a"] = 1
        state.put_all({"b": 2})
        state.put_all([("c", 3)])
        assert "a" in state
        assert "z" not in state
        assert sorted(state) == sorted(state.keys()) == ["a", "b", "c"]
        assert sorted(state.values()) == [1, 2, 3]
        assert not state.is_empty()
        del state["a"]
        state.remove("b")
        state.remove("never there")
        assert dict(state.items()) == {"c": 3}
        assert len(state) == 1
        assert state.get("b") is None
        assert state.get("b", 9) == 9

    @pytest.mark.parametrize("content", [{}, {"b": 1}])
    def test_subscript_of_a_missing_map_key_is_a_key_error(self, subtask, content):
        state = subtask.backend.map_state(COUNTS)
        state.put_all(content)
        with pytest.raises(KeyError):
            state["a"]
        with pytest.raises(KeyError):
            del state["a"]

    @pytest.mark.parametrize("frozen", [False, True])
    def test_current_entry_may_be_removed_while_iterating(self, subtask, frozen):
        state = subtask.backend.map_state(COUNTS)
        state.put_all({str(n): n for n in range(10)})
        snapshot = subtask.backend.freeze(1) if frozen else None
        seen = []
        for key, value in state.items():
            seen.append(key)
            if value % 2:
                state.remove(key)
        assert sorted(seen) == sorted(str(n) for n in range(10))
        assert dict(state.items()) == {str(n): n for n in range(0, 10, 2)}
        for key in state:
            del state[key]
        assert state.is_empty()
        if snapshot is not None:
            restored = self.make_subtask([finish(snapshot)])
            restored.at("k")
            assert dict(restored.backend.map_state(COUNTS).items()) == {str(n): n for n in range(10)}

    def test_removed_and_replaced_entries_are_seen_as_they_are_when_their_turn_comes(self, subtask):
        state = subtask.backend.map_state(COUNTS)
        state.put_all({"a": 1, "b": 1})
        seen = {}
        for key, value in state.items():
            seen[key] = value
            for other in {"a", "b"} - seen.keys():
                state.put(other, 2)
        assert sorted(seen.values()) == [1, 2]
        iterator = state.items()
        next(iterator)
        state.clear()
        assert list(iterator) == []

    def test_map_keys_come_back_in_canonical_form(self, subtask):
        state = subtask.backend.map_state(BY_ANY)
        state.put(True, "a")
        state.put((1.0, None), "b")
        assert state[1] == "a"
        assert (1, None) in state
        assert sorted(map(repr, state.keys())) == ["(1, None)", "1"]

    @pytest.mark.parametrize(
        "change",
        [
            lambda s: s.put([1], 1),
            lambda s: s.put_all([("a", 1), (None, 2)]),
            lambda s: s.get({}),
            lambda s: s.contains(None),
            lambda s: s.remove(float("nan")),
        ],
        ids=["put", "put_all", "get", "contains", "remove"],
    )
    def test_map_key_without_an_encoding_is_an_error_and_changes_nothing(self, subtask, change):
        state = subtask.backend.map_state(BY_ANY)
        state.put("b", 1)
        with pytest.raises(KeyTypeError):
            change(state)
        assert dict(state.items()) == {"b": 1}

    # ---- registration ----

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            pytest.param(HITS, ValueStateDescriptor("hits", str), id="another type"),
            pytest.param(HITS, ValueStateDescriptor("hits"), id="no type"),
            pytest.param(HITS, ListStateDescriptor("hits", int), id="another kind"),
            pytest.param(COUNTS, MapStateDescriptor("counts", int, int), id="another type of map key"),
            pytest.param(
                ValueStateDescriptor("x", Visit), ValueStateDescriptor("x", Subtask), id="another class"
            ),
        ],
    )
    def test_two_descriptors_of_one_name_that_differ_are_an_error(self, subtask, first, second):
        register(subtask.backend, first)
        with pytest.raises(StateError, match=f"state is registered twice.*{first.name}"):
            register(subtask.backend, second)

    def test_one_state_registered_twice_is_one_state(self, subtask):
        subtask.backend.value_state(HITS).update(3)
        assert subtask.backend.value_state(ValueStateDescriptor("hits", int, default=1)).value() == 3

    def test_untouched_state_is_in_the_snapshot(self, subtask):
        for descriptor in (HITS, ELEMENTS, COUNTS):
            register(subtask.backend, descriptor)
        infos = tuple(descriptor.info() for descriptor in (HITS, ELEMENTS, COUNTS))
        snapshot = subtask.backend.freeze(1)
        assert snapshot.states == infos
        load = finish(snapshot)
        assert snapshot.entries == 0
        restored = self.make_subtask([load])
        assert restored.backend.unregistered_states() == infos

    def test_backend_without_states_has_an_empty_snapshot(self, subtask):
        restored = self.make_subtask([finish(subtask.backend.freeze(1))])
        assert restored.backend.unregistered_states() == ()

    # ---- key context ----

    @pytest.mark.parametrize(
        "access",
        [
            pytest.param(lambda b: b.value_state(HITS).value(), id="value"),
            pytest.param(lambda b: b.value_state(HITS).update(1), id="update value"),
            pytest.param(lambda b: b.value_state(HITS).update(None), id="update None"),
            pytest.param(lambda b: b.value_state(HITS).clear(), id="clear value"),
            pytest.param(lambda b: b.list_state(ELEMENTS).get(), id="get list"),
            pytest.param(lambda b: b.list_state(ELEMENTS).add(1), id="add"),
            pytest.param(lambda b: b.list_state(ELEMENTS).add_all([]), id="add nothing"),
            pytest.param(lambda b: b.list_state(ELEMENTS).update([1]), id="update list"),
            pytest.param(lambda b: b.list_state(ELEMENTS).clear(), id="clear list"),
            pytest.param(lambda b: b.map_state(COUNTS).get("a"), id="get map"),
            pytest.param(lambda b: b.map_state(COUNTS).put("a", 1), id="put"),
            pytest.param(lambda b: b.map_state(COUNTS).put_all({}), id="put nothing"),
            pytest.param(lambda b: b.map_state(COUNTS).items(), id="items"),
            pytest.param(lambda b: iter(b.map_state(COUNTS)), id="iter"),
            pytest.param(lambda b: len(b.map_state(COUNTS)), id="len"),
            pytest.param(lambda b: b.map_state(COUNTS).clear(), id="clear map"),
        ],
    )
    @pytest.mark.parametrize("frozen", [False, True])
    def test_access_without_a_current_key_is_an_error_that_says_so(self, subtask, access, frozen):
        subtask.backend.value_state(HITS).update(1)
        if frozen:
            subtask.backend.freeze(1)
        subtask.leave()
        with pytest.raises(StateError, match="without a current key"):
            access(subtask.backend)

    def test_access_to_a_group_of_another_subtask_is_an_error(self):
        subtask = self.make_subtask(subtask=1, parallelism=2)
        state = subtask.backend.value_state(HITS)
        subtask.at(next(n for n in itertools.count() if subtask.group(n) < MAX_PARALLELISM // 2))
        with pytest.raises(StateError, match="key group of another subtask"):
            state.value()
        with pytest.raises(StateError, match="key group of another subtask"):
            state.update(1)

    # ---- snapshots ----

    def restored_contents(self, load: Loader, key: Any = "k") -> "Contents":
        restored = self.make_subtask([load])
        restored.at(key)
        return Contents(restored.backend)

    def test_snapshot_shows_the_state_at_the_barrier(self, subtask):
        live = Contents(subtask.backend)
        live.set(1)
        before = live.get()
        snapshot = subtask.backend.freeze(1)
        live.set(2)
        subtask.at("new")
        live.set(3)
        load = finish(snapshot)
        assert self.restored_contents(load).get() == before
        assert self.restored_contents(load, "new").get() == (None, None, None, [], [], {}, {})
        subtask.at("k")
        assert live.get() == Contents.expected(2)

    def test_removal_after_the_barrier_is_not_in_the_snapshot(self, subtask):
        live = Contents(subtask.backend)
        live.set(1)
        snapshot = subtask.backend.freeze(1)
        live.clear()
        assert live.get() == (None, None, None, [], [], {}, {})
        assert self.restored_contents(finish(snapshot)).get() == Contents.expected(1)
        assert live.get() == (None, None, None, [], [], {}, {})
        empty = subtask.backend.freeze(2)
        load = finish(empty)
        assert empty.entries == 0
        assert self.restored_contents(load).get() == (None, None, None, [], [], {}, {})

    def test_change_in_place_is_not_in_a_snapshot_in_progress(self, subtask):
        live = Contents(subtask.backend)
        live.set(1)
        snapshot = subtask.backend.freeze(1)
        live.change_in_place(2)
        assert live.get() == Contents.expected(2)
        assert self.restored_contents(finish(snapshot)).get() == Contents.expected(1)
        assert live.get() == Contents.expected(2)
        assert self.restored_contents(finish(subtask.backend.freeze(2))).get() == Contents.expected(2)

    def test_object_handed_out_is_the_same_before_and_after_a_barrier(self, subtask):
        state = subtask.backend.value_state(BOX)
        box = {"a": 1}
        state.update(box)
        snapshot = subtask.backend.freeze(1)
        assert state.value() is box
        finish(snapshot)
        assert state.value() is box

    def test_overlapping_snapshots_each_show_their_own_barrier(self, subtask):
        live = Contents(subtask.backend)
        snapshots = []
        for n in range(1, 5):
            live.set(n)
            snapshots.append(subtask.backend.freeze(n))
            live.change_in_place(n + 100)
        loads = [finish(snapshot) for snapshot in snapshots]
        for n, load in enumerate(loads, 1):
            assert self.restored_contents(load).get() == Contents.expected(n)
        assert live.get() == Contents.expected(104)

    def test_newer_snapshot_that_is_driven_alone_completes_the_older_one(self, subtask):
        live = Contents(subtask.backend)
        live.set(1)
        older = subtask.backend.freeze(1)
        live.set(2)
        newer = subtask.backend.freeze(2)
        live.set(3)
        assert self.restored_contents(finish(newer)).get() == Contents.expected(2)
        assert older.advance(at_once)
        assert self.restored_contents(loader(older.blob())).get() == Contents.expected(1)

    @pytest.mark.parametrize("discarded", [0, 1, 2])
    def test_discarding_one_of_three_snapshots_leaves_the_others_exact(self, subtask, discarded):
        live = Contents(subtask.backend)
        snapshots = []
        for n in range(3):
            live.set(n)
            snapshots.append(subtask.backend.freeze(n + 1))
            live.change_in_place(n + 100)
        snapshots[0].advance(at_once)
        snapshots[discarded].discard()
        for n, snapshot in enumerate(snapshots):
            assert snapshot.advance(never)
            if n != discarded:
                assert self.restored_contents(loader(snapshot.blob())).get() == Contents.expected(n)
        assert live.get() == Contents.expected(102)

    def test_every_slice_makes_progress_and_is_short_of_a_key_group(self):
        subtask = self.make_subtask(max_parallelism=1)
        state = subtask.backend.value_state(HITS)
        for n in range(20_000):
            subtask.at(n)
            state.update(n)
        snapshot = subtask.backend.freeze(1)
        slices = 0
        while not snapshot.advance(at_once):
            slices += 1
            subtask.at(slices)
            state.update(-1)
        assert slices >= 10
        assert snapshot.entries == 20_000
        restored = self.make_subtask([loader(snapshot.blob())], max_parallelism=1)
        state = restored.backend.value_state(HITS)
        for n in range(20_000):
            restored.at(n)
            assert state.value() == n

    def test_many_writes_during_a_snapshot_are_put_back_in_slices(self):
        subtask = self.make_subtask(max_parallelism=1)
        state = subtask.backend.value_state(HITS)
        for n in range(100):
            subtask.at(n)
            state.update(n)
        snapshot = subtask.backend.freeze(1)
        for n in range(50, 40_000):
            subtask.at(n)
            state.update(n + 1)
        for n in range(20_000):
            subtask.at(n)
            state.clear()
        newer = None
        slices = 0
        while not snapshot.advance(at_once):
            slices += 1
            subtask.at(0)
            state.update(slices)
            if newer is None:
                newer, slices_then = subtask.backend.freeze(2), slices
        assert slices > 4
        for snap, expected in ((snapshot, 100), (newer, 20_001)):
            load = finish(snap)
            assert snap.entries == expected
        assert state.value() == slices
        restored = self.make_subtask([load], max_parallelism=1)
        state = restored.backend.value_state(HITS)
        for key, value in ((0, slices_then), (1, None), (19_999, None), (20_000, 20_001), (39_999, 40_000)):
            restored.at(key)
            assert state.value() == value

    def test_value_of_another_type_than_declared_fails_the_snapshot_and_names_the_state(self, subtask):
        state = subtask.backend.value_state(HITS)
        state.update("three")
        snapshot = subtask.backend.freeze(1)
        with pytest.raises(StateError, match=r"(?s)declared type.*state='hits' declared='int' found='str'"):
            snapshot.advance(never)
        snapshot.discard()
        assert snapshot.advance(never)
        state.update(3)
        assert finish(subtask.backend.freeze(2))(KeyGroupRange(0, 16), 16).chunks["hits"]

    def test_failed_snapshot_leaves_a_newer_one_exact(self, subtask):
        state = subtask.backend.value_state(HITS)
        state.update("three")
        failing = subtask.backend.freeze(1)
        state.update(3)
        newer = subtask.backend.freeze(2)
        load = finish(newer)
        with pytest.raises(StateError):
            failing.advance(never)
        restored = self.make_subtask([load])
        restored.at("k")
        assert restored.backend.value_state(HITS).value() == 3

    def test_value_that_cannot_be_pickled_fails_the_snapshot_and_names_the_state(self, subtask):
        subtask.backend.value_state(ANYTHING).update(lambda: 1)
        with pytest.raises(StateError, match="anything"):
            subtask.backend.freeze(1).advance(never)

    # ---- restore ----

    @pytest.mark.parametrize(("old", "new"), [(1, 1), (1, 4), (3, 5), (5, 3), (4, 1), (16, 7)])
    def test_every_key_is_restored_in_the_subtask_that_owns_it(self, old, new):
        keys = [*range(200), *map(str, range(200)), b"b", (1, "a", None), 1.5, 2**70, "\udc80"]
        loads = []
        for i in range(old):
            subtask = self.make_subtask(subtask=i, parallelism=old)
            self._fill(subtask, keys, groups_of_subtask(i, MAX_PARALLELISM, old))
            loads.append(finish(subtask.backend.freeze(1)))
        seen = 0
        for i in range(new):
            subtask = self.make_subtask(loads, subtask=i, parallelism=new)
            seen += self._check(subtask, keys, groups_of_subtask(i, MAX_PARALLELISM, new))
        assert seen == len(keys)

    def test_another_max_parallelism_moves_every_entry_to_its_new_group(self):
        keys = [*range(200), *map(str, range(200))]
        subtask = self.make_subtask()
        self._fill(subtask, keys, KeyGroupRange(0, MAX_PARALLELISM))
        load = finish(subtask.backend.freeze(1))
        seen = 0
        for i in range(3):
            restored = self.make_subtask([load], subtask=i, parallelism=3, max_parallelism=50)
            seen += self._check(restored, keys, groups_of_subtask(i, 50, 3))
        assert seen == len(keys)

    def _fill(self, subtask: Subtask, keys: list[Any], groups: KeyGroupRange) -> None:
        contents = Contents(subtask.backend)
        for n, key in enumerate(keys):
            if subtask.group(key) in groups:
                subtask.at(key)
                contents.set(n)

    def _check(self, subtask: Subtask, keys: list[Any], groups: KeyGroupRange) -> int:
        contents = Contents(subtask.backend)
        owned = [(n, key) for n, key in enumerate(keys) if subtask.group(key) in groups]
        for n, key in owned:
            subtask.at(key)
            assert contents.get() == Contents.expected(n)
        snapshot = subtask.backend.freeze(2)
        finish(snapshot)
        assert snapshot.entries == 7 * len(owned)
        return len(owned)

    def test_states_that_the_new_program_lacks_are_reported_until_dropped(self, subtask):
        subtask.backend.value_state(HITS).update(1)
        subtask.backend.list_state(ELEMENTS).add(1)
        restored = self.make_subtask([finish(subtask.backend.freeze(1))])
        restored.backend.value_state(HITS)
        assert restored.backend.unregistered_states() == (ELEMENTS.info(),)
        assert restored.backend.drop_unregistered() == (ELEMENTS.info(),)
        assert restored.backend.unregistered_states() == ()
        assert restored.backend.freeze(1).states == (HITS.info(),)

    def test_state_that_the_snapshot_lacks_starts_empty(self, subtask):
        subtask.backend.value_state(HITS).update(1)
        restored = self.make_subtask([finish(subtask.backend.freeze(1))])
        restored.at("k")
        assert restored.backend.list_state(ELEMENTS).get() == []
        assert restored.backend.value_state(HITS).value() == 1

    @pytest.mark.parametrize(
        "registered",
        [
            pytest.param(ListStateDescriptor("hits", int), id="kind"),
            pytest.param(ValueStateDescriptor("hits"), id="serializer"),
            pytest.param(ValueStateDescriptor("hits", str), id="schema"),
        ],
    )
    def test_stored_state_that_does_not_fit_is_a_restore_error(self, subtask, registered):
        subtask.backend.value_state(HITS)
        restored = self.make_subtask([finish(subtask.backend.freeze(1))])
        with pytest.raises(StateRestoreError, match="hits"):
            register(restored.backend, registered)


def register(backend: KeyedStateBackend, descriptor: Any) -> Any:
    """Register a descriptor of any kind."""
    match descriptor:
        case ValueStateDescriptor():
            return backend.value_state(descriptor)
        case ListStateDescriptor():
            return backend.list_state(descriptor)
        case _:
            return backend.map_state(descriptor)


class Contents:
    """States of all kinds, with values that can and that cannot be changed in place."""

    def __init__(self, backend: KeyedStateBackend) -> None:
        self.hits = backend.value_state(HITS)
        self.box = backend.value_state(BOX)
        self.anything = backend.value_state(ANYTHING)
        self.elements = backend.list_state(ELEMENTS)
        self.boxes = backend.list_state(BOXES)
        self.counts = backend.map_state(COUNTS)
        self.by_any = backend.map_state(BY_ANY)

    @staticmethod
    def expected(n: int) -> tuple[Any, ...]:
        return n, {"n": n}, [n, Visit("x", n)], [n, 1], [[n], {n}], {"n": n}, {(n, 1): [n], "e": None}

    def get(self) -> tuple[Any, ...]:
        return (
            self.hits.value(),
            self.box.value(),
            self.anything.value(),
            self.elements.get(),
            self.boxes.get(),
            dict(self.counts.items()),
            dict(self.by_any.items()),
        )

    def set(self, n: int) -> None:
        values = self.expected(n)
        self.hits.update(values[0])
        self.box.update(values[1])
        self.anything.update(values[2])
        self.elements.update(values[3])
        self.boxes.update(values[4])
        self.counts.clear()
        self.counts.put_all(values[5])
        self.by_any.clear()
        self.by_any.put_all(values[6])

    def change_in_place(self, n: int) -> None:
        """Do as `set`, by changing the objects that are handed out."""
        self.hits.update(n)
        box = self.box.value()
        box["n"] = n
        self.box.update(box)
        anything = self.anything.value()
        anything[0] = anything[1].hits = n
        self.anything.update(anything)
        self.elements.update([n, *self.elements.get()[1:]])
        first, second = self.boxes.get()
        first[0] = n
        second.clear()
        second.add(n)
        self.boxes.update([first, second])
        self.counts["n"] = n
        for key, value in self.by_any.items():
            if isinstance(key, tuple):
                self.by_any.remove(key)
                value[0] = n
                self.by_any.put((n, 1), value)

    def clear(self) -> None:
        for state in (
            self.hits, self.box, self.anything, self.elements, self.boxes, self.counts, self.by_any,
        ):  # fmt: skip
            state.clear()
