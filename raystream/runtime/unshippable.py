"""Finds out what in a user's function cannot be shipped, for the error message.

Called only when pickling has failed: it tries the parts of an object one after the other
and goes down into the first that fails, until it finds one whose parts are all fine.
"""

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

DEPTH_MAX = 20
"""Levels that the search goes down at most."""

Part = tuple[str, Any]
"""What to write behind the whole to name the part, `.client`, and the part."""


def locate(obj: Any, ships: Callable[[Any], bool]) -> Part:
    """Return the path from an object to the part of it that cannot be shipped, and that part.

    Args:
        obj: cannot be shipped.
        ships: tells of any object whether it can be.

    Example:
        >>> locate({"limits": [1, 2], "feed": [iter([])]}, lambda part: "iterator" not in repr(part))[0]
        "['feed'][0]"
    """
    path = ""
    for _ in range(DEPTH_MAX):
        broken = next(((label, part) for label, part in _parts(obj) if not ships(part)), None)
        if broken is None:
            break
        path, obj = path + broken[0], broken[1]
    return path.removeprefix("."), obj


def _parts(obj: Any) -> Iterator[Part]:
    """Yield the parts of an object that pickle would go into."""
    match obj:
        case types.FunctionType():
            yield from _function_parts(obj)
        case types.MethodType():
            yield ".__self__", obj.__self__
        case functools.partial():
            yield ".func", obj.func
            yield from _indexed(".args", obj.args)
            yield from ((f".{name}", value) for name, value in obj.keywords.items())
        case dict():
            yield from ((f"[{key!r}]", value) for key, value in obj.items())
        case list() | tuple():
            yield from _indexed("", obj)
        case set() | frozenset():
            yield from ((f"[{value!r}]", value) for value in obj)
        case type():
            yield from ((f".{name}", value) for name, value in vars(obj).items())
        case _:
            yield from _attributes(obj)


def _function_parts(function: types.FunctionType) -> Iterator[Part]:
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # An empty cell.
            continue
    yield from _indexed(".__defaults__", function.__defaults__ or ())
    yield from ((f".{name}", value) for name, value in (function.__kwdefaults__ or {}).items())
    yield from ((f".{name}", value) for name, value in vars(function).items())


def _attributes(obj: Any) -> Iterator[Part]:
    yield from ((f".{name}", value) for name, value in getattr(obj, "__dict__", {}).items())
    for cls in type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if hasattr(obj, slot):
                yield f".{slot}", getattr(obj, slot)


def _indexed(label: str, values: Any) -> Iterator[Part]:
    for position, value in enumerate(values):
        yield f"{label}[{position}]", value
