"""The reduce functions behind `KeyedStream.sum`: adding up one field of a record."""

import copy
import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

Combine = Callable[[Any, Any], Any]


class SumField:
    """Adds one field of the next record to the sum so far, which is itself such a record.

    All other fields keep the values of the first record of the key.

    Args:
        field: index of a tuple or list, name of an attribute or of a dict's key, or None for
            records that are themselves numbers.

    Example:
        >>> SumField(1)(("a", 2), ("a", 40))
        ('a', 42)
        >>> SumField("n")({"word": "a", "n": 2}, {"word": "a", "n": 40})
        {'word': 'a', 'n': 42}
        >>> SumField(None)(2, 40)
        42

    Source: PyFlink's `KeyedStream.sum`, which knows positions only.
    """

    def __init__(self, field: int | str | None) -> None:
        self.field = field
        self._combine: dict[type, Combine] = {}

    def __call__(self, total: Any, record: Any) -> Any:
        """Return `total` with the record's field added; neither argument is changed."""
        kind = type(total)
        combine = self._combine.get(kind)
        if combine is None:
            combine = self._combine[kind] = _combination(total, self.field)
        return combine(total, record)

    def __repr__(self) -> str:
        return f"SumField({self.field!r})"


def _combination(example: Any, field: int | str | None) -> Combine:
    """Return the way to sum records of the example's type.

    Raises:
        TypeError: the records have no such field.
    """
    match field:
        case None:
            return operator.add
        case int():
            return _by_index(example, field)
        case _ if isinstance(example, Mapping):
            return lambda total, record: {**total, field: total[field] + record[field]}
        case _ if hasattr(example, field):
            return _by_attribute(example, field)
        case _:
            raise _no_field(example, field)


def _by_index(example: Any, index: int) -> Combine:
    if isinstance(example, Mapping):
        return lambda total, record: {**total, index: total[index] + record[index]}
    if not isinstance(example, list | tuple):
        raise _no_field(example, index)
    rebuild: Callable[[list[Any]], Any] = getattr(type(example), "_make", type(example))

    def combine(total: Any, record: Any) -> Any:
        fields = list(total)
        fields[index] = fields[index] + record[index]  # Not `+=`, which may change the old value.
        return rebuild(fields)

    return combine


def _by_attribute(example: Any, name: str) -> Combine:
    read = operator.attrgetter(name)
    if hasattr(example, "_replace"):  # A named tuple.
        return lambda total, record: total._replace(**{name: read(total) + read(record)})
    if dataclasses.is_dataclass(example):
        return lambda total, record: dataclasses.replace(total, **{name: read(total) + read(record)})
    if isinstance(example, msgspec.Struct):
        return lambda total, record: msgspec.structs.replace(total, **{name: read(total) + read(record)})

    def combine(total: Any, record: Any) -> Any:
        combined = copy.copy(total)
        setattr(combined, name, read(total) + read(record))
        return combined

    return combine


def _no_field(example: Any, field: int | str) -> TypeError:
    return TypeError(
        f"sum({field!r}) of records of type {type(example).__name__}: give the index of a tuple's field, "
        "the name of an attribute or of a dict's key, or nothing to sum the records themselves"
    )
