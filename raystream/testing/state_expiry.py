"""Contract of state with a time to live: each rule, for each kind of state."""

from dataclasses import replace
from typing import Any

import pytest

from raystream.errors import StateError
from raystream.state.descriptor import ValueStateDescriptor
from raystream.state.ttl import StateTtl, TtlCleanup, TtlUpdate, TtlVisibility
from raystream.testing.state_kit import (
    COUNTS,
    ELEMENTS,
    HITS,
    MEAN,
    START_MS,
    TOTAL,
    Subtask,
    read,
    register,
    write,
)
from raystream.testing.state_rows import row
from raystream.testing.state_stories import Stage, Story, StoryContract, Tell

TTL_MS = 100
NO_SWEEP = TtlCleanup(entries_per_access=0)

LIVED = StateTtl(TTL_MS, cleanup=NO_SWEEP)
RENEWED = replace(LIVED, update=TtlUpdate.ON_READ_AND_WRITE)
RETURNED_ONCE = replace(LIVED, visibility=TtlVisibility.RETURN_EXPIRED_IF_NOT_CLEANED_UP)
SWEPT = StateTtl(TTL_MS)

every_kind = pytest.mark.parametrize(
    "kind", [HITS, ELEMENTS, COUNTS, TOTAL, MEAN], ids=lambda descriptor: descriptor.kind.value
)


