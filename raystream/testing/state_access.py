"""Contract of keyed state as user code sees it: each row of the specification's table, and more."""

from typing import Any

import pytest

from raystream.errors import KeyTypeError, StateError
from raystream.state.descriptor import (
    ValueStateDescriptor,
)
from raystream.testing.state_kit import (
    BY_ANY,
    COUNTS,
    ELEMENTS,
    HITS,
    Subtask,
)
from raystream.testing.state_rows import row
from raystream.testing.state_stories import Stage, Story, StoryContract, Tell


def hash_of(key: Any) -> int:
    """Return a number that differs from key to key."""
    return int(key) * 2 + isinstance(key, str)


class AccessContract(StoryContract):
    """States of all kinds, their registration and the current key."""

    # ---- values ----

    @row("keyed.value-default")
    def test_value_never_set_is_a_fresh_copy_of_the_default(self, tell: Tell) -> None:
        seven, box = ValueStateDescriptor("n", int, default=7), ValueStateDescriptor[Any]("box", default=[])

        def story(stage: Stage) -> Story:
            for _ in range(2):
                assert stage.state(seven).value() == 7
                stage.state(box).value().append(1)
                assert stage.state(box).value() == []
                assert stage.state(HITS).value() is None
                yield
            stage.state(seven).update(1)
            yield
            stage.state(seven).clear()
            yield
            assert stage.state(seven).value() == 7

        tell(story)

    @row("keyed.update-none")
    def test_updating_with_none_clears(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            stage.state(HITS).update(1)
            yield
            assert stage.state(HITS).value() == 1
            stage.state(HITS).update(None)
            assert stage.state(HITS).value() is None
            yield
            assert stage.state(HITS).value() is None
            assert stage.content(HITS) is None

        tell(story)

    @row("keyed.scope-key", "keyed.scope-state")
    def test_value_belongs_to_its_key_and_to_the_name_of_its_state(self, tell: Tell) -> None:
        other = ValueStateDescriptor[Any]("other hits", int)

        def story(stage: Stage) -> Story:
            assert stage.state(HITS).value() is None
            stage.state(HITS).update(hash_of(stage.key))
            stage.state(other).update(-1)
            yield
            assert stage.state(HITS).value() == hash_of(stage.key)
            stage.state(other).clear()
            yield
            assert stage.state(HITS).value() == hash_of(stage.key)
            assert stage.state(other).value() is None

        tell(story)

    def test_falsy_values_are_values(self, subtask: Subtask) -> None:
        state = subtask.backend.value_state(ValueStateDescriptor("n", int, default=7))
        state.update(0)
        assert state.value() == 0

    # ---- lists ----

    @row("keyed.list-none")
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
    def test_none_in_a_list_is_an_error_and_changes_nothing(self, tell: Tell, change: Any) -> None:
        def story(stage: Stage) -> Story:
            stage.state(ELEMENTS).update([1, 2])
            yield
            with pytest.raises(StateError, match="elements"):
                change(stage.state(ELEMENTS))
            assert stage.state(ELEMENTS).get() == [1, 2]
            yield
            assert stage.state(ELEMENTS).get() == [1, 2]

        tell(story)

    @row("keyed.list-empty")
    def test_updating_a_list_with_nothing_clears_it(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            assert stage.state(ELEMENTS).get() == []
            stage.state(ELEMENTS).update([1])
            yield
            stage.state(ELEMENTS).update([])
            assert stage.state(ELEMENTS).get() == []
            yield
            assert stage.state(ELEMENTS).get() == []
            assert stage.content(ELEMENTS) is None

        tell(story)

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

    @row("keyed.map-none")
    def test_map_values_may_be_none(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            stage.state(COUNTS).put("a", None)
            for _ in range(2):
                state = stage.state(COUNTS)
                assert state.contains("a")
                assert state.get("a", 5) is None
                assert state["a"] is None
                assert dict(state.items()) == {"a": None}
                yield

        tell(story)

    @row("keyed.map-remove")
    def test_every_other_entry_is_removed_while_iterating(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            stage.state(COUNTS).put_all({str(n): n for n in range(6)})
            yield
            state = stage.state(COUNTS)
            for key, value in state.items():
                if value % 2:
                    state.remove(key)
            yield
            state = stage.state(COUNTS)
            assert dict(state.items()) == {"0": 0, "2": 2, "4": 4}
            for key in state:
                del state[key]
            yield
            assert stage.state(COUNTS).is_empty()
            assert stage.content(COUNTS) is None

        tell(story)

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
