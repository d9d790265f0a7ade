"""Contract of keyed state as user code sees it: each row of the specification's table, and more."""

import itertools
from typing import Any

import pytest

from raystream.errors import KeyTypeError, StateError
from raystream.state.descriptor import (
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.ttl import StateTtl
from raystream.testing.state_kit import (
    BY_ANY,
    COUNTS,
    ELEMENTS,
    HITS,
    MAX_PARALLELISM,
    MEAN,
    TOTAL,
    BackendContract,
    Subtask,
    Visit,
    missing_states,
    register,
)


class AccessContract(BackendContract):
    """States of all kinds, their registration and the current key."""

    # ---- values ----

    def test_value_never_set_is_the_default(self, subtask: Subtask) -> None:
        assert subtask.backend.value_state(ValueStateDescriptor("n", int, default=7)).value() == 7

    def test_value_never_set_without_a_default_is_none(self, subtask: Subtask) -> None:
        assert subtask.backend.value_state(HITS).value() is None

    def test_default_is_a_fresh_copy_each_time(self, subtask: Subtask) -> None:
        state: Any = subtask.backend.value_state(ValueStateDescriptor[Any]("box", default=[]))
        state.value().append(1)
        assert state.value() == []

    def test_updating_with_none_clears(self, subtask: Subtask) -> None:
        state = subtask.backend.value_state(HITS)
        state.update(1)
        state.update(None)
        assert state.value() is None
        self.assert_empty(subtask)

    def test_value_belongs_to_its_key(self, subtask: Subtask) -> None:
        state = subtask.backend.value_state(HITS)
        state.update(1)
        subtask.at("other")
        assert state.value() is None
        state.update(2)
        state.clear()
        subtask.at("k")
        assert state.value() == 1

    def test_falsy_values_are_values(self, subtask: Subtask) -> None:
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
    def test_none_in_a_list_is_an_error_and_changes_nothing(self, subtask: Subtask, change: Any) -> None:
        state = subtask.backend.list_state(ELEMENTS)
        state.update([1, 2])
        with pytest.raises(StateError, match="elements"):
            change(state)
        assert state.get() == [1, 2]

    def test_updating_a_list_with_nothing_clears_it(self, subtask: Subtask) -> None:
        state = subtask.backend.list_state(ELEMENTS)
        state.update([1])
        state.update([])
        assert state.get() == []
        self.assert_empty(subtask)

    def test_list_keeps_the_order_of_its_elements(self, subtask: Subtask) -> None:
        state = subtask.backend.list_state(ELEMENTS)
        state.add(3)
        state.add_all(iter([1, 2]))
        state.add_all([])
        assert state.get() == [3, 1, 2]
        state.update(n for n in (9, 8))
        assert state.get() == [9, 8]
        state.clear()
        assert state.get() == []

    def test_list_may_be_changed_while_it_is_iterated(self, subtask: Subtask) -> None:
        state = subtask.backend.list_state(ELEMENTS)
        state.update([1, 2])
        for element in state.get():
            state.add(element * 10)
        assert state.get() == [1, 2, 10, 20]

    # ---- maps ----

    def test_map_values_may_be_none(self, subtask: Subtask) -> None:
        state: Any = subtask.backend.map_state(COUNTS)
        state.put("a", None)
        assert state.contains("a")
        assert state.get("a", 5) is None
        assert state["a"] is None
        assert dict(state.items()) == {"a": None}

    def test_map_has_the_forms_of_a_dict(self, subtask: Subtask) -> None:
        state: Any = subtask.backend.map_state(COUNTS)
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
    def test_subscript_of_a_missing_map_key_is_a_key_error(self, subtask: Subtask, content: Any) -> None:
        state: Any = subtask.backend.map_state(COUNTS)
        state.put_all(content)
        with pytest.raises(KeyError):
            state["a"]
        with pytest.raises(KeyError):
            del state["a"]

    @pytest.mark.parametrize("frozen", [False, True])
    def test_current_entry_may_be_removed_while_iterating(self, subtask: Subtask, frozen: bool) -> None:
        state: Any = subtask.backend.map_state(COUNTS)
        state.put_all({str(n): n for n in range(10)})
        snapshot = self.freeze(subtask) if frozen else None
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
            restored = self.make_subtask([self.finish(snapshot)])
            restored.at("k")
            assert dict(restored.backend.map_state(COUNTS).items()) == {str(n): n for n in range(10)}

    def test_removed_and_replaced_entries_are_seen_as_they_are_when_their_turn_comes(
        self, subtask: Subtask
    ) -> None:
        state: Any = subtask.backend.map_state(COUNTS)
        state.put_all({"a": 1, "b": 1})
        seen: dict[str, int] = {}
        for key, value in state.items():
            seen[key] = value
            for other in {"a", "b"} - seen.keys():
                state.put(other, 2)
        assert sorted(seen.values()) == [1, 2]
        iterator = state.items()
        next(iterator)
        state.clear()
        assert list(iterator) == []

    def test_map_keys_come_back_in_canonical_form(self, subtask: Subtask) -> None:
        state: Any = subtask.backend.map_state(BY_ANY)
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
    def test_map_key_without_an_encoding_is_an_error_and_changes_nothing(
        self, subtask: Subtask, change: Any
    ) -> None:
        state: Any = subtask.backend.map_state(BY_ANY)
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
            pytest.param(HITS, ValueStateDescriptor("hits", int, ttl=StateTtl("1s")), id="time to live"),
            pytest.param(TOTAL, ValueStateDescriptor("total", int), id="value, not reducing"),
            pytest.param(
                MEAN, ReducingStateDescriptor("mean", max, list[int]), id="reducing, not aggregating"
            ),
            pytest.param(
                ValueStateDescriptor("x", Visit), ValueStateDescriptor("x", Subtask), id="another class"
            ),
        ],
    )
    def test_two_descriptors_of_one_name_that_differ_are_an_error(
        self, subtask: Subtask, first: Any, second: Any
    ) -> None:
        register(subtask.backend, first)
        with pytest.raises(StateError, match=f"state is registered twice.*{first.name}"):
            register(subtask.backend, second)

    def test_one_state_registered_twice_is_one_state(self, subtask: Subtask) -> None:
        subtask.backend.value_state(HITS).update(3)
        assert subtask.backend.value_state(ValueStateDescriptor("hits", int, default=1)).value() == 3

    def test_untouched_state_is_in_the_snapshot(self, subtask: Subtask) -> None:
        descriptors = (HITS, ELEMENTS, COUNTS, TOTAL, MEAN)
        for descriptor in descriptors:
            register(subtask.backend, descriptor)
        infos = tuple(descriptor.info() for descriptor in descriptors)
        snapshot = self.freeze(subtask)
        assert snapshot.states == infos
        load = self.finish(snapshot)
        assert snapshot.entries in (None, 0)
        restored = self.make_subtask([load])
        assert missing_states(restored.backend) == infos

    def test_backend_without_states_has_an_empty_snapshot(self, subtask: Subtask) -> None:
        restored = self.make_subtask([self.finish(self.freeze(subtask))])
        assert missing_states(restored.backend) == ()

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
            pytest.param(lambda b: b.reducing_state(TOTAL).get(), id="get reduction"),
            pytest.param(lambda b: b.reducing_state(TOTAL).add(1), id="add to reduction"),
            pytest.param(lambda b: b.reducing_state(TOTAL).clear(), id="clear reduction"),
            pytest.param(lambda b: b.aggregating_state(MEAN).get(), id="get aggregation"),
            pytest.param(lambda b: b.aggregating_state(MEAN).add(1), id="add to aggregation"),
            pytest.param(lambda b: b.aggregating_state(MEAN).clear(), id="clear aggregation"),
        ],
    )
    @pytest.mark.parametrize("frozen", [False, True])
    def test_access_without_a_current_key_is_an_error_that_says_so(
        self, subtask: Subtask, access: Any, frozen: bool
    ) -> None:
        subtask.backend.value_state(HITS).update(1)
        if frozen:
            self.freeze(subtask)
        subtask.leave()
        with pytest.raises(StateError, match="without a current key"):
            access(subtask.backend)

    def test_access_to_a_group_of_another_subtask_is_an_error(self) -> None:
        subtask = self.make_subtask(subtask=1, parallelism=2)
        state = subtask.backend.value_state(HITS)
        subtask.at(next(n for n in itertools.count() if subtask.group(n) < MAX_PARALLELISM // 2))
        with pytest.raises(StateError, match="key group of another subtask"):
            state.value()
        with pytest.raises(StateError, match="key group of another subtask"):
            state.update(1)
