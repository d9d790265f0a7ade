"""What `raystream.savepoint.open` returns: a snapshot, its operators and their states, for programs."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from raystream.errors import ConfigError, StateRestoreError
from raystream.handles import StateInfo
from raystream.keygroup import KeyGroupRange
from raystream.keys import Key, KeyGroupCache, canonical_key, encode_canonical
from raystream.savepoint.export import export_rows, in_one_layout
from raystream.savepoint.rows import element_rows, whole
from raystream.savepoint.sizes import StateSize, largest_of, sizes
from raystream.savepoint.snapshot import OPERATOR_KINDS, SnapshotReader
from raystream.state.canonical_rows import ChunkRows, RowColumns
from raystream.state.chunk_entries import entries_of_key, entry_sizes, key_of
from raystream.state.operator_store import OperatorStateKind
from raystream.storage.metadata import OperatorMetadata

if TYPE_CHECKING:
    import pyarrow as pa

OWN_KIND = "operator-own"
"""Kind of the state that raystream itself keeps: positions of splits, output to be committed."""


class Savepoint:
    """An opened savepoint or checkpoint; a context manager.

    Attributes:
        path: URL of its directory.
    """

    def __init__(self, reader: SnapshotReader) -> None:
        self.reader = reader
        self.path = reader.directory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove local copies; states of it cannot be read any more."""
        self.reader.close()

    def __repr__(self) -> str:
        return f"Savepoint({self.path!r}, job_name={self.job_name!r})"

    @property
    def job_id(self) -> str:
        """Id of the job that it is of, 32 hex digits."""
        return self.reader.metadata.job_id

    @property
    def job_name(self) -> str:
        """Name of the job that it is of."""
        return self.reader.metadata.job_name

    @property
    def kind(self) -> str:
        """`savepoint` or `checkpoint`."""
        return self.reader.metadata.kind.value

    @property
    def checkpoint_id(self) -> int:
        """Its number in the job."""
        return self.reader.metadata.checkpoint_id

    @property
    def created(self) -> datetime:
        """When it was triggered, in UTC."""
        return datetime.fromtimestamp(self.reader.metadata.created_ms / 1000, UTC)

    @property
    def created_ms(self) -> int:
        """When it was triggered, ms since epoch."""
        return self.reader.metadata.created_ms

    @property
    def size_bytes(self) -> int:
        """Stored size of all its state."""
        return self.reader.metadata.size_bytes

    def operators(self) -> tuple["Operator", ...]:
        """Return all operators, in the order of the program."""
        return tuple(Operator(self.reader, operator) for operator in self.reader.metadata.operators)

    def operator(self, uid: str) -> "Operator":
        """Return an operator.

        Raises:
            StateRestoreError: there is none of this uid; the error says which there are.
        """
        return Operator(self.reader, self.reader.operator(uid))

    def state(self, uid: str, name: str) -> "State":
        """Return a state of an operator; raises as `operator` and `Operator.state`."""
        return self.operator(uid).state(name)


class Operator:
    """An operator in a snapshot.

    Attributes:
        uid: under which its state is stored.
        uid_generated: whether the program left it to raystream.
        name: for people.
        parallelism: number of subtasks that stored their state.
        max_parallelism: number of its key groups.
    """

    def __init__(self, reader: SnapshotReader, stored: OperatorMetadata) -> None:
        self._reader = reader
        self._stored = stored
        self.uid = str(stored.uid)
        self.uid_generated = stored.uid_generated
        self.name = stored.name
        self.parallelism = stored.parallelism
        self.max_parallelism = stored.max_parallelism

    def __repr__(self) -> str:
        return f"Operator(uid={self.uid!r}, name={self.name!r})"

    @cached_property
    def states(self) -> tuple["State", ...]:
        """All states: keyed ones, then operator state, last what raystream keeps for itself.

        Raises:
            StateCorruptError: the index of a file is damaged; the error names the file.
            StorageError: the store did not answer.
        """
        reader, stored = self._reader, self._stored
        keyed = reader.keyed_states(stored)
        states = [
            State(reader, stored, state.info, known=(state.entries, state.size_bytes))
            for state in keyed.values()
        ]
        infos = {info.name: info for info in stored.states if info.kind.startswith(OPERATOR_KINDS)}
        handles = [handle for subtask in stored.subtasks for handle in subtask.operator]
        for name in dict.fromkeys([*infos, *(handle.name for handle in handles)]):
            own = StateInfo(name=name, kind=OWN_KIND, serializer="", schema="bytes")
            of_name = [handle for handle in handles if handle.name == name]
            known = (
                sum(handle.element_count for handle in of_name),
                sum(handle.data.size_bytes for handle in of_name),
            )
            states.append(State(reader, stored, infos.get(name, own), known=known))
        return tuple(states)

    def state(self, name: str) -> "State":
        """Return a state; where a keyed and an operator state share a name, the keyed one.

        Raises:
            StateRestoreError: there is none of this name; the error says which there are.
        """
        for state in self.states:
            if state.name == name:
                return state
        there = ", ".join(repr(state.name) for state in self.states)
        raise StateRestoreError(
            "operator has no state of this name",
            hint=f"it has {there}" if there else "it has no state",
            uid=self.uid,
            state=name,
        )

    def count(self) -> dict[str, StateSize]:
        """Return entries, bytes and largest keys of each keyed state by name.

        A canonical savepoint says so in its indexes; of others all keys are read, once.  Raises as
        `State.batches`.
        """
        keyed = [state for state in self.states if state.keyed]
        indexed = [part.largest() for part in self._reader.parts(self._stored)]
        if None not in indexed:
            return {
                state.name: StateSize(
                    state.entries or 0,
                    state.size_bytes or 0,
                    largest_of(part.get(state.name, []) for part in indexed if part is not None),
                )
                for state in keyed
            }
        found = sizes(self._reader.chunks(self._stored))
        return {state.name: found.get(state.name, StateSize()) for state in keyed}


