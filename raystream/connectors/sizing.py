"""How many records fit into a batch when their encoded size is not known.

Sources whose records are Python objects cut their batches by an estimate from one
record, so that large records do not add up to a batch of gigabytes.
"""

import sys
from typing import Any


def records_within(records_max: int, bytes_max: int, sample: Any) -> int:
    """Return how many records like `sample` make up a batch, `1 <= n <= records_max`."""
    return max(1, min(records_max, bytes_max // approximate_bytes(sample)))


def approximate_bytes(value: Any) -> int:
    """Return roughly the memory of a value, its items included one level deep."""
    size = sys.getsizeof(value, 64)
    if isinstance(value, dict):
        return size + sum(sys.getsizeof(item, 64) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return size + sum(sys.getsizeof(item, 64) for item in value)
    return size
