"""Contract of the snapshots of a keyed state backend: each is exactly its barrier, and restores anywhere."""

from typing import Any

import pytest

from raystream.errors import StateError, StateRestoreError
from raystream.keygroup import KeyGroupRange, groups_of_subtask
from raystream.state.descriptor import ListStateDescriptor, ValueStateDescriptor
from tests.unit.state.contract_kit import (
    ANYTHING,
    BOX,
    ELEMENTS,
    HITS,
    MAX_PARALLELISM,
    BackendContract,
    Contents,
    Loader,
    Subtask,
    at_once,
    finish,
    loader,
    never,
    register,
)


class SnapshotContract(BackendContract):
    """Freezing, encoding, giving up and restoring."""

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
