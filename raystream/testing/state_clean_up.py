"""Contract of state with a time to live: how what has expired goes."""

from dataclasses import replace
from typing import Any

import pytest

from raystream.testing.state_expiry import LIVED, SWEPT, TTL_MS, ExpiryContract, every_kind
from raystream.testing.state_kit import (
    BOX,
    COUNTS,
    ELEMENTS,
    START_MS,
    Subtask,
    never,
    read,
    register,
    write,
)
from raystream.testing.state_rows import row
from raystream.testing.state_stories import Stage, Story, Tell


class CleanUpContract(ExpiryContract):
    """When what has expired is left out and removed."""

    # ---- snapshots ----

    @row("ttl.clean-snapshot")
    @every_kind
    @pytest.mark.parametrize("touched", [False, True])
    def test_snapshot_leaves_out_what_has_expired(self, subtask: Subtask, kind: Any, touched: bool) -> None:
        state = self.state_of(subtask, kind)
        write(state, 7)
        subtask.clock.now_ms += 50
        subtask.at("younger")
        write(state, 8)
        subtask.clock.now_ms += 50
        snapshot = self.freeze(subtask)
        if touched:  # The frozen content is encoded before its turn.
            subtask.at("k")
            read(state)
            write(state, 9)
        restored = self.make_subtask([self.finish(snapshot)], now_ms=START_MS)
        assert snapshot.entries in (None, 1)
        again = self.state_of(restored, kind)
        restored.at("k")
        assert read(again) is None
        restored.at("younger")
        assert read(again) == 8

    @pytest.mark.parametrize("touched", [False, True])
    def test_snapshot_leaves_out_single_elements_and_entries(self, subtask: Subtask, touched: bool) -> None:
        elements, counts = self.state_of(subtask, ELEMENTS), self.state_of(subtask, COUNTS)
        for n in (1, 2):
            elements.add(n)
            counts.put(str(n), n)
            subtask.clock.now_ms += 60
        snapshot = self.freeze(subtask)
        if touched:
            elements.add(3)
            counts.put("3", 3)
        restored = self.make_subtask([self.finish(snapshot)], now_ms=0)
        restored.at("k")
        assert self.state_of(restored, ELEMENTS, None).get() == [2]
        assert dict(self.state_of(restored, COUNTS, None).items()) == {"2": 2}
        assert elements.get() == ([2, 3] if touched else [2])
        assert dict(counts.items()) == ({"2": 2, "3": 3} if touched else {"2": 2})

    @every_kind
    def test_snapshot_is_of_the_time_of_its_barrier(self, subtask: Subtask, kind: Any) -> None:
        state = self.state_of(subtask, kind)
        write(state, 7)
        subtask.clock.now_ms += 99
        snapshot = self.freeze(subtask)
        subtask.clock.now_ms += 1
        assert read(state) is None
        restored = self.make_subtask([self.finish(snapshot)], now_ms=START_MS)
        restored.at("k")
        assert read(self.state_of(restored, kind)) == 7
        assert read(state) is None

    def test_overlapping_snapshots_each_leave_out_what_had_expired(self, subtask: Subtask) -> None:
        state = self.state_of(subtask, BOX)
        snapshots = []
        for n in range(4):
            subtask.at(n)
            state.update({"n": n})
            subtask.clock.now_ms += 40
            snapshots.append(self.freeze(subtask, n + 1))
        found = []
        for snapshot in snapshots:
            restored = self.make_subtask([self.finish(snapshot)], now_ms=0)
            self.state_of(restored, BOX, None)
            found.append(sorted(key for _, key, _ in restored.backend.entries("box")))
        assert found == [[0], [0, 1], [1, 2], [2, 3]]

    # ---- clean-up ----

    @row("ttl.clean-on-read", "ttl.clean-unread")
    @every_kind
    def test_nothing_is_held_of_what_has_expired_when_it_was_read_or_restored(
        self, tell: Tell, kind: Any
    ) -> None:
        lived = replace(kind, ttl=LIVED)

        def story(stage: Stage) -> Story:
            write(stage.state(lived), 7)
            yield TTL_MS
            assert read(stage.state(lived)) is None
            yield
            assert self.count_held(stage.subtask.backend, kind.name) == 0

        tell(story)

    @row("ttl.clean-on-read")
    @every_kind
    def test_read_removes_what_has_expired(self, subtask: Subtask, kind: Any) -> None:
        state = self.state_of(subtask, kind)
        write(state, 7)
        subtask.clock.now_ms += TTL_MS
        assert self.count_held(subtask.backend, kind.name) == 1
        read(state)
        assert self.count_held(subtask.backend, kind.name) == 0

    @every_kind
    def test_entries_show_neither_times_nor_what_has_expired(self, subtask: Subtask, kind: Any) -> None:
        state = self.state_of(subtask, kind)
        write(state, 7)
        subtask.clock.now_ms += 50
        subtask.at("younger")
        write(state, 8)
        without = self.make_subtask()
        without.at("younger")
        write(register(without.backend, kind), 8)
        subtask.clock.now_ms += 50
        assert list(subtask.backend.entries(kind.name)) == list(without.backend.entries(kind.name))

    @row("ttl.clean-access", "ttl.clean-unread")
    @every_kind
    def test_keys_that_are_never_read_again_are_removed_by_accesses_to_others(
        self, subtask: Subtask, kind: Any
    ) -> None:
        state = self.state_of(subtask, kind, SWEPT)
        for n in range(100):
            subtask.at(n)
            write(state, n)
        subtask.clock.now_ms += TTL_MS
        subtask.at("k")
        for _ in range(100):
            write(state, 1)
        self.clean_up(subtask.backend)
        assert self.count_held(subtask.backend, kind.name) == 1

    @row("ttl.clean-unread")
    @every_kind
    def test_keys_that_are_never_read_again_are_removed_by_a_snapshot(
        self, subtask: Subtask, kind: Any
    ) -> None:
        state = self.state_of(subtask, kind)
        for n in range(100):
            subtask.at(n)
            write(state, n)
        subtask.clock.now_ms += TTL_MS
        subtask.at("k")
        write(state, 1)
        assert self.freeze(subtask).advance(never)
        self.clean_up(subtask.backend)
        assert self.count_held(subtask.backend, kind.name) == 1
        assert read(state) == 1
