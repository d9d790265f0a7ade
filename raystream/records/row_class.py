"""Row classes: classes whose objects can be sent as one column per field.

That is right only where taking an object apart and calling its class with the fields has
the effect that pickling has: same fields, nothing beside them, no code of the user's in
between.  Every condition here is a way in which a class can break that; whatever meets
one is pickled.
"""

import copyreg
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

_CLASSES_MAX = 1024
"""Bound on the classes that are remembered; looking at one again costs less than a millisecond."""


@dataclass(frozen=True, slots=True)
class RowClass:
    """How objects of one class are taken apart and put together again.

    Attributes:
        to_columns: returns one column per field; raises `AttributeError` or `ValueError` for objects
            that do not consist of their fields alone.
        from_columns: the reverse.
    """

    to_columns: Callable[[list[Any]], list[Sequence[Any]]]
    from_columns: Callable[[list[list[Any]]], list[Any]]


@lru_cache(maxsize=_CLASSES_MAX)
def row_class_of(cls: type) -> RowClass | None:
    """Return how to take objects of a class apart, or None when only pickle does it exactly."""
    if _pickles_its_own_way(cls) or _changed(type(cls), "__call__", type, type(msgspec.Struct)):
        return None
    if issubclass(cls, msgspec.Struct):
        return _struct(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple(cls)
    if dataclasses.is_dataclass(cls):
        return _dataclass(cls)
    return None


def _changed(cls: type, name: str, *bases: type) -> bool:
    """Return whether what a class has under a name is that of none of these bases."""
    return all(getattr(cls, name) is not getattr(base, name) for base in bases)


def _pickles_its_own_way(cls: type) -> bool:
    return (
        cls in copyreg.dispatch_table
        or _changed(cls, "__reduce_ex__", object)
        or _changed(cls, "__reduce__", object, msgspec.Struct)
        or _changed(cls, "__getstate__", object)
        or hasattr(cls, "__setstate__")
        or hasattr(cls, "__getnewargs_ex__")
    )


def _struct(cls: type[msgspec.Struct]) -> RowClass | None:
    if cls.__struct_config__.dict or hasattr(cls, "__post_init__") or not cls.__struct_fields__:
        return None
    if len(cls.__match_args__) != len(cls.__struct_fields__):  # Keyword-only fields.
        return None
    astuple = msgspec.structs.astuple
    return RowClass(
        lambda values: list(zip(*map(astuple, values), strict=True)),
        lambda columns: list(map(cls, *columns)),
    )


def _named_tuple(cls: type[tuple[Any, ...]]) -> RowClass | None:
    if not cls._fields or cls.__dictoffset__:  # type: ignore[attr-defined]  # It may carry attributes.
        return None
    return RowClass(
        lambda values: list(zip(*values, strict=True)),
        lambda columns: [tuple.__new__(cls, row) for row in zip(*columns, strict=True)],
    )


def _dataclass(cls: type) -> RowClass | None:
    names = tuple(field.name for field in dataclasses.fields(cls))
    if not names or hasattr(cls, "__post_init__") or not _initialises_fields_only(cls):
        return None
    if any(hasattr(inspect.getattr_static(cls, name, None), "__set__") for name in names):
        return None  # Slots, properties and other descriptors: the fields are not where they seem to be.

    def to_columns(values: list[Any]) -> list[Sequence[Any]]:
        attributes: list[dict[str, Any]] = list(map(vars, values))
        if set(map(tuple, attributes)) != {names}:
            raise ValueError("attributes beside the fields")
        return list(zip(*map(dict.values, attributes), strict=True))

    return RowClass(to_columns, lambda columns: list(map(cls, *columns)))


def _initialises_fields_only(cls: type) -> bool:
    """Return whether `cls(*row)` stores the row in the fields and does nothing else.

    A class body may bring its own `__init__`, which `dataclass` then leaves alone, and a class may derive
    from a dataclass without being one.  So the code of `__init__` is compared with what
    `dataclass` writes for these fields.
    """
    parameters = cls.__dataclass_params__  # type: ignore[attr-defined]
    fields = dataclasses.fields(cls)
    if _changed(cls, "__new__", object) or any(not f.init or f.kw_only for f in fields):
        return False
    if not parameters.frozen and _changed(cls, "__setattr__", object):
        return False
    model = dataclasses.make_dataclass(
        "Model", [(f.name, object, _like(f)) for f in fields], frozen=parameters.frozen
    )
    own, expected = _code_of_init(cls), _code_of_init(model)
    return own is not None and own == expected


def _code_of_init(cls: type) -> tuple[Any, ...] | None:
    code = getattr(inspect.getattr_static(cls, "__init__"), "__code__", None)
    return code and (code.co_code, code.co_consts, code.co_names, code.co_varnames)


def _like(field: "dataclasses.Field[Any]") -> Any:
    """Return a field with the same kind of default."""
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=list)
    return (
        dataclasses.field(default=None) if field.default is not dataclasses.MISSING else dataclasses.field()
    )
