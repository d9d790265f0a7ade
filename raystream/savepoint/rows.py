"""Rows of states as people and JSON see them, and operator state as rows.

Knows what `raystream.state.canonical_rows` makes of chunks; nothing is unpickled: a pickled value is shown by
its size and, where its first bytes tell it, its class.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from raystream.handles import StateInfo
from raystream.state.canonical_operators import operator_table
from raystream.state.canonical_rows import RowColumns, joined
from raystream.state.canonical_values import ENCODING_FIELD, VALUE, VALUE_MSGPACK, VALUE_PICKLE
from raystream.state.pickle_names import class_in_pickle


@dataclass(frozen=True, slots=True)
class Pickled:
    """A value that is not loaded.

    Example:
        >>> import pickle
        >>> print(Pickled(pickle.dumps({1}, 5)))
        <pickle, 18 bytes, set>
    """

    data: bytes

    def __str__(self) -> str:
        name = class_in_pickle(self.data)
        return f"<pickle, {len(self.data)} bytes{name and ', '}{name}>"


def values_of(table: pa.Table) -> list[Any]:
    """Return the value of each row: plain Python, or `Pickled`.

    Records are dicts, tuples dicts of "0", "1"; what is stored as msgpack has what msgpack makes of it.
    """
    encoding = (table.schema.field(VALUE).metadata or {}).get(ENCODING_FIELD)
    values: list[Any] = table.column(VALUE).to_pylist()
    if encoding is not None:
        values = [_encoded(value, encoding) for value in values]
    for name, column_encoding in ((VALUE_MSGPACK, b"msgpack"), (VALUE_PICKLE, b"pickle")):
        if name in table.column_names:
            others = table.column(name).to_pylist()
            values = [
                value if other is None else _encoded(other, column_encoding)
                for value, other in zip(values, others, strict=True)
            ]
    return values


def as_json(value: Any) -> Any:
    """Return a value as JSON has it; what JSON has no word for as text.

    Example:
        >>> as_json({"raw": b"x", "share": float("inf")})
        {'raw': "b'x'", 'share': 'inf'}
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case dict():
            return {key if isinstance(key, str) else str(key): as_json(item) for key, item in value.items()}
        case list() | tuple():
            return list(map(as_json, value))
        case Pickled():
            return str(value)
        case bytes():
            return repr(value)
        case _:
            return str(value)


def _encoded(data: bytes | None, encoding: bytes) -> Any:
    if data is None:
        return None
    if encoding == b"pickle":
        return Pickled(data)
    try:
        return msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return data


def element_rows(info: StateInfo, of_subtasks: Iterable[tuple[int, Sequence[bytes]]]) -> pa.Table:
    """Return operator state as rows: `subtask`, `position` or `map_key`, and `value`.

    Args:
        info: the description of the state.
        of_subtasks: number of each subtask, and its elements as they are stored.

    Raises:
        StateCorruptError: an element is not what the format has.
    """
    found = list(of_subtasks)
    table = operator_table(info, [element for _, elements in found for element in elements])
    numbers = [subtask for subtask, elements in found for _ in range(len(operator_table(info, elements)))]
    return table.add_column(0, pa.field(SUBTASK, pa.int32()), pa.array(numbers, pa.int32()))


SUBTASK = "subtask"
"""Name of the column that says whose operator state a row is."""


def whole(columns: RowColumns, tables: Iterable[pa.Table]) -> pa.Table:
    """Return tables of rows of one state as one."""
    table = joined(columns, tables)
    return columns.empty() if table is None else table
