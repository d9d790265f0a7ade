"""Row batches: what moves between operators.

A batch is a list of values and, in parallel lists, what is known about each: its
timestamp, and on keyed edges its key and key group, so that a key is selected and
hashed once.  Nobody changes a batch, or a value in it, after it was emitted; lists
may therefore be shared between batches.
"""

from typing import Any


class RowBatch:
    """Values with optional timestamps, keys and key groups, all of one length.

    Attributes:
        values: the records.
        timestamps: ms since the epoch for each record, or None when there are none.
        keys: canonical key of each record, on keyed edges only.
        groups: key group of each record, `0 <= g < max parallelism`, exactly where `keys` is.
    """

    __slots__ = ("groups", "keys", "timestamps", "values")

    def __init__(
        self,
        values: list[Any],
        timestamps: list[int] | None = None,
        keys: list[Any] | None = None,
        groups: list[int] | None = None,
    ) -> None:
        self.values = values
        self.timestamps = timestamps
        self.keys = keys
        self.groups = groups

    def part(self, start: int, stop: int) -> "RowBatch":
        """Return the records `start <= i < stop`."""
        return RowBatch(
            self.values[start:stop],
            None if self.timestamps is None else self.timestamps[start:stop],
            None if self.keys is None else self.keys[start:stop],
            None if self.groups is None else self.groups[start:stop],
        )

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"RowBatch({len(self.values)} records{', keyed' if self.keys is not None else ''})"
