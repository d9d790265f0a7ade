"""Contract of keyed state beyond values, lists and maps: folding, namespaces, all entries."""

import dataclasses
from typing import Any

import pytest

from raystream.errors import StateError
from raystream.state.descriptor import (
    AggregatingStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
)
from raystream.testing.state_kit import (
    COUNTS,
    ELEMENTS,
    HITS,
    MEAN,
    TOTAL,
    Contents,
    Mean,
    Subtask,
    read,
    register,
    write,
)
from raystream.testing.state_rows import row
from raystream.testing.state_stories import Stage, Story, StoryContract, Tell

NAMES = {
    "hits": "hits", "box": "box", "anything": "anything", "elements": "elements", "boxes": "boxes",
    "counts": "counts", "by_any": "by any", "total": "total", "mean": "mean",
}  # fmt: skip
"""Names of the states of `Contents`, by attribute."""

WITH_NAMESPACES = [dataclasses.replace(descriptor, namespaced=True) for descriptor in (
    HITS, ELEMENTS, COUNTS, TOTAL, MEAN,
)]  # fmt: skip


class KindsContract(StoryContract):
    """Reducing and aggregating state, namespaces, all entries of a state."""

    # ---- reductions and aggregations ----

    @row("keyed.reducing")
    def test_values_are_reduced_in_their_order(self, tell: Tell) -> None:
        joined = ReducingStateDescriptor[Any]("joined", lambda first, second: first + second)

        def story(stage: Stage) -> Story:
            assert stage.state(joined).get() is None
            for n in range(3):
                stage.state(joined).add([n])
                yield
                assert stage.state(joined).get() == list(range(n + 1))
            stage.state(joined).clear()
            yield
            assert stage.state(joined).get() is None

        tell(story)

    @row("keyed.reducing")
    def test_first_value_of_a_reducing_state_is_stored_as_it_is(self, subtask: Subtask) -> None:
        calls: list[tuple[Any, Any]] = []

        def keep(first: Any, second: Any) -> Any:
            calls.append((first, second))
            return first + second

        state = subtask.backend.reducing_state(ReducingStateDescriptor[Any]("kept", keep))
        assert state.get() is None
        state.add([1])
        assert (state.get(), calls) == ([1], [])
        state.add([2])
        state.add([3])
        assert (state.get(), calls) == ([1, 2, 3], [([1], [2]), ([1, 2], [3])])
        subtask.at("other")
        assert state.get() is None
        subtask.at("k")
        state.clear()
        assert state.get() is None
        self.assert_empty(subtask)

    def test_reducing_state_takes_an_object_with_a_reduce_method(self, subtask: Subtask) -> None:
        class Longest:
            def reduce(self, first: str, second: str) -> str:
                return max(first, second, key=len)

        state = subtask.backend.reducing_state(ReducingStateDescriptor("longest", Longest(), str))
        for word in ("to", "be", "or"):
            state.add(word)
        assert state.get() == "to"

    def test_none_in_a_reducing_state_is_an_error_and_changes_nothing(self, subtask: Subtask) -> None:
        state = subtask.backend.reducing_state(
            ReducingStateDescriptor[Any]("odd", lambda first, second: None if second == 13 else first)
        )
        state.add(1)
        for refused in (None, 13):
            with pytest.raises(StateError, match="None"):
                state.add(refused)
        assert state.get() == 1

    @row("keyed.aggregating")
    def test_aggregating_state_folds_values_into_an_accumulator(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            assert stage.state(MEAN).get() is None
            stage.state(MEAN).add(1)
            yield
            stage.state(MEAN).add(4)
            assert stage.state(MEAN).get() == 2.5
            yield
            assert stage.state(MEAN).get() == 2.5
            assert stage.content(MEAN) == [5, 2]
            stage.state(MEAN).clear()
            yield
            assert stage.state(MEAN).get() is None

        tell(story)

    def test_accumulator_that_is_none_is_an_error_and_changes_nothing(self, subtask: Subtask) -> None:
        class Forgetful(Mean):
            def add(self, value: int, accumulator: list[int]) -> list[int]:
                return None if value == 13 else super().add(value, accumulator)  # type: ignore[return-value]

        state = subtask.backend.aggregating_state(
            AggregatingStateDescriptor[int, list[int], float]("mean", Forgetful(), list[int])
        )
        state.add(1)
        with pytest.raises(StateError, match="None"):
            state.add(13)
        assert state.get() == 1.0

    # ---- namespaces and entries ----

    @row("keyed.scope-namespace")
    @pytest.mark.parametrize("descriptor", WITH_NAMESPACES, ids=lambda d: d.kind.value)
    def test_content_belongs_to_its_namespace(self, tell: Tell, descriptor: Any) -> None:
        namespaces = [(0, 10), (10, 20), None]

        def story(stage: Stage) -> Story:
            for n, namespace in enumerate(namespaces, 1):
                write(stage.state(descriptor, namespace), n)
                yield
            for n, namespace in enumerate(namespaces, 1):
                assert read(stage.state(descriptor, namespace)) == n
            stage.state(descriptor, (0, 10)).clear()
            yield
            assert [read(stage.state(descriptor, namespace)) for namespace in namespaces] == [None, 2, 3]

        tell(story)

    @pytest.mark.parametrize("descriptor", WITH_NAMESPACES, ids=lambda d: d.kind.value)
    def test_entry_of_a_namespaced_state_belongs_to_key_and_namespace(
        self, subtask: Subtask, descriptor: Any
    ) -> None:
        state = register(subtask.backend, descriptor)
        for n, namespace in enumerate([(0, 10), (10, 20), None], 1):
            subtask.at("k", namespace)
            write(state, n)
        subtask.at("other", (0, 10))
        assert read(state) is None
        restored = self.make_subtask([self.finish(self.freeze(subtask))])
        for backend in (subtask, restored):
            again = register(backend.backend, descriptor)
            found = []
            for namespace in [(0, 10), (10, 20), None]:
                backend.at("k", namespace)
                found.append(read(again))
            assert found == [1, 2, 3]
            keys = {key for _, key, _ in backend.backend.entries(descriptor.name)}
            assert keys == {("k", (0, 10)), ("k", (10, 20)), ("k", None)}

    def test_namespaced_entries_move_with_their_key_to_another_max_parallelism(
        self, subtask: Subtask
    ) -> None:
        descriptor = dataclasses.replace(HITS, namespaced=True)
        state = register(subtask.backend, descriptor)
        for n in range(50):
            for end in (10, 20):
                subtask.at(n, (0, end))
                state.update(n + end)
        stored = self.finish(self.freeze(subtask))
        seen = 0
        for index in range(3):
            restored = self.make_subtask([stored], subtask=index, parallelism=3, max_parallelism=50)
            again = register(restored.backend, descriptor)
            for group, (key, namespace), _ in restored.backend.entries("hits"):
                assert group == restored.group(key)
                restored.at(key, namespace)
                assert again.value() == key + namespace[1]
                seen += 1
        assert seen == 100

    @pytest.mark.parametrize("frozen", [False, True])
    def test_entries_are_those_of_all_keys_as_they_are(self, subtask: Subtask, frozen: bool) -> None:
        contents = Contents(subtask.backend)
        for key in ("gone", "kept", "changed"):
            subtask.at(key)
            contents.set(1)
        snapshot = self.freeze(subtask) if frozen else None
        contents.change_in_place(2)
        subtask.at("gone")
        contents.clear()
        subtask.at("new")
        contents.set(3)
        expected = {"kept": 1, "changed": 2, "new": 3}
        for position, name in enumerate(vars(contents)):
            found = {key: content for _, key, content in subtask.backend.entries(NAMES[name])}
            if name == "mean":
                found = {key: content[0] / content[1] for key, content in found.items()}
            assert found == {key: Contents.expected(n)[position] for key, n in expected.items()}
        groups = {key: group for group, key, _ in subtask.backend.entries("hits")}
        assert groups == {key: subtask.group(key) for key in expected}
        if snapshot is not None:
            self.finish(snapshot)

    def test_state_may_be_changed_while_its_entries_are_visited(self, subtask: Subtask) -> None:
        state = subtask.backend.value_state(HITS)
        for n in range(100):
            subtask.at(n)
            state.update(n)
        visited = set()
        for group, key, _ in subtask.backend.entries("hits"):
            visited.add(key)
            subtask.cursor.current_key, subtask.cursor.group = key, group
            state.clear()
        assert visited == set(range(100))
        assert list(subtask.backend.entries("hits")) == []

    def test_internal_state_has_a_reserved_name_and_is_like_any_other(self, subtask: Subtask) -> None:
        timers = MapStateDescriptor[Any, Any]("_timers", internal=True)
        state = subtask.backend.map_state(timers)
        state.put((5, None), None)
        restored = self.make_subtask([self.finish(self.freeze(subtask))])
        restored.at("k")
        assert list(restored.backend.map_state(timers).items()) == [((5, None), None)]
