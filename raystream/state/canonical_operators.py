"""Operator state in canonical savepoints: each named list or map of one subtask is a part.

    list, union                     position, value ...       one row for each element
    broadcast                       map_key ..., value ...    one row for each entry
    raw, and raystream's own        position, value           bytes as they are

What is in an element is described in `raystream.state.operator_store`.  A part is read whole.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from raystream.errors import StateCorruptError
from raystream.handles import StateInfo
from raystream.state import chunk_form as cf
from raystream.state.canonical_chunks import chunks_of
from raystream.state.canonical_files import METADATA_KEY, NewFile, Part, PartFile
from raystream.state.canonical_part import (
    FORMAT_VERSION,
    ROW_GROUP_ROWS_WANTED,
    PartFooter,
    PartState,
    RowGroup,
    decode_footer,
)
from raystream.state.canonical_rows import KEY, KEY_GROUP, POSITION, ChunkRows, RowColumns, joined
from raystream.state.canonical_values import VALUE
from raystream.state.chunk_form import Chunk
from raystream.state.descriptor import StateKind
from raystream.state.operator_state import OperatorState
from raystream.state.operator_store import OperatorStateKind

_RAW = OperatorStateKind.RAW.value
_INNER = {OperatorStateKind.LIST: StateKind.LIST, OperatorStateKind.UNION: StateKind.LIST}

_ELEMENT = msgspec.msgpack.Decoder(tuple[list[int], list[list[msgspec.Raw]]]).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorPartHead:
    """Whose operator state is in a part, and of when."""

    uid: str
    subtask: int
    max_parallelism: int
    taken_ms: int


def operator_info(state: OperatorState) -> StateInfo:
    """Return the description of operator state; what raystream keeps for itself is bytes."""
    if state.info is not None:
        return state.info
    return StateInfo(name=state.name, kind=_RAW, serializer="raw-1", schema="bytes")


def write_operator_part(head: OperatorPartHead, state: OperatorState, new_file: NewFile) -> Part:
    """Return the elements of a state as a part; blocks.

    Raises:
        StateCorruptError: an element is not what a state of its kind has.
        StateError: the local disk failed, or a value is too large for Parquet.
    """
    info = operator_info(state)
    table = operator_table(info, state.elements)
    file = PartFile(new_file, table.schema, info.name)
    try:
        row_groups = []
        for at in range(0, len(table), ROW_GROUP_ROWS_WANTED):
            rows = table.slice(at, ROW_GROUP_ROWS_WANTED)
            row_groups.append(RowGroup(*file.write(rows), len(rows), len(rows), []))
        footer = PartFooter(
            format_version=FORMAT_VERSION,
            uid=head.uid,
            subtask=head.subtask,
            state=PartState.of(info, redistribution=state.mode.value),
            ttl=None,
            max_parallelism=head.max_parallelism,
            key_groups=None,
            taken_ms=head.taken_ms,
            event_ms=None,
            entries=len(table),
            rows=len(table),
            largest_keys=[],
            row_groups=row_groups,
        )
        return file.finish(msgspec.json.encode(footer), entries=len(table), rows=len(table))
    except BaseException:
        file.discard()
        raise


def read_operator_part(data: bytes, path: str) -> list[bytes]:
    """Return the elements of a part.

    Args:
        data: the whole file, its checksum verified.
        path: of the file, for errors.

    Raises:
        StateCorruptError: it is not a part of operator state.
        StateRestoreError: a newer version wrote it.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        footer = decode_footer(file.metadata.metadata[METADATA_KEY], path)
        return operator_elements(footer.state.info, file.read(use_threads=False))
    except (pa.ArrowException, msgspec.MsgspecError, LookupError, OSError, TypeError, ValueError) as error:
        raise StateCorruptError(
            "part of a savepoint cannot be read", path=path, cause=repr(error)[:200]
        ) from error


def operator_table(info: StateInfo, elements: Sequence[bytes]) -> pa.Table:
    """Return the elements of operator state as a table.

    Raises:
        StateCorruptError: an element is not what a state of its kind has.
    """
    if info.kind == _RAW:
        return _with_positions(pa.table({VALUE: pa.array(elements, pa.binary())}))
    rows = ChunkRows(_inner(info))
    if info.kind == OperatorStateKind.BROADCAST:
        tables = [rows.rows(0, Chunk(element[0], 1, element[1:])).table for element in elements]
    else:
        tables = [rows.rows(0, chunk).table for chunk in _runs(elements)]
    table = joined(rows.columns, tables) or rows.columns.empty()
    table = table.drop_columns([name for name in table.column_names if name in (KEY_GROUP, KEY, POSITION)])
    return table if info.kind == OperatorStateKind.BROADCAST else _with_positions(table)


def operator_elements(info: StateInfo, table: pa.Table) -> list[bytes]:
    """Return the elements of which a table was made.

    Raises:
        StateCorruptError: the columns are not those of the state.
    """
    if info.kind == _RAW:
        elements: list[bytes] = table.column(VALUE).to_pylist()
        return elements
    columns = RowColumns(_inner(info))
    if info.kind == OperatorStateKind.BROADCAST:
        return [_broadcast(columns, table)]
    values, wide = columns.values.read(table)
    forms = [cf.KEYS_INT | (cf.WIDE if of_value else 0) for of_value in wide or [False] * len(values)]
    return [bytes((form,)) + _encode(([0], [[value]])) for form, value in zip(forms, values, strict=True)]


def _broadcast(columns: RowColumns, table: pa.Table) -> bytes:
    for name, type_ in ((KEY, pa.int64()), (KEY_GROUP, pa.int32())):
        table = table.add_column(0, name, pa.repeat(pa.scalar(0, type_), len(table)))
    chunks = [stored.chunk for stored in chunks_of(columns, table)]
    if len(chunks) > 1:
        raise StateCorruptError("map of operator state is in pieces", state=columns.info.name)
    for chunk in chunks:
        return bytes((chunk.form,)) + chunk.data
    return bytes((cf.KEYS_INT | cf.KEYS_ENCODED << cf.MAP_KEY_SHIFT,)) + _encode(([0], [{}]))


def _runs(elements: Iterable[bytes]) -> Iterator[Chunk]:
    """Yield elements in a row that have one form as one chunk."""
    for form, run in groupby(elements, key=lambda element: element[0]):
        raws: list[Any] = [raw for element in run for raw in _ELEMENT(memoryview(element)[1:])[1][0]]
        yield Chunk(form, 1, _encode(([0], [raws])))


def _inner(info: StateInfo) -> StateInfo:
    """Return operator state as keyed state that has one key."""
    kind = _INNER.get(OperatorStateKind(info.kind), StateKind.MAP)
    return replace(info, kind=kind.value)


def _with_positions(table: pa.Table) -> pa.Table:
    return table.add_column(0, POSITION, pa.array(range(len(table)), pa.int64()))
