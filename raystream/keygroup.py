"""Key groups: the units in which keyed state is owned, stored and moved.

The hash of a key picks one of M key groups (M = max parallelism, fixed for the life of
a job's state); each of p subtasks owns a contiguous run of groups.  This module knows
that arithmetic and nothing of keys, hashes or state:

    subtask of group g      g * p // M
    groups of subtask i     range(ceil(i * M / p), ceil((i + 1) * M / p))

Every number of subtasks from 1 to M gives each of them at least one group, and run
lengths differ by at most one.

Source: Flink `KeyGroupRangeAssignment`, with half-open ranges instead of inclusive ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from raystream.errors import ConfigError

KEY_GROUPS_MAX = 32_768
"""Largest max parallelism; a key group fits into two bytes wherever it is stored."""

KEY_GROUPS_DEFAULT_MIN = 128
"""Smallest max parallelism that is derived, so that small jobs have room to grow."""


@dataclass(frozen=True, slots=True)
class KeyGroupRange:
    """The key groups `start <= g < stop`; never empty."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        assert 0 <= self.start < self.stop, (self.start, self.stop)

    def __contains__(self, group: int) -> bool:
        return self.start <= group < self.stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))

    def intersect(self, other: "KeyGroupRange") -> "KeyGroupRange | None":
        """Return the groups that are in both ranges, or None when there are none.

        Example:
            >>> KeyGroupRange(26, 52).intersect(KeyGroupRange(0, 43))
            KeyGroupRange(start=26, stop=43)
        """
        start, stop = max(self.start, other.start), min(self.stop, other.stop)
        return KeyGroupRange(start, stop) if start < stop else None


def subtask_of_group(group: int, max_parallelism: int, parallelism: int) -> int:
    """Return the subtask that owns a key group, `0 <= subtask < parallelism`."""
    return group * parallelism // max_parallelism


def groups_of_subtask(subtask: int, max_parallelism: int, parallelism: int) -> KeyGroupRange:
    """Return the key groups that a subtask owns.

    Example:
        >>> [groups_of_subtask(i, 10, 3) for i in range(3)] == [
        ...     KeyGroupRange(0, 4), KeyGroupRange(4, 7), KeyGroupRange(7, 10)]
        True
    """
    return KeyGroupRange(
        -(-subtask * max_parallelism // parallelism),
        -(-(subtask + 1) * max_parallelism // parallelism),
    )


def routing_table(max_parallelism: int, parallelism: int) -> list[int]:
    """Return the owning subtask of every key group: `table[group] == subtask`."""
    return [subtask_of_group(g, max_parallelism, parallelism) for g in range(max_parallelism)]


def default_max_parallelism(parallelism: int) -> int:
    """Return the max parallelism of a job that does not set one.

    It is the next power of two above one and a half times the parallelism, within
    `KEY_GROUPS_DEFAULT_MIN` and `KEY_GROUPS_MAX`.

    Example:
        >>> [default_max_parallelism(p) for p in (1, 85, 86, 170, 1000, 32768)]
        [128, 128, 256, 256, 2048, 32768]
    """
    wanted = parallelism + parallelism // 2
    return min(max(1 << (wanted - 1).bit_length(), KEY_GROUPS_DEFAULT_MIN), KEY_GROUPS_MAX)


def check_parallelism(parallelism: int, max_parallelism: int) -> None:
    """Accept `1 <= parallelism <= max_parallelism <= KEY_GROUPS_MAX`.

    Raises:
        ConfigError: one of the bounds does not hold; the message names the one.
    """
    if max_parallelism > KEY_GROUPS_MAX:
        raise ConfigError(
            "max parallelism is above the limit",
            hint=f"set pipeline.max-parallelism to at most {KEY_GROUPS_MAX}",
            max_parallelism=max_parallelism,
            limit=KEY_GROUPS_MAX,
        )
    if max_parallelism < 1:
        raise ConfigError(
            "max parallelism is below 1",
            hint="set pipeline.max-parallelism to 1 or more, or leave it out to have it derived",
            max_parallelism=max_parallelism,
        )
    if parallelism < 1:
        raise ConfigError(
            "parallelism is below 1", hint="set the parallelism to 1 or more", parallelism=parallelism
        )
    if parallelism > max_parallelism:
        raise ConfigError(
            "parallelism is above max parallelism",
            hint="lower the parallelism, or raise pipeline.max-parallelism "
            "(state that is restored under another one is re-hashed on load)",
            parallelism=parallelism,
            max_parallelism=max_parallelism,
        )
