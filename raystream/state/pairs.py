"""Contents in pairs `(written_ms, value)`, taken apart into values and times, and put together.

A chunk stores the times of all its entries in a column of their own, so that the values are encoded,
checked and read exactly as those of a state without a time to live.
"""

from collections.abc import Iterable
from typing import Any

from raystream.state.descriptor import StateKind


def times_of(kind: StateKind, content: Any) -> Any:
    """Return the times of writing in one content: one, or a list."""
    if kind.single:
        return content[0]
    pairs = content if kind is StateKind.LIST else content.values()
    return [pair[0] for pair in pairs]


def values_of(kind: StateKind, content: Any) -> Any:
    """Return one content without its times."""
    if kind.single:
        return content[1]
    if kind is StateKind.LIST:
        return [pair[1] for pair in content]
    return {key: pair[1] for key, pair in content.items()}


def paired(kind: StateKind, contents: Iterable[Any], times: Iterable[Any]) -> list[Any]:
    """Return contents in pairs.

    Raises:
        ValueError: there are not as many times as values.
    """
    both = zip(contents, times, strict=True)
    if kind.single:
        return [(written, value) for value, written in both]
    if kind is StateKind.LIST:
        return [list(zip(written, elements, strict=True)) for elements, written in both]
    return [
        dict(zip(entries, zip(written, entries.values(), strict=True), strict=True))
        for entries, written in both
    ]


def paired_now(kind: StateKind, contents: Iterable[Any], written_ms: int) -> list[Any]:
    """Return contents in pairs that were all written at one time."""
    if kind.single:
        return [(written_ms, value) for value in contents]
    if kind is StateKind.LIST:
        return [[(written_ms, value) for value in elements] for elements in contents]
    return [{key: (written_ms, value) for key, value in entries.items()} for entries in contents]
