"""`list(map(...))` for functions that may run a user's code."""

from collections.abc import Callable, Collection
from typing import Any


def strict_map(function: Callable[[Any], Any], values: Collection[Any]) -> list[Any]:
    """Return `[function(value) for value in values]`, with the loop in C.

    Raises:
        RuntimeError: the function raised StopIteration, which `map` takes for its own end.
    """
    results = list(map(function, values))
    if len(results) != len(values):
        raise RuntimeError("function raised StopIteration")
    return results
