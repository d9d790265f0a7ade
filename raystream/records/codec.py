"""Row batches as bytes: the payload of a data frame.

A batch is encoded column by column, because msgspec writes and reads a list of plain
values several times faster than pickle or marshal (docs/adr/0002-exchange-encoding.md).
Values of one *row class* (tuple, NamedTuple, msgspec.Struct, plain dataclass) become one
column per field; other values become one column.  A column whose items are exactly
`str`, `int`, `float`, `bool`, `bytes` or `None` is written as it is; every other column is
pickled (protocol 5), so that what arrives always equals, in value and exact type, what
was sent.  Keys that are the very objects of a column are sent as a reference to it.

The class of a batch is named once per channel: an encoder and the decoder at the other
end of its channel are a pair, and batches must be decoded in the order of encoding.

Snapshots store batches in this encoding (`raystream.state.channel_state`, which has its version).

Payload: msgpack `[class id, class or nil, columns, pickled column flags, keys, groups, timestamps]`.
"""

import pickle
from array import array
from collections.abc import Callable, Sequence
from operator import countOf, is_
from typing import Any

import msgspec

from raystream.errors import ProtocolError
from raystream.records.batch import RowBatch
from raystream.records.row_class import row_class_of

_PLAIN_TYPES = frozenset({str, int, float, bool, bytes, type(None)})
_SINGLE = 0  # Class id of a batch whose values form one column.
_TUPLE = 1  # Class id of exact tuples of one length.
_FIRST_CLASS = 2
_PICKLE_PROTOCOL = 5

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class BatchEncoder:
    """Encodes the batches of one channel."""

    def __init__(self) -> None:
        self._class_ids: dict[type, int] = {}

    def encode(self, batch: RowBatch) -> bytes:
        """Return the payload of a batch, which is not empty.

        Raises:
            Exception: whatever `pickle` raises for a value that does not pickle.
        """
        class_id, definition, columns = self._take_apart(batch.values)
        flags, plain_columns = [], []
        for column in columns:
            is_plain = _all_plain(column)
            flags.append(not is_plain)
            plain_columns.append(column if is_plain else pickle.dumps(column, _PICKLE_PROTOCOL))
        keys = _encoded_keys(batch.keys, columns)
        groups = None if batch.groups is None else array("H", batch.groups).tobytes()
        message = [class_id, definition, plain_columns, flags, keys, groups, batch.timestamps]
        try:
            payload = _encode(message)
        except (OverflowError, UnicodeEncodeError):
            # An int beyond 64 bits or a lone surrogate: only pickle keeps them.
            message[2] = [
                column if isinstance(column, bytes) else pickle.dumps(column, _PICKLE_PROTOCOL)
                for column in plain_columns
            ]
            message[3] = [True] * len(flags)
            if batch.keys is not None and not isinstance(keys, int):
                message[4] = pickle.dumps(batch.keys, _PICKLE_PROTOCOL)
            payload = _encode(message)
        if definition is not None:
            self._class_ids[type(batch.values[0])] = class_id
        return payload

    def _take_apart(self, values: list[Any]) -> tuple[int, bytes | None, Sequence[Sequence[Any]]]:
        """Return class id, class if the channel does not know it yet, and columns."""
        classes = set(map(type, values))
        if len(classes) != 1:
            return _SINGLE, None, [values]
        (cls,) = classes
        if cls is tuple:
            width = len(values[0])
            if width and set(map(len, values)) == {width}:
                return _TUPLE, None, list(zip(*values, strict=True))
            return _SINGLE, None, [values]
        if cls in _PLAIN_TYPES:
            return _SINGLE, None, [values]
        row_class = row_class_of(cls)
        if row_class is None:
            return _SINGLE, None, [values]
        try:
            columns = row_class.to_columns(values)
        except (AttributeError, ValueError):  # A field was deleted, or an attribute added.
            return _SINGLE, None, [values]
        class_id = self._class_ids.get(cls)
        if class_id is not None:
            return class_id, None, columns
        return _FIRST_CLASS + len(self._class_ids), pickle.dumps(cls, _PICKLE_PROTOCOL), columns


class BatchDecoder:
    """Decodes the batches of one channel, in the order in which they were encoded."""

    def __init__(self) -> None:
        self._from_columns: dict[int, Callable[[list[list[Any]]], list[Any]]] = {}

    def copy(self) -> "BatchDecoder":
        """Return a decoder for what follows, independent of this one."""
        other = BatchDecoder()
        other._from_columns.update(self._from_columns)
        return other

    def decode(self, payload: bytes | memoryview) -> RowBatch:
        """Return the batch of a payload.

        Raises:
            ProtocolError: the payload is not one that the paired encoder made.
        """
        try:
            class_id, definition, columns, flags, keys, groups, timestamps = _decode(payload)
            columns = [
                pickle.loads(column) if pickled else column
                for column, pickled in zip(columns, flags, strict=True)
            ]
            if isinstance(keys, int):
                keys = columns[keys]
            elif isinstance(keys, bytes):
                keys = pickle.loads(keys)
            if groups is not None:
                groups = array("H", groups).tolist()
            values = self._put_together(class_id, definition, columns)
        except ProtocolError:
            raise
        except Exception as error:  # Unpickling runs the code of whatever classes the records have.
            raise ProtocolError("batch does not decode", cause=repr(error)) from error
        return RowBatch(values, timestamps, keys if keys is None else list(keys), groups)

    def _put_together(self, class_id: int, definition: bytes | None, columns: list[list[Any]]) -> list[Any]:
        if class_id == _SINGLE:
            return list(columns[0])
        if class_id == _TUPLE:
            return list(zip(*columns, strict=True))
        if definition is not None:
            row_class = row_class_of(pickle.loads(definition))
            if row_class is None:
                raise ProtocolError("row class differs between two slots", definition=definition)
            self._from_columns[class_id] = row_class.from_columns
        return self._from_columns[class_id](columns)


def _all_plain(column: Sequence[Any]) -> bool:
    """Return whether every item has, exactly, one of the plain types.

    Most columns have one type, and counting it without making a list of the types costs half of a
    look-up for each item.
    """
    first = type(column[0])
    if first in _PLAIN_TYPES and countOf(map(type, column), first) == len(column):
        return True
    return _PLAIN_TYPES.issuperset(map(type, column))


def _encoded_keys(keys: list[Any] | None, columns: Sequence[Sequence[Any]]) -> Any:
    """Return None, the index of the column that holds the keys, a plain list, or pickled bytes."""
    if keys is None:
        return None
    for index, column in enumerate(columns):
        if keys[0] is column[0] and all(map(is_, keys, column)):
            return index
    if _all_plain(keys):
        return keys
    return pickle.dumps(keys, _PICKLE_PROTOCOL)
