"""Contract of whole histories: batches of every size, restores after every batch, rescaling."""

import random
from typing import Any

import pytest

from raystream.keygroup import groups_of_subtask
from raystream.keys import canonical_key
from raystream.testing.state_kit import BY_ANY, BackendContract, Contents, Subtask, counted

FEW_GROUPS = 4
"""Enough where there is one subtask; a snapshot looks at every group."""

LONG_GROUPS = 8

RESCALES = [(128, (1, 2, 3, 1)), (128, (3, 5)), (128, (4, 2)), (25, (3, 15, 3))]
"""Key groups, and the parallelisms one after the other; the last is of subtasks with a group or two each."""

KEYS: list[Any] = [
    *range(60), *map(str, range(60)), b"b", (1, "a", None), 1.5, 2**70, "\udc80", ("nested", (1, 2)),
]  # fmt: skip


class _Operator:
    """All subtasks of an operator, and what they must hold."""

    def __init__(self, contract: BackendContract, parallelism: int, key_groups: int) -> None:
        self._contract = contract
        self._key_groups = key_groups
        self.expected: dict[Any, int] = {}
        self.deploy(parallelism, [])

    def deploy(self, parallelism: int, stored: list[Any]) -> None:
        """Replace the subtasks by others that are restored."""
        self.subtasks = [
            self._contract.make_subtask(
                stored, subtask=index, parallelism=parallelism, max_parallelism=self._key_groups
            )
            for index in range(parallelism)
        ]
        self._contents = [Contents(subtask.backend) for subtask in self.subtasks]
        self._ranges = [
            groups_of_subtask(index, self._key_groups, parallelism) for index in range(parallelism)
        ]

    def snapshot(self) -> list[Any]:
        """Return the stored snapshots of all subtasks."""
        snapshots = [self._contract.freeze(subtask) for subtask in self.subtasks]
        stored = [self._contract.finish(snapshot) for snapshot in snapshots]
        assert counted(snapshots) in (None, Contents.COUNT * len(self.expected))
        return stored

    def tend(self, keys: list[Any]) -> None:
        """Begin a batch."""
        for subtask in self.subtasks:
            if subtask.backend.prefetch is not None:
                subtask.backend.prefetch(list(map(canonical_key, keys)))

    def apply(self, key: Any, n: int) -> None:
        """Write, change in place, or remove what there is for a key."""
        contents = self._at(key)
        if n % 5 == 0:
            contents.clear()
            self.expected.pop(key, None)
        elif key in self.expected:
            contents.change_in_place(n)
            self.expected[key] = n
        else:
            contents.set(n)
            self.expected[key] = n

    def check(self, keys: list[Any] = KEYS) -> None:
        """Compare every key with what must be there."""
        for key in keys:
            n = self.expected.get(key)
            wanted = Contents.EMPTY if n is None else Contents.expected(n)
            assert self._at(key).get() == wanted, key

    def _at(self, key: Any) -> Contents:
        group = self.subtasks[0].group(key)
        index = next(i for i, groups in enumerate(self._ranges) if group in groups)
        subtask: Subtask = self.subtasks[index]
        subtask.at(key)
        return self._contents[index]


class HistoryContract(BackendContract):
    """State is the same however the input is cut, and however often it is restored."""

    @pytest.mark.parametrize(("batch_size", "count"), [(1, 60), (7, 210), (1000, 2100)])
    def test_state_survives_a_restore_after_every_batch(self, batch_size: int, count: int) -> None:
        rng = random.Random(count)
        records = [(rng.choice(KEYS), n) for n in range(count)]
        operator = _Operator(self, 1, FEW_GROUPS)
        for start in range(0, count, batch_size):
            operator.tend([key for key, _ in records[start : start + batch_size]])
            for key, n in records[start : start + batch_size]:
                operator.apply(key, n)
            operator.deploy(1, operator.snapshot())
        operator.check()


LONG = 64 << 10
LONG_KEYS: list[Any] = ["a" * LONG, "a" * (LONG - 1) + "b", bytes(LONG), ("c" * LONG, 1), "a" * (LONG - 1), 7]
"""Keys of 64 KiB, some of which begin alike or as another one."""


class RescaleContract(BackendContract):
    """State is where its key is, at every parallelism."""

    @pytest.mark.parametrize("parallelisms", [(1, 2, 3, 1), (3, 5)], ids=repr)
    def test_keys_of_64_kib_are_keys_like_any_other(self, parallelisms: tuple[int, ...]) -> None:
        operator = _Operator(self, parallelisms[0], LONG_GROUPS)
        for step, parallelism in enumerate((*parallelisms[1:], parallelisms[-1])):
            for position, key in enumerate(LONG_KEYS):
                operator.apply(key, 1 + 7 * step + position)
            operator.deploy(parallelism, operator.snapshot())
            operator.check(LONG_KEYS)

    def test_map_keys_of_64_kib_are_map_keys_like_any_other(self) -> None:
        stored: list[Any] = []
        for _ in range(3):
            subtask = self.make_subtask(stored)
            subtask.at(LONG_KEYS[0])
            state = subtask.backend.map_state(BY_ANY)
            assert {key for key, _ in state.items()} == (set(LONG_KEYS) if stored else set())
            for position, key in enumerate(LONG_KEYS):
                assert state.get(key) == (position if stored else None)
                state.put(key, position)
            stored = [self.finish(self.freeze(subtask))]

    @pytest.mark.parametrize(
        ("key_groups", "parallelisms"),
        RESCALES,
        ids=[" to ".join(map(str, parallelisms)) for _, parallelisms in RESCALES],
    )
    def test_every_key_is_in_the_subtask_that_owns_it_after_each_rescale(
        self, key_groups: int, parallelisms: tuple[int, ...]
    ) -> None:
        rng = random.Random(len(parallelisms))
        keys = rng.sample(KEYS, min(len(KEYS), key_groups))  # So few that groups are left without any.
        operator = _Operator(self, parallelisms[0], key_groups)
        for step, parallelism in enumerate((*parallelisms[1:], parallelisms[-1])):
            for n in range(200):
                operator.apply(rng.choice(keys), 200 * step + n)
            operator.deploy(parallelism, operator.snapshot())
            operator.check()
