"""What may be an element of a list state: anything but None, in every backend."""

from collections.abc import Iterable
from types import NoneType
from typing import TypeVar

from raystream.errors import StateError

T = TypeVar("T")


def checked_elements(name: str, elements: Iterable[T]) -> list[T]:
    """Return the elements as a new list.

    Raises:
        StateError: one of them is None, or `elements` itself is; names the state.
    """
    checked = [None] if elements is None else list(elements)
    if NoneType in set(map(type, checked)):
        raise none_refused(name)
    return checked


def none_refused(name: str) -> StateError:
    """Return the error about an element that is None."""
    return StateError(
        "list state was given None as an element",
        hint="leave it out, or store a value that stands for nothing",
        state=name,
    )