class State:
    """One state of an operator.

    Attributes:
        uid: of the operator.
        name: its name; `_timers_event` and `_timers_processing` are the timers.
        kind: `value`, `list`, `map`, `reducing`, `aggregating`, `operator-list`, `operator-union`,
            `operator-broadcast`, `operator-raw`, or `operator-own` for what raystream keeps for itself.
        type: type of the values as text, such as `dict[str, int]`; empty when they are pickled.
        map_key_type: type of the keys of maps, empty for other states and when it is not declared.
        namespaced: whether an entry belongs to a key and a namespace, a window say.
        entries: number of keys (with their namespaces), or of elements of operator state; None where only
            reading all would tell.
        size_bytes: as it is stored; None likewise.
    """

    def __init__(
        self,
        reader: SnapshotReader,
        operator: OperatorMetadata,
        info: StateInfo,
        *,
        known: tuple[int | None, int | None],
    ) -> None:
        self._reader = reader
        self._operator = operator
        self.info = info
        self.uid = str(operator.uid)
        self.name = info.name
        self.kind = info.kind
        self.type = info.schema
        self.map_key_type = info.map_key_schema
        self.namespaced = info.namespaced
        self.entries, self.size_bytes = known

    def __repr__(self) -> str:
        return f"State(uid={self.uid!r}, name={self.name!r}, kind={self.kind!r})"

    @property
    def keyed(self) -> bool:
        """True for keyed state, False for state of a subtask."""
        return not self.kind.startswith(OPERATOR_KINDS)

    @property
    def key_groups(self) -> KeyGroupRange | None:
        """The key groups of the operator; None when the state is not keyed."""
        return KeyGroupRange(0, self._operator.max_parallelism) if self.keyed else None

    def batches(self) -> Iterator["pa.Table"]:
        """Yield the rows in tables of bounded size, sorted by key group; columns may differ where values do.

        The columns are those of a canonical savepoint: `key_group`, `key`, `value` and so on.

        Raises:
            StateCorruptError: a file is missing or damaged; the error names it.
            StorageError: the store did not answer.
            StateError: the local disk failed.
        """
        if not self.keyed:
            found = self._reader.elements(self._operator, self.name)
            own = self.kind == OWN_KIND
            info = replace(self.info, kind=OperatorStateKind.RAW.value) if own else self.info
            yield element_rows(info, ((one.subtask, one.elements) for one in found))
            return
        rows = ChunkRows(self.info)
        for _, stored in self._reader.chunks(self._operator, states={self.name}):
            yield rows.rows(stored.group, stored.chunk).table

    def to_arrow(self) -> "pa.Table":
        """Return all rows as one table; raises as `batches`."""
        return self._joined(self.batches())

    def _joined(self, tables: "Iterable[pa.Table]") -> "pa.Table":
        return whole(RowColumns(self.info), tables) if self.keyed else next(iter(tables))

    def get(self, key: object) -> "pa.Table":
        """Return the rows of one key; raises as `batches`, and `KeyTypeError` for what cannot be a key.

        Only the key group of the key is read.

        Raises:
            StateRestoreError: the state is not keyed.
        """
        if not self.keyed:
            raise StateRestoreError(
                "state is not keyed",
                hint="it belongs to the subtasks of its operator; read or export all of it",
                uid=self.uid,
                state=self.name,
            )
        canonical = canonical_key(key)
        group = KeyGroupCache(self._operator.max_parallelism)[canonical]
        encoded = encode_canonical(canonical)
        rows = ChunkRows(self.info)
        found = []
        for info, stored in self._reader.chunks(self._operator, states={self.name}, groups={group}):
            chunk = entries_of_key(stored.chunk, info, encoded)
            if chunk is not None:
                found.append(rows.rows(stored.group, chunk).table)
        return self._joined(found)

    def export(self, path: str | Path) -> int:
        """Write all rows to one Parquet file, and return how many these are; raises as `batches`.

        The state is read twice, first to learn which columns it needs, so that it need not fit into memory.
        The file has its name when it is complete.  In the directory of the snapshot none is written: its own
        files are there.
        """
        directory = self._reader.directory.removeprefix("file://")
        if Path(path).resolve().is_relative_to(Path(directory).resolve()):
            raise ConfigError(
                "file belongs to the snapshot that is exported",
                hint="name a file in another directory",
                path=str(path),
            )
        if not self.keyed:
            (table,) = self.batches()
            return export_rows(table.schema, [table], Path(path))
        return export_rows(*in_one_layout(RowColumns(self.info), self.batches), Path(path))

    def some_keys(self, count_max: int) -> list[Key]:
        """Return some of the keys that a keyed state has."""
        chunks = self._reader.chunks(self._operator, states={self.name})
        keys = (key_of(key, info) for info, stored in chunks for key, _ in entry_sizes(stored.chunk, info))
        return list(islice(keys, count_max))

    def count(self) -> StateSize:
        """Return what there is, counted, with the ten largest keys; raises as `batches`."""
        if not self.keyed:
            return StateSize(self.entries or 0, self.size_bytes or 0)
        chunks = self._reader.chunks(self._operator, states={self.name})
        return sizes(chunks).get(self.name, StateSize())
