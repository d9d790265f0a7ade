"""Contract of the snapshots of a keyed state backend: each is exactly its barrier, and restores anywhere."""

from typing import Any

import pytest

from raystream.errors import StateError
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.state import chunk_codec
from raystream.state.descriptor import (
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from raystream.state.ttl import StateTtl
from raystream.testing.state_kit import (
    ANYTHING,
    BOX,
    HITS,
    MAX_PARALLELISM,
    Contents,
    Subtask,
    at_once,
    encode,
    never,
    read,
    register,
    write,
)
from raystream.testing.state_rows import row
from raystream.testing.state_stories import Stage, Story, StoryContract, Tell
from raystream.testing.stored_state import MemorySnapshot


class SnapshotContract(StoryContract):
    """Freezing, encoding, giving up and restoring."""

    # ---- snapshots ----

    def restored_contents(self, load: MemorySnapshot, key: Any = "k") -> "Contents":
        restored = self.make_subtask([load])
        restored.at(key)
        return Contents(restored.backend)

    def test_snapshot_shows_the_state_at_the_barrier(self, subtask: Subtask) -> None:
        live = Contents(subtask.backend)
        live.set(1)
        before = live.get()
        snapshot = self.freeze(subtask)
        live.set(2)
        subtask.at("new")
        live.set(3)
        load = self.finish(snapshot)
        assert self.restored_contents(load).get() == before
        assert self.restored_contents(load, "new").get() == Contents.EMPTY
        subtask.at("k")
        assert live.get() == Contents.expected(2)

    def test_removal_after_the_barrier_is_not_in_the_snapshot(self, subtask: Subtask) -> None:
        live = Contents(subtask.backend)
        live.set(1)
        snapshot = self.freeze(subtask)
        live.clear()
        assert live.get() == Contents.EMPTY
        assert self.restored_contents(self.finish(snapshot)).get() == Contents.expected(1)
        assert live.get() == Contents.EMPTY
        empty = self.freeze(subtask, 2)
        load = self.finish(empty)
        assert empty.entries in (None, 0)
        assert self.restored_contents(load).get() == Contents.EMPTY

    @row("keyed.in-place")
    def test_change_in_place_is_not_in_a_snapshot_in_progress(self, subtask: Subtask) -> None:
        live = Contents(subtask.backend)
        live.set(1)
        snapshot = self.freeze(subtask)
        live.change_in_place(2)
        assert live.get() == Contents.expected(2)
        assert self.restored_contents(self.finish(snapshot)).get() == Contents.expected(1)
        assert live.get() == Contents.expected(2)
        assert self.restored_contents(self.finish(self.freeze(subtask, 2))).get() == Contents.expected(2)

    @row("keyed.in-place")
    def test_value_changed_in_place_is_as_it_was_last_updated(self, tell: Tell) -> None:
        def story(stage: Stage) -> Story:
            stage.state(BOX).update({"n": 0})
            for n in range(1, 4):
                yield
                box = stage.state(BOX).value()
                assert box == {"n": n - 1}
                box["n"] = n
                stage.state(BOX).update(box)
            yield
            assert stage.state(BOX).value() == {"n": 3}

        tell(story)

    def test_object_handed_out_is_the_same_before_and_after_a_barrier(self, subtask: Subtask) -> None:
        state = subtask.backend.value_state(BOX)
        box = {"a": 1}
        state.update(box)
        snapshot = self.freeze(subtask)
        assert state.value() is box
        self.finish(snapshot)
        assert state.value() is box

    def test_overlapping_snapshots_each_show_their_own_barrier(self, subtask: Subtask) -> None:
        live = Contents(subtask.backend)
        snapshots = []
        for n in range(1, 5):
            live.set(n)
            snapshots.append(self.freeze(subtask, n))
            live.change_in_place(n + 100)
        loads = [self.finish(snapshot) for snapshot in snapshots]
        for n, load in enumerate(loads, 1):
            assert self.restored_contents(load).get() == Contents.expected(n)
        assert live.get() == Contents.expected(104)

    def test_newer_snapshot_that_is_driven_alone_completes_the_older_one(self, subtask: Subtask) -> None:
        live = Contents(subtask.backend)
        live.set(1)
        older = self.freeze(subtask)
        live.set(2)
        newer = self.freeze(subtask, 2)
        live.set(3)
        assert self.restored_contents(self.finish(newer)).get() == Contents.expected(2)
        assert older.advance(at_once)
        assert self.restored_contents(self.stored(older)).get() == Contents.expected(1)

    @pytest.mark.parametrize("discarded", [0, 1, 2])
    def test_discarding_one_of_three_snapshots_leaves_the_others_exact(
        self, subtask: Subtask, discarded: int
    ) -> None:
        live = Contents(subtask.backend)
        snapshots = []
        for n in range(3):
            live.set(n)
            snapshots.append(self.freeze(subtask, n + 1))
            live.change_in_place(n + 100)
        snapshots[0].advance(at_once)
        snapshots[discarded].discard()
        for n, snapshot in enumerate(snapshots):
            encode(snapshot)
            if n != discarded:
                assert self.restored_contents(self.stored(snapshot)).get() == Contents.expected(n)
        assert live.get() == Contents.expected(102)

    def test_every_slice_makes_progress_and_is_short_of_a_key_group(self) -> None:
        subtask = self.make_subtask(max_parallelism=1)
        state = subtask.backend.value_state(HITS)
        for n in range(20_000):
            subtask.at(n)
            state.update(n)
        snapshot = self.freeze(subtask)
        slices = 0
        while not snapshot.advance(at_once):
            slices += 1
            subtask.at(slices)
            state.update(-1)
        assert slices >= 10
        restored = self.make_subtask([self.stored(snapshot)], max_parallelism=1)
        assert snapshot.entries in (None, 20_000)
        state = restored.backend.value_state(HITS)
        for n in range(20_000):
            restored.at(n)
            assert state.value() == n

    def test_many_writes_during_a_snapshot_are_put_back_in_slices(self) -> None:
        subtask = self.make_subtask(max_parallelism=1)
        state = subtask.backend.value_state(HITS)
        for n in range(2_000):
            subtask.at(n)
            state.update(n)
        snapshot = self.freeze(subtask)
        for n in range(1_000, 40_000):
            subtask.at(n)
            state.update(n + 1)
        for n in range(20_000):
            subtask.at(n)
            state.clear()
        newer: Any = None
        slices = 0
        while not snapshot.advance(at_once):
            slices += 1
            subtask.at(0)
            state.update(slices)
            if newer is None:
                newer, slices_then = self.freeze(subtask, 2), slices
        assert slices > 4
        for snap, expected in ((snapshot, 2_000), (newer, 20_001)):
            load = self.finish(snap)
            assert snap.entries in (None, expected)
        assert state.value() == slices
        restored = self.make_subtask([load], max_parallelism=1)
        state = restored.backend.value_state(HITS)
        for key, value in ((0, slices_then), (1, None), (19_999, None), (20_000, 20_001), (39_999, 40_000)):
            restored.at(key)
            assert state.value() == value

    def test_value_of_another_type_than_declared_fails_the_snapshot_and_names_the_state(
        self, subtask: Subtask
    ) -> None:
        state = subtask.backend.value_state(HITS)
        state.update("three")
        snapshot = self.freeze(subtask)
        with pytest.raises(StateError, match=r"(?s)declared type.*state='hits' declared='int' found='str'"):
            snapshot.advance(never)
        snapshot.discard()
        assert snapshot.advance(never)
        state.update(3)
        assert self.restored_contents(self.finish(self.freeze(subtask, 2))).hits.value() == 3

    def test_failed_snapshot_leaves_a_newer_one_exact(self, subtask: Subtask) -> None:
        state = subtask.backend.value_state(HITS)
        state.update("three")
        failing = self.freeze(subtask)
        state.update(3)
        newer = self.freeze(subtask, 2)
        load = self.finish(newer)
        with pytest.raises(StateError):
            failing.advance(never)
        restored = self.make_subtask([load])
        restored.at("k")
        assert restored.backend.value_state(HITS).value() == 3

    def test_value_that_cannot_be_pickled_fails_the_snapshot_and_names_the_state(
        self, subtask: Subtask
    ) -> None:
        subtask.backend.value_state(ANYTHING).update(lambda: 1)
        with pytest.raises(StateError, match="anything"):
            self.freeze(subtask).advance(never)

    @pytest.mark.parametrize(
        "descriptor",
        [
            ValueStateDescriptor[Any]("text", str),
            ValueStateDescriptor[Any]("any"),
            ListStateDescriptor[Any]("list", str),
            MapStateDescriptor[Any, Any]("map", str),
            ReducingStateDescriptor[Any]("reduced", max, str),
            ValueStateDescriptor[Any]("lived", str, ttl=StateTtl(100)),
        ],
        ids=lambda descriptor: descriptor.name,
    )
    def test_value_that_is_too_large_fails_the_snapshot_and_names_state_and_size(
        self, subtask: Subtask, descriptor: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chunk_codec, "VALUE_BYTES_MAX", 1000)
        state = register(subtask.backend, descriptor)
        write(state, "x" * 900)
        subtask.at("other")
        write(state, "y" * 900)
        load = self.finish(self.freeze(subtask))
        write(state, "z" * 1001)
        with pytest.raises(StateError, match="too large") as caught:
            self.finish(self.freeze(subtask, 2))
        assert caught.value.context["state"] == descriptor.name
        assert 1000 < caught.value.context["size_bytes"] < 1100
        restored = self.make_subtask([load])
        restored.at("other")
        assert read(register(restored.backend, descriptor)) == "y" * 900

    # ---- restore ----

    @pytest.mark.parametrize(("old", "new"), [(1, 1), (1, 4), (3, 5), (5, 3), (4, 1), (16, 7)])
    def test_every_key_is_restored_in_the_subtask_that_owns_it(self, old: int, new: int) -> None:
        keys = [*range(200), *map(str, range(200)), b"b", (1, "a", None), 1.5, 2**70, "\udc80"]
        loads = []
        for i in range(old):
            subtask = self.make_subtask(subtask=i, parallelism=old)
            self._fill(subtask, keys, groups_of_subtask(i, MAX_PARALLELISM, old))
            loads.append(self.finish(self.freeze(subtask)))
        seen = 0
        for i in range(new):
            subtask = self.make_subtask(loads, subtask=i, parallelism=new)
            seen += self._check(subtask, keys, groups_of_subtask(i, MAX_PARALLELISM, new))
        assert seen == len(keys)

    def test_another_max_parallelism_moves_every_entry_to_its_new_group(self) -> None:
        keys = [*range(200), *map(str, range(200))]
        subtask = self.make_subtask()
        self._fill(subtask, keys, KeyGroupRange(0, MAX_PARALLELISM))
        load = self.finish(self.freeze(subtask))
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
        snapshot = self.freeze(subtask, 2)
        self.finish(snapshot)
        assert snapshot.entries in (None, Contents.COUNT * len(owned))
        return len(owned)
