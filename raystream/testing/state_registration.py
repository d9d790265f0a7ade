"""Contract of keyed state at its edges: registration, what a snapshot knows of it, the current key."""

import itertools
from typing import Any

import pytest

from raystream.errors import StateError
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
    Subtask,
    Visit,
    missing_states,
    read,
    register,
    write,
)
from raystream.testing.state_rows import row
from raystream.testing.state_stories import Stage, Story, StoryContract, Tell


class RegistrationContract(StoryContract):
    """Which states there are, and whose they are."""

    # ---- registration ----

    @row("keyed.one-name")
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            pytest.param(HITS, ValueStateDescriptor("hits", str), id="another type"),
            pytest.param(HITS, ValueStateDescriptor("hits"), id="no type"),
            pytest.param(HITS, ListStateDescriptor("hits", int), id="another kind"),
            pytest.param(COUNTS, MapStateDescriptor("counts", int, int), id="another type of map key"),
            pytest.param(HITS, ValueStateDescriptor("hits", int, ttl=StateTtl("1s")), id="time to live"),
            pytest.param(TOTAL, ValueStateDescriptor("total", int), id="value, not reducing"),
            pytest.param(BY_ANY, MapStateDescriptor("by any", str), id="map key, not any"),
        ],
    )
    def test_two_descriptors_of_one_name_that_differ_are_an_error(
        self, tell: Tell, first: Any, second: Any
    ) -> None:
        def story(stage: Stage) -> Story:
            write(stage.state(first), 1)
            for _ in range(2):
                with pytest.raises(StateError, match=f"state is registered twice.*{first.name}"):
                    register(stage.subtask.backend, second)
                yield
            assert read(stage.state(first)) == 1

        tell(story)

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            pytest.param(
                MEAN, ReducingStateDescriptor("mean", max, list[int]), id="reducing, not aggregating"
            ),
            pytest.param(
                ValueStateDescriptor("x", Visit), ValueStateDescriptor("x", Subtask), id="another class"
            ),
        ],
    )
    def test_registering_a_name_again_with_another_content_is_an_error(
        self, subtask: Subtask, first: Any, second: Any
    ) -> None:
        register(subtask.backend, first)
        with pytest.raises(StateError, match=f"state is registered twice.*{first.name}"):
            register(subtask.backend, second)

    def test_one_state_registered_twice_is_one_state(self, subtask: Subtask) -> None:
        subtask.backend.value_state(HITS).update(3)
        assert subtask.backend.value_state(ValueStateDescriptor("hits", int, default=1)).value() == 3

    @row("keyed.untouched")
    def test_untouched_state_outlives_every_restore(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            for _ in range(2):
                stage.state(HITS).update(1)
                for descriptor in (ELEMENTS, COUNTS, TOTAL, MEAN):
                    stage.state(descriptor)
                    verdict = {m.name: m.verdict.value for m in stage.subtask.backend.restored_states()}
                    assert verdict[descriptor.name] == ("matched" if stage.restores else "new")
                yield

        tell(story)

    @row("keyed.untouched")
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

    @row("keyed.no-key")
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

    @row("keyed.no-key")
    def test_access_without_a_current_key_changes_nothing(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            stage.state(HITS).update(1)
            stage.state(ELEMENTS).add(1)
            yield
            hits, elements = stage.state(HITS), stage.state(ELEMENTS)
            stage.subtask.leave()
            for access in (hits.value, hits.clear, lambda: elements.add(2), elements.get):
                with pytest.raises(StateError, match="without a current key"):
                    access()
            yield
            assert (stage.state(HITS).value(), stage.state(ELEMENTS).get()) == (1, [1])

        tell(story)

    def test_access_to_a_group_of_another_subtask_is_an_error(self) -> None:
        subtask = self.make_subtask(subtask=1, parallelism=2)
        state = subtask.backend.value_state(HITS)
        subtask.at(next(n for n in itertools.count() if subtask.group(n) < MAX_PARALLELISM // 2))
        with pytest.raises(StateError, match="key group of another subtask"):
            state.value()
        with pytest.raises(StateError, match="key group of another subtask"):
            state.update(1)