class ExpiryContract(StoryContract):
    """What a time to live means."""

    def state_of(self, subtask: Subtask, kind: Any, ttl: StateTtl | None = LIVED) -> Any:
        """Register a state of some kind with a time to live."""
        return register(subtask.backend, replace(kind, ttl=ttl))

    def restart(self, subtask: Subtask, *, now_ms: float) -> Subtask:
        """Snapshot a subtask and restore it at another time."""
        restored = self.make_subtask([self.finish(self.freeze(subtask))], now_ms=int(now_ms))
        restored.at("k")
        return restored

    # ---- the boundary ----

    @row("ttl.boundary", "ttl.never-return-expired", "ttl.on-create-and-write")
    @every_kind
    def test_written_at_0_with_ttl_100_is_there_at_99_and_gone_at_100_however_often_it_is_read(
        self, tell: Tell, kind: Any
    ) -> None:
        lived = replace(kind, ttl=LIVED)

        def story(stage: Stage) -> Story:
            write(stage.state(lived), 7)
            yield 50
            assert read(stage.state(lived)) == 7
            yield TTL_MS - 51
            assert read(stage.state(lived)) == 7
            yield 1
            assert read(stage.state(lived)) is None
            yield
            assert read(stage.state(lived)) is None

        tell(story)

    def test_expired_value_is_the_default_again(self, subtask: Subtask) -> None:
        state = self.state_of(subtask, ValueStateDescriptor[Any]("box", list[int], default=[]))
        state.update([1])
        subtask.clock.now_ms += TTL_MS
        assert state.value() == []
        state.value().append(1)
        assert state.value() == []

    @every_kind
    def test_first_write_after_the_end_begins_anew(self, subtask: Subtask, kind: Any) -> None:
        state = self.state_of(subtask, kind)
        write(state, 7)
        subtask.clock.now_ms += TTL_MS
        write(state, 3)
        assert read(state) == 3

    # ---- update types ----

    @row("ttl.on-read-and-write")
    @every_kind
    def test_on_read_and_write_a_read_renews(self, tell: Tell, kind: Any) -> None:
        renewed = replace(kind, ttl=RENEWED)

        def story(stage: Stage) -> Story:
            write(stage.state(renewed), 7)
            for _ in range(3):
                yield TTL_MS - 1
                assert read(stage.state(renewed)) == 7
            yield TTL_MS
            assert read(stage.state(renewed)) is None

        tell(story)

    @row("ttl.on-create-and-write")
    @pytest.mark.parametrize("ttl", [LIVED, RENEWED], ids=lambda ttl: ttl.update.value)
    @pytest.mark.parametrize("kind", [HITS, TOTAL, MEAN], ids=lambda descriptor: descriptor.kind.value)
    def test_write_renews(self, tell: Tell, kind: Any, ttl: StateTtl) -> None:
        lived = replace(kind, ttl=ttl)

        def story(stage: Stage) -> Story:
            for _ in range(3):
                write(stage.state(lived), 5)
                yield TTL_MS - 1
            assert read(stage.state(lived)) is not None
            yield 1 if ttl is LIVED else TTL_MS
            assert read(stage.state(lived)) is None

        tell(story)

    def test_questions_about_a_map_do_not_renew(self, subtask: Subtask) -> None:
        state = self.state_of(subtask, COUNTS, RENEWED)
        state.put("a", 1)
        subtask.clock.now_ms += 60
        assert ("a" in state, len(state), list(state), state.is_empty()) == (True, 1, ["a"], False)
        subtask.clock.now_ms += 40
        assert ("a" in state, len(state), list(state), state.is_empty()) == (False, 0, [], True)

    # ---- visibility ----

    @row("ttl.return-expired")
    @every_kind
    def test_expired_value_is_returned_once_or_left_out_of_a_snapshot(self, tell: Tell, kind: Any) -> None:
        lived = replace(kind, ttl=RETURNED_ONCE)

        def story(stage: Stage) -> Story:
            write(stage.state(lived), 7)
            yield TTL_MS
            restores = stage.restores
            assert read(stage.state(lived)) in (7, None)
            assert read(stage.state(lived)) is None
            yield
            assert restores <= stage.restores
            assert read(stage.state(lived)) is None

        tell(story)

    @row("ttl.return-expired")
    @every_kind
    def test_expired_value_may_be_returned_once(self, subtask: Subtask, kind: Any) -> None:
        state = self.state_of(subtask, kind, RETURNED_ONCE)
        write(state, 7)
        subtask.clock.now_ms += TTL_MS
        assert read(state) == 7
        assert read(state) is None
        write(state, 8)
        assert read(state) == 8

    def test_questions_about_a_map_are_not_the_one_read(self, subtask: Subtask) -> None:
        state = self.state_of(subtask, COUNTS, RETURNED_ONCE)
        state.put("a", 1)
        subtask.clock.now_ms += TTL_MS
        assert ("a" in state, len(state), list(state)) == (True, 1, ["a"])
        assert list(state.items()) == [("a", 1)]
        assert ("a" in state, len(state), list(state), list(state.items())) == (False, 0, [], [])

    # ---- lists and maps ----

    @row("ttl.list")
    def test_list_expires_by_element(self, tell: Tell) -> None:
        lived = replace(ELEMENTS, ttl=LIVED)

        def story(stage: Stage) -> Story:
            for n in (1, 2, 3):
                stage.state(lived).add_all([n, n * 10])
                yield 40
            assert stage.state(lived).get() == [2, 20, 3, 30]
            yield 20
            assert stage.state(lived).get() == [3, 30]
            yield 40
            assert stage.state(lived).get() == []

        tell(story)

    @row("ttl.map")
    def test_map_expires_by_entry(self, tell: Tell) -> None:
        lived = replace(COUNTS, ttl=LIVED)

        def story(stage: Stage) -> Story:
            stage.state(lived).put_all({"a": 1, "b": None})
            yield 60
            stage.state(lived)["b"] = 2
            stage.state(lived).put("c", None)
            yield 40
            state = stage.state(lived)
            assert dict(state.items()) == {"b": 2, "c": None}
            assert ("a" in state, state.get("a", 9), len(state)) == (False, 9, 2)
            yield 60
            assert stage.state(lived).is_empty()

        tell(story)

    def test_updating_a_list_writes_all_its_elements(self, subtask: Subtask) -> None:
        state = self.state_of(subtask, ELEMENTS)
        state.add(1)
        subtask.clock.now_ms += 99
        state.update([*state.get(), 2])
        subtask.clock.now_ms += 99
        assert state.get() == [1, 2]

    @pytest.mark.parametrize("change", ["add", "add_all", "update"])
    def test_none_in_a_list_that_expires_is_an_error_and_changes_nothing(
        self, subtask: Subtask, change: str
    ) -> None:
        state = self.state_of(subtask, ELEMENTS)
        state.add(1)
        with pytest.raises(StateError, match="elements"):
            getattr(state, change)(None)
        assert state.get() == [1]

    def test_map_expires_by_entry_and_has_the_forms_of_a_dict(self, subtask: Subtask) -> None:
        state = self.state_of(subtask, COUNTS)
        state.put_all({"a": 1, "b": None})
        subtask.clock.now_ms += 60
        state["b"] = 2
        state.put_all([("c", 3)])
        subtask.clock.now_ms += 40
        assert dict(state.items()) == {"b": 2, "c": 3}
        assert (sorted(state), sorted(state.values()), len(state)) == (["b", "c"], [2, 3], 2)
        assert (state.get("a", 9), state.get("b", 9), "a" in state, "b" in state) == (9, 2, False, True)
        with pytest.raises(KeyError):
            state["a"]
        with pytest.raises(KeyError):
            del state["a"]
        del state["b"]
        state.remove("never there")
        assert dict(state.items()) == {"c": 3}
        subtask.clock.now_ms += 60
        assert state.is_empty()

    def test_map_value_none_lives_like_any_other(self, subtask: Subtask) -> None:
        state = self.state_of(subtask, COUNTS)
        state.put("a", None)
        assert (state.get("a", 5), state["a"], "a" in state) == (None, None, True)
        restored = self.state_of(self.restart(subtask, now_ms=START_MS + 99), COUNTS)
        assert list(restored.items()) == [("a", None)]

    @pytest.mark.parametrize("ttl", [LIVED, RENEWED, RETURNED_ONCE, SWEPT])
    def test_entry_that_lives_may_be_removed_while_iterating(self, subtask: Subtask, ttl: StateTtl) -> None:
        state = self.state_of(subtask, COUNTS, ttl)
        state.put_all({str(n): n for n in range(10)})
        for key, value in state.items():
            if value % 2:
                state.remove(key)
        assert sorted(state.values()) == [0, 2, 4, 6, 8]

    # ---- time ----

    @every_kind
    def test_clock_that_is_set_back_makes_nothing_younger(self, subtask: Subtask, kind: Any) -> None:
        state = self.state_of(subtask, kind)
        write(state, 7)
        subtask.clock.now_ms += 50
        assert read(state) == 7
        subtask.clock.now_ms -= 1000
        subtask.at("other")
        write(state, 7)
        subtask.clock.now_ms += 1050  # 100 after the one write, 50 after the other.
        assert read(state) == 7
        subtask.at("k")
        assert read(state) is None

    @every_kind
    def test_time_goes_on_from_the_snapshot_when_the_clock_of_the_new_machine_is_behind(
        self, subtask: Subtask, kind: Any
    ) -> None:
        write(self.state_of(subtask, kind), 7)
        subtask.clock.now_ms += 99
        restored = self.restart(subtask, now_ms=0)
        assert restored.backend.processing_time.now_ms() == START_MS + 99
        state = self.state_of(restored, kind)
        assert read(state) == 7
        restored.clock.now_ms = START_MS + TTL_MS
        assert read(state) is None

    def test_value_that_msgpack_does_not_carry_keeps_its_time(self, subtask: Subtask) -> None:
        state = self.state_of(subtask, HITS)
        for n in (1, 2**70, 3):
            subtask.at(n)
            state.update(n)
            subtask.clock.now_ms += 40
        restored = self.restart(subtask, now_ms=START_MS + 120)
        found = {}
        for n in (1, 2**70, 3):
            restored.at(n)
            found[n] = self.state_of(restored, HITS).value()
        assert found == {1: None, 2**70: 2**70, 3: 3}
