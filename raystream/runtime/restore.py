"""Reads back what a restore gives to one operator subtask; reading blocks, so it runs in a thread."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import compress

from raystream.handles import KeyedStateHandle
from raystream.keygroup import KeyGroupRange
from raystream.keys import KeyGroupCache, key_groups
from raystream.operators.operator import OperatorContext
from raystream.records.batch import RowBatch
from raystream.runtime.messages import ChannelRun, OperatorRestore
from raystream.runtime.restored_states import RestoredState
from raystream.state.backend import KeyedStateBackend
from raystream.state.canonical_index import PartPlace
from raystream.state.channel_state import decode_slice
from raystream.state.operator_store import OperatorStore
from raystream.state.stored import Stored, open_stored, stored_elements
from raystream.storage.blobs import SnapshotFiles
from raystream.storage.layout import resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedOwner:
    """A keyed backend and the key groups that are its own."""

    backend: KeyedStateBackend
    groups: KeyGroupRange
    max_parallelism: int


@dataclass(frozen=True, slots=True)
class RestoredOperator:
    """The operator state of one subtask, the elements of a name in their stored order."""

    operator_state: dict[str, list[bytes]] = field(default_factory=dict)
    store: OperatorStore = field(default_factory=OperatorStore)
    """What of it the program declares, once it has opened."""
    in_flight: tuple[tuple[int, RowBatch], ...] = ()
    """Records in flight, each batch with the input that it is for, in order."""


def read_operator(
    files: SnapshotFiles, restore: OperatorRestore, keyed: KeyedOwner | None
) -> RestoredOperator:
    """Return the operator state of one subtask and load its keyed state into the backend.

    Raises:
        StateCorruptError: a blob is missing or is not what was written.
        StateError: the backend was closed meanwhile.
        StorageError: the store did not answer.
    """
    operator_state: dict[str, list[bytes]] = {}
    for part in restore.operator:
        blob = files.open_handle(restore.directory, part.handle.data)
        elements = stored_elements(blob.read_all(), blob.path)
        operator_state.setdefault(part.handle.name, []).extend(elements[part.start : part.stop])
    if keyed is not None:
        keyed.backend.restore(_open(files, restore, handle, keyed) for handle in restore.keyed)
    store = OperatorStore(operator_state, restore.states, is_restored=True)
    in_flight = tuple((run.input, batch) for run in restore.channels for batch in _read(files, restore, run))
    return RestoredOperator(operator_state, store, in_flight)


def _read(files: SnapshotFiles, restore: OperatorRestore, run: ChannelRun) -> Iterator[RowBatch]:
    """Yield the batches of a run, without the records of others."""
    blob = files.open_handle(restore.directory, run.data)
    for batch in decode_slice(blob.read_range(run.offset, run.size_bytes), blob.path)[run.start : run.stop]:
        own = batch if run.groups is None else _records_of(batch, run.groups, run.max_parallelism)
        if own.values:
            yield own


def _records_of(batch: RowBatch, owned: KeyGroupRange, max_parallelism: int | None) -> RowBatch:
    """Return the records of some key groups.

    Args:
        batch: keyed.
        owned: the key groups.
        max_parallelism: number of key groups, when it is not what it was; else None.
    """
    keys, groups, stamps = batch.keys or [], batch.groups or [], batch.timestamps
    if max_parallelism is not None:
        keys, groups = key_groups(keys, KeyGroupCache(max_parallelism, entries_max=len(keys)))
    own = [owned.start <= group < owned.stop for group in groups]
    return RowBatch(
        list(compress(batch.values, own)),
        None if stamps is None else list(compress(stamps, own)),
        list(compress(keys, own)),
        list(compress(groups, own)),
    )


def _open(
    files: SnapshotFiles, restore: OperatorRestore, handle: KeyedStateHandle, owner: KeyedOwner
) -> Stored:
    directory = restore.directory
    shared = {file.local: partial(files.read_shared, directory, file) for file in handle.shared}
    named = {file.local: partial(files.read_file, directory, file.file) for file in handle.files}
    return open_stored(
        files.open_handle(directory, handle.data),
        {**shared, **named},
        owner.groups,
        owner.max_parallelism,
        known={file.local: file for file in handle.shared} if restore.own else {},
        parts={
            file.local: PartPlace.of(
                file.file,
                resolve(directory, file.file.path),
                files.open_handle(directory, file.file).read_range,
            )
            for file in handle.files
            if file.file.footer is not None
        },
        each=partial(files.each, directory),
    )


def found_states(contexts: Iterable[OperatorContext], *, drop: bool) -> tuple[RestoredState, ...]:
    """Return what became of each state that was restored or is registered.

    Args:
        contexts: of operators that are open.
        drop: forget what the program has not registered; else nobody may start these operators while
            there is any.
    """
    operators = list(contexts)
    found = tuple(
        RestoredState(
            verdict=match.verdict,
            uid=context.uid,
            operator=context.name,
            state=match.name,
            note=match.problem,
            entries=match.entries,
            size_bytes=match.size_bytes,
        )
        for context in operators
        for holder in _holders(context)
        for match in holder.restored_states()
    )
    if drop:
        for context in operators:
            for holder in _holders(context):
                holder.drop_unregistered()
    return found


def _holders(context: OperatorContext) -> list[KeyedStateBackend | OperatorStore]:
    keyed = context.keyed_backend
    return [context.operator_store] if keyed is None else [keyed, context.operator_store]
